"""The auditor's judgement: everything the sequencer promises, held against what it shows.

``audit`` takes evidence (a stream as read over HTTP, the published keys, acknowledgements that clients
kept, optionally proofs and database rows) and returns the broken promises as sentences; an empty list is
the only good answer. Pure: reading is done by ``reading``, deciding by ``rules``. Trusts nothing it can
recompute, and imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.auditor import rules
from tests.auditor.rules import Malformed, unhex

Json = dict[str, Any]


@dataclass
class ReceiptKeys:
    """What ``/.well-known/ves-sequencer`` said, or better: what was pinned before."""

    by_name: dict[tuple[str, int], bytes]
    """By (sequencer_id, key_version): each node signs with its own."""
    faults: list[str] = field(default_factory=list)
    """Keys that their predecessors did not sign, or that differ from what was pinned."""

    @classmethod
    def of(cls, document: Json) -> ReceiptKeys:
        """All that is shown; a version that the one before it did not sign is a fault."""
        keys: dict[tuple[str, int], bytes] = {}
        signatures: dict[tuple[str, int], str | None] = {}
        faults = []
        for entry in document["receipt_keys"]:
            if entry["alg"] == "ed25519":
                name = entry.get("sequencer_id", document["sequencer_id"]), int(entry["key_version"])
                if name in keys:
                    faults.append(f"receipt key version {name[1]} of sequencer {name[0]} is shown twice")
                keys[name] = unhex(entry["public_key"], 32, "receipt key")
                signatures[name] = entry.get("previous_signature")
        faults += [
            f"receipt key version {version} of sequencer {who} is not signed by the version before it"
            for who, version in sorted(keys)
            if version > 1 and not _signed_by_the_one_before(keys, who, version, signatures[who, version])
        ]
        return cls(keys, faults)

    def followed_by(self, shown: ReceiptKeys) -> ReceiptKeys:
        """What was pinned, and the later versions that an unbroken chain in ``shown`` leads to."""
        keys, faults = dict(self.by_name), list(shown.faults)
        for name, key in self.by_name.items():
            if shown.by_name.get(name) != key:
                faults.append(f"receipt key version {name[1]} of sequencer {name[0]} is not shown as pinned")
        if not faults:
            for who, version in sorted(shown.by_name):
                if (who, version - 1) in keys:
                    keys.setdefault((who, version), shown.by_name[who, version])
        return ReceiptKeys(keys, faults)


def _signed_by_the_one_before(
    keys: dict[tuple[str, int], bytes], who: str, version: int, signature: str | None
) -> bool:
    previous = keys.get((who, version - 1))
    if previous is None or signature is None:
        return False
    statement = rules.receipt_key_statement(who, version, keys[who, version])
    return rules.signature_holds(previous, statement, unhex(signature, 64, "previous_signature"))


@dataclass
class AgentKey:
    public_key: bytes
    valid_from_us: int | None = None
    valid_to_us: int | None = None
    retires_at_us: int | None = None
    """Its last moment, since another key took its place."""
    replaced_by: int | None = None
    rotation_signature: bytes | None = None
    """Its own word for that key."""


@dataclass
class Evidence:
    """One stream, as somebody saw it."""

    tenant_id: str
    store_id: str
    head: int
    events: list[Json]
    """As ``GET /api/v1/ves/events`` gives them, all of them, in the order given."""
    receipt_keys: ReceiptKeys
    agent_keys: Mapping[tuple[str, int], AgentKey]
    """By (source_agent_id, agent_key_id)."""
    commitments: list[Json] = field(default_factory=list)
    leaves: dict[str, list[str]] = field(default_factory=dict)
    """batch_id -> leaf hashes as the leaves route gives them."""
    unsigned: int = 0
    """How many unsigned (legacy) events the same store has: they count in entities' versions too."""
    proofs: list[Json] = field(default_factory=list)
    acknowledged: list[Json] = field(default_factory=list)
    """``{"event": envelope as posted, "receipt": as answered}``; the event may be missing."""
    voided: Sequence[tuple[int, int]] = ()
    """Numbers, first and last, that the server declared void after a restore: passed over, nobody's."""
    rows: Sequence[Json] | None = None
    """``ves_events`` of this stream, straight from the database, if the auditor may read it."""


def audit(evidence: Evidence) -> list[str]:
    """Every broken promise of one stream, each a sentence naming what and where."""
    name = f"stream {evidence.tenant_id}/{evidence.store_id}"
    return [f"{name}: {problem}" for problem in _problems(evidence)]


def audit_tenant(streams: Sequence[Evidence]) -> list[str]:
    """Every broken promise of several streams of one tenant; also an event_id living in two of them."""
    problems = [problem for stream in streams for problem in audit(stream)]
    home: dict[str, str] = {}
    for stream in streams:
        for event_id in {_text(event.get("event_id")) for event in stream.events}:
            if event_id in home:
                problems.append(
                    f"tenant {stream.tenant_id}: event {event_id} is in store {home[event_id]}"
                    f" and in store {stream.store_id}"
                )
            home[event_id] = stream.store_id
    return problems


def _problems(evidence: Evidence) -> Iterator[str]:
    yield from evidence.receipt_keys.faults
    yield from _numbering(evidence)
    yield from _identities(evidence.events)
    for event in evidence.events:
        yield from _event(event, evidence)
    yield from _rotations(evidence)
    yield from _times(evidence.events)
    yield from _entity_versions(evidence.events, evidence.unsigned)
    yield from _commitments(evidence)
    for proof in evidence.proofs:
        yield from _proof(proof, evidence)
    yield from _acknowledged(evidence)
    if evidence.rows is not None:
        yield from _rows(evidence)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _named(event: Json) -> str:
    return f"event {_text(event.get('event_id'))} (number {event.get('sequence_number')})"


# ---- numbers, identities, time --------------------------------------------------------------------------


def _beyond_voided(number: int, evidence: Evidence) -> int:
    """``number``, or the first one after it that is not void."""
    for first, last in sorted(evidence.voided):
        if first == number:
            number = last + 1
    return number


def _numbering(evidence: Evidence) -> Iterator[str]:
    numbers = [event.get("sequence_number") for event in evidence.events]
    expected = _beyond_voided(1, evidence)
    for number in numbers:
        expected = _beyond_voided(expected, evidence)
        if not isinstance(number, int) or isinstance(number, bool):
            yield f"{number!r} is no sequence number"
        elif number > expected:
            missing = f"{expected}" if number == expected + 1 else f"{expected} to {number - 1}"
            yield f"number {missing} is missing before {number}"
            expected = number + 1
        elif number < expected:
            yield f"number {number} comes again or out of order, {expected} was next"
        else:
            expected += 1
    expected = _beyond_voided(expected, evidence)
    if evidence.head != expected - 1:
        yield f"the head says {evidence.head}, the events end at {expected - 1}"


def _identities(events: Iterable[Json]) -> Iterator[str]:
    for member in ("event_id", "command_id"):
        first: dict[str, Any] = {}
        for event in events:
            value, number = event.get(member), event.get("sequence_number")
            if value is None:
                continue
            if value in first:
                yield f"{member} {value} has two places, numbers {first[value]} and {number}"
            first.setdefault(value, number)


def _times(events: Iterable[Json]) -> Iterator[str]:
    latest = None
    for event in events:
        try:
            now = rules.instant_us(event.get("sequenced_at", ""))
        except (ValueError, TypeError) as error:
            yield f"{_named(event)}: sequenced_at: {error}"
            continue
        if latest is not None and now < latest:
            yield f"{_named(event)} was sequenced before its predecessor: sequenced_at fell"
        latest = now if latest is None else max(latest, now)


def _entity_versions(events: Iterable[Json], unsigned: int) -> Iterator[str]:
    """``base_version``, where an agent gave one, is the count of the entity's earlier events. Unsigned events
    in between are not shown here: a version may run ahead, by as many as there are."""
    versions: dict[tuple[Any, Any], int] = {}
    for event in events:
        entity = (event.get("entity_type"), event.get("entity_id"))
        actual, claimed = versions.get(entity, 0), event.get("base_version")
        if claimed is not None and not 0 <= claimed - actual <= unsigned:
            yield f"{_named(event)} was accepted on base_version {claimed}, the entity was at {actual}"
        elif claimed is not None:
            unsigned -= claimed - actual
            actual = claimed
        versions[entity] = actual + 1


# ---- one event ------------------------------------------------------------------------------------------


def _event(event: Json, evidence: Evidence) -> Iterator[str]:
    try:
        for what in _event_faults(event, evidence):
            yield f"{_named(event)}: {what}"
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        yield f"{_named(event)} is not formed as the protocol says: {type(error).__name__} {error}"


def _event_faults(event: Json, evidence: Evidence) -> Iterator[str]:
    if (rules.uuid16(event["tenant_id"]), rules.uuid16(event["store_id"])) != (
        rules.uuid16(evidence.tenant_id),
        rules.uuid16(evidence.store_id),
    ):
        yield "it belongs to another stream"
    if event["ves_version"] != 1:
        yield f"ves_version is {event['ves_version']}"
    yield from _payload_faults(event)
    signing_hash = rules.event_signing_hash(event)
    if unhex(event["event_signing_hash"], 32, "event_signing_hash") != signing_hash:
        yield "event_signing_hash is not the hash of its members"
    yield from _agent_signature_faults(event, signing_hash, evidence)
    yield from _receipt_faults(event, event["receipt"], event["sequence_number"], evidence)
    if event["receipt"]["sequencedAt"] != event["sequenced_at"]:
        yield "its receipt gives another sequenced_at"


def _payload_faults(event: Json) -> Iterator[str]:
    plain = unhex(event["payload_plain_hash"], 32, "payload_plain_hash")
    cipher = unhex(event["payload_cipher_hash"], 32, "payload_cipher_hash")
    if event["payload_kind"] == 0:
        if event.get("payload_encrypted") is not None:
            yield "a plaintext event carries payload_encrypted"
        if rules.payload_plain_hash(event["payload"]) != plain:
            yield "the payload is not the one that payload_plain_hash names"
        if cipher != rules.ZEROS:
            yield "a plaintext event has a payload_cipher_hash"
    elif event["payload_kind"] == 1:
        if event.get("payload") is not None:
            yield "an encrypted event carries a plaintext payload"
        if rules.payload_cipher_hash(event) != cipher:
            yield "payload_encrypted is not the one that payload_cipher_hash names"
    else:
        yield f"payload_kind is {event['payload_kind']}"


def _agent_signature_faults(event: Json, signing_hash: bytes, evidence: Evidence) -> Iterator[str]:
    key = evidence.agent_keys.get((event["source_agent_id"], event["agent_key_id"]))
    if key is None:
        yield f"agent {event['source_agent_id']} has no key {event['agent_key_id']} in the list"
        return
    signature = unhex(event["agent_signature"], 64, "agent_signature")
    if not rules.signature_holds(key.public_key, signing_hash, signature):
        yield "the agent's signature does not hold"
    now = rules.instant_us(event["sequenced_at"])
    if key.valid_from_us is not None and now < key.valid_from_us:
        yield "the agent's key was not yet valid when it was sequenced"
    if key.valid_to_us is not None and now > key.valid_to_us:
        yield "the agent's key had expired when it was sequenced"
    if key.retires_at_us is not None and now > key.retires_at_us:
        yield "the agent's key had been retired when it was sequenced"


def _rotations(evidence: Evidence) -> Iterator[str]:
    """Where a key gave its word for its successor, it gave it for the key that is listed."""
    for (agent_id, key_id), old in evidence.agent_keys.items():
        if old.rotation_signature is None:
            continue
        new = evidence.agent_keys.get((agent_id, old.replaced_by or 0))
        if new is None:
            yield f"key {key_id} of agent {agent_id} was replaced by {old.replaced_by}, which is not listed"
            continue
        name = evidence.tenant_id, agent_id, key_id, old.replaced_by or 0
        message = rules.rotation_hash(*name, old.public_key, new.public_key)
        if not rules.signature_holds(old.public_key, message, old.rotation_signature):
            yield f"key {key_id} of agent {agent_id} did not sign for key {old.replaced_by}"


def _receipt_faults(event: Json, receipt: Json, number: int, evidence: Evidence) -> Iterator[str]:
    if rules.uuid16(receipt["eventId"]) != rules.uuid16(event["event_id"]):
        yield f"its receipt is for event {receipt['eventId']}"
    if receipt["sequenceNumber"] != number:
        yield f"its receipt says number {receipt['sequenceNumber']}"
    expected = rules.receipt_hash(event, number)
    if unhex(receipt["receiptHash"], 32, "receiptHash") != expected:
        yield "its receipt's hash does not bind this event to this number"
    if receipt["signatureAlg"] != "ed25519":
        yield f"its receipt is signed with {receipt['signatureAlg']!r}, not ed25519"
        return
    name = receipt["sequencerId"], receipt["sequencerKeyVersion"]
    key = evidence.receipt_keys.by_name.get(name)
    if key is None:
        yield f"its receipt names key version {name[1]} of sequencer {name[0]}, which is not published"
        return
    signature = unhex(receipt["sequencerSignature"], 64, "sequencerSignature")
    if not rules.signature_holds(key, expected, signature):
        yield "its receipt's signature does not hold"


# ---- commitments and proofs -----------------------------------------------------------------------------


def _commitments(evidence: Evidence) -> Iterator[str]:
    by_number = _by_number(evidence.events)
    next_start, state = _beyond_voided(1, evidence), rules.ZEROS
    for commitment in sorted(evidence.commitments, key=lambda c: c.get("sequence_start", 0)):
        name = f"commitment {_text(commitment.get('batch_id'))}"
        try:
            for what in _commitment_faults(commitment, next_start, state, evidence, by_number):
                yield f"{name}: {what}"
            next_start = _beyond_voided(commitment["sequence_end"] + 1, evidence)
            state = unhex(commitment["new_state_root"], 32, "new_state_root")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            yield f"{name} is not formed as the protocol says: {type(error).__name__} {error}"


def _by_number(events: Iterable[Json]) -> dict[int, Json]:
    """The first event found at each number; a second one was named by ``_numbering``."""
    found: dict[int, Json] = {}
    for event in events:
        if isinstance(event.get("sequence_number"), int):
            found.setdefault(event["sequence_number"], event)
    return found


def _commitment_faults(
    commitment: Json, next_start: int, state: bytes, evidence: Evidence, by_number: Mapping[int, Json]
) -> Iterator[str]:
    start, end = commitment["sequence_start"], commitment["sequence_end"]
    count = end - start + 1
    if start != next_start:
        yield f"it starts at {start}, the next one to commit was {next_start}"
    if count < 1 or end > evidence.head:
        yield f"it covers {start} to {end}, the head is {evidence.head}"
        return
    if commitment["leaf_count"] != count:
        yield f"leaf_count is {commitment['leaf_count']}, its range has {count}"
    if commitment["padded_leaf_count"] != rules.padded(count):
        yield f"padded_leaf_count is {commitment['padded_leaf_count']}, not {rules.padded(count)}"
    if commitment["tree_depth"] != (count - 1).bit_length():
        yield f"tree_depth is {commitment['tree_depth']}, not {(count - 1).bit_length()}"
    if unhex(commitment["prev_state_root"], 32, "prev_state_root") != state:
        yield "prev_state_root is not the state root of the commitment before it"
    root = unhex(commitment["merkle_root"], 32, "merkle_root")
    chained = rules.state_root(evidence.tenant_id, evidence.store_id, state, root, start, end)
    if unhex(commitment["new_state_root"], 32, "new_state_root") != chained:
        yield "new_state_root does not chain the roots and the range"
    if any(number not in by_number for number in range(start, end + 1)):
        yield "it covers numbers that the stream does not show"
        return
    leaves = [rules.leaf_hash(by_number[number], number) for number in range(start, end + 1)]
    if rules.merkle_root(leaves) != root:
        yield "merkle_root is not the root of the events it covers"
    shown = evidence.leaves.get(commitment["batch_id"])
    if shown is not None and [unhex(leaf, 32, "leaf") for leaf in shown] != leaves:
        yield "the leaf hashes shown for it are not those of its events"


def _proof(proof: Json, evidence: Evidence) -> Iterator[str]:
    name = f"proof of number {proof.get('sequence_number')}"
    try:
        for what in _proof_faults(proof, evidence):
            yield f"{name}: {what}"
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        yield f"{name} is not formed as the protocol says: {type(error).__name__} {error}"


def _proof_faults(proof: Json, evidence: Evidence) -> Iterator[str]:
    """Sound only because leaf, index and depth are recomputed: a path alone proves nothing (VES 3.8)."""
    number = proof["sequence_number"]
    event = _by_number(evidence.events).get(number)
    commitment = next((c for c in evidence.commitments if c["batch_id"] == proof["batch_id"]), None)
    if event is None or commitment is None:
        yield "it names an event or a commitment that is not there"
        return
    index = number - commitment["sequence_start"]
    leaf = rules.leaf_hash(event, number)
    path = [unhex(step, 32, "proof_path") for step in proof["proof_path"]]
    root = unhex(commitment["merkle_root"], 32, "merkle_root")
    if not 0 <= index < commitment["leaf_count"]:
        yield "its commitment does not cover this number"
    if proof["leaf_index"] != index:
        yield f"leaf_index is {proof['leaf_index']}, not {index}"
    if len(path) != commitment["tree_depth"]:
        yield f"its path has {len(path)} steps, the tree {commitment['tree_depth']}"
    if unhex(proof["leaf_hash"], 32, "leaf_hash") != leaf:
        yield "leaf_hash is not the leaf of this event"
    if unhex(proof["merkle_root"], 32, "merkle_root") != root:
        yield "merkle_root is not the commitment's"
    if proof.get("directions") != [not index >> level & 1 for level in range(len(path))]:
        yield "its directions are not those of its index"
    if index >= 0 and rules.climb(leaf, index, path) != root:
        yield "its path does not lead from this event to the committed root"


# ---- what clients were promised -------------------------------------------------------------------------


def _acknowledged(evidence: Evidence) -> Iterator[str]:
    places: dict[str, list[Json]] = {}
    for event in evidence.events:
        places.setdefault(_text(event.get("event_id")), []).append(event)
    for kept in evidence.acknowledged:
        receipt = kept["receipt"]
        name = f"acknowledged event {receipt['eventId']} (number {receipt['sequenceNumber']})"
        found = places.get(receipt["eventId"], [])
        if not found:
            yield f"{name} is lost"
            continue
        if len(found) > 1:
            yield f"{name} is there {len(found)} times"
        try:
            for what in _promise_faults(kept, found[0], evidence):
                yield f"{name}: {what}"
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            yield f"{name} is not formed as the protocol says: {type(error).__name__} {error}"


def _promise_faults(kept: Json, found: Json, evidence: Evidence) -> Iterator[str]:
    receipt = kept["receipt"]
    if found["sequence_number"] != receipt["sequenceNumber"]:
        yield f"it is now at number {found['sequence_number']}"
    for member in ("receiptHash", "sequencerSignature", "sequencedAt", "sequencerId", "sequencerKeyVersion"):
        if found["receipt"][member] != receipt[member]:
            yield f"the stored receipt's {member} differs from the one given out"
    posted = kept.get("event")
    if posted is None:
        return
    yield from _receipt_faults(posted, receipt, receipt["sequenceNumber"], evidence)
    if rules.event_signing_hash(posted) != rules.event_signing_hash(found):
        yield "its signed members changed"
    for member in ("agent_signature", "payload_plain_hash"):
        if posted[member].removeprefix("0x").lower() != found[member].removeprefix("0x").lower():
            yield f"its {member} changed"
    if posted["payload_kind"] == 0 and rules.canonical(posted["payload"]) != rules.canonical(
        found["payload"]
    ):
        yield "its payload changed"
    if posted["payload_kind"] == 1 and posted["payload_encrypted"] != found["payload_encrypted"]:
        yield "its payload_encrypted changed"
    for member in ("command_id", "base_version"):
        if posted.get(member) != found.get(member):
            yield f"its {member} changed"


# ---- the tables, when the auditor may read them ---------------------------------------------------------

COLUMNS_SHOWN = (
    "event_id",
    "source_agent_id",
    "agent_key_id",
    "entity_type",
    "entity_id",
    "event_type",
    "created_at",
    "payload_kind",
    "payload_plain_hash",
    "payload_cipher_hash",
    "agent_signature",
    "event_signing_hash",
    "command_id",
    "base_version",
)
"""Columns of ``ves_events`` that an answer repeats under the same name."""


def _rows(evidence: Evidence) -> Iterator[str]:
    rows = list(evidence.rows or [])
    by_number = _by_number(evidence.events)
    numbers = sorted(row["sequence_number"] for row in rows)
    expected = 1
    for number in numbers:
        expected = _beyond_voided(expected, evidence)
        if number != expected:
            yield f"the table's numbers are not 1 to their count: {number} is there, {expected} was next"
            break
        expected += 1
    if set(numbers) != set(by_number):
        yield f"the table holds {len(numbers)} numbers, the answers showed {len(by_number)}"
    for row in rows:
        event = by_number.get(row["sequence_number"])
        if event is None:
            continue
        for column in COLUMNS_SHOWN:
            if column in row and _plain(row[column]) != _plain(event.get(column)):
                yield f"{_named(event)}: the table's {column} is not the one shown"


def _plain(value: Any) -> Any:
    """One spelling for bytes, UUID objects and hex or UUID texts."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    shown = str(value) if type(value).__name__ == "UUID" else value
    if not isinstance(shown, str):
        return shown
    bare = shown.removeprefix("0x").replace("-", "").lower()
    if len(bare) in (32, 64, 128) and all(letter in "0123456789abcdef" for letter in bare):
        return bare
    return shown


__all__ = ["AgentKey", "Evidence", "Malformed", "ReceiptKeys", "audit", "audit_tenant"]
