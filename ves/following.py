"""What an auditor who keeps looking believes of a stream, and what contradicts it.

    history_n = H("VES_AUDIT_FOLLOWED_V1" || history_(n-1) || record_n)     32 zero bytes before the first
    record    = one verified commitment and the receipt of its last event, RECORD_BYTES long

Whoever has verified a commitment once knows it by these bytes for ever, and its stream up to there by one
hash; so two auditors compare what they were shown by comparing lines. Alone decides whether something new
goes on from what was verified, and whether something old is still what it was. Asks nobody, keeps no file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from ves.constants import FOLLOWED, VES_VERSION, ZERO_HASH
from ves.encoding import hex_bytes, uuid_bytes, uuid_text
from ves.merkle import padded_leaf_count, tree_depth
from ves.proofs import verify_commitment
from ves.receipts import receipt_hash, receipt_signature_holds
from ves.records import Commitment, Receipt, Uuid

_RECORD = struct.Struct(">16sQQ32s32sq16s32s16sI64s")
RECORD_BYTES = _RECORD.size

Ranges = Sequence[tuple[int, int]]
"""Of sequence numbers, first and last."""

ANCHOR_STATES = ("pending", "submitted", "included", "safe", "finalized")
"""In the order in which an anchor goes through them; ``reported`` stands outside."""
FINALIZED = "finalized"


class Contradiction(msgspec.Struct, frozen=True):
    """What was shown cannot be true together with what was verified before, or with what was signed."""

    kind: str
    """Which lie it is: docs/auditing.md has a row for each."""
    text: str
    first: int | None = None
    """The sequence numbers it is about, where it is about some."""
    last: int | None = None


class LastReceipt(msgspec.Struct, frozen=True):
    """What the sequencer signed about the last event of a commitment: enough to show it to others."""

    event_id: Uuid
    event_signing_hash: bytes
    sequencer_id: Uuid
    key_version: int
    signature: bytes


class Verified(msgspec.Struct, frozen=True):
    """A commitment of which everything was verified that an auditor verifies."""

    commitment: Commitment
    last_receipt: LastReceipt


class Seen(msgspec.Struct, frozen=True):
    """How far a stream was verified. ``head_sequence`` and ``voided`` are the server's word, the greatest
    head it has said so far; everything else was verified."""

    tenant_id: Uuid
    store_id: Uuid
    count: int = 0
    """Commitments."""
    history: bytes = ZERO_HASH
    sequence_end: int = 0
    state_root: bytes = ZERO_HASH
    head_sequence: int = 0
    voided: tuple[tuple[int, int], ...] = ()

    def next_start(self) -> int:
        """The number that the next commitment begins with."""
        return beyond_voided(self.sequence_end + 1, self.voided)


def beyond_voided(number: int, voided: Iterable[tuple[int, int]]) -> int:
    """``number``, or the first after it that is not void."""
    for void_first, void_last in sorted(voided):
        if void_first <= number <= void_last:
            number = void_last + 1
    return number


# ---- records ------------------------------------------------------------------------------------------


def record_of(verified: Verified) -> bytes:
    """Without what the stream or the record before says: names of the stream, state root before."""
    one, receipt = verified.commitment, verified.last_receipt
    return _RECORD.pack(
        one.batch_id,
        one.sequence_start,
        one.sequence_end,
        one.merkle_root,
        one.new_state_root,
        one.committed_at_us,
        receipt.event_id,
        receipt.event_signing_hash,
        receipt.sequencer_id,
        receipt.key_version,
        receipt.signature,
    )


def verified_of(record: bytes, tenant_id: Uuid, store_id: Uuid, prev_state_root: bytes) -> Verified:
    """What ``record_of`` was made of. ValueError for anything that is no record."""
    if len(record) != RECORD_BYTES:
        raise ValueError(f"a record has {RECORD_BYTES} bytes")
    batch_id, start, end, root, state_root, at_us, event_id, signing_hash, by, version, signature = (
        _RECORD.unpack(record)
    )
    if not 1 <= start <= end:
        raise ValueError("a record's range is none")
    count = end - start + 1
    return Verified(
        Commitment(
            batch_id=batch_id,
            tenant_id=tenant_id,
            store_id=store_id,
            ves_version=VES_VERSION,
            tree_depth=tree_depth(count),
            leaf_count=count,
            padded_leaf_count=padded_leaf_count(count),
            merkle_root=root,
            prev_state_root=prev_state_root,
            new_state_root=state_root,
            sequence_start=start,
            sequence_end=end,
            committed_at_us=at_us,
        ),
        LastReceipt(event_id, signing_hash, by, version, signature),
    )


def history_after(history: bytes, record: bytes) -> bytes:
    return sha256(FOLLOWED + history + record).digest()


def advance(seen: Seen, verified: Verified) -> Seen:
    """``seen`` with one more commitment, which ``judge_next`` has nothing against."""
    return msgspec.structs.replace(
        seen,
        count=seen.count + 1,
        history=history_after(seen.history, record_of(verified)),
        sequence_end=verified.commitment.sequence_end,
        state_root=verified.commitment.new_state_root,
    )


def last_receipt_of(receipt: Receipt, event_signing_hash: bytes) -> LastReceipt:
    return LastReceipt(
        receipt.event_id,
        event_signing_hash,
        receipt.sequencer_id,
        receipt.sequencer_key_version,
        receipt.sequencer_signature,
    )


def last_receipt_holds(verified: Verified, public_key: bytes) -> bool:
    """Whether the sequencer's key signed that this event stands at the commitment's last number."""
    one, receipt = verified.commitment, verified.last_receipt
    hashed = receipt_hash(
        one.tenant_id, one.store_id, receipt.event_id, one.sequence_end, receipt.event_signing_hash
    )
    return receipt_signature_holds(public_key, hashed, receipt.signature)


def receipts_conflict(one: Verified, other: Verified) -> bool:
    """One number, two events: if both receipts hold, their signatures convict the sequencer."""
    same_number = one.commitment.sequence_end == other.commitment.sequence_end
    events = [(v.last_receipt.event_id, v.last_receipt.event_signing_hash) for v in (one, other)]
    return same_number and events[0] != events[1]


def name_of(one: Commitment) -> str:
    """For people."""
    return f"commitment {uuid_text(one.batch_id)} of the numbers {one.sequence_start} to {one.sequence_end}"


# ---- deciding -----------------------------------------------------------------------------------------


def judge_head(seen: Seen, head_sequence: int, voided: Ranges) -> list[Contradiction]:
    """The head of the events and the void numbers, as the server says them now."""
    found = []
    if head_sequence < seen.head_sequence:
        found.append(
            Contradiction(
                "head_fell",
                f"the head is {head_sequence}, it was {seen.head_sequence}: events are gone",
                head_sequence + 1,
                seen.head_sequence,
            )
        )
    for first, last in seen.voided:
        if (first, last) not in voided:
            text = f"the numbers {first} to {last} were declared void and are not any more"
            found.append(Contradiction("voided_changed", text, first, last))
    for first, last in voided:
        if (first, last) not in seen.voided and first <= seen.sequence_end:
            text = f"the numbers {first} to {last} are declared void, and events there were verified"
            found.append(Contradiction("voided_changed", text, first, last))
    return found


def look(seen: Seen, head_sequence: int, voided: Ranges) -> Seen:
    """``seen`` with a head that ``judge_head`` has nothing against."""
    return msgspec.structs.replace(seen, head_sequence=head_sequence, voided=tuple(sorted(voided)))


def judge_next(seen: Seen, shown: Commitment, *, batch_is_new: bool) -> list[Contradiction]:
    """Whether ``shown`` goes on where ``seen`` ends; what its events say of it comes after that."""
    found = [("commitment_false", problem.text) for problem in verify_commitment(shown)]
    if (shown.tenant_id, shown.store_id) != (seen.tenant_id, seen.store_id):
        found.append(("commitment_false", "it belongs to another stream"))
    if shown.sequence_start != seen.next_start():
        text = f"it starts at {shown.sequence_start}, not at {seen.next_start()}"
        found.append(("commitment_gap", text))
    if shown.prev_state_root != seen.state_root:
        found.append(("commitment_forked", "it does not follow from the commitment before it"))
    if shown.sequence_end > seen.head_sequence:
        found.append(("head_behind", f"it reaches {shown.sequence_end}, the head says {seen.head_sequence}"))
    for first, last in seen.voided:
        if first <= shown.sequence_end and shown.sequence_start <= last:
            found.append(("voided_changed", f"it holds numbers that are said to be void: {first} to {last}"))
    if not batch_is_new:
        found.append(("batch_reused", "its batch id is an earlier commitment's"))
    return [
        Contradiction(kind, f"{name_of(shown)}: {text}", shown.sequence_start, shown.sequence_end)
        for kind, text in dict.fromkeys(found)
    ]


def judge_again(kept: Verified, shown: Commitment | None) -> list[Contradiction]:
    """Whether a commitment that was verified is still what it was; None: it is not shown any more."""
    ours = kept.commitment
    name = name_of(ours)
    if shown is None:
        text = f"{name} is not there any more"
        return [Contradiction("commitment_gone", text, ours.sequence_start, ours.sequence_end)]
    if shown == ours:
        return []
    changed = [m for m in Commitment.__struct_fields__ if getattr(shown, m) != getattr(ours, m)]
    text = f"{name} was verified and is shown otherwise now: {', '.join(changed)}"
    return [Contradiction("commitment_changed", text, ours.sequence_start, ours.sequence_end)]


class AnchorSeen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the server said of a commitment's anchor when it was last looked at."""

    state: str = ""
    """Empty: no anchor holds it."""
    tx_hash: str | None = None
    block_number: int | None = None
    block_hash: str | None = None


def judge_anchor(of: Commitment, before: AnchorSeen, now: AnchorSeen) -> Contradiction | None:
    """Only what was called final must stay: everything before that a reorganisation may take back.
    ``before`` without a transaction: it is only known to have been final."""
    if before.state != FINALIZED:
        return None
    if now.state == FINALIZED:
        if before.tx_hash is None or before == now:
            return None
        what = "in another transaction or block"
    else:
        what = now.state or "gone"
    text = f"{name_of(of)}: its anchor was finalized and is {what} now"
    return Contradiction("anchor_unfinalized", text, of.sequence_start, of.sequence_end)


def anchor_fell(before: AnchorSeen, now: AnchorSeen) -> bool:
    """Something earlier than before, or another block: a reorganisation, which is nobody's lie."""
    if before.state not in ANCHOR_STATES or before.state == FINALIZED:
        return False
    if now.state not in ANCHOR_STATES:
        return bool(before.tx_hash)
    back = ANCHOR_STATES.index(now.state) < ANCHOR_STATES.index(before.state)
    return back or (before.block_hash is not None and now.block_hash != before.block_hash)


# ---- two auditors -------------------------------------------------------------------------------------


def head_line(seen: Seen) -> str:
    """One line that auditors send each other."""
    stream = f"{uuid_text(seen.tenant_id)}/{uuid_text(seen.store_id)}"
    return (
        f"ves-audit-head-1 {stream} commitments={seen.count} through={seen.sequence_end} "
        f"state_root={seen.state_root.hex()} history={seen.history.hex()}"
    )


_HEAD_LINE = re.compile(
    r"ves-audit-head-1 (\S{36})/(\S{36}) commitments=(\d{1,18}) through=(\d{1,18}) "
    r"state_root=(\w{64}) history=(\w{64})",
    re.ASCII,
)


def read_head_line(line: str) -> Seen:
    """What ``head_line`` was made of, as far as it says. ValueError for anything else."""
    match = _HEAD_LINE.fullmatch(line)
    if match is None:
        raise ValueError("this is no line of audit head, or of another version")
    tenant, store, count, through, root, history = match.groups()
    return Seen(
        tenant_id=uuid_bytes(tenant),
        store_id=uuid_bytes(store),
        count=int(count),
        history=hex_bytes(history, 32),
        sequence_end=int(through),
        state_root=hex_bytes(root, 32),
    )
