"""A start while the database comes and goes: what may be tried again is, and not for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from trio.testing import MockClock

from journal.port import JournalAway, JournalError, JournalOutcomeUnknown
from supervisor.main import StartRefused, patiently


def failing(*errors: JournalError) -> Callable[[], Awaitable[str]]:
    """A unit that raises these in turn, then answers."""
    waiting = list(errors)

    async def unit() -> str:
        if waiting:
            raise waiting.pop(0)
        return "done"

    return unit


@pytest.mark.parametrize("error", [JournalAway("no connection"), JournalOutcomeUnknown("lost at COMMIT")])
async def test_a_unit_of_the_start_is_tried_again_while_the_database_is_away_or_silent(
    autojump_clock: MockClock, error: JournalError
) -> None:
    assert await patiently(failing(error, error)) == "done"


async def test_a_database_that_stays_away_is_a_refused_start_with_its_reason(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(StartRefused, match="did not answer within 60 s: no connection"):
        await patiently(failing(*[JournalAway("no connection")] * 100))


async def test_what_waiting_does_not_help_is_not_waited_for(autojump_clock: MockClock) -> None:
    with pytest.raises(JournalError, match="another schema"):
        await patiently(failing(JournalError("another schema")))
