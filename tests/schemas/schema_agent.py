"""An agent whose events have payloads and types of one's choosing, and a verifier's trade to give them to."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import msgspec

from actors.worker_verifying import Verifying
from actors.worker_wire import BecomeVerifier, GiveKeys, VerifyAnswer, VerifyBody
from ves.events import EventHeader, encrypted_envelope, plaintext_envelope, request_body
from ves.payload_encryption import seal
from ves.policy import Policy, SchemaName
from ves.records import KeyName, NeedsKeys, NeedsPolicy, NeedsSchemas, Scope, VerifiedBatch, VerifiedEvent
from ves.signatures import Signer

NOW_US = 1_790_000_000_000_000
ANYWHERE = Scope(None, None, None)


class Agent:
    def __init__(self) -> None:
        self.tenant_id, self.store_id, self.agent_id = (uuid.uuid4().bytes for _ in range(3))
        self.signer = Signer(hashlib.sha256(self.agent_id).digest())
        self.key = KeyName(self.tenant_id, self.agent_id, 1)

    def header(self, **changes: Any) -> EventHeader:
        header = EventHeader(
            tenant_id=self.tenant_id,
            store_id=self.store_id,
            event_id=uuid.uuid4().bytes,
            source_agent_id=self.agent_id,
            agent_key_id=1,
            entity_type="order",
            entity_id="o-1",
            event_type="order.created",
            created_at="2026-01-02T03:04:05.678Z",
        )
        return msgspec.structs.replace(header, **changes)

    def event(self, payload: Any, **changes: Any) -> dict[str, Any]:
        return plaintext_envelope(self.signer, self.header(**changes), payload)

    def encrypted(self, payload: Any, **changes: Any) -> dict[str, Any]:
        recipient = {1: bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")}
        header = self.header(**changes)
        sealed = seal(header, payload, recipient, salt=b"s" * 16, dek=b"d" * 32, nonce=b"n" * 12)
        return encrypted_envelope(self.signer, header, *sealed)

    def body(self, *events: dict[str, Any]) -> bytes:
        return request_body(self.agent_id, events)


class Trade:
    """One verifier's process without the process; ``schemas``: event type -> schema."""

    def __init__(self, agent: Agent, schemas: dict[str, Any] | None = None, **policy: Any) -> None:
        self.agent = agent
        self.names = tuple(
            SchemaName(event_type, uuid.uuid5(uuid.NAMESPACE_OID, event_type).bytes, 1)
            for event_type in schemas or ()
        )
        self.texts = {
            n.schema_id: json.dumps(s) for n, s in zip(self.names, (schemas or {}).values(), strict=True)
        }
        self.policy = Policy(agent.tenant_id, 5, schemas=self.names, **policy)
        self.asked: list[VerifyAnswer] = []
        self.become = BecomeVerifier()

    def verify(self, body: bytes, verifying: Verifying | None = None) -> VerifiedBatch:
        """As its actor would: what it lacks is given once."""
        verifying = verifying or Verifying(self.become, now_us=lambda: NOW_US)
        found = [(self.agent.key, self.agent.signer.public_key)]
        request = VerifyBody(body, ANYWHERE, stamp=self.policy.stamp)
        while True:
            answer = verifying.answer(msgspec.msgpack.encode(request))
            if isinstance(answer, NeedsKeys):
                answer = verifying.answer(msgspec.msgpack.encode(GiveKeys(found)))
            self.asked.append(answer)
            if isinstance(answer, NeedsPolicy) and request.policy is None:
                request = msgspec.structs.replace(request, policy=self.policy)
            elif isinstance(answer, NeedsSchemas) and not request.schemas:
                texts = [(schema_id, self.texts[schema_id]) for schema_id in answer.schema_ids]
                request = msgspec.structs.replace(request, schemas=texts)
            else:
                assert isinstance(answer, VerifiedBatch), answer
                return answer


def objections(batch: VerifiedBatch) -> list[list[str]]:
    assert all(isinstance(outcome, VerifiedEvent) for outcome in batch.outcomes)
    return [[f.reason for f in o.findings] for o in batch.outcomes if isinstance(o, VerifiedEvent)]
