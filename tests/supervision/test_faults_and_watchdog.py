"""Armed points do what they say, when they say; a held event loop is measured and its holder named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import trio
from inhabitants import Echo, address, alive

from actors.faults import (
    Fault,
    InjectedFault,
    arm_from_environment,
    armed,
    checkpoint,
    checkpoint_or_wait,
    disarm_all,
    reached,
)
from actors.mailbox import Inbox
from actors.vitals import LoopLag
from supervisor.supervisor import ChildSpec, Supervisor
from supervisor.watchdog import Watchdog


async def test_an_armed_point_fails_at_its_count_and_others_never():
    checkpoint("journal.copied")
    with armed({"journal.copied": Fault("crash", nth=2, times=2)}):
        checkpoint("elsewhere")
        checkpoint("journal.copied")
        for _ in range(2):
            with pytest.raises(InjectedFault, match=r"at journal\.copied"):
                await checkpoint_or_wait("journal.copied")
        checkpoint("journal.copied")
        assert reached("journal.copied") == 4
    checkpoint("journal.copied")
    assert reached("journal.copied") == 0


async def test_a_delay_waits_where_it_can(autojump_clock):
    with armed({"slow": Fault("delay", delay_s=3)}):
        started = trio.current_time()
        await checkpoint_or_wait("slow")
        assert trio.current_time() - started == pytest.approx(3)


def crash_at(environ: dict[str, str]) -> int:
    code = (
        "import os; from actors.faults import *; arm_from_environment(os.environ)\n"
        "for _ in range(3): checkpoint('here'); print('passed', flush=True)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environ, capture_output=True, timeout=30, check=False
    )
    return process.returncode if process.returncode else process.stdout.count(b"passed")


def test_the_environment_kills_the_process_only_when_faults_are_allowed():
    assert crash_at({"SEQUENCER_CRASH_AT": "here"}) == 3
    assert crash_at({"SEQUENCER_CRASH_AT": "here:3", "SEQUENCER_FAULTS": "1"}) == -signal.SIGKILL
    assert crash_at({"SEQUENCER_CRASH_AT": "here:4", "SEQUENCER_FAULTS": "1"}) == 3


def test_a_mistyped_count_is_refused():
    for wanted in ("here:0", "here:x"):
        with pytest.raises(ValueError):
            arm_from_environment({"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": wanted})
    disarm_all()


def grind(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class _Hog:
    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            grind(0.5)
            letter.answer(letter.message.n)


async def test_the_watchdog_names_the_actor_that_held_the_loop_and_the_line():
    lag = LoopLag()
    mailbox, ref = address("hog")
    root = Supervisor(
        "house",
        [
            ChildSpec(name="watchdog", factory=lambda: Watchdog(lag, interval_s=0.02, alarm_s=0.1)),
            ChildSpec(name="hog", factory=_Hog, mailbox=mailbox),
        ],
    )
    async with alive(root):
        await trio.sleep(0.1)
        assert await ref.ask(Echo(1), deadline_s=5) == 1
        await trio.sleep(0.1)
        assert lag.last_hog is not None
        assert lag.last_hog.startswith("house/hog at ")
        assert lag.last_hog.endswith("grind")
        assert lag.take_peak() > 0.3
        assert lag.take_peak() == 0.0
