"""Unsigned events as an old client makes them, with a formatter of its own for the text that is hashed."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import httpx

from tests.e2e.world import Tenant

INGEST = "/api/v1/events/ingest"
Json = dict[str, Any]


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def unsigned(tenant: Tenant, payload: Any, **changes: Any) -> Json:
    """Payloads of strings, integers, objects and arrays only: their compact text is the same everywhere."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    event: Json = {
        "event_id": str(uuid.uuid4()),
        **tenant.stream,
        "entity_type": "order",
        "entity_id": f"o-{uuid.uuid4().hex[:12]}",
        "event_type": "order.created",
        "payload": payload,
        "payload_hash": text_hash(text),
        "created_at": "2026-01-01T00:00:00.123Z",
        "source_agent": str(tenant.agent.agent_id),
    }
    return event | changes


def body(tenant: Tenant, *events: Json) -> bytes:
    return json.dumps({"agent_id": str(tenant.agent.agent_id), "events": events}, ensure_ascii=False).encode()


def post_raw(tenant: Tenant, content: bytes, **headers: str) -> httpx.Response:
    return tenant.http.post(INGEST, content=content, headers={"content-type": "application/json", **headers})


def post(tenant: Tenant, *events: Json) -> Json:
    answer = post_raw(tenant, body(tenant, *events))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def reasons(answer: Json) -> list[str]:
    return [rejection["reason"] for rejection in answer.get("rejections", [])]


def get(tenant: Tenant, path: str, **query: Any) -> httpx.Response:
    return tenant.http.get(f"/api/v1/{path}", params={**tenant.stream, **query})


def read(tenant: Tenant, **query: Any) -> Json:
    answer = get(tenant, "events", **query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def head(tenant: Tenant) -> int:
    answer = get(tenant, "head")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["head_sequence"])


def numbers(page: Json) -> list[int]:
    return [event["envelope"]["sequence_number"] for event in page["events"]]


def whole_stream(tenant: Tenant) -> list[Json]:
    """All envelopes, page by page; gap-free from 1 to the head, or it fails."""
    envelopes: list[Json] = []
    start, more = 1, True
    while more:
        page = read(tenant, **{"from": start})
        envelopes += [event["envelope"] for event in page["events"]]
        start, more = page["next_from"], page["has_more"]
    assert [e["sequence_number"] for e in envelopes] == list(range(1, page["head_sequence"] + 1))
    return envelopes
