"""What the adversary will do: one seed, one schedule. Pure: it draws lots and touches nothing.

Three sequences run side by side: what each life of the server is for, what is done to a transaction on its
way to the database, and what happens to everything else. Each goes round all its kinds, in a new order each
round, so that a run of the standard length meets each kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from tests.chaos.proxy import How
from tests.chaos.wire import Point

CRASH_POINTS = (
    "verifier.verified",
    "sequencer.read",
    "encryptor.sealed",
    "sequencer.sealed",
    "append.begin",
    "append.fenced",
    "append.copied",
    "append.commit_sent_before",
    "append.committed",
    "sequencer.appended",
    "committer.built",
    "committer.committed",
)
"""In the order of an event's walk; named in the code under test by ``checkpoint``."""

ACTORS = (
    "sequencers",
    "encryptors",
    "verifiers",
    "registry",
    "committer",
    "sweeper",
    "revocations",
    "policies",
    "pulse",
    "audit-spool",
    "rates",
    "watchdog",
)

STRIKES: tuple[tuple[Point, How], ...] = (
    ("begin", "cut"),
    ("advance", "cut"),
    ("copy", "cut"),
    ("copied", "cut"),
    ("commit", "cut"),
    ("commit", "unheard"),
    ("commit", "late"),
    ("commit-other", "cut"),
    ("commit-other", "unheard"),
)

ENDS = (*(f"crash-at:{point}" for point in CRASH_POINTS), "kill-server-group", "kill-server-alone")
REST = (
    "kill-worker",
    "terminate-backend",
    "stop-postgres",
    "kill-postgres",
    "net-refuse",
    "net-reset",
    "net-latency",
    *(f"kill-actor:{name}" for name in ACTORS),
)
WIRE = tuple(f"wire:{point}/{how}" for point, how in STRIKES)
SLOW = ("stop-worker", "net-blackhole", "wire:commit/silent", "wire:commit/swallowed")
"""Only a deadline notices these: each gets a life of its own and is left alone until it has."""
KINDS = (*ENDS, *SLOW, *WIRE, *REST)
NEEDS_PROXY = ("net-", "wire:")


@dataclass(frozen=True)
class Act:
    """``pause_s`` before it; ``draw`` in 0..1 is its own lot: which one, or how long."""

    kind: str
    pause_s: float
    draw: float


def lives(seed: int, *, without: frozenset[str] = frozenset()) -> Iterator[Act]:
    """Endless; ``without``: kinds that this run leaves out, and says so. ``draw`` says at which pass of a
    crash point, or how long a life lasts."""
    kinds = [kind for kind in (*ENDS, *SLOW) if kind not in without]
    yield from _rounds(random.Random(f"{seed}/lives"), kinds, (0.0, 0.0))


def wire(seed: int, *, without: frozenset[str] = frozenset()) -> Iterator[Act]:
    """Endless."""
    kinds = [kind for kind in WIRE if kind not in without]
    yield from _rounds(random.Random(f"{seed}/wire"), kinds, (0.2, 1.5))


def rest(seed: int, *, without: frozenset[str] = frozenset()) -> Iterator[Act]:
    """Endless."""
    kinds = [kind for kind in REST if kind not in without]
    yield from _rounds(random.Random(f"{seed}/rest"), kinds, (0.1, 0.8))


def _rounds(chance: random.Random, kinds: list[str], pause_s: tuple[float, float]) -> Iterator[Act]:
    while kinds:
        for kind in chance.sample(kinds, len(kinds)):
            yield Act(kind, chance.uniform(*pause_s), chance.random())


assert {how for _, how in STRIKES} < set(get_args(How))
