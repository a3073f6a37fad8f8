"""Every parser of bytes from outside, fed with what nobody means: it refuses by name, never hangs, and what
it accepts keeps its laws. ``make fuzz DURATION=`` goes on for longer, guided by coverage."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import require
from tests.e2e.world import ROOT
from tests.fuzz.mutator import mutations
from tests.fuzz.plants import planted
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

INPUTS = {"connection": 150, "audit-trail": 150}
INPUTS_ELSE = 400
INPUTS_UNTIL_FOUND = 20_000
INPUT_CPU_S = 5.0
"""The slowest answers a body of 16 KiB in milliseconds."""
every = pytest.mark.parametrize("name", TARGETS)


@contextmanager
def limited() -> Iterator[None]:
    """So much processor time for one input; an endless loop becomes an exception."""

    def hangs(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {INPUT_CPU_S} s for one input")

    before = signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, INPUT_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def feed(target: Target, inputs: int, *, seed: int) -> int:
    """How many were taken before one was found that breaks it (which is raised), or all."""
    for number, data in enumerate(
        islice(mutations(target.seeds, seed=seed, bytes_max=target.bytes_max), inputs)
    ):
        try:
            with limited():
                target.feed(data)
        except Exception as wrong:
            wrong.add_note(f"target {target.name}, input {number} of seed {seed}: {data[:2000]!r}")
            raise
    return inputs


def finding(target: Target, inputs: int) -> Exception | None:
    try:
        feed(target, inputs, seed=2)
    except Exception as wrong:
        return wrong
    return None


@every
def test_a_parser_refuses_by_name_and_keeps_its_laws(name: str) -> None:
    inputs = INPUTS.get(name, INPUTS_ELSE)
    assert feed(TARGETS[name], inputs, seed=1) == inputs


@every
def test_a_planted_mistake_is_found(name: str) -> None:
    target = TARGETS[name]
    with planted(target.plant):
        assert finding(target, INPUTS_UNTIL_FOUND) is not None
    feed(target, 20, seed=2)


def run(*words: str, corpus: Path) -> subprocess.CompletedProcess[str]:
    require("atheris")
    command = [sys.executable, "-m", "tests.fuzz", *words, "--corpus", str(corpus)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.thorough
@every
def test_a_short_run_guided_by_coverage_finds_nothing(name: str, tmp_path: Path) -> None:
    said = run(name, "--duration", "4", corpus=tmp_path)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-4000:]
    assert "Done " in said.stdout + said.stderr


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["payload", "at-rest-frame", "forwarded"])
def test_a_planted_mistake_is_found_by_the_run_guided_by_coverage(name: str, tmp_path: Path) -> None:
    said = run(name, "--duration", "60", "--planted", corpus=tmp_path)
    assert said.returncode != 0
    assert "Uncaught Python exception" in said.stdout + said.stderr
