"""What an auditor is shown of one stream, as it comes, and how a lie is put on record.

Alone asks the server for what ``following`` and its neighbours judge, and turns a contradiction into a
``Finding`` that is durable before anybody hears of it. Keeps raw JSON beside what it means: it is the
evidence, if it turns out to be false. Judges nothing but form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any, NamedTuple

import msgspec

from transport.client.checks import UNTRUSTED, leaf_of
from transport.client.errors import BadAnswer, ClientError, Refused
from transport.client.follow_memory import Finding, Memory, finding_of
from transport.client.sequencer import SequencerClient
from transport.client.wire import (
    Envelope,
    Leaves,
    ListedCommitment,
    RawCommitments,
    RawEvents,
    Stream,
    WireProof,
    decode,
    encode,
)
from ves.encoding import hex_bytes, prefixed_hex, uuid_text
from ves.following import Contradiction, Verified
from ves.proofs import Problem, SequencedEvent
from ves.records import Commitment
from ves.timestamps import utc_text

EVENTS, COMMITMENTS = "/api/v1/ves/events", "/api/v1/ves/commitments"
PAGE = 1000
_CHANCE = SystemRandom().randrange
LACKING = frozenset({UNTRUSTED, "agent_key"})
"""Problems that say only that nobody we trust vouches for a key."""


class Contradicted(ClientError):
    """Found, and on record."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"CONTRADICTION {finding.kind}: {finding.text}")
        self.finding = finding


class NotVouchedFor(ClientError):
    """Something is signed with a key that nobody we trust vouches for. Not a lie; verified no further."""


class Look(msgspec.Struct):
    """What one look found."""

    commitments: int = 0
    events: int = 0
    signatures: int = 0
    """Events whose agent's signature and receipt were verified, not only their leaf."""
    alerts: list[str] = []
    notices: list[str] = []
    on_chain: int = 0
    """Commitments that became final since the last look, which the chain was asked about."""
    not_on_chain: int = 0
    """Those it was not asked about: their anchor is the server's word."""


class Shown(NamedTuple):
    """A commitment as it came."""

    raw: bytes
    wire: ListedCommitment
    commitment: Commitment


class ShownEvent(NamedTuple):
    raw: bytes
    envelope: Envelope
    event: SequencedEvent

    def leaf(self) -> bytes:
        return leaf_of(self.event)


class View:
    """One stream at one address, and the memory of it."""

    def __init__(
        self,
        client: SequencerClient,
        memory: Memory,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[int], int] = _CHANCE,
    ) -> None:
        """``chance``: a number below its argument that the server cannot foresee."""
        self.client = client
        self.memory = memory
        self.now = now
        self.chance = chance
        self.stream = Stream(memory.seen.tenant_id, memory.seen.store_id)

    def contradicted(
        self, wrong: Contradiction, verified: bytes | None, shown: bytes | None, url: str | None = None
    ) -> Contradicted:
        """To be raised; it is on record now."""
        finding = finding_of(wrong, self.time(), url or self.client.origin, verified, shown)
        self.memory.find(finding)
        return Contradicted(finding)

    def holds(self, what: str, problems: Sequence[Problem], number: int, raw: bytes) -> None:
        """Nothing if there is no problem. What lacks only a key that we believe is no lie."""
        lies = [problem.text for problem in problems if problem.name not in LACKING]
        if lies:
            wrong = Contradiction("event_false", f"{what}: {'; '.join(lies)}", number, number)
            raise self.contradicted(wrong, None, raw)
        if problems:
            raise NotVouchedFor(
                f"{what}: {problems[0].text}; get the key from somebody you trust and name it with --trust"
            )

    def time(self) -> str:
        return self.now().isoformat(timespec="seconds")

    # ---- fetching ---------------------------------------------------------------------------------------

    async def ask(self, path: str, client: SequencerClient | None = None, **query: Any) -> bytes:
        return await (client or self.client).ask("GET", path, query={**self.stream.query(), **query})

    async def commitments(
        self, start: int, limit: int, client: SequencerClient | None = None
    ) -> tuple[list[Shown], bool]:
        """From the first that starts at ``start`` or later; whether there are more."""
        raw_page = await self.ask(COMMITMENTS, client, **{"from": start, "limit": limit})
        page = decode(raw_page, RawCommitments, COMMITMENTS)
        found = []
        for entry in page.commitments[:limit]:
            wire = decode(entry, ListedCommitment, COMMITMENTS)
            try:
                found.append(Shown(bytes(entry), wire, wire.commitment()))
            except ValueError as wrong:
                raise BadAnswer(f"{COMMITMENTS}: {wrong}") from wrong
        return found, page.has_more

    async def commitment_at(self, start: int, client: SequencerClient | None = None) -> Shown | None:
        """The first that starts at ``start`` or later."""
        page, _ = await self.commitments(start, 1, client)
        return page[0] if page else None

    async def leaves(self, shown: Shown) -> list[bytes] | None:
        """None: there are none."""
        path = f"{COMMITMENTS}/{uuid_text(shown.commitment.batch_id)}/leaves"
        raw = await self._ask_if_there(path)
        try:
            return None if raw is None else [hex_bytes(h, 32) for h in decode(raw, Leaves, path).leaf_hashes]
        except ValueError as wrong:
            raise BadAnswer(f"{path}: {wrong}") from wrong

    async def proof(self, number: int) -> WireProof | None:
        """None: there is none."""
        path = f"/api/v1/ves/proofs/{number}"
        raw = await self._ask_if_there(path)
        return None if raw is None else decode(raw, WireProof, path)

    async def _ask_if_there(self, path: str) -> bytes | None:
        try:
            return await self.ask(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def raw_events(self, start: int, limit: int, client: SequencerClient | None = None) -> list[bytes]:
        page = decode(await self.ask(EVENTS, client, **{"from": start, "limit": limit}), RawEvents, EVENTS)
        return [bytes(raw) for raw in page.events[:limit]]

    def event_at(self, raw: bytes | None, number: int) -> ShownEvent:
        """What was shown where the event ``number`` of our stream is due, which is committed."""
        if raw is None:
            wrong = Contradiction("event_missing", f"event {number} is committed, not shown", number, number)
            raise self.contradicted(wrong, None, None)
        envelope = decode(raw, Envelope, f"event {number}")
        if envelope.sequence_number != number:
            kind = "number_reused" if (envelope.sequence_number or number) < number else "event_missing"
            text = f"event {number} is due and number {envelope.sequence_number} is shown"
            raise self.contradicted(Contradiction(kind, text, number, number), None, raw)
        try:
            event, stream = envelope.sequenced(number), envelope.stream()
        except ValueError as misspelt:
            raise BadAnswer(f"event {number}: {misspelt}") from misspelt
        if stream != self.stream:
            wrong = Contradiction("event_false", f"event {number} is another stream's", number, number)
            raise self.contradicted(wrong, None, raw)
        return ShownEvent(raw, envelope, event)


def told(verified: Verified) -> bytes:
    """A kept commitment as the wire spells it, with the receipt of its last event."""
    one, receipt = verified.commitment, verified.last_receipt
    return encode(
        {
            "batch_id": uuid_text(one.batch_id),
            "tenant_id": uuid_text(one.tenant_id),
            "store_id": uuid_text(one.store_id),
            "ves_version": one.ves_version,
            "tree_depth": one.tree_depth,
            "leaf_count": one.leaf_count,
            "padded_leaf_count": one.padded_leaf_count,
            "merkle_root": one.merkle_root.hex(),
            "prev_state_root": one.prev_state_root.hex(),
            "new_state_root": one.new_state_root.hex(),
            "sequence_start": one.sequence_start,
            "sequence_end": one.sequence_end,
            "committed_at": utc_text(one.committed_at_us),
            "last_receipt": {
                "event_id": uuid_text(receipt.event_id),
                "sequence_number": one.sequence_end,
                "event_signing_hash": prefixed_hex(receipt.event_signing_hash),
                "sequencer_id": uuid_text(receipt.sequencer_id),
                "sequencer_key_version": receipt.key_version,
                "sequencer_signature": receipt.signature.hex(),
            },
        }
    )
