"""Unsigned events as a client of the original service sends them."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import httpx

from tests.e2e.world import Tenant


def legacy_event(tenant: Tenant, payload: Any, **changes: Any) -> dict[str, Any]:
    """For payloads of ASCII texts and small integers, whose text is everybody's."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return {
        "event_id": str(uuid.uuid4()),
        **tenant.stream,
        "entity_type": "order",
        "entity_id": "o-1",
        "event_type": "order.created",
        "payload": payload,
        "payload_hash": hashlib.sha256(text.encode()).hexdigest(),
        "created_at": "2026-01-01T00:00:00Z",
        "source_agent": str(tenant.agent.agent_id),
        **changes,
    }


def post_legacy(tenant: Tenant, *events: dict[str, Any]) -> httpx.Response:
    body = {"agent_id": str(tenant.agent.agent_id), "events": events}
    answer = tenant.http.post("/api/v1/events/ingest", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def commit_legacy(tenant: Tenant, **span: int) -> httpx.Response:
    return tenant.http.post("/api/v1/commitments", json={**tenant.stream, **span})
