"""What a check is, and how many of them are run: each by itself, each within a deadline.

A check is a function from what it looks at to a verdict, put on a list by its decorator:

    @HERE.check("Deployment", "rate limits are on")
    def rate_limits(at: Surroundings) -> Verdict:
        if at.settings.rate_limit_mode == "off":
            return failed("RATE_LIMIT_MODE=off", "unset RATE_LIMIT_MODE")
        return passed("RATE_LIMIT_MODE=enforce")

Neither evidence nor remedy may hold a secret: they are printed. What a check cannot find out is "cannot
tell", never a pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from typing import Generic, Literal, NamedTuple, TypeVar

import asyncpg
import trio

from config.certificates import CertificateError
from config.exposure import Exposed
from config.secret_sources import SecretsError
from journal.port import JournalError
from transport.client.errors import ClientError

Kind = Literal["pass", "FAIL", "warn", "cannot tell", "yours"]
Section = Literal["Deployment", "Operations", "Development", "Compliance"]
"""Of the guide's checklists."""
CHECK_DEADLINE_S = 20.0

T = TypeVar("T")
_UNSURE = (
    OSError,
    JournalError,
    SecretsError,
    CertificateError,
    Exposed,
    ClientError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
"""What may prevent a check from finding out. The texts of the driver's errors can hold values, so only ours
are shown."""
_OURS = (JournalError, SecretsError, CertificateError, Exposed, ClientError)


class Verdict(NamedTuple):
    kind: Kind
    evidence: str
    remedy: str = ""


class Finding(NamedTuple):
    section: Section
    item: str
    verdict: Verdict


def passed(evidence: str) -> Verdict:
    return Verdict("pass", evidence)


def failed(evidence: str, remedy: str) -> Verdict:
    return Verdict("FAIL", evidence, remedy)


def warned(evidence: str, remedy: str) -> Verdict:
    return Verdict("warn", evidence, remedy)


def unknown(evidence: str, remedy: str = "") -> Verdict:
    return Verdict("cannot tell", evidence, remedy)


class Check(NamedTuple, Generic[T]):
    section: Section
    item: str
    look: Callable[[T], Verdict | Awaitable[Verdict]]


class Checklist(Generic[T]):
    """Checks that look at the same kind of thing, in the order they were put here."""

    def __init__(self) -> None:
        self._checks: list[Check[T]] = []

    def __iter__(self) -> Iterator[Check[T]]:
        return iter(self._checks)

    def check(
        self, section: Section, item: str
    ) -> Callable[[Callable[[T], Verdict | Awaitable[Verdict]]], Callable[[T], Verdict | Awaitable[Verdict]]]:
        def put(
            look: Callable[[T], Verdict | Awaitable[Verdict]],
        ) -> Callable[[T], Verdict | Awaitable[Verdict]]:
            self._checks.append(Check(section, item, look))
            return look

        return put

    async def run(self, at: T) -> list[Finding]:
        return [Finding(check.section, check.item, await _verdict(check, at)) for check in self._checks]

    def cannot_tell(self, evidence: str) -> list[Finding]:
        """All of them, because what they look at is out of reach."""
        return [Finding(check.section, check.item, unknown(evidence)) for check in self._checks]


async def _verdict(check: Check[T], at: T) -> Verdict:
    try:
        with trio.fail_after(CHECK_DEADLINE_S):
            verdict = check.look(at)
            return await verdict if isawaitable(verdict) else verdict
    except trio.TooSlowError:
        return unknown(f"no answer within {CHECK_DEADLINE_S:.0f} s")
    except _UNSURE as error:
        return unknown(str(error) if isinstance(error, _OURS) else type(error).__name__)
