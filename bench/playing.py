"""Load generators at work on a server: started together, each a process of its own, and checked.

Owns what makes a run a measurement (``must_be_a_measurement``): every request answered as it should be, by the server
that was meant. A run that fails a check ends the benchmark with the reason; it is never a number.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.machine import CORE, FRONTENDS, cpu_seconds, difference, machine_busy_s
from tests.e2e.world import ROOT

CPU_US_LEAST = 2.0
"""Of the server's own processes per request: below, some other program answered."""


@dataclass(frozen=True)
class Play:
    """What one load generator does. ``rate``: requests a second, open loop. ``repeat``: the requests may be sent again
    and again (reads). ``refusals``: statuses after which a request is sent again."""

    files: Sequence[Path]
    connections: int
    seconds: float
    rate: float | None = None
    repeat: bool = False
    refusals: Sequence[int] = ()
    after_s: float = 0.0
    """Its clock starts so long after it was started."""

    def spec(self, host: str, port: int) -> dict[str, Any]:
        return asdict(self) | {"host": host, "port": port, "files": [str(path) for path in self.files]}


@dataclass(frozen=True)
class Run:
    """What one run of the load generator came to."""

    told: dict[str, Any]
    cpu_s: dict[str, float]
    """By part of the server, for all generators that ran at the same time."""
    elsewhere: float


def run_plays(url: str, pid: int, plays: Sequence[Play]) -> list[Run]:
    """Each by a generator in a process of its own, together, against the server ``pid``; checks that it was this one
    that worked."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    cores = len(os.sched_getaffinity(0))
    before, all_before, ours_before, began = (
        cpu_seconds(pid),
        machine_busy_s(),
        _own_cpu_s(),
        time.monotonic(),
    )
    with ThreadPoolExecutor(len(plays)) as generators:
        told = list(generators.map(_generate, [play.spec(host, int(port)) for play in plays]))
    wall, spent = time.monotonic() - began, difference(cpu_seconds(pid), before)
    ours = _own_cpu_s() - ours_before + sum(spent.values())
    elsewhere = max(0.0, machine_busy_s() - all_before - ours) / (wall * cores)
    for one in told:
        must_be_a_measurement(one, spent)
    return [Run(one, spent, elsewhere) for one in told]


def _generate(spec: dict[str, Any]) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.load", "-"],
        cwd=ROOT,
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        timeout=spec["after_s"] + spec["seconds"] + 180,
        check=False,
    )
    if ran.returncode:
        raise SystemExit(ran.stderr.strip())
    return dict(json.loads(ran.stdout))


def must_be_a_measurement(told: dict[str, Any], spent: dict[str, float]) -> None:
    """What the generator told, and what the server's processes spent meanwhile."""
    if told["unexpected"]:
        raise SystemExit(f"answered {told['statuses']}, the first that was not 200: {told['unexpected']}")
    if not told["answered"] or told["answered"] != told["sent"]:
        raise SystemExit(f"{told['sent']} requests were sent, {told['answered']} answered")
    own = 1e6 * (spent[CORE] + spent[FRONTENDS]) / told["answered"]
    # Below some requests the kernel's clock of 10 ms ticks says nothing.
    if told["answered"] > 1000 and own < CPU_US_LEAST:
        raise SystemExit(
            f"the server took {own:.1f} us of processor time a request: another program answered"
        )


def _own_cpu_s() -> float:
    """Of this process and of those it waited for: the generators."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
