"""Unsigned events in a run: their bodies, what may be answered, and what must be there at the end.

They touch the same entities as the signed events of the same agent, so that both streams move the same
versions. Named by (agent, store, n) like those, always with the same bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from hashlib import sha256
from typing import Any

from journal.memory import MemoryDatabase
from tests.simulation.agents import STREAMS, Event, Stream
from tests.simulation.history import History
from tests.simulation.node import Reply
from ves.encoding import uuid_text
from ves.records import EntityName

INGEST = "/api/v1/events/ingest"


@cache
def event_id(event: Event) -> bytes:
    return sha256(b"unsigned" + event.id).digest()[:16]


@cache
def body(events: tuple[Event, ...]) -> bytes:
    agent = uuid_text(events[0].agent.id)
    return json.dumps({"agent_id": agent, "events": [_envelope(event) for event in events]}).encode()


def _envelope(event: Event) -> dict[str, Any]:
    tenant, store = event.stream.ids
    text = json.dumps({"n": event.n}, separators=(",", ":"))
    return {
        "event_id": uuid_text(event_id(event)),
        "tenant_id": uuid_text(tenant),
        "store_id": uuid_text(store),
        "entity_type": "order",
        "entity_id": f"o-{event.n}",
        "event_type": "order.seen",
        "payload": {"n": event.n},
        "payload_hash": sha256(text.encode()).hexdigest(),
        "created_at": "2026-01-02T03:04:05.678Z",
        "source_agent": uuid_text(event.agent.id),
    }


def take_down(history: History, events: tuple[Event, ...], reply: Reply) -> bool:
    """Whether the answer is final; what it says of each event is remembered."""
    told = history.unsigned
    if reply.status != 200:
        outcome = "unknown" if _may_be_done(reply) else "nothing"
        for event in events:
            told[event].append(outcome)
        return reply.status not in (0, 503, 504, 500)
    answer = reply.json
    rejected = {one["event_id"]: one["reason"] for one in answer.get("rejections", [])}
    if answer["events_accepted"] + len(rejected) != len(events):
        history.violation(f"{len(events)} unsigned events were sent, and answered is {answer}")
    for event in events:
        reason = rejected.get(uuid_text(event_id(event)))
        if reason is None:
            if "ok" in told[event]:
                history.violation(f"unsigned event {event} of {event.agent} was accepted twice")
            told[event].append("ok")
        elif reason == "DuplicateEventId":
            # Only where it is there: perhaps by a request that nobody has been answered yet.
            history.told_to_be_there.add(event)
        else:
            history.violation(f"unsigned event {event} of {event.agent} was refused: {reason}")
    return True


def _may_be_done(reply: Reply) -> bool:
    if reply.kind == "refused" or reply.status in (401, 403):
        return False
    return not (reply.status == 503 and "nothing was done" in reply.body.decode())


def judge_unsigned(history: History, database: MemoryDatabase) -> None:
    present: dict[bytes, Stream] = {}
    for stream in STREAMS:
        rows = database.legacy.events[stream.ids]
        numbers = [row.sequence_number for row in rows]
        if numbers != [*range(1, database.legacy.head(*stream.ids).current_sequence + 1)]:
            history.violation(f"the unsigned events of {stream} have the numbers {numbers}")
        times = [row.sequenced_at_us for row in rows]
        if times != sorted(times):
            history.violation(f"sequenced_at falls along the unsigned events of {stream}")
        for row in rows:
            if row.event_id in present:
                history.violation(f"an unsigned event is twice in {stream}")
            present[row.event_id] = stream
    for event, outcomes in history.unsigned.items():
        where = present.pop(event_id(event), None)
        if where is not None and (where != event.stream or not {"ok", "unknown"} & {*outcomes}):
            history.violation(f"unsigned event {event} of {event.agent} is in {where}: {outcomes}")
        if where is None and ("ok" in outcomes or event in history.told_to_be_there):
            history.violation(f"unsigned event {event} of {event.agent} is not there: {outcomes}")
    if present:
        history.violation("there are unsigned events that nobody sent")
    _versions(history, database)


def _versions(history: History, database: MemoryDatabase) -> None:
    """Of each entity: as many as there are events of both streams."""
    counted: defaultdict[tuple[bytes, EntityName], int] = defaultdict(int)
    for stream in STREAMS:
        tenant, store = stream.ids
        for row in (*database.events[stream.ids], *database.legacy.events[stream.ids]):
            counted[tenant, EntityName(store, row.entity_type, row.entity_id)] += 1
    if counted != database.versions:
        history.violation("an entity's version is not the number of its events")
