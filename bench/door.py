"""What the door's checks cost: ``python -m bench.door [--rounds 15] [--seconds 2]``.

First in this process, by the door's own code: authentication of an API key that is remembered, permission and
rate limit of one request, together and one by one, without a network. Required is less than 50 us together.
Then the whole server, one with RATE_LIMIT_MODE=enforce (and limits nobody reaches) beside one with ``off``, in
turns: one connection reads a head again and again; told are the wall time of a request and the processor time
of the server process. Prints machine, versions, medians and spread. Other work on the machine shows most in
wall times; processor times suffer less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import trio

from bench.lanes import address, read_response
from bench.machine import CORE, cpu_seconds
from bench.report import this_machine
from tests.e2e.world import ROOMY, Server, Tenant
from tests.http.doubles import INGEST, Cardboard
from transport.http.asked import Asked
from transport.http.callers import authenticate
from transport.http.ingest import ROUTES
from transport.http.rates import headers
from transport.http.visit import Visit

CALLS = 5_000
REQUIRED_US = 50.0


def asked(key: str) -> Asked:
    """A head as clients send it."""
    lines = [
        (b"host", b"sequencer.example:8080"),
        (b"user-agent", b"bench"),
        (b"accept", b"*/*"),
        (b"content-type", b"application/json"),
        (b"authorization", f"ApiKey {key}".encode()),
        (b"content-length", b"900"),
    ]
    return Asked("POST", INGEST, b"", lines, "192.0.2.1", "http")


async def _no_body() -> NoReturn:
    raise AssertionError("the checks come before the body is read")


class Checks:
    """One door, one remembered credential, one request."""

    def __init__(self) -> None:
        self.house = Cardboard({name.lower(): value for name, value in ROOMY.items()})
        self.door = self.house.public.door
        self.route = next(route for route in ROUTES if route.path == INGEST)
        self.visit = Visit(self.door, asked(self.house.api_key("read", "write")), _no_body)

    async def together(self) -> None:
        await self.door._admit(self.visit, self.route)
        self._told()

    async def authentication(self) -> None:
        visit = self.visit
        visit.caller = await authenticate(visit.asked, self.door.house, visit.address)

    async def permission(self) -> None:
        self.visit.who.must_hold(self.route.needed)

    async def rate_limit(self) -> None:
        who = self.visit.who
        assert who.tenant_id is not None
        self.door.rates.known(self.visit, who, self.route.rate_class)
        self.door.rates.tenant(self.visit, who.tenant_id)
        self._told()

    def _told(self) -> None:
        """The answer's headers about the limit."""
        assert self.visit.rate_verdict is not None, "the limit was not asked"
        headers(self.visit.rate_verdict)

    async def nothing(self) -> None:
        """What measuring costs."""

    async def rounds(self, count: int) -> dict[str, list[tuple[float, float]]]:
        """(wall, processor) microseconds of a call, by part and round, in turns."""
        parts = [self.together, self.authentication, self.permission, self.rate_limit, self.nothing]
        told: dict[str, list[tuple[float, float]]] = {part.__name__: [] for part in parts}
        for _ in range(count):
            self.house.credentials.heard(asked_at=trio.current_time())
            for part in parts:
                told[part.__name__].append(await _timed(part))
        assert self.door.house.rate_limits.buckets == 2, (
            "the credential's limit or the tenant's was not asked"
        )
        assert self.house.journal.lookups == 1, "the credential was not remembered"
        return told


async def checked(rounds: int) -> dict[str, list[tuple[float, float]]]:
    return await Checks().rounds(rounds)  # a visit looks at Trio's clock from its beginning


async def _timed(part: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    wall, busy = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(CALLS):
        await part()
    return (
        (time.perf_counter_ns() - wall) / CALLS / 1000,
        (time.thread_time_ns() - busy) / CALLS / 1000,
    )


async def reads(server: Server, tenant: Tenant, seconds: float) -> tuple[float, float]:
    """(wall, processor) microseconds of a request for a head."""
    query = urllib.parse.urlencode(tenant.stream)
    request = (
        f"GET /api/v1/ves/head?{query} HTTP/1.1\r\nhost: x\r\nauthorization: ApiKey {tenant.api_key}\r\n\r\n"
    ).encode()
    busy, count = cpu_seconds(server.pid)[CORE], 0
    async with await trio.open_tcp_stream(*address(server.url)) as stream:
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            await stream.send_all(request)
            head, body = await read_response(stream)
            if b" 200 " not in head:
                raise SystemExit(f"unexpected answer: {head!r} {body!r}")
            count += 1
    return 1e6 * elapsed / count, 1e6 * (cpu_seconds(server.pid)[CORE] - busy) / count


def pairs(rounds: int, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """The same for both modes, in turns."""
    modes = {"enforce": ROOMY, "off": {"RATE_LIMIT_MODE": "off"}}
    told: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    with ExitStack() as running:
        servers = {}
        for mode, settings in modes.items():
            folder = running.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-"))
            more = {"LOG_LEVEL": "warning", "VERIFIERS": "1", "ENCRYPTORS": "1"}
            server = Server(Path(folder) / "data", **more, **settings).start()
            running.callback(server.terminate)
            server.wait_ready()
            servers[mode] = (server, Tenant(server))
        for number in range(rounds + 1):
            for mode, (server, tenant) in servers.items():
                measured = trio.run(reads, server, tenant, seconds)
                if number:  # the first warms up
                    told[mode].append(measured)
    return told


def show(name: str, measured: list[tuple[float, float]]) -> None:
    columns = []
    for values in zip(*measured, strict=True):
        columns.append(f"{statistics.median(values):>9.1f} ({min(values):.1f}-{max(values):.1f})")
    print(f"{name:<16}" + "".join(f"{column:>28}" for column in columns))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--seconds", type=float, default=2, help="of each turn of a server; 0: no servers")
    chosen = arguments.parse_args()
    print(this_machine())
    print(f"load averages {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    title = f"{'':<16}{'wall us, median (min-max)':>28}{'processor us':>28}"
    print(f"\none request's checks, in process, {chosen.rounds} rounds of {CALLS:,} calls\n{title}")
    inside = trio.run(checked, chosen.rounds)
    for name, measured in inside.items():
        show(name, measured)
    if chosen.seconds:
        print(
            f"\na request for a head, whole server, {chosen.rounds} turns of {chosen.seconds:g} s each\n{title}"
        )
        turns = pairs(chosen.rounds, chosen.seconds)
        for mode, measured in turns.items():
            show(mode, measured)
        show("enforce - off", [(a - c, b - d) for (a, b), (c, d) in zip(*turns.values(), strict=True)])
    cost = statistics.median(busy for _, busy in inside["together"])
    print(
        f"\nauthentication, permission and rate limit together: {cost:.1f} us, required are {REQUIRED_US:.0f}"
    )
    return 0 if cost < REQUIRED_US else 1


if __name__ == "__main__":
    sys.exit(main())
