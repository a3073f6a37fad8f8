"""Several hosts in one address: which of them takes writes is asked of all at once.

The driver would ask one after the other, so that one that is silent (a machine without power, a stopped
process) costs every new connection its whole deadline, and behind two of them nobody is ever reached. Alone
knows that an address can name several. Opens one connection and leaves no other behind.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from journal.tls import why_untrusted

_Asked: TypeAlias = "asyncio.Task[asyncpg.Connection[asyncpg.Record]]"

SILENCE_S = 2.0
"""When all the others have said no, the last ones get so long. Who is silent now may be the old primary, and
one of those that said no may be promoted any moment: so ask again, rather than wait."""


def addresses(dsn: str) -> list[str]:
    """The same address for each of its hosts alone. Hosts stand before the database (``config.database_tls``
    sees to it); an address without any, or with one, is answered as it is."""
    netloc = urlsplit(dsn).netloc
    login, at, hosts = netloc.rpartition("@")
    if "," not in hosts:
        return [dsn]
    return [dsn.replace(netloc, f"{login}{at}{host}", 1) for host in hosts.split(",")]


async def connect(dsn: str, **how: Any) -> asyncpg.Connection[asyncpg.Record]:
    """As ``asyncpg.connect``; of several hosts, the first that is what ``target_session_attrs`` asks for.
    Raises what one of them said, when none is: above all that it is not to be trusted."""
    one_by_one = addresses(dsn)
    if len(one_by_one) == 1:
        return await _connect(dsn, **how)
    asked = {asyncio.ensure_future(_connect(address, **how)) for address in one_by_one}
    waiting, failures = set(asked), list[BaseException]()
    try:
        while waiting:
            silence_s = SILENCE_S if len(waiting) < len(asked) else None
            answered, waiting = await asyncio.wait(
                waiting, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED
            )
            for one in answered:
                failure = one.exception()
                if failure is None:
                    asked.remove(one)
                    return one.result()
                failures.append(failure)
            if not answered:
                break
    finally:
        _let_go(asked)
    raise _most_telling(failures)


async def _connect(dsn: str, **how: Any) -> asyncpg.Connection[asyncpg.Record]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn, **how)
    return connection


def _let_go(asked: set[_Asked]) -> None:
    """Of those that were not chosen no connection stays open, also if it comes about only now."""
    for one in asked:
        one.cancel()
        one.add_done_callback(_terminate)


def _terminate(one: _Asked) -> None:
    if not one.cancelled() and one.exception() is None:
        one.result().terminate()


def _most_telling(failures: list[BaseException]) -> BaseException:
    """What needs an operator comes before what may pass: a refused certificate, a refused login."""

    def passing(failure: BaseException) -> int:
        if why_untrusted(failure) is not None:
            return 0
        return 1 if isinstance(failure, asyncpg.PostgresError) else 2

    return min(failures, key=passing) if failures else ConnectionError("no host of the address answered")
