"""How many cores the worker pools follow, and how much memory there is for the embedded PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.machine import usable_cores, usable_memory
from config.settings import Settings


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ("max 100000", 8),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
        ("1 0", 8),
        ("9" * 400 + " 1", 8),
    ],
)
def test_a_quota_of_the_control_group_counts(
    told: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(told + "\n")
    assert usable_cores(tmp_path, tmp_path / "none") == cores


def test_without_a_control_group_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert usable_cores(tmp_path, tmp_path / "none") == 2


@pytest.mark.parametrize(
    ("told", "mib"), [("max", 4096), ("1073741824", 1024), ("9999999999999", 4096), ("nonsense", 4096)]
)
def test_a_memory_limit_of_the_control_group_counts(
    told: str, mib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1024 * 1024}.__getitem__)
    (tmp_path / "memory.max").write_text(told + "\n")
    assert usable_memory(tmp_path, tmp_path / "none") == mib * 1024 * 1024
    assert usable_memory(tmp_path / "none", tmp_path / "none") == 4096 * 1024 * 1024


UNIT = "our.slice/sequencer.service"
LIMITS = {  # cores, MiB
    ".": (7, 3584),
    "our.slice": (3, 2048),
    "our.slice/sequencer.service": (4, 1024),
    "../our.slice/sequencer.service": (1, 1),
}


@pytest.mark.parametrize(
    ("membership", "cores", "mib"),
    [
        (f"0::/{UNIT}\n", 3, 1024),
        (f"4:memory:/elsewhere\n1:name=systemd:/{UNIT}\n0::/{UNIT}\n", 3, 1024),
        (f"4:memory:/{UNIT}\n", 7, 3584),
        ("0::/our.slice\n", 3, 2048),
        ("0::/\n", 7, 3584),
        (f"0::/../{UNIT}\n", 7, 3584),
        ("0::/of/a/group/that/we/do/not/see\n", 7, 3584),
        ("nonsense", 7, 3584),
    ],
)
def test_the_limits_of_our_group_count_and_of_those_it_is_in(
    membership: str, cores: int, mib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1024 * 1024}.__getitem__)
    told = tmp_path / "membership"
    told.write_text(membership)
    top = tmp_path / "top"
    top.mkdir()
    for group, (its_cores, its_mib) in LIMITS.items():
        (top / group).mkdir(parents=True, exist_ok=True)
        (top / group / "cpu.max").write_text(f"{its_cores}00000 100000\n")
        (top / group / "memory.max").write_text(f"{its_mib << 20}\n")
    assert usable_cores(top, told) == cores
    assert usable_memory(top, told) == mib << 20


def test_the_pools_follow_workers_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.settings.usable_cores", lambda: 6)
    found = Settings(_env_file=None)
    assert (found.verifier_count, found.encryptor_count) == (6, 4)
    found = Settings(_env_file=None, workers="auto", encryptors=1)
    assert (found.verifier_count, found.encryptor_count) == (6, 1)
    found = Settings(_env_file=None, workers=1)
    assert (found.verifier_count, found.encryptor_count) == (1, 1)
