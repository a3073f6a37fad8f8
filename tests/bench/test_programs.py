"""Every program of bench/ can still be started, and the short ones can be run to their end."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.bench.programs import ran
from tests.e2e.world import ROOT

MODULES = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
PROGRAMS = sorted(
    name for name in MODULES if "ArgumentParser(" in (ROOT / "bench" / f"{name}.py").read_text()
)
SHORTEST = {
    "at_rest": ("--rounds", "1"),
    "commitments": ("--rounds", "1", "--streams", "20", "--crowd", "20"),
    "conflict": ("--rounds", "1", "--seconds", "0.5", "--batch", "10"),
    "core_alone": ("--rounds", "1", "--seconds", "0.5", "--shape", "10x4"),
    "door": ("--rounds", "1", "--seconds", "0.2"),
    "journal": ("--rounds", "1", "--sizes", "20", "--events", "200"),
    "nodes": ("--rounds", "1", "--seconds", "0.5", "--batch", "10"),
    "noisy": ("--rounds", "1", "--seconds", "0.5", "--noisy", "10x4"),
    "noisy --limits": ("--rounds", "1", "--seconds", "0.5", "--noisy", "10x16"),
    "reads": ("--rounds", "1", "--seconds", "0.2", "--million", "70000"),
    "secret_comparison": (),
    "startup": ("--tenants", "20", "--events", "2000", "--starts", "1"),
    "tenants": ("--tenants", "20", "--seconds", "0.2", "--soak", "1", "--keep"),
}
"""Arguments for as little as each can do; the suite and the comparison have tests of their own."""


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    importlib.import_module(f"bench.{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_tells_its_arguments(name: str) -> None:
    assert ran(f"bench.{name}", "--help", timeout_s=60).stdout.startswith("usage: ")


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", SHORTEST)
def test_every_program_runs_to_its_end(name: str) -> None:
    assert len(ran(*f"bench.{name}".split(), *SHORTEST[name], timeout_s=300).stdout.splitlines()) > 1


@pytest.mark.slow
@pytest.mark.thorough
def test_a_filled_table_is_measured_beside_an_empty_one(tmp_path: Path) -> None:
    words = ("--shape", "100x8", "--seconds", "0.3", "--rounds", "1", "--filled", "20000")
    told = ran("bench.suite", *words, "--json", str(tmp_path / "run.json"), timeout_s=300).stdout
    for name in ("100x8 on 20,000 to 100x8: ", "1x64 on 20,000 to 1x64: "):
        assert name in told
    assert (
        "GOALS on a machine of two cores"
        in ran("bench.report", str(tmp_path / "run.json"), timeout_s=60).stdout
    )
