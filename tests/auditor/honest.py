"""A sequencer in a page, honest and without a server: makes evidence for the auditor's own tests to spoil."""

from __future__ import annotations

import base64
import copy
import json
import uuid
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.auditor import rules
from tests.auditor.audit import AgentKey, Evidence, ReceiptKeys

Json = dict[str, Any]


class Honest:
    """Takes payloads, gives evidence. Everything is signed with fixed keys, so that runs are the same."""

    def __init__(self, name: int = 1) -> None:
        self.tenant_id, self.store_id = str(uuid.UUID(int=99)), str(uuid.UUID(int=name))
        self.agent_id, self.sequencer_id = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))
        self.agent_key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
        self.sequencer_key = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
        self.events: list[Json] = []
        self.commitments: list[Json] = []
        self.leaves: dict[str, list[str]] = {}
        self.head = 0
        self.voided: list[tuple[int, int]] = []
        self.unsigned: list[Json] = []
        self.unsigned_commitments: list[Json] = []
        self.validity_proofs: list[Json] = []

    def post(self, payload: Any, **changes: Any) -> Json:
        event = {
            "ves_version": 1,
            "event_id": str(uuid.uuid5(uuid.UUID(self.store_id), str(len(self.events)))),
            "tenant_id": self.tenant_id,
            "store_id": self.store_id,
            "source_agent_id": self.agent_id,
            "agent_key_id": 1,
            "entity_type": "order",
            "entity_id": f"o-{len(self.events)}",
            "event_type": "order.created",
            "created_at": "2026-01-01T00:00:00.000Z",
            "payload_kind": 0,
            "payload": payload,
            "payload_plain_hash": "0x" + rules.payload_plain_hash(payload).hex(),
            "payload_cipher_hash": "0x" + rules.ZEROS.hex(),
        } | changes
        return self.accept(self.signed(event))

    def signed(self, event: Json) -> Json:
        event["agent_signature"] = "0x" + self.agent_key.sign(rules.event_signing_hash(event)).hex()
        return event

    def accept(self, event: Json) -> Json:
        self.head = number = self.head + 1
        sequenced_at = f"2026-01-01T00:00:{number:02d}+00:00"
        hashed = rules.receipt_hash(event, number)
        stored = event | {
            "sequence_number": number,
            "sequenced_at": sequenced_at,
            "event_signing_hash": "0x" + rules.event_signing_hash(event).hex(),
            "receipt": {
                "sequencerId": self.sequencer_id,
                "eventId": event["event_id"],
                "sequenceNumber": number,
                "sequencedAt": sequenced_at,
                "receiptHash": hashed.hex(),
                "signatureAlg": "ed25519",
                "sequencerSignature": self.sequencer_key.sign(hashed).hex(),
                "sequencerKeyVersion": 1,
                "receiptSignatureScheme": 1,
            },
        }
        self.events.append(stored)
        return stored

    def commit(self) -> Json:
        last = self.commitments[-1] if self.commitments else None
        start = self._beyond_voided(last["sequence_end"] + 1 if last else 1)
        state = bytes.fromhex(last["new_state_root"]) if last else rules.ZEROS
        end = min([first - 1 for first, _ in self.voided if first > start] or [self.head])
        covered = [event for event in self.events if start <= event["sequence_number"] <= end]
        leaves = [rules.leaf_hash(event, event["sequence_number"]) for event in covered]
        root = rules.merkle_root(leaves)
        commitment = {
            "batch_id": str(uuid.UUID(int=1000 + start)),
            "tenant_id": self.tenant_id,
            "store_id": self.store_id,
            "ves_version": 1,
            "tree_depth": (len(leaves) - 1).bit_length(),
            "leaf_count": len(leaves),
            "padded_leaf_count": rules.padded(len(leaves)),
            "merkle_root": root.hex(),
            "prev_state_root": state.hex(),
            "new_state_root": rules.state_root(self.tenant_id, self.store_id, state, root, start, end).hex(),
            "sequence_start": start,
            "sequence_end": end,
            "committed_at": "2026-01-01T00:02:00Z",
        }
        self.commitments.append(commitment)
        self.leaves[str(commitment["batch_id"])] = [leaf.hex() for leaf in leaves]
        return commitment

    def give_up(self, count: int) -> None:
        """The next numbers are void, as after a restore that lost their events."""
        self.voided.append((self.head + 1, self.head + count))
        self.head += count

    def _beyond_voided(self, number: int) -> int:
        for first, last in self.voided:
            number = last + 1 if first == number else number
        return number

    def post_unsigned(self, text: str, entity_id: str = "o-1") -> None:
        """``text``: the payload, as it is hashed."""
        number = len(self.unsigned) + 1
        envelope = {
            "envelope_version": 1,
            "event_id": str(uuid.uuid5(uuid.UUID(self.store_id), f"unsigned {number}")),
            "tenant_id": self.tenant_id,
            "store_id": self.store_id,
            "entity_type": "order",
            "entity_id": entity_id,
            "event_type": "order.created",
            "payload": json.loads(text),
            "payload_hash": rules.sha256(text.encode()).hex(),
            "created_at": "2026-01-01T00:00:00Z",
            "sequence_number": number,
            "source_agent": self.agent_id,
        }
        self.unsigned.append({"envelope": envelope, "sequenced_at": f"2026-01-01T00:00:{number:02d}Z"})

    def commit_unsigned(self) -> None:
        last = self.unsigned_commitments[-1] if self.unsigned_commitments else None
        start = last["sequence_end"] + 1 if last else 1
        covered = self.unsigned[start - 1 :]
        leaves = [rules.unsigned_leaf(event["envelope"], n) for n, event in enumerate(covered, start)]
        state = rules.sha256(b"versions of one moment", rules.u64(len(self.unsigned)))
        self.unsigned_commitments.append(
            {
                "batch_id": str(uuid.UUID(int=2000 + start)),
                "tenant_id": self.tenant_id,
                "store_id": self.store_id,
                "events_root": rules.unsigned_root(leaves).hex(),
                "event_count": len(leaves),
                "sequence_start": start,
                "sequence_end": start + len(leaves) - 1,
                "committed_at": "2026-01-01T00:02:00Z",
                "prev_state_root": last["new_state_root"] if last else rules.ZEROS.hex(),
                "new_state_root": state.hex(),
            }
        )

    def submit(self, commitment: Json, proof: bytes, *, with_inputs: bool = True) -> None:
        """A validity proof of a type of its own."""
        number = len(self.validity_proofs) + 1
        self.validity_proofs.append(
            {
                "proof_id": str(uuid.UUID(int=3000 + number)),
                **{name: commitment[name] for name in ("batch_id", "tenant_id", "store_id")},
                "proof_type": f"type {number}",
                "proof_version": 1,
                "proof_hash": rules.validity_proof_hash(proof).hex(),
                "public_inputs": rules.validity_inputs(commitment) if with_inputs else None,
                "submitted_at": "2026-01-01T00:03:00Z",
                "proof_b64": base64.b64encode(proof).decode(),
            }
        )

    def proof(self, number: int) -> Json:
        commitment = next(c for c in self.commitments if c["sequence_start"] <= number <= c["sequence_end"])
        index = number - commitment["sequence_start"]
        level = [bytes.fromhex(leaf) for leaf in self.leaves[commitment["batch_id"]]]
        leaf = level[index]
        level += [rules.PAD] * (commitment["padded_leaf_count"] - len(level))
        path, place = [], index
        while len(level) > 1:
            path.append(level[place ^ 1].hex())
            level = [rules.node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
            place >>= 1
        return {
            "sequence_number": number,
            "batch_id": commitment["batch_id"],
            "merkle_root": commitment["merkle_root"],
            "leaf_hash": leaf.hex(),
            "leaf_index": index,
            "proof_path": path,
            "directions": [not index >> k & 1 for k in range(len(path))],
        }

    def evidence(self) -> Evidence:
        """A fresh list each time; the events in it are the same objects, so copy deeply before spoiling."""
        receipt_key = self.sequencer_key.public_key().public_bytes_raw()
        return Evidence(
            tenant_id=self.tenant_id,
            store_id=self.store_id,
            head=self.head,
            voided=list(self.voided),
            events=list(self.events),
            receipt_keys=ReceiptKeys({(self.sequencer_id, 1): receipt_key}),
            agent_keys={(self.agent_id, 1): AgentKey(self.agent_key.public_key().public_bytes_raw())},
            commitments=list(self.commitments),
            leaves=dict(self.leaves),
            proofs=[self.proof(n) for n in range(1, self.commitments[-1]["sequence_end"] + 1)],
            acknowledged=[
                {"event": {k: v for k, v in e.items() if k != "receipt"}, "receipt": dict(e["receipt"])}
                for e in copy.deepcopy(self.events)
            ],
        )
