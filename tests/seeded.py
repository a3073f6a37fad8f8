"""Runs a scenario on Trio's seeded schedule and a clock that jumps: the same seed, the same interleaving.

Uses two private names of Trio (it has no public seed); ``test_the_same_seed_gives_the_same_schedule`` is the
canary that fails when a new Trio takes them away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio
import trio._core._run as trio_run
from trio.abc import Instrument
from trio.testing import MockClock

T = TypeVar("T")


def seeded_run(
    scenario: Callable[[], Awaitable[T]], seed: int, *, instruments: Sequence[Instrument] = ()
) -> T:
    """What ``scenario`` returns under the schedule of ``seed``; a failure names the seed."""
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    try:
        return trio.run(scenario, clock=MockClock(autojump_threshold=0), instruments=instruments)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio_run._r.setstate(state)
