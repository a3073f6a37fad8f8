"""One unit: everything a journal method does with the database, in one asyncio coroutine with one deadline.

Alone decides what is true when a unit fails. Before COMMIT is sent nothing was stored, for certain: the unit
is cancelled and rolled back and it is JournalAway. From COMMIT on nothing is ever cancelled: without a clear
answer within the deadline the connection is cut and it is JournalOutcomeUnknown. Errors that speak of a
mistake in our own statements pass as they are. Knows no table.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

import asyncpg
import structlog

from journal.port import JournalAway, JournalOutcomeUnknown, JournalRefused, JournalVitals
from journal.tls import why_untrusted

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from journal.connections import Connection, Pool

_log = structlog.get_logger("journal.units")

T = TypeVar("T")
Checkpoint = Callable[[str], None]
"""Called at a named point of a unit. It may raise, or end the process: a crash exactly there."""

SLOW_S = 1.0
"""A unit that takes longer is counted as slow: an append of a full group takes a tenth of it."""

_TIDY_UP_S = 1.0
"""For a ROLLBACK after a failure; then the connection is cut, which rolls back too."""

# SQLSTATE classes and codes (PostgreSQL documentation, appendix A) that mean: not here, not now.
_AWAY_CLASSES = (
    "08",  # connection
    "28",  # who we are is not accepted: an operator is at work
    "53",  # resources: disk full, out of memory, too many connections
    "57",  # operator intervention: shutdown, starting up, cancelled, statement_timeout
    "58",  # system error outside PostgreSQL
)
_AWAY = {
    "25006",  # read-only: a standby, or a primary that protects its last disk space
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "3D000",  # no such database (yet)
}
_CONTENDED = {
    "40001",  # serialization failure
    "40P01",  # deadlock, and we were chosen
    "55P03",  # lock_timeout
}
_REFUSED_BY_US = "57000"  # raised by our own triggers: it lasts until somebody acts, so somebody has to know
_ENDS_THE_SESSION = {"FATAL", "PANIC"}

_Broken = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Everything the driver raises. Timeouts are OSErrors too."""


class Contended(JournalAway):
    """Others were in the way: nothing was stored, for certain; trying again at once may succeed."""


class NotPrimary(ConnectionError):
    """This server takes no writes: a standby, or read-only."""


class Undo(Exception, Generic[T]):
    """Raised inside a transaction: roll back, and answer with ``value``."""

    def __init__(self, value: T) -> None:
        self.value = value


@dataclass
class Condition:
    """Of the one database behind all pools of a journal."""

    disk_full: str | None = None
    """Why the last unit that wrote could not, if that was for want of space."""
    resting: str | None = None
    """Why nothing is written, although the database would let us, until an operator acts."""
    counts: Counter[str] = field(default_factory=Counter)
    """How units ended."""


class Units:
    """Runs units on the asyncio side. One per pool."""

    def __init__(
        self, pool: Pool, *, deadline_s: float, checkpoint: Checkpoint, condition: Condition | None = None
    ) -> None:
        self.deadline_s = deadline_s
        self.condition = condition or Condition()
        self._pool = pool
        self._kept: list[PoolConnectionProxy[asyncpg.Record]] = []
        """Of the pool's connections those that nobody uses and that were not given back: giving one back and
        taking it again would cost as much as asking it something."""
        self._wanting = 0
        """Who waits for a connection of the pool."""
        self._checkpoint = checkpoint

    def vitals(self, *beside: Units) -> JournalVitals:
        """``beside``: other units of the same condition, whose connections count too."""
        everyone = (self, *beside)
        pools = [units._pool for units in everyone]
        size = sum(p.get_size() for p in pools)
        idle = sum(p.get_idle_size() for p in pools) + sum(units._kept_count() for units in everyone)
        counts = self.condition.counts
        return JournalVitals(
            **{name: counts[name] for name in ("done", "away", "contended", "unknown", "slow")},
            connections=size,
            connections_in_use=size - idle,
            connections_max=sum(p.get_max_size() for p in pools),
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts how a unit ended; a mistake in our own statements counts as done: the database answered."""
        started = asyncio.get_running_loop().time()
        outcome = "done"
        try:
            yield
        except Contended:
            outcome = "contended"
            raise
        except JournalAway:
            outcome = "away"
            raise
        except JournalOutcomeUnknown:
            outcome = "unknown"
            raise
        finally:
            self.condition.counts[outcome] += 1
            self.condition.counts["slow"] += asyncio.get_running_loop().time() - started > SLOW_S

    async def read(self, act: Callable[[Connection], Awaitable[T]], *, deadline_s: float | None = None) -> T:
        """``act`` is one statement outside a transaction. Raises JournalAway."""
        with self._counted():
            try:
                async with (
                    asyncio.timeout(min(deadline_s or math.inf, self.deadline_s)),
                    self._connection() as connection,
                ):
                    return await act(connection)
            except _Broken as error:
                not_stored(error)

    async def write(
        self, act: Callable[[Connection], Awaitable[T]], *, begin: str = "BEGIN", named: str
    ) -> T:
        """One transaction around ``act``; returns its answer once it is durable, or ``Undo``'s value after
        rolling back. ``begin``: BEGIN, with what can be sent along; ``named``: of its crash points. Raises
        JournalAway, Contended, JournalOutcomeUnknown, and what speaks of a mistake in ``act``."""
        with self._counted():
            return await self._transaction(act, begin, named)

    async def write_at_once(self, act: Callable[[Connection], Awaitable[T]], *, named: str) -> T:
        """``act`` is one statement that is a transaction of its own: whatever the server says against it,
        nothing was stored. Otherwise like ``write``."""
        with self._counted(), self._writing():
            until = self._begun(named)
            async with asyncio.timeout_at(until) as patience, self._connection() as connection:
                self._checkpoint(f"{named}.commit_sent_before")
                patience.reschedule(None)
                answer = await _committing(connection, lambda: act(connection), until)
        self._checkpoint(f"{named}.committed")
        return answer

    async def _transaction(self, act: Callable[[Connection], Awaitable[T]], begin: str, named: str) -> T:
        try:
            with self._writing():
                until = self._begun(named)
                async with asyncio.timeout_at(until) as patience, self._connection() as connection:
                    await connection.execute(begin)
                    answer = await act(connection)
                    self._checkpoint(f"{named}.commit_sent_before")
                    patience.reschedule(None)  # from here on this task is not cancelled by its deadline
                    await _commit(connection, until)
        except Undo as undone:
            value: T = undone.value
            return value
        # Durable.
        self._checkpoint(f"{named}.committed")
        return answer

    def _begun(self, named: str) -> float:
        """Until when, on the loop's clock."""
        if self.condition.resting is not None:
            raise JournalRefused(self.condition.resting)
        self._checkpoint(f"{named}.begin")
        return asyncio.get_running_loop().time() + self.deadline_s

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What a failure of a transaction means, and whether the disk is full."""
        try:
            yield
        except _Broken as error:
            if isinstance(error, asyncpg.DiskFullError):
                self.condition.disk_full = _text(error)
            not_stored(error)
        self.condition.disk_full = None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection that goes back without a transaction, whatever happened, or not at all."""
        connection = await self._acquire()
        try:
            yield connection
        except BaseException as error:
            if _is_no_primary(error):
                _cut(connection)  # whoever takes writes now, it is not this server
            try:
                await _tidy_up(connection)
            finally:
                await self._pool.release(connection)
            raise
        if self._wanting or _is_lost(connection):
            await self._pool.release(connection)
        else:
            self._kept.append(connection)

    def _kept_count(self) -> int:
        return sum(not _is_lost(connection) for connection in self._kept)

    async def _acquire(self) -> PoolConnectionProxy[asyncpg.Record]:
        while self._kept:
            connection = self._kept.pop()
            if not _is_lost(connection):
                return connection
            await self._pool.release(connection)
        self._wanting += 1
        try:
            return await self._pool.acquire()
        finally:
            self._wanting -= 1

    async def give_back(self) -> None:
        """All that is kept and whatever comes later, so that the pool can be closed."""
        self._wanting += 1
        while self._kept:
            await self._pool.release(self._kept.pop())


async def _commit(connection: Connection, until: float) -> None:
    """Returns when the transaction is durable."""
    said = await _committing(connection, lambda: connection.execute("COMMIT"), until)
    if said != "COMMIT":
        raise RuntimeError(f"COMMIT was answered with {said}: a failed statement was overlooked")


async def _committing(connection: Connection, send: Callable[[], Awaitable[T]], until: float) -> T:
    """Its answer, once what ``send`` commits is durable. Raises PostgresError if it certainly is not, else
    JournalOutcomeUnknown."""
    warnings: list[str] = []

    def heard(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            warnings.append(str(message))

    too_late = False

    def give_up() -> None:
        nonlocal too_late
        too_late = True
        _cut(connection)

    connection.add_log_listener(heard)
    # At the deadline the connection is cut. Cancelling an asyncpg call would cancel the statement on the
    # server, and a COMMIT that waits for a standby answers that with success.
    deadline = asyncio.get_running_loop().call_at(until, give_up)
    try:
        answer = await send()
    except Exception as error:  # of our own making too: after COMMIT was sent, none says what became of it
        if _certainly_not(error):
            raise
        lost = f"the connection was lost at COMMIT: {_text(error)}"
        raise JournalOutcomeUnknown("COMMIT was not answered in time" if too_late else lost) from error
    finally:
        deadline.cancel()
        with suppress(asyncpg.InterfaceError):  # a lost connection takes its listeners along
            connection.remove_log_listener(heard)
    if warnings:
        # In any language: "canceling wait for synchronous replication": durable here, perhaps nowhere else.
        raise JournalOutcomeUnknown(f"COMMIT was answered with a warning: {warnings[0]}")
    return answer


def _certainly_not(error: Exception) -> bool:
    """Of an error at COMMIT. PostgreSQL says ERROR only while it can still roll back, and then it has; and a
    value that the driver cannot encode was never sent."""
    if isinstance(error, asyncpg.DataError) and _severity(error) is None:
        return True
    return isinstance(error, asyncpg.PostgresError) and _severity(error) == "ERROR"


async def _tidy_up(connection: Connection) -> None:
    """After a failure: no transaction is left on this connection, or the connection is cut."""
    try:
        if connection.is_closed():
            return
        async with asyncio.timeout(_TIDY_UP_S):
            # Also when no transaction seems open: a cancelled statement may still be on its way.
            await connection.execute("ROLLBACK")
    except (*_Broken, asyncio.CancelledError):
        _cut(connection)


def _is_no_primary(error: BaseException) -> bool:
    return isinstance(error, NotPrimary | asyncpg.ReadOnlySQLTransactionError)


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost while nobody used it, and the pool has let go of it
        return True


def _cut(connection: Connection) -> None:
    """Nothing more is sent or awaited. The server rolls back what was not committed."""
    with suppress(asyncpg.InterfaceError):  # it was lost before, and the pool has let go of it
        connection.terminate()


def not_stored(error: BaseException) -> NoReturn:
    """Raises what a failure before COMMIT (or an ERROR at it) means."""
    if isinstance(error, asyncpg.PostgresError):
        code = str(error.sqlstate)
        if code in _CONTENDED:
            raise Contended(_text(error)) from error
        if code == _REFUSED_BY_US:
            _log.error("the database takes nothing from this node", reason=_text(error))
        if code in _AWAY or code.startswith(_AWAY_CLASSES) or _severity(error) in _ENDS_THE_SESSION:
            raise JournalAway(_text(error)) from error
        error.detail = None  # can hold the values of a row, and a surprise is logged
        raise error
    untrusted = why_untrusted(error)
    if untrusted is not None:
        raise JournalRefused(untrusted) from error
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # a TLS error is both
        raise error  # asyncpg: a value we gave that PostgreSQL cannot hold, a DSN that means nothing
    raise JournalAway(_text(error)) from error


def _severity(error: asyncpg.PostgresError) -> str | None:
    return getattr(error, "severity_en", None)


def _text(error: BaseException) -> str:
    """Without the statement's parameters: PostgreSQL's DETAIL can hold values of rows."""
    if not error.args:  # a TimeoutError of our own
        return "no answer within the deadline"
    return f"{type(error).__name__}: {error.args[0]}"
