"""What an operator may do to the living tree, and what whoever watches it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from inhabitants import QUICK, Boom, Echo, Echoer, Hang, address, alive, view
from trio.testing import wait_all_tasks_blocked

from actors.errors import DeadlinePassed, MailboxFull, NotNow, OutcomeUnknown, Stopping, Unavailable
from actors.mailbox import Inbox, Mailbox, Ref
from actors.monitors import Down
from actors.views import Acted, EndView, NoSuchActor, NotPossible
from supervisor.dynamic import DynamicSupervisor
from supervisor.overseer import TreeOverseer
from supervisor.supervisor import ChildSpec, Pool, Supervisor
from transport.house import Readiness


def a_house(
    *, letters_max: int = 100, work_s: float = 0.0, shutdown_s: float = 5.0
) -> tuple[Supervisor, Ref]:
    mailbox, ref = address("echo", letters_max)
    spec = ChildSpec(
        name="echo",
        factory=lambda: Echoer(work_s=work_s),
        mailbox=mailbox,
        shutdown_s=shutdown_s,
    )
    return Supervisor("house", [spec], pauses=QUICK), ref


def tenants(work_s: float = 0.0, *, idle_s: float = 1e6) -> DynamicSupervisor[str]:
    return DynamicSupervisor(
        "tenants",
        lambda key: Echoer(work_s=work_s),
        children_max=4,
        letters_max=5,
        idle_s=idle_s,
        pauses=QUICK,
    )


async def outcome_of(ref: Ref, n: int, heard: list[object], deadline_s: float = 1000) -> None:
    try:
        heard.append(await ref.ask(Echo(n), deadline_s=deadline_s))
    except NotNow as error:
        heard.append(type(error))


# Suspend and resume.


async def test_a_suspended_actor_finishes_the_letter_in_hand_and_takes_no_other_until_resumed(autojump_clock):
    root, ref = a_house(work_s=1)
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        nursery.start_soon(outcome_of, ref, 1, heard)
        await wait_all_tasks_blocked(0)
        root.suspend("house/echo")
        nursery.start_soon(outcome_of, ref, 2, heard)
        await trio.sleep(50)
        assert heard == [1]
        assert view(root, "house/echo").state == "suspended"
        assert view(root, "house/echo").mailbox.depth == 1
        root.resume("house/echo")
        await trio.sleep(2)
        assert heard == [1, 2]
        assert view(root, "house/echo").state == "running"


async def test_the_mailbox_of_a_suspended_actor_keeps_its_bound_and_deadlines_run(autojump_clock):
    root, ref = a_house(letters_max=2)
    heard: list[object] = []
    async with alive(root):
        root.suspend("house/echo")
        async with trio.open_nursery() as nursery:
            for n in range(2):
                nursery.start_soon(outcome_of, ref, n, heard, 10)
            await wait_all_tasks_blocked(0)
            with pytest.raises(MailboxFull):
                await ref.ask(Echo(3), deadline_s=10)
        assert heard == [DeadlinePassed, DeadlinePassed]


async def test_suspension_outlives_a_death_and_a_restart_of_the_supervisor(autojump_clock):
    inner_mailbox, ref = address("echo")
    inner = Supervisor("inner", [ChildSpec(name="echo", factory=Echoer, mailbox=inner_mailbox)], pauses=QUICK)
    root = Supervisor("house", [inner], pauses=QUICK)
    async with alive(root):
        root.suspend("house/inner/echo")
        for path in ("house/inner/echo", "house/inner"):
            root.kill(path)
            await trio.sleep(1)
            assert view(root, "house/inner/echo").state == "suspended", path
        with pytest.raises(DeadlinePassed):
            await ref.ask(Echo(1), deadline_s=5)
        root.resume("house/inner/echo")
        assert await ref.ask(Echo(2), deadline_s=5) == 2


async def test_one_suspended_reader_of_a_pool_leaves_the_letters_to_the_others(autojump_clock):
    pool = Pool("pool", 2, Echoer, 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    async with alive(root):
        for name in ("0", "1"):
            root.suspend(f"house/pool/{name}")
            for n in range(4):
                assert await pool.ref.ask(Echo(n), deadline_s=5) == n
            root.resume(f"house/pool/{name}")
        root.suspend("house/pool")
        with pytest.raises(DeadlinePassed):
            await pool.ref.ask(Echo(1), deadline_s=5)
        root.resume("house/pool")
        assert await pool.ref.ask(Echo(1), deadline_s=5) == 1


async def test_a_letter_for_which_a_reader_was_woken_as_it_was_suspended_goes_to_the_next(autojump_clock):
    pool = Pool("pool", 2, Echoer, 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        nursery.start_soon(outcome_of, pool.ref, 1, heard)
        for _ in range(2):  # in every order of the two readers and the asker
            await trio.lowlevel.checkpoint()
            root.suspend("house/pool/0")
        await trio.sleep(1)
        assert heard == [1]


async def test_suspending_a_dynamic_supervisor_holds_present_and_later_children(autojump_clock):
    house = tenants()
    root = Supervisor("root", [house])
    async with alive(root):
        assert await house.ref("a").ask(Echo(1), deadline_s=5) == 1
        root.suspend("root/tenants")
        assert root.held_back() == ["root/tenants"]
        for key in ("a", "b"):
            with pytest.raises(DeadlinePassed):
                await house.ref(key).ask(Echo(1), deadline_s=5)
        root.resume("root/tenants")
        assert root.held_back() == []
        for key in ("a", "b"):
            assert await house.ref(key).ask(Echo(2), deadline_s=5) == 2


async def test_a_suspended_child_is_not_retired_and_its_letters_wait(autojump_clock):
    house = tenants(idle_s=10)
    root = Supervisor("root", [house])
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        assert await house.ref("a").ask(Echo(1), deadline_s=5) == 1
        root.suspend("root/tenants/a")
        nursery.start_soon(outcome_of, house.ref("a"), 2, heard)
        await trio.sleep(100)
        assert view(root, "root/tenants/a").state == "suspended"
        root.resume("root/tenants/a")
        await trio.sleep(1)
        assert heard == [2]
        await trio.sleep(100)
        assert len(house) == 0


async def test_who_works_by_the_clock_stands_still_while_suspended(autojump_clock):
    rounds: list[float] = []

    class Poller:
        async def run(self, inbox: Inbox) -> None:
            while True:
                rounds.append(trio.current_time())
                await inbox.pause(10)

    root = Supervisor("house", [ChildSpec(name="poller", factory=Poller)])
    async with alive(root):
        await trio.sleep(25)
        assert len(rounds) == 3
        root.suspend("house/poller")
        await trio.sleep(1000)
        assert len(rounds) == 3
        root.resume("house/poller")
        await trio.sleep(25)
        assert len(rounds) >= 5
        root.suspend("house/poller")  # and closing the house is not held up by it
        stopped_at = trio.current_time()
    assert trio.current_time() - stopped_at < 1


async def test_who_takes_no_letters_cannot_be_suspended(autojump_clock):
    class Server:
        async def run(self, inbox: Inbox) -> None:
            await inbox.until_stop()

    root = Supervisor("house", [ChildSpec(name="server", factory=Server, suspendable=False)])
    async with alive(root):
        with pytest.raises(NotPossible, match="house/server takes no letters"):
            root.suspend("house/server")


async def test_a_suspended_house_closes_and_handles_what_waits(autojump_clock):
    root, ref = a_house()
    heard: list[object] = []
    async with trio.open_nursery() as nursery, alive(root):
        root.suspend("house/echo")
        nursery.start_soon(outcome_of, ref, 1, heard)
        await wait_all_tasks_blocked(0)
    assert heard == [1]


# Drain.


async def test_a_drained_actor_handles_what_waits_accepts_nothing_new_and_comes_back_on_request(
    autojump_clock,
):
    root, ref = a_house(work_s=1)
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(outcome_of, ref, n, heard)
        await wait_all_tasks_blocked(0)
        root.drain("house/echo")
        with pytest.raises(Stopping):
            await ref.ask(Echo(9), deadline_s=5)
        await trio.sleep(10)
        assert sorted(heard, key=str) == [0, 1, 2]
        assert view(root, "house/echo").state == "drained"
        assert root.held_back() == ["house/echo"]
        with pytest.raises(Unavailable, match="drained by an operator"):
            await ref.ask(Echo(9), deadline_s=5)
        root.restart_child_at("house/echo")
        assert await ref.ask(Echo(4), deadline_s=5) == 4
        assert root.held_back() == []


async def test_everything_static_that_is_held_back_is_named_also_without_an_address(autojump_clock):
    class Poller:
        async def run(self, inbox: Inbox) -> None:
            while True:
                await inbox.pause(1)

    root = Supervisor("house", [ChildSpec(name=name, factory=Poller) for name in ("a", "b", "c")])
    readiness = Readiness(held_back=root.held_back)
    async with alive(root):
        assert readiness.reasons == {}
        root.drain("house/a")
        root.suspend("house/c")
        assert readiness.reasons == {"operator": "drained or suspended: house/a, house/c"}
        root.restart_child_at("house/a")
        root.resume("house/c")
        assert readiness.reasons == {}


async def test_what_a_drain_could_not_handle_in_time_is_refused(autojump_clock):
    root, ref = a_house(work_s=10, shutdown_s=15)
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(outcome_of, ref, n, heard)
        await wait_all_tasks_blocked(0)
        root.drain("house/echo")
        await trio.sleep(20)
    answered = [n for n in heard if isinstance(n, int)]
    assert len(answered) == 1
    assert {OutcomeUnknown, Unavailable} == set(heard) - {*answered}


async def test_a_drain_holds_up_no_sibling(autojump_clock):
    slow_box, slow = address("slow")
    quick_box, quick = address("quick")
    root = Supervisor(
        "house",
        [
            ChildSpec(name="slow", factory=lambda: Echoer(work_s=100), mailbox=slow_box, shutdown_s=1000),
            ChildSpec(name="quick", factory=Echoer, mailbox=quick_box),
        ],
        pauses=QUICK,
    )
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        nursery.start_soon(outcome_of, slow, 1, heard)
        await wait_all_tasks_blocked(0)
        root.drain("house/slow")
        began = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await quick.ask(Boom(), deadline_s=5)
        assert await quick.ask(Echo(2), deadline_s=5) == 2  # restarted although its sibling drains
        assert trio.current_time() - began < 5
        await trio.sleep(200)
        assert heard == [1]


async def test_a_drained_child_stays_down_through_group_restarts_and_deaths_of_the_supervisor(autojump_clock):
    boxes = {name: Mailbox(name, letters_max=5) for name in "ab"}
    inner = Supervisor(
        "inner",
        [ChildSpec(name=name, factory=Echoer, mailbox=boxes[name]) for name in "ab"],
        strategy="one_for_all",
        pauses=QUICK,
    )
    root = Supervisor("house", [inner], pauses=QUICK)
    async with alive(root):
        root.drain("house/inner/a")
        await trio.sleep(1)
        for path in ("house/inner/b", "house/inner"):
            root.kill(path)
            await trio.sleep(1)
            assert view(root, "house/inner/a").state == "drained", path
            assert await Ref(boxes["b"]).ask(Echo(1), deadline_s=5) == 1
        with pytest.raises(Unavailable):
            await Ref(boxes["a"]).ask(Echo(1), deadline_s=5)
        root.restart_child_at("house/inner/a")
        assert await Ref(boxes["a"]).ask(Echo(1), deadline_s=5) == 1


async def test_draining_one_reader_leaves_the_pool_open_and_draining_the_last_one_refuses(autojump_clock):
    pool = Pool("pool", 2, Echoer, 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    async with alive(root):
        root.drain("house/pool/0")
        await trio.sleep(1)
        assert view(root, "house/pool/0").state == "drained"
        assert await pool.ref.ask(Echo(1), deadline_s=5) == 1
        root.drain("house/pool/1")
        await trio.sleep(1)
        with pytest.raises(Unavailable):
            await pool.ref.ask(Echo(1), deadline_s=5)
        root.restart_child_at("house/pool/0")
        assert await pool.ref.ask(Echo(1), deadline_s=5) == 1


async def test_a_whole_pool_is_drained_and_comes_back(autojump_clock):
    pool = Pool("pool", 2, lambda: Echoer(work_s=1), 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(6):
            nursery.start_soon(outcome_of, pool.ref, n, heard)
        await wait_all_tasks_blocked(0)
        root.drain("house/pool")
        await trio.sleep(10)
        assert sorted(heard, key=str) == [0, 1, 2, 3, 4, 5]
        assert view(root, "house/pool").state == "drained"
        with pytest.raises(NotNow):
            await pool.ref.ask(Echo(1), deadline_s=5)
        root.restart_child_at("house/pool")
        await trio.sleep(1)
        assert await pool.ref.ask(Echo(7), deadline_s=5) == 7


async def test_a_drained_tenant_refuses_letters_until_it_is_restarted(autojump_clock):
    house = tenants(work_s=1)
    root = Supervisor("root", [house])
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(outcome_of, house.ref("a"), n, heard)
        await wait_all_tasks_blocked(0)
        root.drain("root/tenants/a")
        await trio.sleep(10)
        assert sorted(heard, key=str) == [0, 1, 2]
        assert view(root, "root/tenants/a").state == "drained"
        with pytest.raises(Unavailable, match="drained"):
            await house.ref("a").ask(Echo(1), deadline_s=5)
        await trio.sleep(1000)  # it is not forgotten, and nobody is started by a letter
        with pytest.raises(Unavailable, match="drained"):
            await house.ref("a").ask(Echo(1), deadline_s=5)
        assert await house.ref("b").ask(Echo(1), deadline_s=5) == 1
        root.restart_child_at("root/tenants/a")
        assert await house.ref("a").ask(Echo(8), deadline_s=5) == 8


async def test_one_without_an_address_lives_on_after_its_branch_was_drained_and_restarted(autojump_clock):
    lives: list[int] = []

    class Poller:
        async def run(self, inbox: Inbox) -> None:
            lives.append(1)
            while True:
                await inbox.pause(10)

    inner = Supervisor("inner", [ChildSpec(name="poller", factory=Poller)], pauses=QUICK)
    root = Supervisor("house", [inner], pauses=QUICK)
    async with alive(root):
        root.drain("house/inner")
        await trio.sleep(1)
        root.restart_child_at("house/inner")
        await trio.sleep(100)
        assert view(root, "house/inner/poller").state == "running"
        assert len(lives) == 2


async def test_a_drain_right_after_a_restart_request_wins(autojump_clock):
    root, ref = a_house()
    async with alive(root):
        root.drain("house/echo")
        await trio.sleep(1)
        root.restart_child_at("house/echo")
        root.drain("house/echo")
        await trio.sleep(1)
        assert view(root, "house/echo").state == "drained"
        with pytest.raises(Unavailable, match="drained"):
            await ref.ask(Echo(1), deadline_s=5)


async def test_one_drained_while_its_group_stops_refuses_what_waits(autojump_clock):
    boxes = {name: Mailbox(name, letters_max=5) for name in "ab"}
    root = Supervisor(
        "house",
        [ChildSpec(name=name, factory=lambda: Echoer(work_s=3), mailbox=boxes[name]) for name in "ab"],
        strategy="one_for_all",
        pauses=QUICK,
    )
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(outcome_of, Ref(boxes["b"]), n, heard)
        await wait_all_tasks_blocked(0)
        root.kill("house/a")
        await trio.sleep(1)
        root.drain("house/b")  # it is already ending, because of its sibling
        await trio.sleep(10)
        assert view(root, "house/b").state == "drained"
        assert len([n for n in heard if isinstance(n, int)]) == 1
        assert heard[1:] == [Unavailable, Unavailable]
        with pytest.raises(Unavailable, match="drained"):
            await Ref(boxes["b"]).ask(Echo(1), deadline_s=5)


async def test_one_drained_between_two_lives_of_its_supervisor_refuses_letters(autojump_clock):
    box, ref = address("echo")
    inner = Supervisor("inner", [ChildSpec(name="echo", factory=Echoer, mailbox=box)], pauses=QUICK)
    root = Supervisor("house", [inner])
    async with alive(root):
        root.kill("house/inner")
        await wait_all_tasks_blocked(0)
        assert view(root, "house/inner").state == "pausing"
        root.drain("house/inner/echo")
        await trio.sleep(1)
        assert view(root, "house/inner/echo").state == "drained"
        with pytest.raises(Unavailable, match="drained"):
            await ref.ask(Echo(1), deadline_s=5)


async def test_one_that_drains_cannot_be_held_up_by_a_suspension(autojump_clock):
    root, ref = a_house(work_s=1)
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(outcome_of, ref, n, heard)
        await wait_all_tasks_blocked(0)
        root.drain("house/echo")
        root.suspend("house/echo")
        await trio.sleep(10)
        assert sorted(heard, key=str) == [0, 1, 2]
        root.restart_child_at("house/echo")
        await trio.sleep(1)
        assert view(root, "house/echo").state == "suspended", "the wish holds for the next life"


# Restart.


async def test_a_restart_on_request_ends_between_letters_counts_as_no_death_and_loses_nothing(autojump_clock):
    root, ref = a_house(work_s=1)
    heard: list[object] = []
    async with alive(root), trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(outcome_of, ref, n, heard)
        for _ in range(8):  # more often than the intensity forgives
            await trio.sleep(1)
            root.restart_child_at("house/echo")
        await trio.sleep(10)
        assert sorted(heard, key=str) == list(range(8))
        assert view(root, "house/echo").restarts >= 5


async def test_nobody_is_restarted_below_a_drained_branch(autojump_clock):
    pool = Pool("pool", 2, Echoer, 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    async with alive(root):
        root.drain("house/pool")
        await trio.sleep(1)
        with pytest.raises(NotPossible, match="house/pool has ended"):
            root.restart_child_at("house/pool/0")
        with pytest.raises(NotNow):  # at once: nobody opened the mailbox for a reader who never comes
            await pool.ref.ask(Echo(1), deadline_s=5)
        assert pool.mailbox.closed
        root.restart_child_at("house/pool")
        await trio.sleep(1)
        assert await pool.ref.ask(Echo(1), deadline_s=5) == 1
        root.restart_child_at("house/pool/0")
    with pytest.raises(NotPossible):
        root.restart_child_at("house/pool")


async def test_a_restart_request_is_heard_by_one_that_has_just_ended(autojump_clock):
    lives: list[int] = []

    class Once:
        async def run(self, inbox: Inbox) -> None:
            lives.append(1)
            if len(lives) > 1:
                await inbox.until_stop()

    box = Mailbox("watcher", letters_max=0)
    root = Supervisor("house", [ChildSpec(name="once", factory=Once, restart="transient")], pauses=QUICK)
    honest = root.monitors.tell

    def tell_and_restart(down: Down) -> None:  # in the ending task: its supervisor has not heard of it
        honest(down)
        if down.incarnation == 1:
            root.restart_child_at("house/once")

    root.monitors.tell = tell_and_restart  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(root.run)
        root.monitors.monitor("house/once", box)
        await trio.sleep(1)
        assert (view(root, "house/once").state, len(lives)) == ("running", 2)
        root.stop()


# Monitors.


async def test_a_watcher_is_told_why_a_life_ended_once_and_by_letter(autojump_clock):
    root, ref = a_house()
    box = Mailbox("watcher", letters_max=1)
    async with alive(root):
        monitor = root.monitor("house/echo", box)
        assert monitor.down is None
        with pytest.raises(OutcomeUnknown):
            await ref.ask(Boom("of old age"), deadline_s=5)
        down = await monitor.wait()
        assert down == Down("house/echo", 1, "crashed", "RuntimeError: of old age")
        inbox = Inbox(box)
        assert (await inbox.take()).message == down
        await trio.sleep(1)
        root.kill("house/echo")
        await trio.sleep(1)
        assert box.depth == 0, "one monitor, one word"
        assert len(root.monitors) == 0


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda root, ref: root.kill("house/echo", "for the drill"), "killed"),
        (lambda root, ref: root.drain("house/echo"), "asked"),
        (lambda root, ref: root.restart_child_at("house/echo"), "asked"),
    ],
)
async def test_every_kind_of_end_is_told(end: Callable[[Supervisor, Ref], None], how: str, autojump_clock):
    root, ref = a_house()
    async with alive(root):
        with root.monitor("house/echo") as monitor:
            end(root, ref)
            with trio.fail_after(10):
                assert (await monitor.wait()).how == how


async def test_the_closing_of_the_house_is_told(autojump_clock):
    root, _ = a_house()
    async with alive(root):
        monitor = root.monitor("house/echo")
    with trio.fail_after(10):
        assert (await monitor.wait()).how == "asked"


async def test_the_end_of_a_cancelled_branch_is_told_for_everybody_in_it(autojump_clock):
    inner = Supervisor("inner", [ChildSpec(name="echo", factory=Echoer)], pauses=QUICK)
    root = Supervisor("house", [inner], pauses=QUICK)
    async with alive(root):
        watched = [root.monitor("house/inner"), root.monitor("house/inner/echo")]
        root.kill("house/inner", "drill")
        with trio.fail_after(10):
            assert [(await one.wait()).how for one in watched] == ["killed", "killed"]


async def test_watching_nobody_is_told_at_once_and_a_full_mailbox_misses_no_end(autojump_clock):
    house = tenants()
    root = Supervisor("root", [house])
    box = Mailbox("watcher", letters_max=0)
    async with alive(root):
        with pytest.raises(NoSuchActor):
            root.monitor("root/tenants/a")
        with pytest.raises(OutcomeUnknown):
            await house.ref("a").ask(Boom(), deadline_s=5)
        assert root.monitor("root/tenants/a", box).down is not None
        assert box.depth == 1
        assert len(root.monitors) == 0


async def test_an_actor_may_watch_another(autojump_clock):
    told: list[Down] = []
    watcher_box, _ = address("watcher", 1)
    echo_box, echo = address("echo")
    tree: list[Supervisor] = []

    class Watcher:
        async def run(self, inbox: Inbox) -> None:
            tree[0].monitor("house/echo", watcher_box)
            while True:
                letter = await inbox.take()
                told.append(letter.message)
                await trio.sleep(1)  # the next life
                tree[0].monitor("house/echo", watcher_box)

    tree.append(
        Supervisor(
            "house",
            [
                ChildSpec(name="echo", factory=Echoer, mailbox=echo_box),
                ChildSpec(name="watcher", factory=Watcher, mailbox=watcher_box),
            ],
            pauses=QUICK,
        )
    )
    async with alive(tree[0]):
        for text in ("first", "second"):
            with pytest.raises(OutcomeUnknown):
                await echo.ask(Boom(text), deadline_s=5)
            await trio.sleep(5)
    assert [(down.incarnation, down.why) for down in told[:2]] == [
        (1, "RuntimeError: first"),
        (2, "RuntimeError: second"),
    ]


# The overseer: actions with their outcome.


async def test_an_act_tells_what_it_ended_and_what_it_left(autojump_clock):
    root, _ = a_house()
    overseer = TreeOverseer(root)
    async with alive(root):
        acted = await overseer.act("restart", "house/echo", "spring", within_s=5)
        assert acted == Acted(
            "house/echo", "restart", "running", 2, EndView(1, "asked", "ended between letters")
        )
        acted = await overseer.act("kill", "house/echo", "drill", within_s=5)
        assert (acted.ended, acted.state) == (EndView(2, "killed", "drill"), "pausing")
        await trio.sleep(1)
        acted = await overseer.act("suspend", "house/echo", "look", within_s=5)
        assert (acted.ended, acted.state, acted.incarnation) == (None, "suspended", 3)
        acted = await overseer.act("resume", "house/echo", "seen", within_s=5)
        assert acted.state == "running"
        acted = await overseer.act("drain", "house/echo", "enough", within_s=5)
        assert (acted.state, acted.ended.how if acted.ended else None) == ("drained", "asked")
        with pytest.raises(NotPossible, match="not alive now"):
            await overseer.act("kill", "house/echo", "again", within_s=5)
        with pytest.raises(NoSuchActor):
            await overseer.act("kill", "house/nobody", "x", within_s=5)
        with pytest.raises(NoSuchActor):
            await overseer.act("kill", "house", "x", within_s=5)


async def test_an_act_does_not_wait_for_ever_for_one_who_shields_itself(autojump_clock):
    class Shielded:
        async def run(self, inbox: Inbox) -> None:
            await inbox.take()
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

    box, ref = address("shielded")
    root = Supervisor("house", [ChildSpec(name="shielded", factory=Shielded, mailbox=box)], pauses=QUICK)
    async with alive(root):
        ref.tell(Hang())
        await wait_all_tasks_blocked(0)
        began = trio.current_time()
        acted = await TreeOverseer(root).act("kill", "house/shielded", "drill", within_s=5)
        assert trio.current_time() - began == pytest.approx(5)
        assert acted.ended is None
        await trio.sleep(200)
        assert view(root, "house/shielded").incarnation == 2


async def test_the_busiest_and_a_page_of_the_dynamic_children_are_shown(autojump_clock):
    house = DynamicSupervisor(
        "tenants", lambda key: Echoer(), children_max=100, letters_max=5, idle_s=1e6, pauses=QUICK
    )
    root = Supervisor("root", [house])
    overseer = TreeOverseer(root)
    async with alive(root):
        for n in range(30):
            for _ in range(1 + n % 5):
                await house.ref(f"t{n:02}").ask(Echo(n), deadline_s=5)
        await wait_all_tasks_blocked(0)
        page = overseer.look("root/tenants", children_max=4, after="t07").tree
        assert [child.name for child in page.children] == ["t08", "t09", "t10", "t11"]
        assert page.children_total == 30
        assert page.handled == sum(1 + n % 5 for n in range(30))
        assert overseer.look(children_max=0).tree.children[0].children == []
        root.suspend("root/tenants/t03")
        for _ in range(2):
            house.ref("t03").tell(Echo(0))
        assert overseer.busiest(order="depth", limit=1)[0].path == "root/tenants/t03"
        assert {view.name for view in overseer.busiest(order="handled", limit=6)} == {
            f"t{n:02}" for n in range(4, 30, 5)
        }
        await trio.sleep(1)
        await house.ref("new").ask(Echo(1), deadline_s=5)
        assert overseer.busiest(order="recent", limit=1)[0].name == "new"
