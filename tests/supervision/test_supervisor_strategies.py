"""Who comes back, with whom and in which order: every strategy with every kind of child."""

from __future__ import annotations

import pytest
import trio
from inhabitants import QUICK, Boom, Diarist, Echo, Hang, address, alive, view
from trio.testing import wait_all_tasks_blocked

from actors.errors import OutcomeUnknown, Stopping, Unavailable
from actors.mailbox import Inbox
from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Pool, Supervisor


def three(diary: list[str], strategy: str, restarts: dict[str, str] | None = None, **options):
    """a, b, c in this order, all writing one diary, and their addresses."""
    restarts = restarts or {}
    boxes, refs, specs = {}, {}, []
    for name in "abc":
        boxes[name], refs[name] = address(name)
        specs.append(
            ChildSpec(
                name=name,
                factory=lambda name=name: Diarist(name, diary),
                mailbox=boxes[name],
                restart=restarts.get(name, "permanent"),
                **options,
            )
        )
    return Supervisor("house", specs, strategy=strategy, pauses=QUICK), refs


async def kill_with_letter(ref) -> None:
    with pytest.raises(OutcomeUnknown):
        await ref.ask(Boom(), deadline_s=5)
    await trio.sleep(1)


AFTER_B_DIED = {
    "one_for_one": ["-b", "+b"],
    "rest_for_one": ["-b", "-c", "+b", "+c"],
    "one_for_all": ["-b", "-c", "-a", "+a", "+b", "+c"],
}


@pytest.mark.parametrize("strategy", AFTER_B_DIED)
async def test_a_crash_restarts_those_the_strategy_names_in_order(strategy, autojump_clock):
    diary: list[str] = []
    root, refs = three(diary, strategy)
    async with alive(root):
        assert diary == ["+a", "+b", "+c"]
        diary.clear()
        await kill_with_letter(refs["b"])
        assert diary == AFTER_B_DIED[strategy]
        for name, ref in refs.items():
            assert await ref.ask(Echo(ord(name)), deadline_s=5) == ord(name)


@pytest.mark.parametrize("strategy", AFTER_B_DIED)
@pytest.mark.parametrize(
    ("restart", "crash_brings_back", "return_brings_back"),
    [("permanent", True, True), ("transient", True, False), ("temporary", False, False)],
)
async def test_a_child_comes_back_according_to_its_kind(
    strategy, restart, crash_brings_back, return_brings_back, autojump_clock
):
    for how, expected in ((Boom(), crash_brings_back), (Echo(-1), return_brings_back)):
        diary: list[str] = []
        root, refs = three(diary, strategy, {"b": restart})
        async with alive(root):
            diary.clear()
            with pytest.raises(OutcomeUnknown):
                await refs["b"].ask(how, deadline_s=5)
            await trio.sleep(1)
            assert diary == (AFTER_B_DIED[strategy] if expected else ["-b"])
            assert view(root, "house/b").state == ("running" if expected else "ended")
            if not expected:
                with pytest.raises(Unavailable):
                    await refs["b"].ask(Echo(1), deadline_s=5)


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_a_temporary_sibling_is_stopped_with_its_group_and_stays_away(strategy, autojump_clock):
    diary: list[str] = []
    root, refs = three(diary, strategy, {"c": "temporary"})
    async with alive(root):
        diary.clear()
        await kill_with_letter(refs["b"])
        assert diary.count("-c") == 1
        assert "+c" not in diary
        with pytest.raises(Unavailable):
            refs["c"].tell(Echo(1))


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_a_transient_sibling_that_had_finished_starts_again_with_its_group(strategy, autojump_clock):
    diary: list[str] = []
    root, refs = three(diary, strategy, {"c": "transient"})
    async with alive(root):
        with pytest.raises(OutcomeUnknown):
            await refs["c"].ask(Echo(-1), deadline_s=5)
        await trio.sleep(1)
        assert view(root, "house/c").state == "ended"
        await kill_with_letter(refs["b"])
        assert await refs["c"].ask(Echo(3), deadline_s=5) == 3


async def test_letters_that_wait_survive_a_group_restart(autojump_clock):
    diary: list[str] = []
    root, refs = three(diary, "one_for_all", shutdown_s=2)
    answers = []

    async def ask(n: int) -> None:
        answers.append(await refs["c"].ask(Echo(n), deadline_s=60))

    async with alive(root), trio.open_nursery() as nursery:
        refs["c"].tell(Hang())  # holds c until its stop becomes a cancel
        await wait_all_tasks_blocked()
        for n in range(4):
            nursery.start_soon(ask, n)
        await wait_all_tasks_blocked()
        refs["a"].tell(Boom())
    assert sorted(answers) == [0, 1, 2, 3]


class _SlowStarter:
    def __init__(self, name: str, diary: list[str], start_s: float) -> None:
        self.name, self.diary, self.start_s = name, diary, start_s

    async def run(self, inbox: Inbox) -> None:
        self.diary.append(f"+{self.name}")
        await trio.sleep(self.start_s)
        self.diary.append(f"{self.name} ready")
        inbox.ready()
        await inbox.until_stop()


async def test_children_that_declare_readiness_hold_back_those_after_them(autojump_clock):
    diary: list[str] = []
    root = Supervisor(
        "house",
        [
            ChildSpec(name="slow", factory=lambda: _SlowStarter("slow", diary, 3), declares_ready=True),
            Supervisor(
                "inner",
                [ChildSpec(name="mid", factory=lambda: _SlowStarter("mid", diary, 2), declares_ready=True)],
            ),
            ChildSpec(name="last", factory=lambda: Diarist("last", diary)),
        ],
    )
    async with alive(root):
        assert diary == ["+slow", "slow ready", "+mid", "mid ready", "+last"]
        assert root.ready


async def test_a_start_that_takes_too_long_counts_as_a_death(autojump_clock):
    diary: list[str] = []
    waits = iter([100.0, 0.5])
    spec = ChildSpec(
        name="slow", factory=lambda: _SlowStarter("slow", diary, next(waits)), declares_ready=True, start_s=5
    )
    root = Supervisor("house", [spec])
    started = trio.current_time()
    async with alive(root):
        assert trio.current_time() - started == pytest.approx(5.55)
        assert view(root, "house/slow").restarts == 1
        assert view(root, "house/slow").last_error == "not ready within 5 s"


async def test_stopping_goes_in_reverse_and_cancels_only_whoever_takes_too_long(autojump_clock):
    diary: list[str] = []
    root, refs = three(diary, "one_for_one", shutdown_s=4)
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        refs["b"].tell(Hang())
        await wait_all_tasks_blocked()
        diary.clear()
        started = trio.current_time()
        root.stop()
    assert diary == ["-c", "-b", "-a"]
    assert trio.current_time() - started == pytest.approx(4)


async def test_a_drain_handles_what_was_accepted_and_refuses_what_comes_later(autojump_clock):
    answers: list[object] = []
    mailbox, ref = address("worker")

    class Worker:
        async def run(self, inbox: Inbox) -> None:
            while True:
                letter = await inbox.take()
                await trio.sleep(1)
                letter.answer(letter.message.n)

    async def ask(n: int) -> None:
        try:
            answers.append(await ref.ask(Echo(n), deadline_s=60))
        except (Stopping, OutcomeUnknown) as error:
            answers.append(type(error).__name__)

    root = Supervisor("house", [ChildSpec(name="worker", factory=Worker, mailbox=mailbox, shutdown_s=3.5)])
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        for n in range(6):
            nursery.start_soon(ask, n)
        await wait_all_tasks_blocked()
        root.stop()
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, 99)
    assert answers[0] == "Stopping"  # the one that came later, at once
    # Three were handled in time, one was in hand at the deadline, two certainly not begun.
    refused = sorted(answer for answer in answers if isinstance(answer, str))
    assert refused == ["OutcomeUnknown", "Stopping", "Stopping", "Stopping"]
    assert len(answers) == 7


async def test_a_pool_shares_its_letters_and_each_reader_is_restarted_alone(autojump_clock):
    class Reader:
        async def run(self, inbox: Inbox) -> None:
            while True:
                letter = await inbox.take()
                assert not isinstance(letter.message, Boom)
                await trio.sleep(1)
                letter.answer(int(inbox.name))

    pool = Pool("pool", 3, Reader, 100, pauses=QUICK)
    root = Supervisor("house", [pool])
    who: list[int] = []

    async def ask() -> None:
        who.append(await pool.ref.ask(Echo(0), deadline_s=60))

    async with alive(root):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask)
        assert sorted(who) == [0, 0, 1, 1, 2, 2]
        assert trio.current_time() - started == pytest.approx(2)
        await kill_with_letter(pool.ref)
        seen = view(root, "house/pool")
        assert sorted(reader.restarts for reader in seen.children) == [0, 0, 1]
        assert sum(reader.handled for reader in seen.children) == 6
        assert seen.mailbox is not None
        assert seen.mailbox.letters_max == 100


async def test_a_stuck_pool_stops_within_one_deadline_not_one_per_reader(autojump_clock):
    pool = Pool("pool", 4, lambda: Diarist("r", []), 100, shutdown_s=3)
    root = Supervisor("house", [pool])
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        for _ in range(4):
            pool.ref.tell(Hang())
        await wait_all_tasks_blocked()
        started = trio.current_time()
        root.stop()
    assert trio.current_time() - started == pytest.approx(3)


def test_names_and_intensities_that_could_not_work_are_refused():
    spec = ChildSpec(name="a", factory=lambda: Diarist("a", []))
    with pytest.raises(ValueError, match="same name"):
        Supervisor("house", [spec, spec])
    with pytest.raises(ValueError, match="name in the tree"):
        Supervisor("house", [ChildSpec(name="a/b", factory=spec.factory)])
    with pytest.raises(ValueError, match="never be exceeded"):
        Supervisor("house", [spec], intensity=5, period_s=3, pauses=Pauses(first_s=1, max_s=1))
    inner = Supervisor("inner", [spec])
    Supervisor("house", [inner])
    with pytest.raises(ValueError, match="already belongs"):
        Supervisor("other", [inner])
