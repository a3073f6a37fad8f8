"""The shapes that cross the wire, as a client sees them, and their way into the values ``ves`` checks.

It alone knows the JSON members of answers and of the files a client keeps. Decoding checks types and
spellings and raises ``BadAnswer``; whether the content is true is ``checks``' business. Members that a later
server adds are ignored.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from transport.client.errors import BadAnswer
from ves.constants import PLAINTEXT
from ves.encoding import hex_bytes, uuid_bytes, uuid_text
from ves.events import EventHeader
from ves.evidence import Trust
from ves.proofs import InclusionProof, SequencedEvent
from ves.receipt_keys import BrokenChain, ReceiptKeyLink, rotation_holds
from ves.records import Commitment, KeyName, Receipt, Uuid
from ves.timestamps import parse_rfc3339

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises for bytes that are not as wished: also nested more deeply than anybody reads."""

_NO_JSON = msgspec.Raw(b"")


class Stream(msgspec.Struct, frozen=True):
    """The name of a stream: a store of a tenant."""

    tenant_id: Uuid
    store_id: Uuid

    def query(self) -> dict[str, str]:
        return {"tenant_id": uuid_text(self.tenant_id), "store_id": uuid_text(self.store_id)}

    def __str__(self) -> str:
        return f"{uuid_text(self.tenant_id)}/{uuid_text(self.store_id)}"


class WireReceipt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A receipt as answered and as kept in files."""

    sequencer_id: str
    event_id: str
    sequence_number: int
    sequenced_at: str
    receipt_hash: str
    signature_alg: str
    sequencer_signature: str
    sequencer_key_version: int
    receipt_signature_scheme: int = 0

    def receipt(self) -> Receipt:
        """As ``ves`` checks it. A receipt that is not signed with Ed25519 is no receipt: ValueError."""
        if self.signature_alg != "ed25519":
            raise ValueError(f"the receipt is signed with {self.signature_alg!r}, not ed25519")
        return Receipt(
            event_id=uuid_bytes(self.event_id),
            sequence_number=self.sequence_number,
            sequenced_at_us=parse_rfc3339(self.sequenced_at),
            receipt_hash=hex_bytes(self.receipt_hash, 32),
            sequencer_id=uuid_bytes(self.sequencer_id),
            sequencer_key_version=self.sequencer_key_version,
            sequencer_signature=hex_bytes(self.sequencer_signature, 64),
        )


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event: as an agent signs and posts it, and with the last four members as a stream shows it."""

    ves_version: Literal[1]
    event_id: str
    tenant_id: str
    store_id: str
    source_agent_id: str
    agent_key_id: int
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    payload_kind: Literal[0, 1]
    payload_plain_hash: str
    payload_cipher_hash: str
    agent_signature: str
    payload: msgspec.Raw = _NO_JSON
    payload_encrypted: msgspec.Raw = _NO_JSON
    command_id: str | None = None
    base_version: int | None = None
    sequence_number: int | None = None
    sequenced_at: str | None = None
    event_signing_hash: str | None = None
    receipt: WireReceipt | None = None

    def stream(self) -> Stream:
        return Stream(uuid_bytes(self.tenant_id), uuid_bytes(self.store_id))

    def signer_name(self) -> KeyName:
        return KeyName(uuid_bytes(self.tenant_id), uuid_bytes(self.source_agent_id), self.agent_key_id)

    def sequenced(self, sequence_number: int) -> SequencedEvent:
        """As ``ves`` checks it, standing at this number; ValueError for a member that is misspelt."""
        header = EventHeader(
            tenant_id=uuid_bytes(self.tenant_id),
            store_id=uuid_bytes(self.store_id),
            event_id=uuid_bytes(self.event_id),
            source_agent_id=uuid_bytes(self.source_agent_id),
            agent_key_id=self.agent_key_id,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            event_type=self.event_type,
            created_at=self.created_at,
        )
        return SequencedEvent(
            header=header,
            payload_kind=self.payload_kind,
            payload=bytes(self.payload if self.payload_kind == PLAINTEXT else self.payload_encrypted),
            payload_plain_hash=hex_bytes(self.payload_plain_hash, 32),
            payload_cipher_hash=hex_bytes(self.payload_cipher_hash, 32),
            agent_signature=hex_bytes(self.agent_signature, 64),
            sequence_number=sequence_number,
        )


class Acknowledgement(msgspec.Struct, frozen=True):
    """What an agent keeps: the event it posted and the receipt it got. One per line in a receipt file."""

    event: Envelope
    receipt: WireReceipt


class WireRejection(msgspec.Struct, frozen=True):
    event_id: str
    reason: str
    message: str


class IngestReply(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The answer to a post: accepted + replayed + rejected = sent."""

    batch_id: str
    events_accepted: int
    events_replayed: int
    events_rejected: int
    sequence_start: int | None
    sequence_end: int | None
    head_sequence: int
    receipts: list[WireReceipt] = []
    rejections: list[WireRejection] = []


class EventsPage(msgspec.Struct, frozen=True):
    events: list[Envelope]
    count: int
    head_sequence: int
    has_more: bool
    next_from: int


class WireCommitment(msgspec.Struct, frozen=True):
    batch_id: str
    tenant_id: str
    store_id: str
    ves_version: int
    tree_depth: int
    leaf_count: int
    padded_leaf_count: int
    merkle_root: str
    prev_state_root: str
    new_state_root: str
    sequence_start: int
    sequence_end: int
    committed_at: str
    remaining: int | None = None

    def commitment(self) -> Commitment:
        """As ``ves`` checks it; ValueError for a member that is misspelt."""
        return Commitment(
            batch_id=uuid_bytes(self.batch_id),
            tenant_id=uuid_bytes(self.tenant_id),
            store_id=uuid_bytes(self.store_id),
            ves_version=self.ves_version,
            tree_depth=self.tree_depth,
            leaf_count=self.leaf_count,
            padded_leaf_count=self.padded_leaf_count,
            merkle_root=hex_bytes(self.merkle_root, 32),
            prev_state_root=hex_bytes(self.prev_state_root, 32),
            new_state_root=hex_bytes(self.new_state_root, 32),
            sequence_start=self.sequence_start,
            sequence_end=self.sequence_end,
            committed_at_us=parse_rfc3339(self.committed_at),
        )


class WireAnchor(msgspec.Struct, frozen=True):
    """What a server says of a commitment's way to a chain; null where it does not know yet."""

    state: str
    road: str | None = None
    chain_id: int | None = None
    contract: str | None = None
    local_chain: bool | None = None
    tx_hash: str | None = None
    block_number: int | None = None
    block_hash: str | None = None
    batch_count: int | None = None
    position: int | None = None
    cause: str | None = None


class ListedCommitment(WireCommitment, frozen=True, kw_only=True):
    """With its anchor; None: no anchor holds it, or the server does not speak of any."""

    anchor: WireAnchor | None = None


class RawCommitments(msgspec.Struct, frozen=True):
    """A page whose entries are kept as they came: evidence, if they turn out to be false."""

    commitments: list[msgspec.Raw]
    has_more: bool


class RawEvents(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]


class VoidedNumbers(msgspec.Struct, frozen=True):
    """Both ends included."""

    first_number: int
    last_number: int


class StreamHead(msgspec.Struct, frozen=True):
    """``voided``: numbers that were declared nobody's after a restore."""

    head_sequence: int
    voided: list[VoidedNumbers] = []


class CommitmentsPage(msgspec.Struct, frozen=True):
    commitments: list[WireCommitment]
    has_more: bool
    next_from: int


class Leaves(msgspec.Struct, frozen=True):
    leaf_hashes: list[str]


class WireProof(msgspec.Struct, frozen=True):
    sequence_number: int
    batch_id: str
    merkle_root: str
    leaf_hash: str
    leaf_index: int
    proof_path: list[str]
    directions: list[bool]

    def proof(self) -> InclusionProof:
        return InclusionProof(
            batch_id=uuid_bytes(self.batch_id),
            sequence_number=self.sequence_number,
            merkle_root=hex_bytes(self.merkle_root, 32),
            leaf_hash=hex_bytes(self.leaf_hash, 32),
            leaf_index=self.leaf_index,
            proof_path=[hex_bytes(step, 32) for step in self.proof_path],
        )


class ProofFile(msgspec.Struct, frozen=True):
    """All one needs to check offline that an event is committed; ``sequencer agent prove`` writes it."""

    event: Envelope
    receipt: WireReceipt
    commitment: WireCommitment
    proof: WireProof


class ReceiptKeyName(NamedTuple):
    """A receipt names the key it was signed with so: every node of a sequencer has its own id."""

    sequencer_id: Uuid
    key_version: int


ReceiptKeys = dict[ReceiptKeyName, bytes]
"""Public keys by name."""


class ReceiptKey(msgspec.Struct, frozen=True, omit_defaults=True):
    key_version: int
    alg: str
    public_key: str
    sequencer_id: str = ""
    """Empty: the document's."""
    previous_signature: str | None = None
    """By the version before it: how a new key is followed from an old one."""
    created_at: str = ""
    active: bool = False


class WellKnown(msgspec.Struct, frozen=True):
    """``/.well-known/ves-sequencer``: who signs receipts, with which keys."""

    sequencer_id: str
    receipt_keys: list[ReceiptKey]

    def keys(self) -> ReceiptKeys:
        """The Ed25519 keys; other algorithms are left out. ValueError for a misspelt one."""
        return {
            ReceiptKeyName(uuid_bytes(key.sequencer_id or self.sequencer_id), key.key_version): hex_bytes(
                key.public_key, 32
            )
            for key in self.receipt_keys
            if key.alg == "ed25519"
        }

    def links(self) -> dict[Uuid, list[ReceiptKeyLink]]:
        """The same keys as chains to be followed, by sequencer_id. ValueError for a misspelt one."""
        chains: dict[Uuid, list[ReceiptKeyLink]] = {}
        for key in self.receipt_keys:
            if key.alg == "ed25519":
                signature = None if key.previous_signature is None else hex_bytes(key.previous_signature, 64)
                link = ReceiptKeyLink(key.key_version, hex_bytes(key.public_key, 32), signature)
                chains.setdefault(uuid_bytes(key.sequencer_id or self.sequencer_id), []).append(link)
        return chains


class TrustedAgentKey(msgspec.Struct, frozen=True):
    tenant_id: str
    agent_id: str
    key_id: int
    public_key: str


class TrustFile(WellKnown, frozen=True):
    """What somebody decided to believe: a saved well-known document, and agents' keys if they wish; for
    evidence also a chain and its contract, who may anchor, and state roots of the audit trail that they
    kept."""

    agent_keys: list[TrustedAgentKey] = []
    chain_id: int | None = None
    contract: str | None = None
    anchoring_accounts: list[str] = []
    audit_state_roots: list[str] = []

    def of_evidence(self) -> Trust:
        """ValueError, naming the member, for one that is misspelt."""
        if (self.chain_id is None) is not (self.contract is None):
            raise ValueError("chain_id and contract: name both or neither")
        return Trust(
            receipt_keys={(name.sequencer_id, name.key_version): key for name, key in self.keys().items()},
            chain_id=self.chain_id,
            contract=None if self.contract is None else _named("contract", self.contract, 20),
            anchoring_accounts=frozenset(
                _named("anchoring_accounts", one, 20) for one in self.anchoring_accounts
            ),
            agent_keys=self.agents() or {},
            audit_state_roots=frozenset(
                _named("audit_state_roots", one, 32) for one in self.audit_state_roots
            ),
        )

    def check_signatures(self) -> None:
        """What is listed is believed as it stands; a ``previous_signature`` beside it must hold all the same.
        BrokenChain (a ValueError) otherwise."""
        for sequencer_id, links in self.links().items():
            keys = {link.key_version: link.public_key for link in links}
            for link in links:
                previous = keys.get(link.key_version - 1)
                if link.previous_signature is None or previous is None:
                    continue
                if not rotation_holds(previous, sequencer_id, link):
                    raise BrokenChain(f"version {link.key_version} is not signed by the version before it")

    def agents(self) -> dict[KeyName, bytes] | None:
        """None when the file names no agent: their signatures then stay unchecked. ValueError if misspelt."""
        return {
            KeyName(uuid_bytes(key.tenant_id), uuid_bytes(key.agent_id), key.key_id): hex_bytes(
                key.public_key, 32
            )
            for key in self.agent_keys
        } or None


def _named(member: str, text: str, length: int) -> bytes:
    try:
        return hex_bytes(text, length)
    except ValueError as wrong:
        raise ValueError(f"{member}: {wrong}") from None


class AgentKeyEntry(msgspec.Struct, frozen=True, rename="camel"):
    """One registered key of an agent, as listed."""

    key_id: int
    public_key: str
    valid_from: str | None = None
    valid_to: str | None = None


class Rotation(msgspec.Struct, frozen=True, rename="camel"):
    """What became of a rotation: the replaced key may sign until ``retires_at``."""

    key_id: int
    replaces: int
    retires_at: str
    continuity_proven: bool
    already_rotated: bool


class AgentKeysPage(msgspec.Struct, frozen=True):
    keys: list[AgentKeyEntry]
    has_more: bool
    next_from: int


class ErrorDetail(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
    request_id: str = ""


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


def decode(raw: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """``raw`` as ``kind``; ``BadAnswer`` naming ``what`` and the member that is wrong."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE as wrong:
        raise BadAnswer(f"{what}: {wrong}") from wrong


def encode(value: Any) -> bytes:
    """Compact JSON, for files: what ``decode`` reads."""
    return msgspec.json.encode(value)
