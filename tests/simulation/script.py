"""A run as data: what is asked and what goes wrong, made from the seed before anything happens.

Because it is data, a failing run can be shrunk by leaving steps out. Every step stands alone: whatever
others are left out, it still means something. Nothing here runs anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from tests.simulation.agents import AGENTS, FORGED, STORES, TENANTS, TWIN, Agent, Event, Stream
from ves.encoding import uuid_text

HORIZON_S = 2.0
"""Steps begin before this time (virtual seconds from the start)."""
TICK_S = 1 / 64
"""All times are whole ticks, which floats add up exactly: so that many things fall on the same moment, where
the schedule alone decides who is first."""


TINY_BELOW = 64
"""Letters: a mailbox of so many is never full in a run."""


class Step(msgspec.Struct, frozen=True, tag=True):
    pass


# What is asked.


class Post(Step, frozen=True):
    """Send the events, then again while the answer says «not now» or nothing, at most ``resends`` times,
    each time to the next node. ``leaves_after_s``: the first time, the client does not wait longer."""

    at: float
    node: int
    agent: Agent
    store: int
    events: tuple[int, ...]
    resends: int
    pause_s: float
    leaves_after_s: float | None

    @property
    def named(self) -> tuple[Event, ...]:
        return tuple(Event(self.agent, self.store, n) for n in self.events)


class PostUnsigned(Step, frozen=True):
    """Send unsigned events, then again like Post."""

    at: float
    node: int
    agent: Agent
    store: int
    events: tuple[int, ...]
    resends: int

    @property
    def named(self) -> tuple[Event, ...]:
        return tuple(Event(self.agent, self.store, n) for n in self.events)


class Pull(Step, frozen=True):
    """Read the stream from its beginning or, with ``wait_s``, wait for more than there is."""

    at: float
    node: int
    stream: Stream
    wait_s: float


class CommitUpTo(Step, frozen=True):
    """Commit what is there."""

    at: float
    node: int
    stream: Stream


class RegisterKey(Step, frozen=True):
    """The agent is unknown before this step."""

    at: float
    node: int
    agent: Agent


class RevokeKey(Step, frozen=True):
    at: float
    node: int
    agent: Agent


class RevokeApiKey(Step, frozen=True):
    at: float
    node: int
    agent: Agent


# What goes wrong.


class Kill(Step, frozen=True):
    """Cancel the actor before its ``nth`` scheduling step, counted over all its lives."""

    actor: str
    """The name of its task."""
    nth: int


class KillAnytime(Step, frozen=True):
    """Cancel the actor before the ``nth`` scheduling step of the whole run, or as soon as it lives."""

    actor: str
    nth: int
    node: int


class Crash(Step, frozen=True):
    """A surprise at the ``nth`` reaching of a named point."""

    point: str
    nth: int


JournalTrouble = Literal["away", "lost", "unheard", "held"]


class JournalFault(Step, frozen=True):
    """The next call of ``method`` after ``at`` goes wrong. What is held is let go after ``for_s``."""

    at: float
    node: int
    method: str
    what: JournalTrouble
    for_s: float = 0.0
    commits: bool = False


class Outage(Step, frozen=True):
    """No database for anybody."""

    at: float
    for_s: float


class SlowDatabase(Step, frozen=True):
    at: float
    for_s: float
    latency_s: float


class ClockFallsBack(Step, frozen=True):
    """The database's clock from now on: as after a failover to a machine whose clock is slow."""

    at: float
    by_s: float


WorkerTrouble = Literal[
    "dies", "dies_halfway", "hangs", "nonsense", "other_id", "twice", "short", "slow", "late"
]
WORKER_TROUBLES: tuple[WorkerTrouble, ...] = get_args(WorkerTrouble)


class WorkerFault(Step, frozen=True):
    """What a worker process does with the ``nth`` question that workers of this role get; 0: its start."""

    role: Literal["verifier", "encryptor"]
    nth: int
    what: WorkerTrouble


class Restart(Step, frozen=True):
    """The node's process is killed, or stopped in order, and started again after ``down_s``."""

    at: float
    node: int
    how: Literal["killed", "stopped"]
    down_s: float


class Operate(Step, frozen=True):
    """An operator's hand on an actor: held back for ``for_s``, or just started anew."""

    at: float
    node: int
    action: Literal["suspend", "drain", "restart"]
    actor: str
    for_s: float


class Script(msgspec.Struct, frozen=True):
    seed: int
    nodes: int
    settings: dict[str, int | float]
    steps: tuple[Step, ...]


ACTORS = ["house/registry", "house/encryptors/0", "house/verifiers/0", "house/verifiers/1", "house/committer"]
ACTORS += ["house/sweeper", "house/revocations", "house/policies", "house/pulse"]
SEQUENCERS = [f"sequencers/{uuid_text(Agent(tenant, 0).tenant_id)}" for tenant in range(TENANTS)]
POINTS = ["sequencer.read", "sequencer.sealed", "sequencer.appended", "verifier.verified", "encryptor.sealed"]
POINTS += ["committer.built", "committer.committed"]
POINTS += ["append.begin", "append.fenced", "append.copied", "append.commit_sent_before", "append.committed"]
POINTS += ["commit.commit_sent_before", "commit.committed"]
LEGACY_POINTS = ["sequencer.legacy_read", "sequencer.legacy_sealed", "sequencer.legacy_appended"]
LEGACY_POINTS += ["append_legacy.begin", "append_legacy.fenced", "append_legacy.copied"]
LEGACY_POINTS += ["append_legacy.commit_sent_before", "append_legacy.committed"]
REVOKING_POINTS = ["revoke_agent_key.commit_sent_before", "revoke_agent_key.committed"]
REVOKING_POINTS += ["revoke_api_key.commit_sent_before", "revoke_api_key.committed"]
METHODS = ["append"] * 8 + ["read_facts", "settle", "commit", "commit", "find_api_key", "find_public_keys"]
METHODS += ["read_events", "read_head", "revoke_agent_key", "revoke_api_key", "register_agent_key"]
METHODS += ["read_policy", "policy_changes_since"]
METHODS += ["revocations_since", "streams_behind", "read_leaf_sources", "read_commitment_counter"]
METHODS += ["read_uncommitted"]
WRITES = {"append", "commit", "revoke_agent_key", "revoke_api_key", "register_agent_key"}


def script_of(seed: int) -> Script:
    """Everything about the run of this seed but the schedule."""
    chance = random.Random(f"script {seed}")
    nodes = 2 if chance.random() < 0.3 else 1
    settings = _settings(chance)
    settings["verify_inline_bytes"] = 0 if seed % 2 else 4096  # by a verifier's process, or where it arrives
    work = _work(chance, nodes, idle_s=settings["tenant_idle_secs"])
    trouble = _trouble(chance, nodes)
    return Script(seed, nodes, settings, (*work, *trouble, *_unsigned(seed, nodes, work)))


def _unsigned(seed: int, nodes: int, work: list[Step]) -> Iterator[Step]:
    """In some runs: unsigned events beside the signed ones, at the same moments, and trouble of their own.
    Drawn apart, so that the rest of a seed's script is what it would be without."""
    chance = random.Random(f"unsigned {seed}")
    if chance.random() < 0.6:
        return
    for post in work:
        if isinstance(post, Post) and chance.random() < 0.7:
            at = post.at + chance.choice([0, 0, 1, 3]) * TICK_S
            events = tuple(sorted({n % 40 for n in post.events}))
            node, resends = chance.randrange(nodes), chance.choice([0, 1, 3])
            yield PostUnsigned(at, node, post.agent, post.store, events, resends)
    if chance.random() < 0.5:
        what: JournalTrouble = chance.choice(["away", "lost", "unheard"])
        yield JournalFault(_moment(chance), chance.randrange(nodes), "append_legacy", what)
    if chance.random() < 0.6:
        yield Crash(chance.choice(LEGACY_POINTS), chance.choice([1, 1, 2]))


def _settings(chance: random.Random) -> dict[str, int | float]:
    tiny = chance.random() < 0.2
    return {
        "verifiers": chance.choice([1, 2]),
        "encryptors": 1,
        "mailbox_letters_max": chance.choice([1, 2, 3]) if tiny else TINY_BELOW,
        "sequencer_letters_max": chance.choice([1, 2, 3]) if tiny else chance.choice([4, 64]),
        "tenants_max": chance.choice([1, 2, 3, 3, 3]),
        "tenant_idle_secs": chance.choice([4, 8, 16, 64]) * TICK_S,
        "group_events_max": chance.choice([2, 5, 50]),
        "commitment_events": chance.choice([1, 3, 8, 1000]),
        "commitment_interval_secs": chance.choice([0.5, 2.0, 60.0]),
        "commitment_sweep_secs": chance.choice([0.5, 1.0]),
        "request_timeout_secs": chance.choice([3.0, 8.0]),
    }


def _work(chance: random.Random, nodes: int, *, idle_s: float) -> list[Step]:
    steps: list[Step] = []
    tenants = chance.sample(range(TENANTS), chance.choice([1, 1, 2, 3]))
    moments = [_moment(chance)]
    for _ in range(chance.choice([2, 4, 8])):
        # Just when those who served the last moment's requests retire, or some time.
        later = moments[-1] + idle_s + chance.randrange(9) * TICK_S
        moments.append(later if chance.random() < 0.6 and later < HORIZON_S else _moment(chance))
    for _ in range(chance.randrange(4, 13)):
        agent = Agent(chance.choice(tenants), chance.choices(range(AGENTS), [4, 3, 1])[0])
        at = chance.choice(moments) if chance.random() < 0.6 else _moment(chance)
        steps.append(
            Post(
                at=at,
                node=chance.randrange(nodes),
                agent=agent,
                store=chance.choices(range(STORES), [3, 1])[0],
                events=_events(chance),
                resends=chance.choice([0, 0, 1, 3, 6]),
                pause_s=chance.choice([0, 1, 5, 16, 64]) * TICK_S,
                leaves_after_s=chance.choice([0, 1, 2]) * TICK_S if chance.random() < 0.15 else None,
            )
        )
    stream = Stream(chance.choice(tenants), 0)
    for _ in range(chance.choice([0, 1, 1, 2])):
        at, node = _moment(chance), chance.randrange(nodes)
        steps.append(Pull(at, node, stream, chance.choice([0.0, 1.0])))
    for _ in range(chance.choice([0, 0, 1, 2])):
        steps.append(CommitUpTo(_moment(chance), chance.randrange(nodes), stream))
    for kind, likely in ((RevokeKey, 0.35), (RevokeApiKey, 0.25), (RegisterKey, 0.15)):
        if chance.random() < likely:
            who = Agent(chance.choice(tenants), chance.choice([0, 1]))
            at = chance.choice(moments) if chance.random() < 0.6 else _moment(chance)
            steps.append(kind(at, chance.randrange(nodes), who))
            if kind is not RegisterKey and chance.random() < 0.2:
                unit = "revoke_agent_key" if kind is RevokeKey else "revoke_api_key"
                steps.append(Crash(f"{unit}.{chance.choice(['commit_sent_before', 'committed'])}", 1))
    return steps


def _moment(chance: random.Random) -> float:
    return chance.randrange(int(HORIZON_S / TICK_S)) * TICK_S


def _events(chance: random.Random) -> tuple[int, ...]:
    first = chance.randrange(0, 30)
    events = [*range(first, first + chance.choice([1, 1, 2, 3, 5]))]
    if chance.random() < 0.1:
        events.append(FORGED + chance.randrange(5))
    if chance.random() < 0.1:
        events[0] += TWIN
    if chance.random() < 0.05:
        events.append(events[0])
    return tuple(events)


def _trouble(chance: random.Random, nodes: int) -> list[Step]:
    """Often little: a fault shows best in a house that otherwise goes on."""
    steps: list[Step] = []
    for _ in range(chance.choice([0, 1, 2, 3, 4, 6])):
        at, node = _moment(chance), chance.randrange(nodes)
        match chance.choices(range(10), [5, 2, 6, 6, 1, 1, 4, 2, 2, 4])[0]:
            case 0:
                who = chance.choice(SEQUENCERS) if chance.random() < 0.6 else chance.choice(ACTORS)
                steps.append(Kill(who, chance.randrange(1, 60)))
            case 1:
                who = chance.choice(SEQUENCERS) if chance.random() < 0.6 else chance.choice(ACTORS)
                steps.append(KillAnytime(who, chance.randrange(50, 3000), node))
            case 2:
                steps.append(Crash(chance.choice(POINTS), chance.choice([1, 1, 2, 3])))
            case 3:
                steps.append(_journal_fault(chance, at, node))
            case 4:
                steps.append(Outage(at, chance.choice([0.125, 1.0, 4.0])))
            case 5:
                steps.append(SlowDatabase(at, chance.choice([0.5, 2.0]), chance.choice([0.25, 1.0])))
            case 6:
                role = chance.choice(["verifier", "encryptor"])
                steps.append(WorkerFault(role, chance.randrange(0, 8), chance.choice(WORKER_TROUBLES)))
            case 7:
                how = chance.choice(["killed", "stopped"])
                steps.append(Restart(at, node, how, chance.choice([0.0, 0.125, 1.0])))
            case 8:
                steps.append(ClockFallsBack(at, chance.choice([TICK_S, 1.0, 2.0])))
            case 9:
                who = chance.choice(SEQUENCERS) if chance.random() < 0.6 else chance.choice(ACTORS)
                action = chance.choice(["suspend", "drain", "restart"])
                steps.append(Operate(at, node, action, who, chance.choice([TICK_S, 0.125, 1.0])))
    return steps


def _journal_fault(chance: random.Random, at: float, node: int) -> JournalFault:
    method = chance.choice(METHODS)
    what: JournalTrouble = "away"
    if method in WRITES:
        what = chance.choice(["away", "lost", "unheard", "unheard"])
    if method == "append" and chance.random() < 0.25:
        what = "held"
    return JournalFault(
        at, node, method, what, for_s=chance.choice([TICK_S, 0.5, 2.0, 7.0]), commits=chance.random() < 0.5
    )
