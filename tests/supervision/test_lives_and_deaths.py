"""Intensity and escalation, pauses between lives, what callers hear of deaths, and what operators see."""

from __future__ import annotations

import contextvars
import itertools
import random
from contextlib import suppress
from typing import ClassVar

import msgspec
import pytest
import trio
from inhabitants import (
    QUICK,
    Boom,
    BoomAgain,
    Diarist,
    Echo,
    EchoAgain,
    Echoer,
    Hang,
    address,
    alive,
    view,
)
from trio.testing import wait_all_tasks_blocked

from actors.errors import NotNow, OutcomeUnknown, Poisoned, Stopping, Unavailable
from actors.mailbox import EndOfLife, Inbox
from supervisor.branch import GaveUp
from supervisor.incarnation import judge
from supervisor.policy import Intensity, Pauses
from supervisor.supervisor import ChildSpec, Pool, Supervisor


class Dying:
    """Dies ``after_s`` seconds into each life; notes when each began."""

    def __init__(self, births: list[float], after_s: float = 0.0, error: Exception | None = None) -> None:
        self.births, self.after_s, self.error = births, after_s, error or KeyError("x")

    async def run(self, inbox: Inbox) -> None:
        self.births.append(trio.current_time())
        await trio.sleep(self.after_s)
        raise self.error


def only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        [group] = group.exceptions
    return group


async def test_too_many_deaths_leave_the_root_as_one_error_that_names_the_last_one(autojump_clock):
    births: list[float] = []
    root = Supervisor(
        "house", [ChildSpec(name="d", factory=lambda: Dying(births))], intensity=3, period_s=10, pauses=QUICK
    )
    with pytest.raises(
        GaveUp, match="house gave up: more than 3 deaths in 10 s, the last of d: KeyError"
    ) as info:
        await root.run()
    assert isinstance(info.value.__cause__, KeyError)
    assert len(births) == 4


async def test_deaths_spread_over_more_than_the_period_go_on_for_ever(autojump_clock):
    births: list[float] = []
    spec = ChildSpec(name="d", factory=lambda: Dying(births, after_s=4))
    root = Supervisor("house", [spec], intensity=3, period_s=10, pauses=QUICK)
    async with alive(root):
        await trio.sleep(400)
        assert len(births) > 90


def test_the_intensity_counts_deaths_within_the_period_only():
    intensity = Intensity(2, 10.0)
    assert [intensity.exceeded_by_death_at(t) for t in (0, 5, 10, 12, 14)] == [
        False,
        False,
        False,
        True,
        True,
    ]


async def test_escalation_multiplies_through_nested_supervisors(autojump_clock):
    births: list[float] = []
    inner = Supervisor(
        "inner", [ChildSpec(name="d", factory=lambda: Dying(births))], intensity=2, period_s=10, pauses=QUICK
    )
    diary: list[str] = []
    root = Supervisor(
        "house",
        [ChildSpec(name="first", factory=lambda: Diarist("first", diary)), inner],
        intensity=1,
        period_s=10,
        pauses=QUICK,
    )
    with pytest.raises(GaveUp, match="house gave up") as info:
        await root.run()
    assert isinstance(info.value.__cause__, GaveUp)
    assert isinstance(info.value.__cause__.__cause__, KeyError)
    assert len(births) == (2 + 1) * (1 + 1)
    assert diary == ["+first", "-first"]


async def test_a_nested_supervisor_that_gave_up_comes_back_with_its_letters(autojump_clock):
    mailbox, ref = address("echo")
    diary: list[str] = []
    inner = Supervisor(
        "inner",
        [
            ChildSpec(name="echo", factory=Echoer, mailbox=mailbox),
            ChildSpec(name="other", factory=lambda: Diarist("other", diary)),
        ],
        intensity=1,
        period_s=10,
        pauses=QUICK,
    )
    root = Supervisor("house", [inner], pauses=QUICK)
    async with alive(root):
        for _ in range(2):
            ref.tell(Boom())
        assert await ref.ask(Echo(1), deadline_s=60) == 1
        await trio.sleep(0.1)
        seen = view(root, "house/inner")
        assert (seen.incarnation, seen.restarts) == (2, 1)
        assert diary == ["+other", "-other", "+other"]
        assert root.ready


async def test_pauses_grow_to_their_bound_and_start_anew_after_a_healthy_life(autojump_clock):
    births: list[float] = []
    lives = iter([0.0, 0.0, 0.0, 0.0, 100.0, 0.0, 0.0])
    pauses = Pauses(first_s=1, growth=2, max_s=4, healthy_s=50)
    root = Supervisor(
        "house",
        [ChildSpec(name="d", factory=lambda: Dying(births, after_s=next(lives, 1000.0)))],
        intensity=20,
        period_s=10_000,
        pauses=pauses,
    )
    async with alive(root):
        await trio.sleep(300)
        gaps = [later - earlier for earlier, later in itertools.pairwise(births)]
        assert gaps == pytest.approx([1, 2, 4, 4, 101, 2, 4])


async def test_a_long_pause_holds_up_nobody_else(autojump_clock):
    dead, dead_ref = address("dead")
    box, ref = address("quick")
    diary: list[str] = []
    root = Supervisor(
        "house",
        [
            ChildSpec(name="dead", factory=Echoer, mailbox=dead),
            ChildSpec(name="quick", factory=lambda: Diarist("quick", diary), mailbox=box),
        ],
        intensity=5,
        period_s=1000,
        pauses=Pauses(first_s=1, growth=100, max_s=100),
    )
    async with alive(root):
        for _ in range(2):
            dead_ref.tell(Boom())
            await trio.sleep(2)
        assert view(root, "house/dead").state == "pausing"
        ref.tell(Boom())
        await wait_all_tasks_blocked()
        started = trio.current_time()
        assert await ref.ask(Echo(2), deadline_s=300) == 2
        assert trio.current_time() - started == pytest.approx(1)
        assert view(root, "house/dead").state == "pausing"
        assert await dead_ref.ask(Echo(1), deadline_s=300) == 1
        assert trio.current_time() - started == pytest.approx(99, abs=1)


async def test_losing_a_dependency_is_no_death_for_the_intensity_but_pauses_grow(autojump_clock):
    births: list[float] = []
    away = Unavailable("the database is away")
    root = Supervisor(
        "house",
        [ChildSpec(name="d", factory=lambda: Dying(births, error=away))],
        intensity=1,
        period_s=1000,
        pauses=Pauses(first_s=1, max_s=8),
    )
    async with alive(root):
        await trio.sleep(100)
        gaps = [later - earlier for earlier, later in itertools.pairwise(births)]
        assert gaps[:5] == pytest.approx([1, 2, 4, 8, 8])
        assert view(root, "house/d").last_error == "Unavailable: the database is away"


def test_a_group_of_errors_is_what_its_worst_member_is():
    end, away, bug = EndOfLife(), OutcomeUnknown("?"), KeyError("x")
    assert judge(ExceptionGroup("g", [end])).kind == "asked"
    assert judge(ExceptionGroup("g", [end, ExceptionGroup("h", [away])])).kind == "not_now"
    worst = judge(ExceptionGroup("g", [end, away, bug]))
    assert worst.kind == "crashed"
    assert worst.text == "KeyError: 'x'"
    assert judge(ExceptionGroup("g", [ExceptionGroup("h", [bug])])).error is bug


class _WithNursery:
    """Takes its letters inside a nursery, as actors with helpers do."""

    async def run(self, inbox: Inbox) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            while True:
                letter = await inbox.take()
                if isinstance(letter.message, Boom):
                    nursery.start_soon(self._fail)
                    await trio.sleep_forever()
                letter.answer(letter.message.n)

    async def _fail(self) -> None:
        raise KeyError("in a helper")


async def test_an_actor_with_a_nursery_stops_quietly_and_dies_with_its_helper(autojump_clock):
    mailbox, ref = address("n")
    root = Supervisor("house", [ChildSpec(name="n", factory=_WithNursery, mailbox=mailbox)], pauses=QUICK)
    async with alive(root):
        with pytest.raises(OutcomeUnknown):
            await ref.ask(Boom(), deadline_s=5)
        assert await ref.ask(Echo(1), deadline_s=5) == 1
        assert view(root, "house/n").last_error == "KeyError: 'in a helper'"
        started = trio.current_time()
    assert trio.current_time() == started


async def test_an_actor_that_fails_while_being_cancelled_is_still_only_one_death(autojump_clock):
    class Clumsy:
        async def run(self, inbox: Inbox) -> None:
            try:
                await inbox.take()
            finally:
                raise KeyError("while cleaning up")

    mailbox, _ref = address("clumsy")
    root = Supervisor("house", [ChildSpec(name="clumsy", factory=Clumsy, mailbox=mailbox)], pauses=QUICK)
    async with alive(root):
        root.kill("house/clumsy")
        await trio.sleep(1)
        seen = view(root, "house/clumsy")
        assert seen.incarnation == 2
        assert seen.last_error == "KeyError: 'while cleaning up'"


async def test_an_actor_whose_helper_fails_while_the_house_is_cancelled_ends_only_itself(autojump_clock):
    class Messy:
        async def run(self, inbox: Inbox) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fail)
                nursery.start_soon(trio.sleep_forever)

        async def _fail(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("while cleaning up")

    root = Supervisor("house", [ChildSpec(name="messy", factory=Messy)], pauses=QUICK)
    with trio.move_on_after(5) as scope:  # the house is cancelled from outside
        await root.run()
    assert scope.cancelled_caught
    assert view(root, "house/messy").incarnation == 1
    assert root.place_of("messy").incarnation.ended.text == "KeyError: 'while cleaning up'"


async def test_a_letter_that_kills_twice_becomes_a_dead_letter_and_its_neighbours_are_answered(
    autojump_clock,
):
    pool = Pool("pool", 1, _GroupEchoer, 100, pauses=QUICK)
    root = Supervisor("house", [pool])
    heard: list[object] = []

    async def ask(message) -> None:
        try:
            heard.append(await pool.ref.ask(message, deadline_s=60))
        except Poisoned as error:
            heard.append(str(error))

    async with alive(root):
        async with trio.open_nursery() as nursery:
            for message in (EchoAgain(1), BoomAgain(), EchoAgain(2)):
                nursery.start_soon(ask, message)
        reason = "2 lives of pool ended with it in hand; last: RuntimeError: boom again"
        assert sorted(heard, key=str) == [1, 2, reason]
        look = root.look()
        assert [(dead.message, dead.reason) for dead in look.dead_letters] == [("BoomAgain", reason)]
        assert look.dead_letters_total == 1
        await trio.sleep(1)
        assert view(root, "house/pool/0").restarts == 2
        msgspec.json.encode(look)  # what an operator's page is made of


class _GroupEchoer:
    """Takes groups and dies of a bad letter before it answers any."""

    async def run(self, inbox: Inbox) -> None:
        while True:
            group = await inbox.take_group(letters_max=10)
            await trio.sleep(0.1)
            if any(isinstance(letter.message, BoomAgain) for letter in group):
                raise RuntimeError("boom again")
            for letter in group:
                letter.answer(letter.message.n)


async def test_killing_actors_under_load_leaves_no_ask_hanging_and_none_wrongly_answered(autojump_clock):
    chance = random.Random(1)
    plain, plain_ref = address("plain", letters_max=20)
    pool = Pool("pool", 3, lambda: Echoer(work_s=0.01), 20, pauses=QUICK, intensity=1000, period_s=1000)
    root = Supervisor(
        "house",
        [ChildSpec(name="plain", factory=lambda: Echoer(work_s=0.01), mailbox=plain), pool],
        intensity=1000,
        period_s=1000,
        pauses=QUICK,
    )
    outcomes: dict[str, int] = {}

    async def client(number: int) -> None:
        for step in range(40):
            n = number * 1000 + step
            ref, message = [(plain_ref, Echo(n)), (pool.ref, EchoAgain(n))][chance.randrange(2)]
            started = trio.current_time()
            try:
                assert await ref.ask(message, deadline_s=5) == n
                outcome = "answered"
            except NotNow as error:
                outcome = type(error).__name__
            assert trio.current_time() - started <= 5.001
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            await trio.sleep(chance.random() * 0.2)

    async def adversary() -> None:
        while True:
            await trio.sleep(chance.random() * 0.1)
            name = chance.choice(["house/plain", "house/pool/0", "house/pool/1", "house/pool/2"])
            with suppress(LookupError):  # between two lives
                (root.kill if chance.random() < 0.7 else root.restart_child_at)(name)

    async with alive(root), trio.open_nursery() as nursery:
        nursery.start_soon(adversary)
        async with trio.open_nursery() as clients:
            for number in range(50):
                clients.start_soon(client, number)
        nursery.cancel_scope.cancel()
    assert sum(outcomes.values()) == 2000
    assert outcomes["answered"] > 1000
    assert outcomes["OutcomeUnknown"] > 10
    assert set(outcomes) <= {"answered", "OutcomeUnknown", "MailboxFull", "DeadlinePassed", "Unavailable"}


async def test_an_end_that_is_heard_late_touches_no_later_life(autojump_clock):
    """The life ends by itself while the supervisor is about to restart it on request: one birth for both."""
    births: list[float] = []
    mailbox, ref = address("d")

    class Once:
        async def run(self, inbox: Inbox) -> None:
            births.append(trio.current_time())
            await inbox.take()
            raise KeyError("stale")

    root = Supervisor("house", [ChildSpec(name="d", factory=Once, mailbox=mailbox)], pauses=QUICK)
    async with alive(root):
        root.restart_child_at("house/d")
        ref.tell(Echo(1))
        root.kill("house/d")
        root.restart_child_at("house/d")
        await trio.sleep(5)
        seen = view(root, "house/d")
        assert seen.state == "running"
        assert seen.incarnation == len(births)
        child = root._child("d")
        living = child.incarnation
        stale = await _a_dead_incarnation()
        await root._after_end(child, stale)
        assert child.incarnation is living
        assert view(root, "house/d").incarnation == len(births)


async def _a_dead_incarnation():
    from supervisor.incarnation import Incarnation

    mailbox, _ = address("old")

    async def body(inbox: Inbox) -> None: ...

    old = Incarnation("old", 1, Inbox(mailbox), body, on_born=lambda _: None, on_end=lambda _: None)
    await old.live()
    return old


async def test_nobody_is_left_hanging_when_the_house_gives_up(autojump_clock):
    births: list[float] = []
    mailbox, ref = address("stuck")
    root = Supervisor(
        "house",
        [
            ChildSpec(name="stuck", factory=Echoer, mailbox=mailbox, shutdown_s=2),
            ChildSpec(name="d", factory=lambda: Dying(births, after_s=1)),
        ],
        intensity=1,
        period_s=100,
        pauses=QUICK,
    )
    heard: list[str] = []

    async def ask(message) -> None:
        with pytest.raises(NotNow) as info:
            await ref.ask(message, deadline_s=1000)
        heard.append(type(info.value).__name__)

    async def house_with_askers() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(root.run)
            nursery.start_soon(_shielded, ask, Hang())
            await wait_all_tasks_blocked()
            nursery.start_soon(_shielded, ask, Echo(1))

    with pytest.raises(BaseExceptionGroup) as info:
        await house_with_askers()
    assert isinstance(only(info.value), GaveUp)
    assert heard == ["OutcomeUnknown", "Stopping"]
    with pytest.raises(Stopping):
        ref.tell(Echo(2))


async def _shielded(function, *args) -> None:
    with trio.CancelScope(shield=True):
        await function(*args)


async def test_the_log_shows_a_surprise_once_with_its_traceback_and_no_local_values(autojump_clock, capsys):
    class Careless:
        async def run(self, inbox: Inbox) -> None:
            seed = "do not show"
            await inbox.take()
            raise KeyError(len(seed))

    mailbox, ref = address("careless")
    root = Supervisor("house", [ChildSpec(name="careless", factory=Careless, mailbox=mailbox)], pauses=QUICK)
    async with alive(root):
        ref.tell(Echo(1))
        await trio.sleep(1)
    said = capsys.readouterr().out
    assert said.count("Traceback") == 1
    assert "KeyError: 11" in said
    assert "raise KeyError(len(seed))" in said
    assert "= 'do not show'" not in said


request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


async def test_an_actor_inherits_nothing_from_a_request_and_outlives_it(autojump_clock):
    seen: list[str] = []

    class Curious:
        async def run(self, inbox: Inbox) -> None:
            seen.append(request_id.get())
            while True:
                letter = await inbox.take()
                letter.answer(letter.message.n)

    mailbox, ref = address("curious")
    root = Supervisor("house", [ChildSpec(name="c", factory=Curious, mailbox=mailbox)], pauses=QUICK)
    async with alive(root):

        async def request() -> None:
            request_id.set("42")
            root.kill("house/c")
            root.restart_child_at("house/c")
            await trio.sleep_forever()

        with trio.move_on_after(1):
            await request()
        assert await ref.ask(Echo(1), deadline_s=5) == 1
    assert set(seen) == {"none"}


async def test_paths_that_lead_nowhere_say_so(autojump_clock):
    mailbox, _ = address("a")
    root = Supervisor("house", [ChildSpec(name="a", factory=Echoer, mailbox=mailbox)])
    async with alive(root):
        for path in ("house", "garden/a", "house/b", "house/a/b"):
            with pytest.raises(LookupError):
                root.kill(path)


class _Shielded:
    lives: ClassVar[int] = 0

    async def run(self, inbox: Inbox) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)


async def test_an_actor_that_shields_itself_is_waited_for_and_named(autojump_clock, capsys):
    root = Supervisor("house", [ChildSpec(name="deaf", factory=_Shielded, shutdown_s=1)])
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        root.stop()
    assert trio.current_time() - started == pytest.approx(20)
    assert "house/deaf" in capsys.readouterr().out
