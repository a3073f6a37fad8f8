"""An agent that signs, for the worker tests."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Any

from actors.mailbox import Inbox
from actors.messages import FindKeys
from ves.events import EventHeader, plaintext_envelope, request_body
from ves.records import KeyName, NumberedEvent, Scope, VerifiedEvent
from ves.signatures import Signer

ANYWHERE = Scope(None, None, None)


@dataclass
class Agent:
    tenant_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    store_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    agent_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)

    def __post_init__(self) -> None:
        self.signer = Signer(hashlib.sha256(self.agent_id).digest())
        self.key = KeyName(self.tenant_id, self.agent_id, 1)

    @property
    def binding(self) -> tuple[KeyName, bytes]:
        return self.key, self.signer.public_key

    def body(self, count: int, *, note: Any = "") -> bytes:
        return request_body(self.agent_id, [self._envelope(n, note) for n in range(count)])

    def _envelope(self, n: int, note: Any) -> dict[str, Any]:
        header = EventHeader(
            tenant_id=self.tenant_id,
            store_id=self.store_id,
            event_id=uuid.uuid4().bytes,
            source_agent_id=self.agent_id,
            agent_key_id=1,
            entity_type="order",
            entity_id=f"order-{n}",
            event_type="order.created",
            created_at="2026-01-02T03:04:05.678Z",
        )
        return plaintext_envelope(self.signer, header, {"total": 12.5, "n": n, "note": note})


def numbered(events: list[VerifiedEvent], store_id: bytes) -> list[NumberedEvent]:
    return [NumberedEvent(event, store_id, n, 1_700_000_000_000_000) for n, event in enumerate(events, 1)]


class Registry:
    """Answers FindKeys from a dictionary and remembers what it was asked."""

    def __init__(self, known: dict[KeyName, bytes]) -> None:
        self.known = known
        self.asked: list[list[KeyName]] = []

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            assert isinstance(letter.message, FindKeys)
            self.asked.append(letter.message.keys)
            letter.answer({name: self.known[name] for name in letter.message.keys if name in self.known})
