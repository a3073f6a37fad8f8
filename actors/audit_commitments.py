"""The audit trail's committer: folds every node's chain into chained Merkle commitments, and watches it.

``commit_chain`` commits what a chain has waiting, after it recomputed those entries; a chain that does not
hold is not committed. ``AuditCommitter`` is the actor that looks at all chains every few seconds: its own
node's when they are due, others' when their own node leaves them open, so that a node which is gone leaves no
open tail. Whoever is first has committed; the journal decides. Holds nothing that is not read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from actors.errors import NotNow
from actors.faults import checkpoint
from actors.mailbox import Inbox
from actors.security_events import SecurityEvents
from journal.port import AuditChain, Journal, JournalError, Stored
from ves.audit import COMMITTED_ENTRIES_MAX, AuditRecord, next_audit_commitment
from ves.audit_check import entry_faults
from ves.constants import ZERO_HASH
from ves.encoding import uuid_text
from ves.records import Uuid

PAGE_CHAINS = 100
COMMITMENTS_PER_SWEEP = 16
"""Of one chain; a longer tail is the next sweep's, so that a busy chain does not keep the others waiting."""
STRANGER_PATIENCE = 3
"""Another node's chain is committed here when it waits this many times longer than its own node lets it."""

log = structlog.get_logger("audit")


class ChainBroken(Exception):
    """The text says at which entry and why. What is there is not what was written: look at the database."""


async def commit_chain(journal: Journal, chain: AuditChain, now_us: Callable[[], int]) -> AuditChain:
    """Commits up to COMMITTED_ENTRIES_MAX waiting entries; where the chain stands then, or ``chain`` when
    somebody else was first or nothing waits. Raises ChainBroken, JournalError."""
    entries = await _waiting(journal, chain)
    if not entries:
        return chain
    commitment = next_audit_commitment(
        chain.node_id,
        entry_start=chain.committed_through + 1,
        entry_hashes=[entry.entry_hash for entry in entries],
        prev_state_root=chain.state_root,
        committed_at_us=now_us(),
    )
    checkpoint("audit_committer.built")
    outcome = await journal.commit_audit(commitment)
    if not isinstance(outcome, Stored):
        return chain
    return AuditChain(
        chain.node_id,
        chain.last_number,
        chain.last_hash,
        commitment.entry_end,
        commitment.new_state_root,
        chain.oldest_uncommitted_us,
    )


async def _waiting(journal: Journal, chain: AuditChain) -> list[AuditRecord]:
    """The uncommitted entries that come next, found to follow each other and the committed ones."""
    through = chain.committed_through
    wanted = min(COMMITTED_ENTRIES_MAX, chain.last_number - through)
    if wanted < 0:
        raise ChainBroken(f"it ends at {chain.last_number} and is committed through {through}: cut off")
    # One more: the last committed entry says what the first waiting one must follow.
    found = await journal.read_audit_chain(
        chain.node_id, from_number=max(1, through), limit=wanted + (through > 0)
    )
    prev_hash, number = ZERO_HASH, 0
    if through:
        if not found or found[0].entry_number != through:
            raise ChainBroken(f"entry {through} is missing")
        prev_hash, number = found[0].entry_hash, through
        found = found[1:]
    for entry in found:
        number += 1
        for fault in entry_faults(entry, number=number, prev_hash=prev_hash):
            raise ChainBroken(f"entry {entry.entry_number}: {fault}")
        prev_hash = entry.entry_hash
    if len(found) < wanted:
        raise ChainBroken(f"entry {number + 1} is missing")
    if number == chain.last_number and prev_hash != chain.last_hash:
        raise ChainBroken(f"entry {number}: it is not the one that the counter was left at")
    return found


@dataclass(frozen=True)
class AuditPolicy:
    """Commit our chain when ``entries`` wait or the oldest is ``interval_s`` old; look every ``sweep_s``."""

    node_id: Uuid
    entries: int
    interval_s: float
    sweep_s: float

    def due(self, chain: AuditChain, now_us: int) -> bool:
        waiting = chain.last_number - chain.committed_through
        patience = 1 if chain.node_id == self.node_id else STRANGER_PATIENCE
        age_s = (now_us - chain.oldest_uncommitted_us) / 1e6
        # Fewer than none: it was cut off, and has to be looked at now.
        return waiting < 0 or (
            waiting > 0 and (waiting >= self.entries * patience or age_s >= self.interval_s * patience)
        )


class AuditCommitter:
    """Commits our own chain at start, and every chain when it is due. Takes no letters."""

    def __init__(
        self, *, journal: Journal, policy: AuditPolicy, security: SecurityEvents, now_us: Callable[[], int]
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._security = security
        self._now_us = now_us
        self._broken: dict[Uuid, str] = {}
        """By chain, what was told last: told again only when it is something else."""

    async def run(self, inbox: Inbox) -> None:
        at_start = True
        while True:
            try:
                await self._sweep(at_start=at_start)
                at_start = False
            except (JournalError, NotNow) as error:
                log.info("audit commitments put off", reason=str(error))
            await inbox.pause(self._policy.sweep_s)

    async def _sweep(self, *, at_start: bool) -> None:
        after: Uuid | None = None
        while True:
            chains = await self._journal.read_audit_chains(after=after, limit=PAGE_CHAINS)
            for chain in chains:
                ours = at_start and chain.node_id == self._policy.node_id
                if ours or self._policy.due(chain, self._now_us()):
                    await self._commit(chain)
            if len(chains) < PAGE_CHAINS:
                return
            after = chains[-1].node_id

    async def _commit(self, chain: AuditChain) -> None:
        try:
            for _ in range(COMMITMENTS_PER_SWEEP):
                before, chain = chain, await commit_chain(self._journal, chain, self._now_us)
                if chain == before:
                    break
        except ChainBroken as error:
            self._tell(chain.node_id, str(error))

    def _tell(self, node_id: Uuid, what: str) -> None:
        if self._broken.get(node_id) != what:
            self._broken[node_id] = what
            self._security.happened("audit_chain_broken", node=uuid_text(node_id), what=what)
