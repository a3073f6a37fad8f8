"""Children by key: one life at a time, started by a letter, retired when idle, never a letter lost."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio
from inhabitants import QUICK, Boom, Echo, Echoer, Hang, alive, view
from trio.testing import wait_all_tasks_blocked

from actors.errors import NotNow, OutcomeUnknown, Stopping, TooManyChildren, Unavailable
from actors.mailbox import Inbox
from supervisor.dynamic import DynamicSupervisor
from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Supervisor


class Tenant:
    """Answers Echo; ``lives`` notes births and ends; dies and hangs when told."""

    def __init__(self, key: str, lives: list[str], farewell_s: float = 0.0) -> None:
        self.key, self.lives, self.farewell_s = key, lives, farewell_s

    async def run(self, inbox: Inbox) -> None:
        self.lives.append(f"+{self.key}")
        try:
            while True:
                letter = await inbox.take()
                match letter.message:
                    case Echo(n):
                        letter.answer(n)
                    case Boom(error):
                        raise RuntimeError(error)
                    case Hang():
                        await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.farewell_s)
            self.lives.append(f"-{self.key}")


def tenants(lives: list[str], **options) -> DynamicSupervisor[str]:
    farewell_s = options.pop("farewell_s", 0.0)
    settings = {"children_max": 10, "letters_max": 100, "idle_s": 60, "pauses": QUICK} | options
    return DynamicSupervisor("tenants", lambda key: Tenant(key, lives, farewell_s), **settings)


async def test_a_hundred_askers_at_once_meet_one_incarnation(autojump_clock):
    lives: list[str] = []
    house = tenants(lives)
    answers = []

    async def ask(n: int) -> None:
        answers.append(await house.ref("t").ask(Echo(n), deadline_s=5))

    async with alive(Supervisor("root", [house])):
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(ask, n)
        assert sorted(answers) == [*range(100)]
        assert lives == ["+t"]


async def test_an_address_alone_starts_nobody(autojump_clock):
    house = tenants([])
    async with alive(Supervisor("root", [house])):
        refs = [house.ref(str(n)) for n in range(1000)]
        assert len(refs) == 1000
        assert len(house) == 0


async def test_an_idle_child_is_retired_and_its_address_stays_good(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, idle_s=60)
    async with alive(Supervisor("root", [house])):
        ref = house.ref("t")
        assert await ref.ask(Echo(1), deadline_s=5) == 1
        await trio.sleep(59)
        assert len(house) == 1
        await trio.sleep(17)
        assert len(house) == 0
        assert lives == ["+t", "-t"]
        assert await ref.ask(Echo(2), deadline_s=5) == 2
        assert lives == ["+t", "-t", "+t"]


async def test_a_busy_child_is_not_retired(autojump_clock):
    lives: list[str] = []

    class Slow:
        def __init__(self, key: str) -> None: ...

        async def run(self, inbox: Inbox) -> None:
            lives.append("+")
            async with trio.open_nursery() as nursery:
                while True:
                    letter = await inbox.take()
                    nursery.start_soon(self._answer_later, letter)

        async def _answer_later(self, letter) -> None:
            await trio.sleep(500)
            letter.answer(letter.message.n)

    house = DynamicSupervisor("tenants", Slow, children_max=5, letters_max=5, idle_s=10)
    async with alive(Supervisor("root", [house])):
        assert await house.ref("t").ask(Echo(1), deadline_s=1000) == 1
        assert lives == ["+"]


async def test_a_letter_that_meets_a_parting_child_waits_for_the_next_life(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, idle_s=60, farewell_s=30)
    async with alive(Supervisor("root", [house])):
        ref = house.ref("t")
        await ref.ask(Echo(1), deadline_s=5)
        await trio.sleep(76)  # by now it was asked to go, and is saying farewell
        asked = trio.current_time()
        assert await ref.ask(Echo(2), deadline_s=100) == 2
        assert trio.current_time() - asked > 10
        assert lives == ["+t", "-t", "+t"]


def view_state(house: DynamicSupervisor[str], name: str) -> str:
    return next(child.state for child in house.view().children if child.name == name)


async def test_more_than_children_max_are_refused_and_a_retirement_makes_room(autojump_clock):
    house = tenants([], children_max=2, idle_s=60)
    async with alive(Supervisor("root", [house])):
        assert await house.ref("a").ask(Echo(1), deadline_s=5) == 1
        assert await house.ref("b").ask(Echo(1), deadline_s=5) == 1
        with pytest.raises(TooManyChildren):
            await house.ref("c").ask(Echo(1), deadline_s=5)
        with pytest.raises(TooManyChildren):
            house.ref("c").tell(Echo(1))
        assert await house.ref("a").ask(Echo(2), deadline_s=5) == 2
        await trio.sleep(80)
        assert await house.ref("c").ask(Echo(1), deadline_s=5) == 1


async def test_of_too_many_idle_children_the_longest_idle_are_retired_first(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, children_max=100, idle_s=1000, idle_max=3)
    async with alive(Supervisor("root", [house])):
        for n in range(8):
            assert await house.ref(f"t{n}").ask(Echo(1), deadline_s=5) == 1
            await trio.sleep(0.01)
        assert await house.ref("t0").ask(Echo(2), deadline_s=5) == 2  # idle for the shortest time now
        await trio.sleep(5)
        assert sorted(child.name for child in house.view().children) == ["t0", "t6", "t7"]
        await trio.sleep(500)
        assert len(house) == 3, "and these stay for as long as anybody may"


async def test_at_the_bound_the_idle_make_room_for_whoever_comes_again(autojump_clock):
    house = tenants([], children_max=2, idle_s=1000)
    async with alive(Supervisor("root", [house])):
        for name in ("a", "b"):
            assert await house.ref(name).ask(Echo(1), deadline_s=5) == 1
        with pytest.raises(TooManyChildren) as told:
            await house.ref("c").ask(Echo(1), deadline_s=5)
        await trio.sleep(told.value.retry_after_s)
        assert await house.ref("c").ask(Echo(1), deadline_s=5) == 1


async def test_a_child_that_dies_too_often_rests_alone_for_growing_times(autojump_clock):
    lives: list[str] = []
    rests = Pauses(first_s=10, growth=3, max_s=100, healthy_s=600)
    house = tenants(lives, intensity=2, period_s=10, rests=rests)
    root = Supervisor("root", [house], intensity=1)
    async with alive(root):
        bad, good = house.ref("bad"), house.ref("good")
        for rest_s in (10, 30, 90):
            for _ in range(3):
                with pytest.raises(OutcomeUnknown):
                    await bad.ask(Boom(), deadline_s=5)
                await wait_all_tasks_blocked()
            assert view_state(house, "bad") == "resting"
            with pytest.raises(Unavailable) as info:
                await bad.ask(Echo(1), deadline_s=5)
            assert info.value.retry_after_s == pytest.approx(rest_s, abs=1)
            assert await good.ask(Echo(1), deadline_s=5) == 1
            await trio.sleep(rest_s)
            assert await bad.ask(Echo(2), deadline_s=5) == 2
        assert lives.count("+good") == 1
        assert view(root, "root/tenants").restarts == 0
        assert view(root, "root/tenants/bad").last_error == "RuntimeError: boom"


async def test_letters_waiting_when_a_child_goes_to_rest_are_refused_at_once(autojump_clock):
    house = tenants([], intensity=0, period_s=10)
    heard = []

    async def ask(message) -> None:
        with pytest.raises(NotNow) as info:
            await house.ref("t").ask(message, deadline_s=1000)
        heard.append(type(info.value))

    async with alive(Supervisor("root", [house])):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, Boom())
            await wait_all_tasks_blocked(0)
            nursery.start_soon(ask, Boom())
            nursery.start_soon(ask, Echo(1))
        assert trio.current_time() - started < 100
        assert OutcomeUnknown in heard
        assert set(heard) <= {OutcomeUnknown, Unavailable}


async def test_losing_the_database_sends_no_child_to_rest(autojump_clock):
    births: list[float] = []

    class Lost:
        def __init__(self, key: str) -> None: ...

        async def run(self, inbox: Inbox) -> None:
            births.append(trio.current_time())
            if trio.current_time() - births[0] < 100:
                raise Unavailable("the database is away")
            letter = await inbox.take()
            letter.answer(letter.message.n)

    pauses = Pauses(first_s=1, max_s=8)
    house = DynamicSupervisor(
        "tenants", Lost, children_max=5, letters_max=5, idle_s=10, intensity=2, pauses=pauses
    )
    async with alive(Supervisor("root", [house])):
        assert await house.ref("t").ask(Echo(1), deadline_s=1000) == 1
        assert 12 < len(births) < 20


async def test_a_dead_child_without_letters_is_not_started_for_nothing(autojump_clock):
    lives: list[str] = []
    house = tenants(lives)
    async with alive(Supervisor("root", [house])):
        house.ref("t").tell(Boom())
        await trio.sleep(10)
        assert lives == ["+t", "-t"]
        assert view_state(house, "t") == "dormant"
        await trio.sleep(1000)
        assert len(house) == 0  # its trouble is forgotten too


async def test_a_child_that_leaves_by_itself_again_and_again_is_held_back(autojump_clock):
    class Quitter:
        def __init__(self, key: str) -> None: ...

        async def run(self, inbox: Inbox) -> None:
            return

    house = DynamicSupervisor("tenants", Quitter, children_max=5, letters_max=5, idle_s=10, intensity=2)
    async with alive(Supervisor("root", [house])):
        with pytest.raises(Unavailable):
            await house.ref("t").ask(Echo(1), deadline_s=1000)


async def test_closing_the_house_drains_all_children_at_once(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, shutdown_s=7)
    answers: list[object] = []

    async def ask(key: str, message) -> None:
        try:
            answers.append(await house.ref(key).ask(message, deadline_s=100))
        except NotNow as error:
            answers.append(type(error))

    root = Supervisor("root", [house])
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        for message in (Echo(1), Hang(), Echo(2)):
            for key in "abc":
                nursery.start_soon(ask, key, message)
            await wait_all_tasks_blocked()
        started = trio.current_time()
        root.stop()
        await wait_all_tasks_blocked()
        with pytest.raises(Stopping):
            house.ref("a").tell(Echo(1))
        with pytest.raises(Stopping):
            house.ref("z").tell(Echo(1))
    assert trio.current_time() - started == pytest.approx(7)
    assert answers.count(1) == 3
    assert answers.count(OutcomeUnknown) == 3
    assert answers.count(Stopping) == 3
    assert len(house) == 0


async def test_children_and_their_letters_survive_a_group_restart_of_their_supervisor(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, shutdown_s=2)
    from inhabitants import address

    mailbox, other = address("other")
    root = Supervisor(
        "root",
        [ChildSpec(name="other", factory=Echoer, mailbox=mailbox), house],
        strategy="one_for_all",
        pauses=QUICK,
    )
    answers = []

    async def ask(n: int) -> None:
        answers.append(await house.ref("t").ask(Echo(n), deadline_s=100))

    async with alive(root), trio.open_nursery() as nursery:
        house.ref("t").tell(Hang())
        await wait_all_tasks_blocked()
        for n in range(3):
            nursery.start_soon(ask, n)
        await wait_all_tasks_blocked()
        other.tell(Boom())
    assert sorted(answers) == [0, 1, 2]
    assert lives[:3] == ["+t", "-t", "+t"]


async def test_operators_kill_and_restart_a_child_by_its_name(autojump_clock):
    lives: list[str] = []
    house = tenants(lives)
    root = Supervisor("root", [house])
    async with alive(root):
        ref = house.ref("t")
        for order in (root.kill, root.restart_child_at):
            assert await ref.ask(Echo(1), deadline_s=5) == 1
            order("root/tenants/t")
            await trio.sleep(1)
        assert await ref.ask(Echo(1), deadline_s=5) == 1
        assert lives == ["+t", "-t", "+t", "-t", "+t"]
        with pytest.raises(LookupError):
            root.kill("root/tenants/nobody")


async def test_a_restart_during_a_pause_makes_one_life_not_two(autojump_clock):
    lives: list[str] = []
    house = tenants(lives, pauses=Pauses(first_s=5, growth=1))
    root = Supervisor("root", [house])
    answers = []

    async def ask() -> None:
        answers.append(await house.ref("t").ask(Echo(1), deadline_s=60))

    async with alive(root), trio.open_nursery() as nursery:
        house.ref("t").tell(Boom())
        await trio.sleep(1)
        nursery.start_soon(ask)
        await trio.sleep(1)
        assert view_state(house, "t") == "pausing"
        root.restart_child_at("root/tenants/t")
        await trio.sleep(1)
        house.ref("t").tell(Echo(2))
        await trio.sleep(10)
        assert answers == [1]
        assert lives == ["+t", "-t", "+t"]


@pytest.mark.slow
async def test_ten_thousand_children_touched_once_cost_less_than_a_hundred_megabytes():
    house: DynamicSupervisor[int] = DynamicSupervisor(
        "tenants",
        lambda _key: Echoer(),
        children_max=10_000,
        letters_max=64,
        idle_s=3600,
        idle_max=10_000,
    )
    async with trio.open_nursery() as nursery:
        root = Supervisor("root", [house])
        await nursery.start(root.run)
        gc.collect()
        before = _resident_bytes()
        for key in range(10_000):
            await house.ref(key).ask(Echo(key), deadline_s=5)
        gc.collect()
        assert len(house) == 10_000
        assert (_resident_bytes() - before) / 1e6 < 100
        root.stop()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
