"""The anchor is killed at each named point, by hand, stopped and revived; two of them; its signer dies."""

from __future__ import annotations

import os
import signal

import pytest

from tests.attacks.world import World
from tests.sweeps import with_some

pytestmark = pytest.mark.slow

STEPS_OF_A_UNIT = ("begin", "commit_sent_before", "committed")
UNITS = ("anchor_refill", "anchor_lease", "anchor_plan", "anchor_transaction", "anchor_move")
POINTS = [
    *(f"anchor.{name}" for name in ("claimed", "planned", "signed", "written", "sent", "submitted")),
    *(f"anchor.{name}" for name in ("included", "safe", "finalized")),
    *(f"{unit}.{step}" for unit in UNITS for step in STEPS_OF_A_UNIT),
]


OF_COMMANDS = [f"{unit}.{step}" for unit in ("anchor_audit", "anchor_resume") for step in STEPS_OF_A_UNIT]
OF_THE_ANCHOR = [*POINTS, "anchor.replacing", *OF_COMMANDS]


EACH_TIME = ("anchor.written", "anchor_move.committed")


@pytest.mark.parametrize("point", with_some(POINTS, EACH_TIME.__contains__))
def test_an_anchor_killed_at_any_point_anchors_once(world: World, point: str) -> None:
    world.anchor.kill_9()
    batch = world.commit(world.tenant())
    world.anchor.start(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point)
    world.until(lambda: world.anchor.ended() is not None)
    assert world.anchor.ended() == -signal.SIGKILL
    world.anchor.start()
    world.verdict(batch)
    assert world.never_went_back(batch)


def test_an_anchor_killed_while_it_replaces_replaces_again(world: World) -> None:
    world.anchor.kill_9()
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.anchor.start(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT="anchor.replacing")
        world.until(lambda: world.anchor.ended() is not None)
        nonce = world.transactions()[-1]["nonce"]
        world.anchor.start()
        world.until(lambda: len([t for t in world.transactions() if t["nonce"] == nonce]) >= 2)
    world.verdict(batch)


@pytest.mark.parametrize("point", with_some(OF_COMMANDS, "anchor_resume.committed".__eq__))
def test_a_command_killed_at_any_point_is_given_again(world: World, point: str) -> None:
    """It goes on where the chain stands anyway: said twice it is no more than said once."""
    world.verdict(world.commit(world.tenant()))
    world.anchor.stop()
    words = ("key", "--check")
    if point.startswith("anchor_resume"):
        words = ("resume", "--next-nonce", str(world.nonce()), "--reason", "tried")
    killed = world.anchor.command(*words, SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = world.anchor.command(*words)
    assert again.returncode == 0, again.stderr
    world.anchor.start()
    world.verdict(world.commit(world.tenant()))


def test_of_two_anchors_one_works_and_the_other_takes_over_when_it_dies(world: World) -> None:
    world.verdict(world.commit(world.tenant()))
    other = world.another_anchor("heir").start()
    world.says("role", other)
    first = world.commit(world.tenant())
    world.verdict(first)
    assert not other.said("claimed the lease")
    world.anchor.kill_9()
    second = world.commit(world.tenant())
    world.says("claimed the lease", other)
    world.verdict(first, second)


def test_an_anchor_that_was_asleep_while_another_took_over_writes_nothing(world: World) -> None:
    world.verdict(world.commit(world.tenant()))
    other = world.another_anchor("awake").start()
    first = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(first, "submitted")
        world.anchor.signal(signal.SIGSTOP)
        second = world.commit(world.tenant())
        world.says("claimed the lease", other)
        world.anchor.signal(signal.SIGCONT)
    world.verdict(first, second)
    epochs = world.sql("SELECT DISTINCT lease_epoch FROM record.anchor_transitions ORDER BY 1")
    assert len(epochs) >= 2


def test_a_second_anchor_on_the_same_folder_is_refused(world: World) -> None:
    twin = world.another_anchor("twin")
    twin.environment["DATA_DIR"] = str(world.anchor.data_dir)
    twin.start()
    world.until(lambda: twin.ended() is not None)
    assert twin.ended() == 1
    assert twin.said("another process anchors on")


def test_a_signing_process_that_is_killed_is_replaced(world: World) -> None:
    batch = world.commit(world.tenant())
    world.until(lambda: bool(world.signers()))
    for pid in world.signers():
        os.kill(pid, signal.SIGKILL)
    again = world.commit(world.tenant())
    world.verdict(batch, again)
