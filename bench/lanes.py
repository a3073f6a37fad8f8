"""A few clients inside a benchmark's own Trio loop, for those that do other things meanwhile.

What is about rates and latencies of the service uses the load generator (`bench/load.py`), a process of its own:
these here share an interpreter with whoever runs them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice

import trio

from bench.signing import Sender
from tests.e2e.world import Agent, Tenant


@dataclass
class Lane:
    """One connection's work: requests signed beforehand, latencies and accepted events counted."""

    requests: list[bytes]
    accepted: int = 0
    latencies_s: list[float] = field(default_factory=list)
    ran_out: bool = False


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


async def drive(lane: Lane, host: str, port: int, until: float) -> None:
    """Sends one request after the other; SystemExit if one is not wholly accepted."""
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        for request in lane.requests:
            if trio.current_time() >= until:
                return
            began = trio.current_time()
            await stream.send_all(request)
            head, body = await read_response(stream)
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise SystemExit(f"unexpected answer: {head!r} {body[:300]!r}")
            lane.latencies_s.append(trio.current_time() - began)
            told = json.loads(body[: body.index(b',"receipts"')] + b"}")
            if told["eventsRejected"]:
                raise SystemExit(f"refused: {body[-600:]!r}")
            lane.accepted += told["eventsAccepted"]
        lane.ran_out = True


async def read_response(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """(head, body) of one answer with a content-length."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await stream.receive_some(65536)
    head = bytes(data[:end])
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(data) < end + 4 + length:
        data += await stream.receive_some(1 << 20)
    return head, bytes(data[end + 4 :])
