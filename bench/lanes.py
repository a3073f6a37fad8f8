"""A few clients inside a benchmark's own Trio loop, for those that do other things meanwhile.

What is about rates and latencies of the service uses the load generator (`bench/load.py`), a process of its own:
these here share an interpreter with whoever runs them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import trio

from bench.results import quantile
from bench.signing import Sender
from tests.e2e.world import Agent, Tenant


@dataclass
class Lane:
    """One connection's work: requests signed beforehand, latencies and accepted events counted."""

    url: str
    requests: Sequence[bytes]
    resends: bool = False
    """A request refused with 503 (two nodes write for its stream) is sent again; its time counts."""
    accepted: int = 0
    contended: int = 0
    """Refused with 503."""
    latencies_s: list[float] = field(default_factory=list)
    ran_out: bool = False

    async def run(self, until: float = math.inf) -> None:
        """One request after the other; SystemExit if one is not wholly accepted."""
        async with await trio.open_tcp_stream(*address(self.url)) as stream:
            for request in self.requests:
                began = trio.current_time()
                if began >= until:
                    return
                await self._until_accepted(stream, request)
                self.latencies_s.append(trio.current_time() - began)
            self.ran_out = trio.current_time() < until

    async def _until_accepted(self, stream: trio.SocketStream, request: bytes) -> None:
        while True:
            await stream.send_all(request)
            head, body = await read_response(stream)
            status = int(head.split(b" ", 2)[1])
            if status == 200:
                told = json.loads(body[: body.index(b',"receipts"')] + b"}")
                if told["eventsRejected"]:
                    raise SystemExit(f"refused: {body[-600:]!r}")
                self.accepted += told["eventsAccepted"]
                return
            if status != 503 or not self.resends:
                raise SystemExit(f"unexpected answer: {head!r} {body[:300]!r}")
            self.contended += 1


async def together(lanes: Sequence[Lane], seconds: float, *, may_run_out: bool = False) -> float:
    """All of them at the same time; how many seconds until the last answer. SystemExit if a lane was left without
    requests before its time was over."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for lane in lanes:
            nursery.start_soon(lane.run, began + seconds)
    elapsed = trio.current_time() - began
    if not may_run_out and any(lane.ran_out for lane in lanes):
        raise SystemExit("the signed requests ran out before the time did: sign more")
    return elapsed


def latency_ms(lanes: Sequence[Lane], share: float) -> float:
    """Such a quantile of all of them."""
    return 1000 * quantile(sorted(second for lane in lanes for second in lane.latencies_s), share)


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def sign_ahead(tenant: Tenant, agent: Agent, batch: int, count: int) -> list[bytes]:
    """Whole HTTP requests of ``batch`` events each, ready to send."""
    sender = Sender(
        tenant.tenant_id.bytes,
        agent.store_id.bytes,
        agent.agent_id.bytes,
        agent.key_id,
        agent.key.private_bytes_raw(),
        tenant.api_key,
        tenant.server.url.removeprefix("http://"),
    )
    return list(islice(sender.requests(batch), count))


async def read_response(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """(head, body) of one answer with a content-length."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await _some(stream)
    head = bytes(data[:end])
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(data) < end + 4 + length:
        data += await _some(stream)
    return head, bytes(data[end + 4 :])


async def _some(stream: trio.SocketStream) -> bytes:
    if not (data := await stream.receive_some(1 << 20)):
        raise SystemExit("the server closed the connection before its answer was complete")
    return bytes(data)
