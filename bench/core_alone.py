"""What the core process alone costs per event, hence the ceiling of one node: a simulation.

``python -m bench.core_alone [--seconds 3] [--rounds 3]``. A real server and a real, durable PostgreSQL; but its
worker processes answer without signature checks (``bench.unsigned_worker``), as if there were always processors
enough for them, and their processor time and PostgreSQL's is not counted, as if they had cores of their own.
(What the core verifies itself it does for real.) Counted is the one interpreter that everything passes through,
twice: with HTTP, posted over keep-alive connections; and at the boundary of its actors, asked by tasks in the same
process, as if other processes did all of HTTP. Its processor time per event gives the ceiling: no node is faster,
whatever else has cores of its own. The server's settings come from the environment, and no other process of its
is counted either. Every event posted is found in its stream afterwards, or the run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import trio
from nacl.signing import SigningKey

from bench.lanes import Lane, together
from bench.report import this_machine
from tests.e2e.world import ROOT, Server, Tenant, signing_hash

SHAPES = [(1, 64), (10, 16), (100, 16), (1000, 4)]
"""(events per request, requests under way)."""
RATES = {1: 5_000, 10: 20_000, 100: 40_000, 1000: 40_000}
"""Events prepared for each second of a run; a run ends when they are used up."""
SIGNED_MAX = 2
"""Of requests up to so many events the core may check the signatures itself: those are real, and counted."""
ASK_S = 30.0
_ID = "00000000-0000-4000-8000-00000000feed"


@dataclass
class Round:
    accepted: int
    wall_s: float
    core_s: float
    """Processor time of the core process, user and system."""

    @property
    def core_us(self) -> float:
        return 1e6 * self.core_s / self.accepted


class Bodies:
    """Request bodies of one agent, each event with an id of its own. Signatures of large ones are noise."""

    def __init__(self, tenant: Tenant) -> None:
        self._agent = agent = tenant.agent
        self._signer = SigningKey(agent.key.private_bytes_raw())
        payload = {
            "customer": "c-1",
            "currency": "USD",
            "lines": [{"sku": "ABC-123", "quantity": 3, "price": 1295}],
            "note": "an order of ordinary size, as shops send them all day long",
        }
        noise = "0x" + os.urandom(32).hex() + "00" * 32
        event = agent.event(payload, event_id=_ID, entity_id=f"o-{_ID}", agent_signature=noise)
        self._template = event
        self._event = json.dumps(event)
        self._before = json.dumps({"agentId": str(agent.agent_id), "events": []})[:-2]

    def body(self, events: int) -> bytes:
        if events <= SIGNED_MAX:
            return self._agent.body([self._signed(str(uuid.uuid4())) for _ in range(events)])
        made = ", ".join(self._event.replace(_ID, str(uuid.uuid4())) for _ in range(events))
        return f"{self._before}{made}]}}".encode()

    def _signed(self, name: str) -> dict[str, Any]:
        event = self._template | {"event_id": name, "entity_id": f"o-{name}"}
        signature = self._signer.sign(signing_hash(event)).signature
        return event | {"agent_signature": "0x" + signature.hex()}


def prepared(tenant: Tenant, batch: int, at_once: int, seconds: float) -> list[list[bytes]]:
    """For each lane its bodies."""
    bodies = Bodies(tenant)
    each = max(2, int(RATES[batch] * seconds / batch / at_once) + 1)
    return [[bodies.body(batch) for _ in range(each)] for _ in range(at_once)]


# Inside the server: its own ``live``, and beside it tasks that ask its actors.


def serve_inside() -> int:
    """The ``sequencer serve`` of this simulation. With BENCH_INSIDE it is driven from within, by lines on
    standard input, and answers on standard output."""
    from actors import worker_spawn
    from supervisor import main

    worker_spawn._COMMAND = (sys.executable, "-m", "bench.unsigned_worker")
    if os.environ.get("BENCH_INSIDE"):
        main.live = partial(_driven, main.live)
    return main.serve()


async def _driven(live: Callable[..., Any], settings: Any, secrets: Any, built: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_obey, built.house, settings.data_dir)
        await live(settings, secrets, built)
        nursery.cancel_scope.cancel("the house has stopped")


async def _obey(house: Any, data_dir: Path) -> None:
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        order = json.loads(line)
        server = _oneself(data_dir)
        tenant = await trio.to_thread.run_sync(partial(Tenant, server))
        lanes = await trio.to_thread.run_sync(partial(prepared, tenant, **order))
        done = await _ask_actors(house, tenant, lanes, order["seconds"])
        head = await trio.to_thread.run_sync(tenant.head)
        tenant.http.close()
        _check(head, done.accepted)
        print(json.dumps(asdict(done)), flush=True)


def _oneself(data_dir: Path) -> Server:
    server = Server(data_dir)
    told = json.loads((data_dir / "server.json").read_text())
    server.url, server.admin_url = told["url"], told["admin_url"]
    return server


async def _ask_actors(house: Any, tenant: Tenant, lanes: list[list[bytes]], seconds: float) -> Round:
    from actors.messages import Append, Verify
    from ves.records import Scope, VerifiedBatch

    tenant_id = tenant.tenant_id.bytes
    scope = Scope(tenant_id, None, None)
    policy = await house.policies.find(tenant_id)
    accepted = 0

    async def lane(bodies: list[bytes], until: float) -> None:
        nonlocal accepted
        for body in bodies:
            if trio.current_time() >= until:
                return
            message = Verify(body, scope, policy)
            batch = await house.small_bodies.verify(message, deadline_s=ASK_S)
            if batch is None:
                batch = await house.verifiers.ask(message, deadline_s=ASK_S)
            if not isinstance(batch, VerifiedBatch):
                raise SystemExit(f"refused: {batch}")
            append = Append(batch=batch, credential_id=None)
            appended = await house.sequencer_of(tenant_id).ask(append, deadline_s=ASK_S)
            accepted += appended.events_accepted

    cpu, wall = time.process_time(), time.monotonic()
    async with trio.open_nursery() as nursery:
        for bodies in lanes:
            nursery.start_soon(lane, bodies, trio.current_time() + seconds)
    return Round(accepted, time.monotonic() - wall, time.process_time() - cpu)


# Outside.


class Simulated(Server):
    """A server of this simulation."""

    def __init__(self, data_dir: Path, *, inside: bool) -> None:
        super().__init__(data_dir, LOG_LEVEL="warning", **({"BENCH_INSIDE": "1"} if inside else {}))

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.core_alone", "--serve"],
                cwd=ROOT,
                env=self._env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        return self.process.stdin, self.process.stdout

    def core_s(self) -> float:
        """Of the core process itself, without its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_inside(server: Simulated, batch: int, at_once: int, seconds: float) -> Round:
    orders, answers = server.pipes
    orders.write(json.dumps({"batch": batch, "at_once": at_once, "seconds": seconds}).encode() + b"\n")
    orders.flush()
    while line := answers.readline():
        if line.startswith(b'{"accepted"'):
            return Round(**json.loads(line))
    raise SystemExit(f"the server ended:\n{server.tail()}")


def measure_http(server: Simulated, batch: int, at_once: int, seconds: float) -> Round:
    tenant = Tenant(server)
    host = server.url.removeprefix("http://")
    head = (
        f"POST /api/v1/ves/events/ingest HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"authorization: ApiKey {tenant.api_key}\r\ncontent-length: "
    )
    lanes = [
        Lane(server.url, [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
        for bodies in prepared(tenant, batch, at_once, seconds)
    ]
    cpu = server.core_s()
    elapsed = trio.run(partial(together, lanes, seconds, may_run_out=True))
    done = Round(sum(lane.accepted for lane in lanes), elapsed, server.core_s() - cpu)
    _check(tenant.head(), done.accepted)
    tenant.http.close()
    return done


def _check(head: int, accepted: int) -> None:
    if head != accepted or not accepted:
        raise SystemExit(f"head {head} is not the {accepted} accepted events")


def show(results: dict[tuple[int, int], dict[str, list[Round]]]) -> None:
    print(
        "\nSIMULATED: workers without signatures; PostgreSQL real and not counted. CPU us per event of the core"
        "\nprocess, median (min-max); ceiling = events/s that would fill one core; reached = events/s here.\n"
    )
    print(f"{'batch x at once':>16}  {'with HTTP us':>22} {'ceiling':>9} {'reached':>9}  ", end="")
    print(f"{'actors only us':>22} {'ceiling':>9} {'reached':>9}")
    for (batch, at_once), ways in results.items():
        print(f"{batch:>8} x {at_once:<5}", end="")
        for way in ("http", "inside"):
            us = [done.core_us for done in ways[way]]
            reached = statistics.median(done.accepted / done.wall_s for done in ways[way])
            told = f"{statistics.median(us):.1f} ({min(us):.1f}-{max(us):.1f})"
            print(f"  {told:>22} {1e6 / statistics.median(us):>9,.0f} {reached:>9,.0f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", action="append", help="events x requests at once, such as 100x16")
    chosen = parser.parse_args()
    shapes = [(int(a), int(b)) for a, b in (s.split("x") for s in chosen.shape or [])] or SHAPES
    print(this_machine())
    results: dict[tuple[int, int], dict[str, list[Round]]] = {s: {"http": [], "inside": []} for s in shapes}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        outside = Simulated(Path(folder) / "http", inside=False)
        inside = Simulated(Path(folder) / "inside", inside=True)
        try:
            for server in (outside, inside):
                server.start().wait_ready()
            for number in range(chosen.rounds):
                for batch, at_once in shapes:
                    results[batch, at_once]["http"].append(
                        measure_http(outside, batch, at_once, chosen.seconds)
                    )
                    results[batch, at_once]["inside"].append(
                        measure_inside(inside, batch, at_once, chosen.seconds)
                    )
                    print(f"round {number + 1}: {batch} x {at_once}", file=sys.stderr)
        finally:
            for server in (outside, inside):
                if server.process is not None:
                    server.terminate()
    show(results)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        sys.exit(serve_inside())
    main()
