"""One look of an auditor at a stream: fetch, let ``ves.following`` decide, remember what was verified.

    receipt keys -> for each page of new commitments: head and void numbers, each commitment with all its
    events -> other addresses of the service -> a random earlier commitment and the one after it once more,
    a random event of it, a random agent's keys -> anchors

The first thing that contradicts what was verified ends the look, and nothing is verified beyond it. Memory
holds a page of events and the leaf hashes of one commitment; what was verified is saved every other second,
so that a look that dies goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from transport.client.checks import verify_proof_file
from transport.client.errors import BadAnswer
from transport.client.follow_anchors import ANCHORS_MAX, Anchors, ChainView
from transport.client.follow_elsewhere import Elsewhere
from transport.client.follow_keys import Keys
from transport.client.follow_view import PAGE, Look, Shown, ShownEvent, View, told
from transport.client.sequencer import SequencerClient
from transport.client.wire import ProofFile, StreamHead, decode, encode
from ves.following import (
    Contradiction,
    LastReceipt,
    Verified,
    judge_again,
    judge_head,
    judge_next,
    last_receipt_of,
    look,
    name_of,
)
from ves.merkle import merkle_root
from ves.proofs import Problem
from ves.records import Commitment

HEAD = "/api/v1/ves/head"
SAVE_EVERY_S = 2.0

Progress = Callable[[int, int], None]
"""Hears up to which of how many numbers everything was verified."""


class Follower:
    """Of one stream. ``sample``: so many events of each commitment have their signatures verified, chosen by
    chance, and its last one; None: all."""

    def __init__(
        self,
        view: View,
        *,
        sample: int | None = None,
        also: Sequence[SequencerClient] = (),
        chain: ChainView | None = None,
        anchor_within_s: float | None = None,
        progress: Progress = lambda done, head: None,
    ) -> None:
        self._view = view
        self._memory = view.memory
        self._keys = Keys(view)
        self._anchors = Anchors(view, chain, anchor_within_s)
        self._elsewhere = [Elsewhere(view, self._keys, other) for other in also]
        self._sample = sample
        self._progress = progress
        self._ahead: deque[bytes] = deque()
        self._saved_at = view.now()

    async def look(self) -> Look:
        """Contradicted, on record, at the first lie. NotVouchedFor, Unanswered, Refused, BadAnswer: it could
        not look to the end; what was verified until then is kept."""
        found = Look()
        try:
            await self._keys.look()
            await self._new_ones(found)
            for elsewhere in self._elsewhere:
                await elsewhere.look(found)
            if self._memory.seen.count:
                await self._old_ones(found)
            self._memory.state.verified_at = self._view.time()
        finally:
            self._ahead.clear()
            self._memory.save()
        return found

    # ---- what is new ------------------------------------------------------------------------------------

    async def _new_ones(self, found: Look) -> None:
        """Pages begin with the last one that was verified: so none can stand between it and the next."""
        while True:
            last = self._memory.last()
            page, has_more = await self._view.commitments(1 if last is None else _start(last), PAGE)
            await self._head()  # after the page, so that what the page reaches must be within it
            if last is not None:
                self._same(last, page[0] if page else None)
            new = page if last is None else page[1:]
            for shown in new:
                await self._new(shown, page[-1].commitment.sequence_end, found)
            if not has_more:
                return
            if not new:
                raise BadAnswer("the page of commitments says that more follow, and does not go on")

    async def _head(self) -> None:
        raw = await self._view.ask(HEAD)
        shown, seen = decode(raw, StreamHead, HEAD), self._memory.seen
        voided = [(one.first_number, one.last_number) for one in shown.voided]
        for wrong in judge_head(seen, shown.head_sequence, voided):
            kept = {"head_sequence": seen.head_sequence, "voided": seen.voided}
            raise self._view.contradicted(wrong, encode(kept), raw)
        self._memory.seen = look(seen, shown.head_sequence, voided)

    async def _new(self, shown: Shown, through: int, found: Look) -> None:
        memory, commitment = self._memory, shown.commitment
        batch_is_new = not memory.knows_batch(commitment.batch_id)
        for wrong in judge_next(memory.seen, commitment, batch_is_new=batch_is_new):
            last = memory.last()
            raise self._view.contradicted(wrong, told(last) if last is not None else None, shown.raw)
        memory.add(Verified(commitment, await self._events(shown, through, found)))
        found.commitments += 1
        self._progress(memory.seen.sequence_end, memory.seen.head_sequence)
        if (self._view.now() - self._saved_at).total_seconds() >= SAVE_EVERY_S:
            self._saved_at = self._view.now()
            memory.save()

    async def _events(self, shown: Shown, through: int, found: Look) -> LastReceipt:
        """All events of a commitment hold: numbers, leaves, root; signatures and receipts of all or some."""
        start, end = shown.commitment.sequence_start, shown.commitment.sequence_end
        due = await self._due_leaves(shown)
        chosen = self._chosen(shown.commitment.leaf_count)
        for number in range(start, end + 1):
            event = self._view.event_at(await self._raw_event(number, through), number)
            if event.leaf() != due[number - start]:
                text = f"event {number} is not the one that {name_of(shown.commitment)} holds"
                wrong = Contradiction("event_changed", text, number, number)
                raise self._view.contradicted(wrong, shown.raw, event.raw)
            found.events += 1
            if found.events % PAGE == 0:
                self._progress(number, self._memory.seen.head_sequence)
            if chosen is None or number - start in chosen:
                await self._signed(event, f"event {number}")
                found.signatures += 1
        return _last_receipt(event)

    async def _due_leaves(self, shown: Shown) -> list[bytes]:
        """The leaves shown for a commitment, which have its root: so its events must be exactly theirs."""
        commitment, leaves = shown.commitment, await self._view.leaves(shown)
        fits = leaves is not None and len(leaves) == commitment.leaf_count
        if leaves is None or not fits or merkle_root(leaves) != commitment.merkle_root:
            text = f"{name_of(commitment)}: the leaves shown for it do not have its root"
            wrong = Contradiction("leaves_false", text, commitment.sequence_start, commitment.sequence_end)
            raise self._view.contradicted(wrong, None, shown.raw)
        return leaves

    def _chosen(self, count: int) -> set[int] | None:
        """Places of the events whose signatures are verified, always the last one's. None: all."""
        if self._sample is None or count <= self._sample:
            return None
        self._memory.state.events_sampled = True
        chosen = {count - 1}
        while len(chosen) < self._sample:
            chosen.add(self._view.chance(count))
        return chosen

    async def _raw_event(self, number: int, through: int) -> bytes | None:
        """As shown. Events are read ahead, a page at a time and up to ``through``."""
        if not self._ahead:
            self._ahead.extend(await self._view.raw_events(number, min(PAGE, through - number + 1)))
        return self._ahead.popleft() if self._ahead else None

    async def _signed(self, event: ShownEvent, what: str) -> None:
        problems = await self._keys.problems_of(event.envelope)
        self._view.holds(what, problems, event.event.sequence_number, event.raw)

    # ---- what is old ------------------------------------------------------------------------------------

    async def _old_ones(self, found: Look) -> None:
        memory, view = self._memory, self._view
        index = view.chance(memory.seen.count)
        kept = memory.at(index)
        shown = (await self._again(index, 2))[0]
        if index < memory.state.finalized_through:
            await self._anchors.still_final(kept, shown, found)
        await self._holds_a_random_event(kept.commitment, shown)
        if memory.state.agent_keys:
            await self._keys.a_random_agent(view.chance(len(memory.state.agent_keys)))
        if memory.state.finalized_through < memory.seen.count:
            await self._anchors.look(await self._again(memory.state.finalized_through, ANCHORS_MAX), found)

    async def _again(self, first: int, limit: int) -> list[Shown]:
        """The verified commitments from number ``first`` on, at most ``limit``: still what they were, and no
        other between them. At least one."""
        memory = self._memory
        page, has_more = await self._view.commitments(_start(memory.at(first)), limit)
        due = range(first, min(first + limit, memory.seen.count))
        same = [self._same(memory.at(index), shown) for index, shown in zip(due, page, strict=False)]
        if len(same) < len(due) and not (same and has_more):
            self._same(memory.at(due[len(same)]), None)
        return same

    def _same(self, kept: Verified, shown: Shown | None) -> Shown:
        """It is still what it was."""
        there = shown is not None and shown.commitment.sequence_start == kept.commitment.sequence_start
        for wrong in judge_again(kept, shown.commitment if shown is not None and there else None):
            raise self._view.contradicted(wrong, told(kept), shown.raw if shown is not None else None)
        assert shown is not None, "judge_again has something against None"
        return shown

    async def _holds_a_random_event(self, commitment: Commitment, shown: Shown) -> None:
        """It is still there, and the one that was committed."""
        number = commitment.sequence_start + self._view.chance(commitment.leaf_count)
        event = self._view.event_at(next(iter(await self._view.raw_events(number, 1)), None), number)
        await self._signed(event, f"event {number}, which was verified before")
        proof = await self._view.proof(number)
        if proof is None:
            text = f"event {number}: there is no proof of it, although {name_of(commitment)} was verified"
            raise self._view.contradicted(
                Contradiction("event_missing", text, number, number), None, event.raw
            )
        assert event.envelope.receipt is not None, "an event without a receipt is not signed"
        file = ProofFile(event.envelope, event.envelope.receipt, shown.wire, proof)
        problems: list[Problem] = verify_proof_file(file, self._memory.state.keys(), self._keys.agents())
        self._view.holds(f"event {number}, which was verified before", problems, number, event.raw)


def _start(kept: Verified) -> int:
    return kept.commitment.sequence_start


def _last_receipt(event: ShownEvent) -> LastReceipt:
    receipt = event.envelope.receipt
    assert receipt is not None, "the last event is always among those whose receipt was verified"
    return last_receipt_of(receipt.receipt(), event.event.signing_hash())
