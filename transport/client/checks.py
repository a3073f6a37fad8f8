"""Does what the server showed hold? Pure, offline: events, receipts, commitments and proofs come in.

Alone joins the wire's shapes with the checks of ``ves.proofs``. Inclusion is always ``verify_inclusion``, the
sound one. Every function answers the problems found; empty means it holds. What no trusted key was given for
is a problem too, unless the caller says it may stay unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from transport.client.wire import (
    Envelope,
    ProofFile,
    ReceiptKeyName,
    ReceiptKeys,
    Stream,
    WireCommitment,
    WireReceipt,
)
from ves.constants import ZERO_HASH
from ves.encoding import hex_bytes, prefixed_hex, uuid_text
from ves.merkle import Levels, build_levels, inclusion_path, leaf_hash
from ves.proofs import (
    InclusionProof,
    Problem,
    SequencedEvent,
    verify_commitment,
    verify_event,
    verify_inclusion,
)
from ves.proofs import verify_receipt as _verify_receipt
from ves.records import Commitment, KeyName, Receipt
from ves.signatures import verify_signature

AgentKeyring = Mapping[KeyName, bytes]
"""Agents' public keys by name."""

UNTRUSTED = "receipt_key"
"""The problem's name when all that is missing is a believed key for the receipt."""


def verify_receipt(envelope: Envelope, receipt: WireReceipt, keys: ReceiptKeys) -> list[Problem]:
    """Whether a believed key signed that exactly this event stands at the receipt's number."""
    try:
        event, given = envelope.sequenced(receipt.sequence_number), receipt.receipt()
    except ValueError as wrong:
        return [Problem("malformed", str(wrong))]
    return _receipt_problems(event, given, keys)


def _receipt_problems(event: SequencedEvent, receipt: Receipt, keys: ReceiptKeys) -> list[Problem]:
    """Without a believed key only the signature stays unjudged: the problem ``receipt_key`` says so."""
    key = keys.get(ReceiptKeyName(receipt.sequencer_id, receipt.sequencer_key_version))
    if key is not None:
        return _verify_receipt(event, receipt, key)
    text = (
        f"the receipt was signed by sequencer {uuid_text(receipt.sequencer_id)} with key version "
        f"{receipt.sequencer_key_version}, which is not trusted"
    )
    others = [p for p in _verify_receipt(event, receipt, b"") if p.name != "sequencer_signature"]
    return [Problem(UNTRUSTED, text), *others]


def verify_shown(
    envelope: Envelope, receipt_keys: ReceiptKeys, agent_keys: AgentKeyring, *, with_payload: bool = True
) -> list[Problem]:
    """An event as a stream shows it: payload, agent signature, place, receipt. Not ``with_payload``: it was
    left out, and whether it is the one whose hash was signed is not judged."""
    if envelope.sequence_number is None or envelope.receipt is None:
        return [Problem("sequence_number", "the event has no place or no receipt")]
    try:
        event, receipt = envelope.sequenced(envelope.sequence_number), envelope.receipt.receipt()
        claimed_hash = hex_bytes(envelope.event_signing_hash or "", 32)
    except ValueError as wrong:
        return [Problem("malformed", str(wrong))]
    key = agent_keys.get(envelope.signer_name())
    if key is None:
        problems = [Problem("agent_key", f"the agent's key {envelope.agent_key_id} is not known")]
    elif with_payload:
        problems = verify_event(event, key)
    else:
        problems = _signature_problems(event, key)
    if claimed_hash != event.signing_hash():
        problems.append(Problem("event_signing_hash", "the signing hash shown is not the event's"))
    if envelope.receipt.sequenced_at != envelope.sequenced_at:
        problems.append(Problem("sequenced_at", "the receipt gives another time than the event"))
    return problems + _receipt_problems(event, receipt, receipt_keys)


def _signature_problems(event: SequencedEvent, key: bytes) -> list[Problem]:
    if verify_signature(key, event.signing_hash(), event.agent_signature):
        return []
    return [Problem("agent_signature", "the agent's key did not sign this event")]


def verify_proof_file(
    file: ProofFile, receipt_keys: ReceiptKeys, agent_keys: AgentKeyring | None
) -> list[Problem]:
    """Event, receipt, commitment and proof together. ``agent_keys`` None leaves the agent's signature out."""
    try:
        event, receipt = file.event.sequenced(file.receipt.sequence_number), file.receipt.receipt()
        commitment, proof = file.commitment.commitment(), file.proof.proof()
    except ValueError as wrong:
        return [Problem("malformed", str(wrong))]
    problems = _agent_problems(file.event, event, agent_keys)
    problems += _receipt_problems(event, receipt, receipt_keys)
    return _once(problems + verify_inclusion(event, receipt, commitment, proof))


def verify_acknowledged(
    envelope: Envelope, receipt: WireReceipt, receipt_keys: ReceiptKeys, agent_keys: AgentKeyring | None
) -> list[Problem]:
    """An event and its receipt as kept in a file. ``agent_keys`` None leaves the agent's signature out."""
    try:
        event, given = envelope.sequenced(receipt.sequence_number), receipt.receipt()
    except ValueError as wrong:
        return [Problem("malformed", str(wrong))]
    return _agent_problems(envelope, event, agent_keys) + _receipt_problems(event, given, receipt_keys)


def _agent_problems(envelope: Envelope, event: SequencedEvent, keys: AgentKeyring | None) -> list[Problem]:
    if keys is None:
        return verify_event(event)
    key = keys.get(envelope.signer_name())
    if key is None:
        return [Problem("agent_key", f"the agent's key {envelope.agent_key_id} is not trusted")]
    return verify_event(event, key)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


class StreamReport(msgspec.Struct):
    """What ``verify_stream`` found. ``ok`` only when there is no problem at all."""

    events: int = 0
    receipts: int = 0
    """Receipts that hold."""
    commitments: int = 0
    proofs: int = 0
    """Events whose inclusion in a commitment was shown."""
    uncommitted: int = 0
    voided: list[tuple[int, int]] = []
    """Numbers, first and last, that the server has declared void after a restore: their events are lost."""
    head_sequence: int = 0
    state_root: str = prefixed_hex(ZERO_HASH)
    """After the last commitment; equal for everybody who saw the same history."""
    problems: list[str] = []

    @property
    def ok(self) -> bool:
        return not self.problems


class StreamChecker:
    """Checks one stream in order: all its events, then its commitments one by one with their leaf hashes.

    Feed it in order; it holds the events it was given until ``report``.
    """

    def __init__(
        self, stream: Stream, receipt_keys: ReceiptKeys, *, voided: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``voided``: what the server says of itself; whoever has a receipt for such a number can object."""
        self.report = StreamReport(voided=sorted(voided))
        self._stream = stream
        self._receipt_keys = receipt_keys
        self._sequenced: dict[int, tuple[SequencedEvent, Receipt]] = {}
        self._event_ids: set[bytes] = set()
        self._last_us = 0
        self._next_number = self._beyond_voided(1)
        self._next_start = self._next_number
        self._state_root = ZERO_HASH

    def event(self, envelope: Envelope, agent_keys: AgentKeyring) -> None:
        """The next event, as shown."""
        number = self._next_number
        self._next_number = self._beyond_voided(number + 1)
        name = f"event {number}"
        self.report.events += 1
        problems = verify_shown(envelope, self._receipt_keys, agent_keys)
        self._note(name, problems)
        try:
            event = envelope.sequenced(envelope.sequence_number or 0)
            receipt = envelope.receipt.receipt() if envelope.receipt else None
        except ValueError:
            return  # named by verify_shown
        self._place(name, number, event)
        if receipt is None:
            return
        if not problems:
            self.report.receipts += 1
        if receipt.sequenced_at_us < self._last_us:
            self._say(name, "it was sequenced before its predecessor")
        self._last_us = max(self._last_us, receipt.sequenced_at_us)
        self._sequenced[number] = event, receipt

    def _beyond_voided(self, number: int) -> int:
        for first, last in self.report.voided:
            if first == number:
                number = last + 1
        return number

    def _place(self, name: str, number: int, event: SequencedEvent) -> None:
        if event.sequence_number != number:
            self._say(name, f"it has number {event.sequence_number}: the stream has a gap, or one twice")
        if (event.header.tenant_id, event.header.store_id) != (self._stream.tenant_id, self._stream.store_id):
            self._say(name, "it belongs to another stream")
        if event.header.event_id in self._event_ids:
            self._say(name, "its event_id occurred before")
        self._event_ids.add(event.header.event_id)

    def head(self, head_sequence: int) -> None:
        """The head that was shown with the last event."""
        self.report.head_sequence = head_sequence
        if head_sequence != self._next_number - 1:
            self._say("head", f"it says {head_sequence}, the events end at {self._next_number - 1}")

    def commitment(self, shown: WireCommitment, leaves: Sequence[str]) -> None:
        """The next commitment, with its leaf hashes as the leaves route gives them."""
        name = f"commitment {shown.batch_id}"
        self.report.commitments += 1
        try:
            commitment = shown.commitment()
            shown_leaves = [hex_bytes(leaf, 32) for leaf in leaves]
        except ValueError as wrong:
            self._say(name, str(wrong))
            return
        self._note(name, verify_commitment(commitment))
        if (commitment.tenant_id, commitment.store_id) != (self._stream.tenant_id, self._stream.store_id):
            self._say(name, "it belongs to another stream")
        if commitment.sequence_start != self._next_start:
            self._say(name, f"it starts at {commitment.sequence_start}, not at {self._next_start}")
        if commitment.prev_state_root != self._state_root:
            self._say(name, "it does not follow from the commitment before it")
        self._next_start = self._beyond_voided(commitment.sequence_end + 1)
        self._state_root = commitment.new_state_root
        self.report.state_root = prefixed_hex(commitment.new_state_root)
        self._inclusions(name, commitment, shown_leaves)

    def _inclusions(self, name: str, commitment: Commitment, shown_leaves: list[bytes]) -> None:
        # Not by the range, which a liar may make as long as he likes.
        numbers = range(commitment.sequence_start, commitment.sequence_end + 1)
        few = numbers if len(numbers) <= len(self._sequenced) else ()
        complete = [both for number in few if (both := self._sequenced.get(number)) is not None]
        if len(complete) != commitment.leaf_count:
            self._say(name, "it covers events that were not shown or not well formed")
            return
        leaves = [leaf_of(event) for event, _ in complete]
        if shown_leaves != leaves:
            self._say(name, "the leaf hashes shown for it are not those of its events")
        levels = build_levels(leaves)
        for index, (event, receipt) in enumerate(complete):
            proof = _proof(commitment, event, levels, index)
            problems = verify_inclusion(event, receipt, commitment, proof)
            self.report.proofs += not problems
            self._note(f"inclusion of event {event.sequence_number} in {name}", problems)

    def finish(self) -> StreamReport:
        """The report, once everything was given."""
        self.report.uncommitted = max(0, self._next_number - self._next_start)
        return self.report

    def _note(self, name: str, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._say(name, problem.text)

    def _say(self, name: str, text: str) -> None:
        self.report.problems.append(f"{name}: {text}")


def leaf_of(event: SequencedEvent) -> bytes:
    return leaf_hash(
        event.header.tenant_id,
        event.header.store_id,
        event.sequence_number,
        event.signing_hash(),
        event.agent_signature,
    )


def _proof(commitment: Commitment, event: SequencedEvent, levels: Levels, index: int) -> InclusionProof:
    return InclusionProof(
        batch_id=commitment.batch_id,
        sequence_number=event.sequence_number,
        merkle_root=commitment.merkle_root,
        leaf_hash=levels[0][index],
        leaf_index=index,
        proof_path=inclusion_path(levels, index),
    )
