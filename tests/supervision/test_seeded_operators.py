"""A whole tree in the hands of operators, in many interleavings that can be replayed by their seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import trio
from inhabitants import QUICK, Echo, EchoAgain

from actors.errors import NotNow
from actors.mailbox import Inbox, Mailbox, Ref
from supervisor.dynamic import DynamicSupervisor
from supervisor.policy import Strategy
from supervisor.supervisor import ChildSpec, Pool, Supervisor
from tests.seeded import seeded_run

SEEDS = 60
STRATEGIES: list[Strategy] = ["one_for_one", "rest_for_one", "one_for_all"]
PATHS = [
    *("house/first", "house/inner", "house/tenants", "house/inner/plain", "house/inner/last"),
    *("house/inner/pool", "house/inner/pool/0", "house/inner/pool/1", "house/tenants/0", "house/tenants/1"),
]
PATIENCE_S = 10_000


class Watched:
    """Answers echoes after some steps; notes whether it is alone at its place, and what it did."""

    def __init__(self, place: str, chance: random.Random, living: Counter[str], done: Counter[int]) -> None:
        self.place, self.chance, self.living, self.done = place, chance, living, done

    async def run(self, inbox: Inbox) -> None:
        self.living[self.place] += 1
        assert self.living[self.place] == 1, f"two incarnations at {self.place}"
        try:
            inbox.ready()
            while True:
                for letter in await inbox.take_group(letters_max=3):
                    await self._work()
                    self.done[letter.message.n] += 1
                    letter.answer(letter.message.n)
        finally:
            with trio.CancelScope(shield=True):
                await self._work()
            self.living[self.place] -= 1

    async def _work(self) -> None:
        for _ in range(self.chance.randrange(3)):
            await trio.lowlevel.checkpoint()
        if self.chance.random() < 0.3:
            await trio.sleep(self.chance.random())


def a_tree(watched: Callable[[str], Watched], strategy: Strategy) -> tuple[Supervisor, list[Ref]]:
    """And the addresses in it."""
    often = {"intensity": 10_000, "period_s": 10_000.0, "pauses": QUICK}
    boxes = {name: Mailbox(name, letters_max=20) for name in ("first", "plain", "last")}

    def spec(name: str) -> ChildSpec:
        return ChildSpec(name=name, factory=lambda: watched(name), mailbox=boxes[name], declares_ready=True)

    numbers = iter(range(10**9))
    pool = Pool("pool", 2, lambda: watched(f"reader {next(numbers)}"), 20, **often)
    inner = Supervisor("inner", [spec("plain"), pool, spec("last")], strategy=strategy, **often)
    tenants = DynamicSupervisor(
        "tenants", lambda key: watched(f"tenant {key}"), children_max=3, letters_max=20, idle_s=2, **often
    )
    house = Supervisor("house", [spec("first"), inner, tenants], **often)
    return house, [*map(Ref, boxes.values()), pool.ref, tenants.ref(0), tenants.ref(1)]


def nobody_waits_at_the_drained(root: Supervisor) -> None:
    for path in PATHS:
        with suppress(LookupError):
            branch, name = root.locate(path)
            place = branch.place_of(name)
            assert not place.drained or place.alive is None, f"{path} lives on"
            readers = [branch.place_of(one) for one in "01"] if "/pool/" in path else [place]
            if all(reader.drained for reader in readers):
                assert place.mailbox.depth == 0, f"letters wait at {path}"


async def everybody_back(root: Supervisor) -> None:
    """Branches first: nobody is restarted below one that is away."""
    for _ in range(3):
        for path in PATHS:
            with suppress(LookupError):
                root.resume(path)
                root.restart_child_at(path)
        await trio.sleep(200)
    assert root.ready
    assert root.held_back() == []


async def under_operators(seed: int, *, closing: bool = False) -> Counter[str]:
    """The outcomes of all asks. ``closing``: the house is closed in the middle of it."""
    chance = random.Random(seed)
    living: Counter[str] = Counter()
    done: Counter[int] = Counter()
    heard: Counter[str] = Counter()
    answered: list[int] = []
    root, refs = a_tree(
        lambda place: Watched(place, chance, living, done), STRATEGIES[seed % len(STRATEGIES)]
    )

    async def client(number: int) -> None:
        for step in range(8):
            await trio.sleep(chance.choice([0, 0, 0.1, 1]))
            n = 100 * number + step
            message = chance.choice([Echo, EchoAgain])(n)
            try:
                assert await chance.choice(refs).ask(message, deadline_s=PATIENCE_S) == n
                heard["answered"] += 1
                if isinstance(message, Echo):
                    answered.append(n)
            except NotNow as error:
                heard[type(error).__name__] += 1

    async def hand() -> None:
        acts = [root.kill, root.restart_child_at, root.drain, root.suspend, root.resume]
        while True:
            await trio.sleep(chance.choice([0, 0, 0.01, 0.3, 1]))
            try:
                chance.choice(acts)(chance.choice(PATHS))
            except LookupError:
                heard["not possible"] += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        async with trio.open_nursery() as clients:
            for number in range(6):
                clients.start_soon(client, number)
            async with trio.open_nursery() as hands:
                for _ in range(2):
                    hands.start_soon(hand)
                await trio.sleep(5 * chance.random() + 1)
                if closing:
                    root.stop()
                    await trio.sleep(100)
                hands.cancel_scope.cancel()
            if not closing:
                await trio.sleep(100)
                nobody_waits_at_the_drained(root)
                await everybody_back(root)
        for ref in [] if closing else refs:
            assert await ref.ask(Echo(-1), deadline_s=100) == -1, f"{ref.name} does not come back"
        root.stop()
    assert trio.current_time() < PATIENCE_S, "an ask waited for nobody"
    assert not +living
    assert all(done[n] == 1 for n in answered), "a letter was done twice"
    return heard


def test_no_ask_waits_for_nobody_and_no_place_has_two_lives_whatever_operators_do():
    heard: Counter[str] = Counter()
    for seed in range(SEEDS):
        heard += seeded_run(lambda seed=seed: under_operators(seed), seed)
    assert heard["DeadlinePassed"] == 0
    assert heard["answered"] > 10 * SEEDS


def test_no_ask_waits_for_nobody_when_the_house_closes_under_operators_hands():
    heard: Counter[str] = Counter()
    for seed in range(SEEDS):
        heard += seeded_run(lambda seed=seed: under_operators(seed, closing=True), seed)
    assert heard["DeadlinePassed"] == 0
    assert heard["Stopping"] > SEEDS
