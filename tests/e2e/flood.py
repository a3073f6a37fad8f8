"""A flood of requests from a process of its own: more than the server can do, at a rate that does not wait.

    python -m tests.e2e.flood SPEC.json

The spec names host, port, seconds, the requests' file (whole HTTP requests, signed before, length-prefixed)
and either ``rate`` (requests a second, whatever becomes of them: each has an idle connection or a new one) or
``connections`` (each sends its next request when the last was answered). Requests that were refused are sent
again; when none waits to be sent, any of them comes a second time. Prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import struct
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from typing import Any

OPEN_MAX = 8_000
"""Requests under way at once: far more than the server takes, fewer than there are ports and descriptors."""
_COUNTS = re.compile(rb'"eventsAccepted":(\d+),"eventsReplayed":(\d+),"eventsRejected":(\d+)')


class Flood:
    def __init__(self, spec: dict[str, Any], requests: list[bytes]) -> None:
        self.host, self.port = spec["host"], spec["port"]
        self.seconds = spec["seconds"]
        self.waiting = deque(requests)
        self.all = requests
        self.chance = random.Random(1)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.told: Counter[str] = Counter()
        self.unexplained: list[str] = []

    async def at_rate(self, rate: float) -> dict[str, float]:
        """Arrivals at even distances; what is late is made up for at once, like a crowd would."""
        began, sent = time.monotonic(), 0
        tasks: set[asyncio.Task[None]] = set()
        while (elapsed := time.monotonic() - began) < self.seconds:
            while sent < elapsed * rate:
                sent += 1
                if len(tasks) >= OPEN_MAX:
                    self.told["not offered"] += 1
                    continue
                task = asyncio.create_task(self.one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.005)
        told = dict(self.told)
        told |= {"offered": sent, "seconds": elapsed, "left waiting": len(tasks)}
        for task in tasks:  # the crowd goes home
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return told

    async def in_turn(self, connections: int) -> dict[str, float]:
        async def lane(until: float) -> None:
            while time.monotonic() < until:
                await self.one()

        began = time.monotonic()
        await asyncio.gather(*(lane(began + self.seconds) for _ in range(connections)))
        return dict(self.told) | {"seconds": time.monotonic() - began}

    async def one(self) -> None:
        request = self.waiting.popleft() if self.waiting else self.chance.choice(self.all)
        began = time.monotonic()
        try:
            head, body = await self._exchange(request)
        except (OSError, EOFError) as error:  # IncompleteReadError is an EOFError
            self.told[f"connection: {type(error).__name__}"] += 1
            self.waiting.append(request)
            return
        status = int(head[9:12])
        self.told[str(status)] += 1
        if status == 200:
            accepted, replayed, rejected = map(int, _COUNTS.search(body).groups())  # type: ignore[union-attr]
            self.told["accepted"] += accepted
            self.told["replayed"] += replayed
            self.told["rejected"] += rejected
            self.told["waited ms"] += round(1000 * (time.monotonic() - began))
            return
        self.waiting.append(request)
        if b"\r\nretry-after:" not in head.lower():
            self.unexplained.append((head + body)[:500].decode(errors="replace"))

    async def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        kept = False
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            body = await reader.readexactly(int(length[1])) if length else b""
            kept = b"connection: close" not in head.lower()
        finally:
            if kept:
                self.idle.append((reader, writer))
            else:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        return head, body


def read_requests(path: Path) -> list[bytes]:
    raw, requests, at = path.read_bytes(), [], 0
    while at < len(raw):
        (length,) = struct.unpack_from(">I", raw, at)
        requests.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def write_requests(path: Path, requests: list[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack(">I", len(request)) + request for request in requests))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    flood = Flood(spec, read_requests(Path(spec["requests"])))
    began, before = time.monotonic(), time.process_time()
    told = asyncio.run(flood.at_rate(spec["rate"]) if "rate" in spec else flood.in_turn(spec["connections"]))
    told["busy"] = round((time.process_time() - before) / (time.monotonic() - began), 2)
    print(json.dumps({"told": told, "unexplained": flood.unexplained[:5]}))


if __name__ == "__main__":
    main()
