"""A server in a cell, from the outside: started, found, looked at, stopped as an engine does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.cell import Cell
from tests.deploy.dockerfile import variables

GIVEN = {name: value.replace("${PATH}", "/usr/bin:/bin") for name, value in variables().items()}
"""The image's own variables."""


def served(
    cell: Cell, log: Path, before: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Until it has announced itself: the process that entered, and the announcement. ``before``: words that
    the command is an argument of."""
    quiet = {"HOST": "127.0.0.1", "PORT": "0", "VERIFIERS": "1", "ENCRYPTORS": "1"}
    process = cell.start([*before, "/opt/sequencer/bin/sequencer", "serve"], GIVEN | quiet, log)
    told = cell.data / "sequencer/server.json"
    give_up = time.monotonic() + 60
    while not told.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.05)
    return process, json.loads(told.read_text())


def wait_ready(url: str, log: Path) -> None:
    give_up = time.monotonic() + 60
    while httpx.get(f"{url}/ready").status_code != 200:
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.1)


def insiders(outside: int) -> list[dict[str, str]]:
    """``/proc/…/status`` of everybody below the process that unshared."""
    facts = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "status").read_text().splitlines()
            except OSError:
                continue
            facts[int(entry.name)] = {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}
    inside, new = set(), {outside}
    while new:
        inside |= new
        new = {pid for pid, told in facts.items() if int(told["PPid"]) in inside} - inside
    return [facts[pid] for pid in inside - {outside}]


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to process 1 of the cell, as an engine does."""
    (first,) = [
        int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    os.kill(first, signal.SIGTERM)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
