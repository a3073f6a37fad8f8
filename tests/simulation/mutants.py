"""Classic bugs, planted one at a time: each must be found by the simulation, or its silence means nothing.

Each is a context manager that changes the product's own code for as long as it is open. ``MUTANTS`` names
them all. Nothing here knows how a bug is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

import actors.commitments_together
import actors.committer
import actors.legacy_group
import actors.sequencer
import journal.memory
import ves.decide
from actors.errors import OutcomeUnknown, Unavailable
from actors.legacy_group import LegacyAttempts, LegacyDone
from actors.mailbox import Inbox, Letter
from actors.messages import Sealed
from actors.registry import KeyRegistry
from actors.sequencer import Attempt, Done, Sequencer
from actors.worker_process import WorkerProcess
from actors.worker_wire import HEADER, body_length, frame
from journal.port import Group, Moved, Stored
from supervisor.branch import Branch
from supervisor.dynamic import DynamicSupervisor
from supervisor.incarnation import Incarnation
from tests.simulation.history import History
from tests.simulation.run import simulate
from tests.simulation.script import Script
from ves.decide import Plan, Request
from ves.legacy_decide import LegacyPlan, decide_legacy
from ves.merkle import LEAF_SOURCE_BYTES, leaf_numbers
from ves.records import Facts, Head, KeyName, KeyStatus, Uuid

Mutant = Callable[[], AbstractContextManager[None]]


@contextmanager
def answered_before_durable() -> Iterator[None]:
    """Receipts leave as soon as they are signed, before COMMIT."""
    honest, honest_sequence = Sequencer._group, Sequencer._sequence

    async def sequence(self: Any, letters: list[Letter[Any]], attempt: Attempt) -> None:
        self._letters = letters
        await honest_sequence(self, letters, attempt)

    def group(self: Any, plan: Plan, sealed: Sealed, facts: Facts) -> Group:
        Done(plan, sealed, self._sequencer_id).answer(self._letters)
        return honest(self, plan, sealed, facts)

    with patch.object(Sequencer, "_group", group), patch.object(Sequencer, "_sequence", sequence):
        yield


@contextmanager
def counter_kept_in_memory() -> Iterator[None]:
    """The next number is remembered, not read: a failed append burns its numbers."""
    honest = actors.sequencer.decide
    remembered: dict[tuple[Uuid, Uuid], int] = {}

    def decide(requests: Sequence[Request], facts: Facts, **policy: Any) -> Plan:
        tenant = facts.fence.tenant_id
        heads = {
            store: Head(
                max(head.current_sequence, remembered.get((tenant, store), 0)), head.last_sequenced_at_us
            )
            for store, head in facts.fence.heads.items()
        }
        fence = msgspec.structs.replace(facts.fence, heads=heads)
        plan = honest(requests, msgspec.structs.replace(facts, fence=fence), **policy)
        for numbered in plan.numbered:
            remembered[tenant, numbered.store_id] = numbered.sequence_number
        return plan

    def forget(self: Any, **collaborators: Any) -> None:
        for stream in [stream for stream in remembered if stream[0] == collaborators["tenant_id"]]:
            del remembered[stream]
        honest_init(self, **collaborators)

    honest_init = Sequencer.__init__
    with patch.object(actors.sequencer, "decide", decide), patch.object(Sequencer, "__init__", forget):
        yield


@contextmanager
def replay_not_recognised() -> Iterator[None]:
    """The same event sent again is refused as a doubled id."""
    with patch.object(ves.decide, "_same", lambda event, other: False):
        yield


@contextmanager
def two_incarnations() -> Iterator[None]:
    """After a kill the next life starts at once, though the last one is still in a unit of the journal."""
    honest = Branch.kill

    def kill(self: Branch, path: str, reason: str = "killed") -> None:
        honest(self, path, reason)
        branch, name = self.locate(path)
        if isinstance(branch, DynamicSupervisor):
            child = branch._child(name)
            child.incarnation = None
            branch._mailbox_for(child.key)

    with patch.object(Branch, "kill", kill):
        yield


@contextmanager
def letter_lost_on_retire() -> Iterator[None]:
    """A letter that came while the actor was retiring goes away with its mailbox."""
    honest = DynamicSupervisor._after_end

    async def after_end(self: Any, child: Any, life: Incarnation) -> None:
        if life.ended is not None and life.ended.kind == "asked" and not life.stop_asked:
            while child.mailbox.depth:
                child.mailbox.pop()
        await honest(self, child, life)

    with patch.object(DynamicSupervisor, "_after_end", after_end):
        yield


@contextmanager
def revocation_from_a_stale_cache() -> Iterator[None]:
    """A key once seen valid is believed to be so."""
    honest = actors.sequencer.decide
    seen: dict[KeyName, KeyStatus] = {}

    def decide(requests: Sequence[Request], facts: Facts, **policy: Any) -> Plan:
        keys = {name: seen.setdefault(name, status) for name, status in facts.keys.items()}
        return honest(requests, msgspec.structs.replace(facts, keys=keys), **policy)

    with patch.object(actors.sequencer, "decide", decide):
        yield


@contextmanager
def fence_without_epochs() -> Iterator[None]:
    """The append compares the counters, not whether a key or a credential was revoked meanwhile."""
    honest = journal.memory._moved

    def moved(database: Any, group: Group) -> str | None:
        key_epoch, credential_epoch = database.epochs[group.fence.tenant_id]
        fence = msgspec.structs.replace(group.fence, key_epoch=key_epoch, credential_epoch=credential_epoch)
        return honest(database, msgspec.structs.replace(group, fence=fence))

    with patch.object(journal.memory, "_moved", moved):
        yield


@contextmanager
def credential_not_looked_at() -> Iterator[None]:
    """Whether the API key was revoked is asked at the door only."""
    honest = actors.sequencer.decide

    def decide(requests: Sequence[Request], facts: Facts, **policy: Any) -> Plan:
        return honest(requests, msgspec.structs.replace(facts, revoked_credentials=frozenset()), **policy)

    with patch.object(actors.sequencer, "decide", decide):
        yield


@contextmanager
def unknown_told_as_nothing_done() -> Iterator[None]:
    """COMMIT was sent and not answered: «not available, nothing was done»."""
    honest = Sequencer._try

    async def try_(self: Any, requests: list[Request]) -> Any:
        try:
            return await honest(self, requests)
        except OutcomeUnknown as error:
            return Unavailable(str(error))

    with patch.object(Sequencer, "_try", try_):
        yield


@contextmanager
def moved_taken_for_stored() -> Iterator[None]:
    """The lost compare-and-set is not noticed."""
    with patch.object(actors.sequencer, "Stored", (Stored, Moved)):
        yield


@contextmanager
def unsigned_moved_taken_for_stored() -> Iterator[None]:
    """The same for unsigned events."""
    with patch.object(actors.legacy_group, "Stored", (Stored, Moved)):
        yield


@contextmanager
def unsigned_told_before_durable() -> Iterator[None]:
    """Unsigned events are called accepted when they are sealed, whatever becomes of the append."""
    honest = LegacyAttempts.attempt
    plans: list[LegacyPlan] = []

    def decide(*given: Any) -> LegacyPlan:
        plans.append(decide_legacy(*given))
        return plans[-1]

    async def attempt(self: Any, letters: list[Letter[Any]]) -> Any:
        try:
            return await honest(self, letters)
        except OutcomeUnknown:
            return LegacyDone(plans[-1])

    with (
        patch.object(actors.legacy_group, "decide_legacy", decide),
        patch.object(LegacyAttempts, "attempt", attempt),
    ):
        yield


@contextmanager
def receipts_in_the_wrong_envelopes() -> Iterator[None]:
    """The letters of a group are answered in another order than they were decided in."""
    honest = Done.answer

    def answer(self: Done, letters: list[Letter[Any]]) -> None:
        honest(self, letters[::-1])

    with patch.object(Done, "answer", answer):
        yield


@contextmanager
def late_answer_taken_for_the_next() -> Iterator[None]:
    """A worker's answer is used without looking at which question it belongs to."""

    async def ask(self: Any, request_id: int, request: object) -> memoryview:
        await self._process.send_all(frame(request_id, request))
        length, _ = body_length(await self._read(HEADER.size))
        return memoryview(await self._read(length))

    with patch.object(WorkerProcess, "_ask", ask):
        yield


@contextmanager
def leaf_numbers_off_by_one() -> Iterator[None]:
    """Leaves are hashed with the number counted from 0."""
    honest = actors.committer.leaf_hashes

    def leaves(tenant: Uuid, store: Uuid, sources: bytes) -> list[bytes]:
        off = bytearray(sources)
        for at, number in zip(range(0, len(sources), LEAF_SOURCE_BYTES), leaf_numbers(sources), strict=True):
            off[at : at + 8] = (number - 1).to_bytes(8, "big")
        return honest(tenant, store, bytes(off))

    with (
        patch.object(actors.committer, "leaf_hashes", leaves),
        patch.object(actors.commitments_together, "leaf_hashes", leaves),
    ):
        yield


@contextmanager
def absence_remembered() -> Iterator[None]:
    """An agent key that was not there once is believed never to come."""
    honest = KeyRegistry._find
    absent: set[KeyName] = set()

    async def find(self: Any, names: list[KeyName]) -> dict[KeyName, bytes]:
        found = await honest(self, [name for name in names if name not in absent])
        absent.update(name for name in names if name not in found)
        return found

    with patch.object(KeyRegistry, "_find", find):
        yield


@contextmanager
def clock_believed() -> Iterator[None]:
    """sequenced_at is what the database's clock says, though it fell back."""
    honest = actors.sequencer.decide

    def decide(requests: Sequence[Request], facts: Facts, **policy: Any) -> Plan:
        heads = {store: Head(head.current_sequence, 0) for store, head in facts.fence.heads.items()}
        fence = msgspec.structs.replace(facts.fence, heads=heads)
        return honest(requests, msgspec.structs.replace(facts, fence=fence), **policy)

    with patch.object(actors.sequencer, "decide", decide):
        yield


@contextmanager
def letter_forgotten_at_a_death() -> Iterator[None]:
    """Who was in the dead actor's hand is neither tried again nor told."""

    def end(self: Any, how: str, **_: Any) -> list[Any]:
        self._in_hand = []
        return []

    with patch.object(Inbox, "end", end):
        yield


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        answered_before_durable,
        counter_kept_in_memory,
        replay_not_recognised,
        two_incarnations,
        letter_lost_on_retire,
        letter_forgotten_at_a_death,
        revocation_from_a_stale_cache,
        fence_without_epochs,
        credential_not_looked_at,
        unknown_told_as_nothing_done,
        moved_taken_for_stored,
        unsigned_moved_taken_for_stored,
        unsigned_told_before_durable,
        receipts_in_the_wrong_envelopes,
        late_answer_taken_for_the_next,
        leaf_numbers_off_by_one,
        absence_remembered,
        clock_believed,
    )
}


def simulate_with(mutant: str, script: Script) -> History:
    """The run of a script by a house with this bug. Planted anew each time: a bug may remember things."""
    with MUTANTS[mutant]():
        return simulate(script)
