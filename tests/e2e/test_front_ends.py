"""Front-end processes, real ones: what one of them knows, and what its death costs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", FRONTENDS="2", VERIFIERS="1", ENCRYPTORS="1").start()
    server.wait_ready()
    yield server
    server.terminate()


def fronts(server: Server) -> list[int]:
    return sorted(pid for pid, line in server.children() if "transport.front" in line)


def lives(pid: int) -> bool:
    """Not one that has ended and waits to be buried by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_tied_to_its_parent(pid: int) -> bool:
    """Past its first steps: the last of them is to leave SIGTERM to its parent (proc(5), SigIgn)."""
    status = Path(f"/proc/{pid}/status").read_text()
    [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_front_end_that_is_killed_costs_its_connections_and_nothing_else(server: Server) -> None:
    until(lambda: len(fronts(server)) == 2)
    tenant = Tenant(server)
    agent = tenant.new_agent()
    acknowledged: dict[str, int] = {}
    broken: list[str] = []
    over = threading.Event()

    def send() -> None:
        headers = {**tenant.http.headers, "content-type": "application/json"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=20, trust_env=False) as http:
            while not over.is_set():
                event = agent.event({"n": 1})
                body = agent.body([event])
                while True:  # the same bytes, until they are answered
                    try:
                        answer = http.post("/api/v1/ves/events/ingest", content=body)
                    except httpx.TransportError as error:
                        broken.append(type(error).__name__)
                        continue
                    break
                assert answer.status_code == 200, answer.text
                [receipt] = answer.json()["receipts"]
                acknowledged[receipt["eventId"]] = receipt["sequenceNumber"]

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 20)
        victim = fronts(server)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: len(fronts(server)) == 2 and victim not in fronts(server))
    over.set()
    for thread in threads:
        thread.join()
    assert broken, "nobody noticed"
    assert len(acknowledged) > 80
    assert sorted(acknowledged.values()) == list(range(1, len(acknowledged) + 1))
    assert tenant.head() == len(acknowledged)


def test_a_front_end_has_no_secrets_no_files_and_ends_with_its_server(server: Server) -> None:
    until(lambda: len(fronts(server)) == 2 and all(map(is_tied_to_its_parent, fronts(server))))
    pids = fronts(server)
    if os.geteuid() == 0:
        for pid in pids:
            names = {
                line.partition(b"=")[0] for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            }
            assert names <= {b"", b"PATH", b"LD_LIBRARY_PATH", b"PYTHONHOME", b"PYTHONPATH", b"TMPDIR"}
            opened = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()}
            assert not any(str(server.data_dir) in path and "log" not in path for path in opened), opened
    os.kill(pids[0], signal.SIGSTOP)
    server.kill_9(group=False)
    until(lambda: not any(lives(pid) for pid in pids))
