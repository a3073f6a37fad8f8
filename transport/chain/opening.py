"""A chain for whoever asks for one: addresses read, endpoints made, closed again at the end.

Opening asks nobody anything: a chain that is away now may be there at the first question.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from transport.chain.addresses import read_addresses
from transport.chain.breaker import Breaker
from transport.chain.endpoint import Endpoint
from transport.chain.pool import Pool
from transport.chain.rpc_chain import RpcChain
from transport.chain.standings import LAG_BLOCKS_MAX

_CLOSES_S = 5.0


@asynccontextmanager
async def open_chain(
    urls: list[str],
    chain_id: int,
    timeout_s: float,
    *,
    lag_blocks_max: int = LAG_BLOCKS_MAX,
    breaker: Breaker | None = None,
    tls: ssl.SSLContext | None = None,
    now: Callable[[], float] = trio.current_time,
) -> AsyncIterator[RpcChain]:
    """The preferred endpoint first. Each chain has connections, standings and a breaker of its own, so it may
    be opened as often as wanted. ValueError for an address that is not used, naming position and remedy.

    ``lag_blocks_max``: an endpoint further behind is not asked about the present; a chain with several blocks
    a second wants more. ``tls``: whom to believe; None: the system's authorities (SSL_CERT_FILE and
    SSL_CERT_DIR name others)."""
    addresses = read_addresses(urls)
    believed = tls
    if believed is None and any(each.url.scheme == "https" for each in addresses):
        believed = ssl.create_default_context()
    async with AsyncExitStack() as stack:
        endpoints = [Endpoint(each, chain_id, believed) for each in addresses]
        for endpoint in endpoints:
            stack.push_async_callback(_close, endpoint)
        yield RpcChain(Pool(endpoints, lag_blocks_max, now), chain_id, timeout_s, breaker or Breaker(), now)


async def _close(endpoint: Endpoint) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSES_S):
        await endpoint.aclose()
