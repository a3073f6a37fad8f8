"""What a large group has to do is done in steps, and between them everybody else has a turn."""

from __future__ import annotations

import trio

from actors.messages import Seal, Sealed
from actors.right_of_way import LARGE_EVENTS
from tests.house.test_sealing_in_parts import appended_in_parts, many, numbers, sealed


class Steps(trio.abc.Instrument):
    """How many turns the sequencer's task had."""

    def __init__(self) -> None:
        self.count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "Sequencer.run" in task.name


async def steps_of(events: int) -> int:
    async def seal(message: Seal) -> Sealed:
        return sealed(message)

    steps = Steps()
    async with appended_in_parts(seal, 1) as (sequencer, _):
        trio.lowlevel.add_instrument(steps)
        answer = await sequencer.ask(many(events), deadline_s=10)
        trio.lowlevel.remove_instrument(steps)
    assert numbers(answer) == [(n, n) for n in range(1, events + 1)]
    return steps.count


async def test_a_large_group_gives_way_after_asking_deciding_sealing_and_writing() -> None:
    few = await steps_of(1)
    assert few > 0
    assert await steps_of(LARGE_EVENTS - 1) == few
    assert await steps_of(LARGE_EVENTS) == few + 4
