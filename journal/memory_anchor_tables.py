"""Anchors in memory: the tables, and what the doors read of them. Part of the journal in memory.

``journal.memory`` (the doors) and ``journal.memory_anchors`` (the anchor) decide when and whether a change is
applied; here it is only said what a change makes of the tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from journal.anchor_port import Anchor, AnchorTransaction, AnchorTransition, PlannedBatch, Standing
from journal.anchor_rows import ON_A_BLOCK, as_told
from journal.port import AnchorEvidence, AnchorReport, AnchorSummary, CommitmentAnchor, PendingCommitment
from ves.anchor_records import Inclusion
from ves.records import Commitment, Uuid


@dataclass
class HeldLease:
    holder: Uuid
    epoch: int
    held_until_us: int


@dataclass
class KeptResumption:
    chain_id: int
    contract: bytes
    address: bytes
    standing: Standing


@dataclass
class AnchorTables:
    """Every commitment is expected here when it is stored."""

    commitments: dict[Uuid, Commitment] = field(default_factory=dict)
    lease: HeldLease | None = None
    anchors: dict[int, Anchor] = field(default_factory=dict)
    batches: dict[int, list[PlannedBatch]] = field(default_factory=dict)
    places: dict[Uuid, tuple[int, int]] = field(default_factory=dict)
    """Of a batch: its anchor's number and its position there."""
    transactions: list[AnchorTransaction] = field(default_factory=list)
    transitions: defaultdict[int, list[AnchorTransition]] = field(default_factory=lambda: defaultdict(list))
    inclusions: dict[tuple[int, bytes], Inclusion] = field(default_factory=dict)
    resumptions: list[KeptResumption] = field(default_factory=list)
    reports: dict[Uuid, tuple[AnchorReport, int]] = field(default_factory=dict)
    requests: set[Uuid] = field(default_factory=set)

    def expect(self, commitment: Commitment) -> None:
        self.commitments[commitment.batch_id] = commitment

    def last(self, anchor_number: int) -> AnchorTransition:
        return self.transitions[anchor_number][-1]

    def open_anchors(self) -> list[Anchor]:
        return [a for number, a in sorted(self.anchors.items()) if self.last(number).state != "finalized"]

    def waiting(self) -> list[Commitment]:
        """In no anchor and not reported, oldest first."""
        found = [c for c in self.commitments.values() if c.batch_id not in {*self.places, *self.reports}]
        return sorted(found, key=_age)

    def told(self, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
        found = {batch_id: self._one(batch_id) for batch_id in batch_ids}
        return {batch_id: anchor for batch_id, anchor in found.items() if anchor is not None}

    def known(self, batch_id: Uuid) -> CommitmentAnchor | None:
        """Raises LookupError for a commitment that does not exist."""
        if batch_id not in self.commitments:
            raise LookupError("no such commitment")
        return self._one(batch_id)

    def _one(self, batch_id: Uuid) -> CommitmentAnchor | None:
        if batch_id in self.reports:
            report, at_us = self.reports[batch_id]
            place = (report.tx_hash, report.block_number, None, None, None, None)
            return CommitmentAnchor(
                batch_id, "reported", at_us, report.chain_id, None, None, None, None, 1, *place
            )
        if batch_id not in self.places:
            return None
        number, position = self.places[batch_id]
        anchor, last = self.anchors[number], self.last(number)
        return as_told(
            CommitmentAnchor(
                batch_id,
                last.state,
                last.at_us,
                anchor.chain_id,
                anchor.contract,
                anchor.road,
                number,
                position,
                anchor.batch_count,
                last.tx_hash,
                last.block_number,
                last.block_hash,
                last.gas_used,
                last.effective_gas_price,
                last.cause,
            )
        )

    def is_anchored(self, batch_id: Uuid) -> bool:
        anchor = self._one(batch_id)
        return anchor is not None and anchor.state in ("reported", *ON_A_BLOCK)

    def pending(self, limit: int) -> list[PendingCommitment]:
        under_way = [
            self.commitments[batch.batch_id]
            for anchor in self.open_anchors()
            for batch in self.batches[anchor.anchor_number]
        ]
        oldest = sorted([*self.waiting(), *under_way], key=_age)[:limit]
        return [PendingCommitment(commitment, self._one(commitment.batch_id)) for commitment in oldest]

    def take_report(self, report: AnchorReport, now_us: int) -> None:
        self.reports[report.batch_id] = (report, now_us)
        self.requests.discard(report.batch_id)

    def summary(self, now_us: int) -> AnchorSummary:
        waiting = self.waiting()
        under_way = self.open_anchors()
        ended = [number for number in self.anchors if self.last(number).state == "finalized"]
        open_batches = [b.batch_id for a in under_way for b in self.batches[a.anchor_number]]
        ages = [self.commitments[b].committed_at_us for b in open_batches]
        oldest = [waiting[0].committed_at_us] if waiting else []
        lasts = [self.last(number) for number in ended]
        return AnchorSummary(
            waiting=len(waiting),
            oldest_waiting_us=oldest[0] if oldest else 0,
            open_anchors=dict(Counter(self.last(a.anchor_number).state for a in under_way)),
            oldest_unfinalized_us=min(ages + oldest, default=0),
            anchored_batches=sum(self.anchors[number].batch_count for number in ended),
            anchored_events=sum(
                self.commitments[b.batch_id].leaf_count for number in ended for b in self.batches[number]
            ),
            gas_used=sum(last.gas_used or 0 for last in lasts),
            cost_wei=sum((last.gas_used or 0) * (last.effective_gas_price or 0) for last in lasts),
            lease_holder=self.lease.holder if self.lease else None,
            lease_epoch=self.lease.epoch if self.lease else 0,
            lease_held_until_us=self.lease.held_until_us if self.lease else 0,
            now_us=now_us,
        )

    def evidence(self, batch_id: Uuid) -> AnchorEvidence | None:
        told = self._one(batch_id)
        if told is None or told.anchor_number is None:
            return None
        anchor = self.anchors[told.anchor_number]
        raw = None
        inclusion = None
        if told.block_hash is not None:
            raw = next(one.raw for one in self.transactions if one.tx_hash == told.tx_hash)
            inclusion = self.inclusions.get((anchor.anchor_number, told.block_hash))
        leaves = [batch.leaf for batch in self.batches[anchor.anchor_number]]
        return AnchorEvidence(
            anchor=told,
            root=anchor.root,
            first_index=anchor.first_index,
            previous_head=anchor.previous_head,
            leaves=leaves if anchor.road == "aggregate" else [],
            raw_transaction=raw,
            inclusion=inclusion,
        )


def _age(commitment: Commitment) -> tuple[int, Uuid]:
    return commitment.committed_at_us, commitment.batch_id
