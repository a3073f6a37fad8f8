"""The machine that is measured on, and what its processors did for whom.

Reads ``/proc`` only, so it is Linux's. Owns which process counts as what (``part_of``). Ended processes count
with the parent that waited for them: PostgreSQL's backends and replaced workers come and go.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from config.machine import installed_memory

TICK = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    "trio",
    "trio-asyncio",
    "asyncpg",
    "hypercorn",
    "quart-trio",
    "pynacl",
    "msgspec",
    "orjson",
    "cryptography",
)
IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
CORE, WORKERS, FRONTENDS, POSTGRES, OTHERS = "core", "workers", "front-ends", "PostgreSQL", "others"
PARTS = (CORE, WORKERS, FRONTENDS, POSTGRES, OTHERS)
"""Of a server, in the order in which tables tell them. The core is the process with the tree of actors."""


class Machine(msgspec.Struct, frozen=True):
    cpu: str
    cores: int
    memory_mib: int
    kernel: str
    python: str
    packages: dict[str, str]
    filesystem: str
    """Under the data: type and device."""


def machine(folder: Path) -> Machine:
    """``folder`` is where the data will be."""
    kind, device = filesystem(folder)
    return Machine(
        _cpu_model(),
        len(os.sched_getaffinity(0)),
        installed_memory() >> 20,
        f"{platform.system()} {platform.release()}",
        platform.python_version(),
        {name: version(name) for name in PACKAGES},
        f"{kind} on {device}",
    )


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())


def filesystem(folder: Path) -> tuple[str, str]:
    """(type, device) of what is mounted nearest above ``folder``."""
    best, found = -1, ("unknown", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mounted = Path(left.split()[4].replace("\\040", " "))
        if folder.resolve().is_relative_to(mounted) and len(mounted.parts) >= best:
            best, found = len(mounted.parts), (right.split()[0], right.split()[1])
    return found


def must_be_a_disk(folder: Path) -> None:
    """A COMMIT into memory is not durable, whatever it says."""
    kind, _ = filesystem(folder)
    if kind in IN_MEMORY:
        raise SystemExit(f"{folder} is on {kind}, in memory: run this from a folder on a disk")


def cpu_seconds(pid: int) -> dict[str, float]:
    """User and system seconds so far of the server ``pid`` and all below it, by part."""
    parents, spent = _processes()
    total = dict.fromkeys(PARTS, 0.0)
    for each, (line, seconds) in spent.items():
        above = each
        while above in parents and above != pid:
            above = parents[above]
        if above == pid:
            total[CORE if each == pid else part_of(line)] += seconds
    return total


def part_of(command_line: str) -> str:
    """Which part of a server a process below it belongs to."""
    if "actors.worker" in command_line:
        return WORKERS
    if "transport.front" in command_line:
        return FRONTENDS
    if command_line.startswith("postgres:") or "/postgres" in command_line or "embedded" in command_line:
        return POSTGRES
    return OTHERS


def _processes() -> tuple[dict[int, int], dict[int, tuple[str, float]]]:
    parents: dict[int, int] = {}
    spent: dict[int, tuple[str, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
            spent[int(entry.name)] = (line, sum(map(int, stat[11:15])) / TICK)
    return parents, spent


def machine_busy_s() -> float:
    """Seconds that all processors together were not idle, since the machine started."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {part: after[part] - before[part] for part in after}
