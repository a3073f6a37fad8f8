"""What a noisy tenant does to a quiet one: the quiet one's latency alone, and beside a tenant at all its limits.

``python -m bench.noisy [--seconds 10] [--rounds 3] [--rate 20]``. The quiet tenant posts small batches at a
steady rate, whatever becomes of them: its latency counts from the moment a request was meant to leave, so a
server that stops for a while is not asked less (no coordinated omission). The noisy one keeps so many large
batches on their way. Alone and beside are measured in turn, since machines drift. Both come from processes
of their own. Prints machine, versions, quantiles of each, CPU by process, and what no load of the machine
blurs: how many events of the noisy one are answered while a quiet request is on its way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import trio

from bench.ingest import cpu_seconds, machine, read_response, sign_ahead
from tests.e2e.flood import read_requests, write_requests
from tests.e2e.world import ROOT, Server, Tenant

QUIET_BATCH = 5
NOISY_CONNECTIONS = 16
NOISY_EVENTS_PER_S = 20_000
"""Signed beforehand: more than two cores can take."""


@dataclass
class Heard:
    latencies_ms: list[float]
    refused: int
    noisy_events: int
    passed_by: list[int]
    """Per quiet request: the noisy one's events that were answered while it was on its way."""
    cpu_s: dict[str, float]

    def at(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Player:
    """Runs in a process of its own: ``python -m bench.noisy --play SPEC``."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.host, self.port, self.seconds = spec["host"], spec["port"], spec["seconds"]
        self.requests = read_requests(Path(spec["requests"]))
        self.idle: list[trio.SocketStream] = []
        self.refused = 0
        self.answered: list[tuple[float, float, int]] = []
        """When it was meant to leave and when it was answered (``time.monotonic``), and how many events."""

    async def one(self, request: bytes, meant: float) -> None:
        stream = self.idle.pop() if self.idle else await trio.open_tcp_stream(self.host, self.port)
        await stream.send_all(request)
        head, body = await read_response(stream)
        self.idle.append(stream)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            self.refused += 1
            return
        accepted = int(json.loads(body[: body.index(b',"receipts"')] + b"}")["eventsAccepted"])
        self.answered.append((meant, time.monotonic(), accepted))

    async def at_rate(self, per_s: float) -> None:
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for n, request in enumerate(self.requests[: int(per_s * self.seconds)]):
                meant = began + n / per_s
                await trio.sleep(max(0.0, meant - time.monotonic()))
                nursery.start_soon(self.one, request, meant)

    async def without_pause(self, connections: int) -> None:
        until = trio.current_time() + self.seconds
        waiting = iter(self.requests)

        async def lane() -> None:
            for request in waiting:
                if trio.current_time() > until:
                    return
                await self.one(request, time.monotonic())

        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(lane)


def play(spec: dict[str, Any]) -> None:
    player = Player(spec)
    if "rate" in spec:
        trio.run(player.at_rate, spec["rate"])
    else:
        trio.run(player.without_pause, spec["connections"])
    print(json.dumps([player.refused, player.answered]))


def begin(server: Server, folder: Path, requests: list[bytes], **how: Any) -> Popen[bytes]:
    url = urllib.parse.urlsplit(server.url)
    write_requests(folder / "requests", requests)
    spec = {"host": url.hostname, "port": url.port, "requests": str(folder / "requests"), **how}
    return Popen([sys.executable, "-m", "bench.noisy", "--play", json.dumps(spec)], cwd=ROOT, stdout=PIPE)


def measure(server: Server, folder: Path, *, seconds: float, rate: float, batch: int, noisy: bool) -> Heard:
    (folder / "quiet").mkdir(parents=True, exist_ok=True)
    (folder / "noisy").mkdir(exist_ok=True)
    quiet, loud = Tenant(server), Tenant(server)
    small = sign_ahead(quiet, quiet.agent, QUIET_BATCH, int(rate * seconds))
    large = sign_ahead(loud, loud.agent, batch, int(NOISY_EVENTS_PER_S * seconds / batch) if noisy else 0)
    before = cpu_seconds(server)
    playing = []
    if noisy:
        loud_for = {"seconds": seconds + 1, "connections": NOISY_CONNECTIONS}
        playing.append(begin(server, folder / "noisy", large, **loud_for))
    playing.insert(0, begin(server, folder / "quiet", small, seconds=seconds, rate=rate))
    told = [json.loads(one.communicate(timeout=seconds * 10 + 60)[0]) for one in playing]
    after = cpu_seconds(server)
    refused, answered = told[0]
    accepted = sum(events for _, _, events in answered)
    if quiet.head() != accepted:
        raise SystemExit(f"head {quiet.head()} is not the {accepted} accepted events")
    others = told[1][1] if noisy else []
    return Heard(
        latencies_ms=[1000 * (at - meant) for meant, at, _ in answered],
        refused=refused,
        noisy_events=sum(events for _, _, events in others),
        passed_by=[sum(n for _, when, n in others if meant < when < at) for meant, at, _ in answered],
        cpu_s={part: after[part] - before[part] for part in after},
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=10)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--rate", type=float, default=20, help="small batches a second")
    words.add_argument("--batch", type=int, default=200, help="events in a large batch")
    words.add_argument("--json", action="store_true")
    words.add_argument("--play", help=argparse.SUPPRESS)
    said = words.parse_args()
    if said.play:
        play(json.loads(said.play))
        return
    heard: dict[bool, list[Heard]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        server = Server(Path(folder) / "data", LOG_LEVEL="warning").start()
        try:
            server.wait_ready()
            for number in range(said.rounds):
                for noisy in (False, True):
                    place = Path(folder) / f"{number}-{noisy}"
                    how = {"seconds": said.seconds, "rate": said.rate, "batch": said.batch}
                    heard[noisy].append(measure(server, place, **how, noisy=noisy))
        finally:
            server.terminate()
    report(heard, as_json=said.json)


def report(heard: dict[bool, list[Heard]], *, as_json: bool) -> None:
    found = {}
    for noisy, rounds in heard.items():
        found["beside" if noisy else "alone"] = {
            **{f"p{share:g}_ms": [r.at(share / 100) for r in rounds] for share in (50, 99)},
            "refused": sum(r.refused for r in rounds),
            "noisy_events": sum(r.noisy_events for r in rounds),
            "passed_by": statistics.median(n for r in rounds for n in r.passed_by),
            "cpu_s": {part: sum(r.cpu_s[part] for r in rounds) for part in rounds[0].cpu_s},
        }
    if as_json:
        print(json.dumps({"machine": machine(), **found}))
        return
    print(machine())
    for name, what in found.items():
        p50, p99 = statistics.median(what["p50_ms"]), statistics.median(what["p99_ms"])
        cpu = " ".join(f"{part} {seconds:.1f}" for part, seconds in what["cpu_s"].items())
        print(
            f"{name:>7}: p50 {p50:.1f} ms, p99 {p99:.1f} ms ({min(what['p99_ms']):.1f}-{max(what['p99_ms']):.1f}),"
            f" {what['refused']} refused; {what['noisy_events']} events of the noisy one,"
            f" {what['passed_by']:.0f} of them while one request of the quiet one is on its way; CPU s: {cpu}"
        )


if __name__ == "__main__":
    main()
