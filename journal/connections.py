"""What a database session of ours looks like: its limits, its types, its socket, and what we refuse.

Alone knows how asyncpg is set up. UUIDs are 16 raw bytes and times are microseconds since the Unix epoch on
this side, in rows, in parameters, in arrays and in COPY. Never opens a transaction and knows no table.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from journal import hosts
from journal.packed import POSTGRES_EPOCH_US

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]

SERVER_VERSION_MIN = 14
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_UNACKNOWLEDGED_MS = 20_000
"""Sent bytes without an answer from the other machine's kernel for so long: the connection is dead."""

GENERIC_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(
        (
            "enable_seqscan",
            "enable_bitmapscan",
            "enable_hashjoin",
            "enable_mergejoin",
            "enable_material",
            "enable_memoize",
            "enable_sort",
            "enable_incremental_sort",
        ),
        "off",
    ),
}
"""Planned once, whatever the tables held then: one look into an index for each name that is asked for.
Planning a group's facts costs more than executing them for a hundred events."""


@dataclass(frozen=True)
class Limits:
    """Of every session. The server's own timeouts end a statement before the unit's deadline does."""

    connections_max: int = 8
    writers_max: int = 6
    """More of them, that read facts and append."""
    unit_deadline_s: float = 15.0
    """The whole unit on the client's side; the only one that bounds COMMIT and a silent network."""
    statement_timeout_s: float = 10.0
    lock_timeout_s: float = 5.0
    idle_in_transaction_timeout_s: float = 5.0


def make_pool(
    dsn: str,
    limits: Limits,
    *,
    application_name: str,
    check: Callable[[Connection], Awaitable[None]] | None = None,
    for_appends: bool = False,
) -> Pool:
    """A pool that connects when first asked and again after the database was away; open it with ``await``
    or ``async with`` on the asyncio side. Transactions are ended by whoever began them, so nothing is reset
    when a connection comes back (a round trip per unit). ``check`` looks at each new connection before it is
    used; what it raises goes to whoever wanted the connection, which is closed. ``for_appends``: the other
    pool, whose plans are GENERIC_PLANS."""

    async def prepare(connection: Any) -> None:
        connection.watch_the_peer()
        await use_our_types(connection)
        if check is not None:
            await check(connection)

    connect: Any = hosts.connect  # the stubs ask for a protocol that is theirs alone
    return asyncpg.create_pool(
        dsn,
        connect=connect,
        min_size=0,
        max_size=limits.writers_max if for_appends else limits.connections_max,
        # Never closed for idleness: asyncpg sets a timer each time a connection comes back, and a cancelled
        # one stays in memory until it would have rung.
        max_inactive_connection_lifetime=0,
        connection_class=_JournalConnection,
        init=prepare,
        reset=_nothing_to_reset,
        timeout=limits.unit_deadline_s,
        max_cached_statement_lifetime=0,  # seconds; 0: prepared once per connection
        server_settings=session_settings(limits, application_name) | (GENERIC_PLANS if for_appends else {}),
    )


def session_settings(limits: Limits, application_name: str) -> dict[str, str]:
    """Sent with the connection request, so they cost no round trip."""
    return {
        "application_name": application_name,
        "search_path": "pg_catalog",
        "timezone": "UTC",
        "default_transaction_isolation": "read committed",
        "statement_timeout": _ms(limits.statement_timeout_s),
        "lock_timeout": _ms(limits.lock_timeout_s),
        "idle_in_transaction_session_timeout": _ms(limits.idle_in_transaction_timeout_s),
        # A plan made while a table was empty scans it from end to end for ever after.
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
        # The server's half of noticing a dead peer: a vanished client's locks are freed.
        "tcp_keepalives_idle": str(_KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(_KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(_KEEPALIVE_COUNT),
        "tcp_user_timeout": str(_UNACKNOWLEDGED_MS),
    }


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


class _JournalConnection(asyncpg.Connection):
    """asyncpg tells nobody its socket; a subclass may look."""

    _transport: asyncio.Transport

    def watch_the_peer(self) -> None:
        """Lets the kernel notice that the other machine has gone silent. Nothing to do on a unix socket."""
        peer = self._transport.get_extra_info("socket")
        if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
            return
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
            ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS),  # Linux
        ):
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def use_our_types(connection: Connection) -> None:
    """uuid <-> 16 bytes, timestamptz <-> microseconds since the Unix epoch, also in arrays and COPY."""
    await connection.set_type_codec(
        "uuid", schema="pg_catalog", encoder=_as_it_is, decoder=_as_it_is, format="binary"
    )
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_to_postgres, decoder=_from_postgres, format="tuple"
    )


def _as_it_is(raw: bytes) -> bytes:
    return raw


def _to_postgres(unix_us: int) -> tuple[int]:
    return (unix_us - POSTGRES_EPOCH_US,)


def _from_postgres(counted: tuple[int]) -> int:
    return counted[0] + POSTGRES_EPOCH_US


async def _nothing_to_reset(connection: object) -> None:
    pass
