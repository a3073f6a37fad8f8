"""Ten times what the server can do: it refuses with a reason, keeps its memory, goes on and recovers.

OVERLOAD_SECS makes the flood longer. The rates are this machine's and are printed, not judged; judged is what
holds on any machine: bounded memory, answers that say when to come back, goodput that does not collapse
against the rate measured just before, and a server that answers at once when the flood is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.lanes import sign_ahead
from tests.e2e.flood import write_requests
from tests.e2e.nodes import metrics
from tests.e2e.world import ROOT, Server, Tenant

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS = float(os.environ.get("OVERLOAD_SECS", "10"))
TENANTS = 4
BATCH = 10
REQUESTS = 1200
"""Of each tenant, signed beforehand: enough that nearly everything accepted is new."""
MIB = 1024 * 1024
NODE_BYTES = 64 * MIB
CONNECTIONS = 1000
MEMORY_MORE = 4 * NODE_BYTES + CONNECTIONS * 64 * 1024
"""The server's own bounds: bodies in flight, each in at most four shapes at once (as received, in the frame
for the worker, decoded there, and as verified events), and 64 KiB for what belongs to a connection."""
GOODPUT_LEFT = {"connections": 0.4, "mailboxes": 0.2}
"""Of the saturated rate, at least."""
RECOVERY_S = 10.0
"""For a fresh request of every tenant, one after the other, and until nothing is left in any mailbox."""


def rss(server: Server) -> int:
    """Resident bytes of the server and its worker processes; PostgreSQL has bounds of its own."""
    pids = [server.pid, *(pid for pid, line in server.children() if "actors.worker" in line)]
    total = 0
    for pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


class Watch(threading.Thread):
    """The most memory seen while it runs."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.peak, self.over = server, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.peak = max(self.peak, rss(self.server))


def flood(server: Server, folder: Path, requests: list[bytes], **how: Any) -> dict[str, Any]:
    url = urllib.parse.urlsplit(server.url)
    write_requests(folder / "requests", requests)
    spec = {"host": url.hostname, "port": url.port, "requests": str(folder / "requests"), **how}
    (folder / "spec.json").write_text(json.dumps(spec))
    ran = subprocess.run(
        [sys.executable, "-m", "tests.e2e.flood", str(folder / "spec.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=how["seconds"] + 120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def events_per_s(told: dict[str, float]) -> float:
    return (told["accepted"] + told["replayed"]) / told["seconds"]


TIGHT = {
    "connections": {"CONNECTIONS_PER_ADDRESS_MAX": "500"},
    "mailboxes": {
        "CONNECTIONS_PER_ADDRESS_MAX": str(CONNECTIONS),
        "MAILBOX_LETTERS_MAX": "128",
        "SEQUENCER_LETTERS_MAX": "16",
    },
}
"""What fills first: with the usual settings the connections (one address may have half of them), else the
mailboxes, also those behind the verifiers, where a refusal comes after most of the work."""


@pytest.mark.parametrize("tight", TIGHT)
def test_ten_times_too_much_is_refused_with_a_reason_and_costs_neither_memory_nor_goodput(
    own_server: Callable[..., Server], tmp_path: Path, tight: str
) -> None:
    limits = {"NODE_BYTES_IN_FLIGHT_MAX": str(NODE_BYTES), "CONNECTIONS_MAX": str(CONNECTIONS)}
    server = own_server(**limits, **TIGHT[tight]).start()
    server.wait_ready()
    tenants = [Tenant(server) for _ in range(TENANTS)]
    lanes = [sign_ahead(tenant, tenant.agent, BATCH, REQUESTS) for tenant in tenants]
    requests = [request for together in zip(*lanes, strict=True) for request in together]
    calm = flood(server, tmp_path, requests[:REQUESTS], seconds=4, connections=32)["told"]
    assert set(calm) <= {"200", "accepted", "replayed", "rejected", "waited ms", "seconds", "busy"}, calm
    before = rss(server)
    watch = Watch(server)
    watch.start()
    rate = 10 * calm["200"] / calm["seconds"]
    answer = flood(server, tmp_path, requests[REQUESTS:], seconds=SECONDS, rate=rate)
    ended = time.monotonic()
    told = answer["told"]
    share = events_per_s(told) / events_per_s(calm)
    print(f"saturated {events_per_s(calm):,.0f} events/s: {calm}")
    print(f"at ten times {events_per_s(told):,.0f} events/s ({share:.0%}): {told}")
    print(f"memory {before / MIB:,.0f} MiB, at most {watch.peak / MIB:,.0f} MiB")
    fresh_is_answered(tenants, ended)
    watch.over.set()
    watch.join(5)
    assert not answer["unexplained"], answer["unexplained"]
    assert told["rejected"] == 0
    assert {kind for kind in told if kind.isdigit()} <= {"200", "429", "503"}
    assert told.get("429", 0) + told.get("503", 0) > 0, "it was no overload"
    assert share > GOODPUT_LEFT[tight], f"goodput collapsed to {share:.0%}"
    assert watch.peak < before + MEMORY_MORE
    assert sum(t.head() for t in tenants) >= calm["accepted"] + told["accepted"]


def fresh_is_answered(tenants: list[Tenant], since: float) -> None:
    for tenant in tenants:
        while True:
            try:
                status = tenant.post(tenant.agent.event({"after": "the flood"})).status_code
            except httpx.TransportError:
                status = 0
            waited = time.monotonic() - since
            assert waited < RECOVERY_S, f"still {status} after {waited:.1f} s"
            if status == 200:
                break
            time.sleep(0.1)
    while any((waiting := depths(tenants[0].server)).values()):
        assert time.monotonic() - since < RECOVERY_S, waiting
        time.sleep(0.1)


def depths(server: Server) -> dict[str, float]:
    found = {name: value for name, value in metrics(server).items() if "mailbox_depth" in name}
    assert len(found) > 3
    return found
