"""Unsigned (legacy) events on a real server: what is accepted, what is refused and how, what is read back."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from tests.e2e.test_operators import embedded_dsn
from tests.e2e.test_schemas_enforced import POSITIVE, register, set_policy
from tests.e2e.unsigned import (
    body,
    get,
    head,
    numbers,
    post,
    post_raw,
    read,
    reasons,
    text_hash,
    unsigned,
    whole_stream,
)
from tests.e2e.world import Server, Tenant

CANARY = "canary-4929-legacy-payload"
JSON = {"content-type": "application/json"}


def as_key(tenant: Tenant, key: str) -> httpx.Client:
    return httpx.Client(base_url=tenant.server.url, headers={"authorization": f"ApiKey {key}"}, timeout=30)


# What is stored and read back.


def test_an_event_is_read_back_as_it_was_sent_with_its_number_and_time(tenant: Tenant) -> None:
    full = unsigned(
        tenant,
        {"b": 1, "a": "\u20ac\u0000"},
        entity_id="ord/1 \u00e9",
        command_id=str(uuid.uuid4()).upper(),
        base_version=0,
        envelope_version=7,
        sequence_number=99,
        signature=[0, 255, 7],
        created_at=" 2026-01-31 13:00:00.5 +0100 ",
        payload_hash=text_hash('{"a":"\u20ac\\u0000","b":1}').upper(),
    )
    bare = unsigned(tenant, None)
    answer = post(tenant, full, bare)
    uuid.UUID(answer.pop("batch_id"))
    assert answer == {
        "events_accepted": 2,
        "events_rejected": 0,
        "assigned_sequence_start": 1,
        "assigned_sequence_end": 2,
        "head_sequence": 2,
    }
    page = get(tenant, "events")
    assert b'{"a":"\xe2\x82\xac\\u0000","b":1}' in page.content, "the very text that was hashed"
    first, second = page.json()["events"]
    assert first["sequenced_at"].endswith("Z")
    assert first["envelope"] == {
        "envelope_version": 1,
        "event_id": full["event_id"],
        "command_id": full["command_id"].lower(),
        **tenant.stream,
        "entity_type": "order",
        "entity_id": "ord/1 \u00e9",
        "event_type": "order.created",
        "payload": full["payload"],
        "payload_hash": full["payload_hash"].lower(),
        "base_version": 0,
        "created_at": "2026-01-31T12:00:00.500Z",
        "sequence_number": 1,
        "source_agent": full["source_agent"],
        "signature": [0, 255, 7],
    }
    assert second["envelope"]["payload"] is None
    assert not {"command_id", "base_version", "signature"} & second["envelope"].keys()
    history = get(tenant, "entities/order/ord%2F1%20%C3%A9").json()
    assert (history["count"], history["version"], history["has_more"]) == (1, 1, False)
    assert (history["entity_type"], history["entity_id"]) == ("order", "ord/1 \u00e9")
    assert history["events"] == [first]


def test_a_resend_is_told_that_it_is_there_and_changes_nothing(tenant: Tenant) -> None:
    sent = body(tenant, *(unsigned(tenant, {"n": n}) for n in range(3)))
    assert post_raw(tenant, sent).json()["events_accepted"] == 3
    before = get(tenant, "events").content
    again = post_raw(tenant, sent).json()
    assert reasons(again) == ["DuplicateEventId"] * 3
    assert (again["events_accepted"], again["head_sequence"]) == (0, 3)
    assert again["assigned_sequence_start"] is again["assigned_sequence_end"] is None
    assert get(tenant, "events").content == before


def test_the_same_event_id_is_there_in_another_store_and_free_in_another_tenant(
    server: Server, tenant: Tenant
) -> None:
    event = unsigned(tenant, {})
    post(tenant, event)
    elsewhere = event | {"store_id": str(uuid.uuid4())}
    assert reasons(post(tenant, elsewhere)) == ["DuplicateEventId"]
    stranger = Tenant(server)
    theirs = unsigned(stranger, {}, event_id=event["event_id"])
    assert post(stranger, theirs)["events_accepted"] == 1


def test_both_streams_of_a_store_count_for_themselves_and_share_an_entitys_version(tenant: Tenant) -> None:
    same = {"entity_id": "shared"}
    assert post(tenant, unsigned(tenant, {}, base_version=0, **same))["events_accepted"] == 1
    signed = tenant.post(
        tenant.agent.event({}, base_version=0, **same), tenant.agent.event({}, base_version=1, **same)
    ).json()
    assert [r["reason"] for r in signed["rejections"]] == ["version_conflict: expected 0, actual 1"]
    assert (signed["eventsAccepted"], signed["headSequence"]) == (1, 1)
    late = post(tenant, *(unsigned(tenant, {}, base_version=n, **same) for n in (1, 2, 3)))
    assert [r["message"] for r in late["rejections"]] == ["Version conflict: expected 1, actual 2"]
    assert (head(tenant), tenant.head()) == (3, 1)
    assert get(tenant, "entities/order/shared").json()["version"] == 4
    signed_history = tenant.http.get("/api/v1/ves/entities/order/shared", params=tenant.stream).json()
    assert (signed_history["version"], signed_history["count"]) == (4, 1)


def test_pages_begin_where_they_are_asked_to_and_say_where_the_next_one_does(tenant: Tenant) -> None:
    post(tenant, *(unsigned(tenant, {"n": n}, entity_id=f"e{n % 2}") for n in range(7)))
    assert numbers(read(tenant, **{"from": 0, "limit": 3})) == [1, 2, 3]
    page = read(tenant, **{"from": 6, "limit": 5})
    assert (numbers(page), page["count"], page["has_more"]) == ([6, 7], 2, False)
    assert (page["head_sequence"], page["next_from"]) == (7, 8)
    assert read(tenant, **{"from": 8})["events"] == []
    for limit in (0, 1001, -1, "many"):
        answer = get(tenant, "events", limit=limit)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_FIELD_VALUE")
    history = get(tenant, "entities/order/e0", **{"from": 2, "limit": 2}).json()
    assert (numbers(history), history["has_more"], history["next_from"]) == ([3, 5], True, 6)
    unknown = get(tenant, "entities/order/nobody").json()
    assert (unknown["version"], unknown["events"], unknown["has_more"]) == (0, [], False)
    assert get(tenant, f"entities/{'x' * 129}/1").status_code == 400
    assert httpx.get(f"{tenant.server.url}/api/v1/events", params=tenant.stream).status_code == 401


# What is refused, event by event.


def test_every_event_is_refused_for_its_own_reason_in_the_order_of_the_request(tenant: Tenant) -> None:
    there = unsigned(tenant, {"n": 0}, command_id=str(uuid.uuid4()), entity_id="e")
    post(tenant, there)
    good = unsigned(tenant, {"n": 1}, command_id=str(uuid.uuid4()))
    events = [
        unsigned(tenant, {}, base_version=7, entity_id="e"),
        unsigned(tenant, {}, command_id=there["command_id"]),
        there,
        good,
        unsigned(tenant, {}, command_id=good["command_id"]),
        good,
        unsigned(tenant, {}, payload_hash="ab" * 32),
        unsigned(tenant, {}, entity_type=""),
        unsigned(tenant, {}, entity_id="nul\0"),
        unsigned(tenant, {}, event_type="x" * 257),
        unsigned(tenant, {}, created_at="2999-01-01T00:00:00Z"),
    ]
    answer = post(tenant, *events)
    assert [(r["event_id"], r["reason"]) for r in answer["rejections"]] == [
        (events[0]["event_id"], "VersionConflict"),
        (events[1]["event_id"], "DuplicateCommandId"),
        (there["event_id"], "DuplicateEventId"),
        (events[4]["event_id"], "DuplicateCommandId"),
        (good["event_id"], "DuplicateEventId"),
        (events[6]["event_id"], "InvalidPayloadHash"),
        *((event["event_id"], "SchemaValidation") for event in events[7:]),
    ]
    texts = [r["message"] for r in answer["rejections"]]
    assert texts[0] == "Version conflict: expected 7, actual 1"
    assert texts[1] == f"Command {there['command_id']} already processed"
    assert texts[2] == f"Event {there['event_id']} already exists"
    assert texts[3] == f"Command {good['command_id']} duplicated in batch"
    assert texts[4] == f"Event {good['event_id']} duplicated in batch"
    for text, field in zip(texts[6:], ("entity_type", "entity_id", "event_type", "created_at"), strict=True):
        assert field in text
    assert (answer["events_accepted"], answer["events_rejected"]) == (1, len(events) - 1)
    assert (
        answer["assigned_sequence_start"] == answer["assigned_sequence_end"] == answer["head_sequence"] == 2
    )
    assert post(tenant, unsigned(tenant, {}, command_id=good["command_id"]))["events_accepted"] == 0
    # A refused event has used up neither its id nor its command id nor a number.
    command = str(uuid.uuid4())
    late = unsigned(tenant, {}, base_version=5, command_id=command)
    assert reasons(post(tenant, late)) == ["VersionConflict"]
    assert post(tenant, late | {"base_version": 0})["assigned_sequence_start"] == 3


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        pytest.param('{"b":1.0,"a":[1e-6,-0,2.50]}', '{"a":[1e-6,-0.0,2.5],"b":1.0}', id="doubles"),
        pytest.param('{"\\ud83d\\ude00":1,"\\uffff":2}', '{"\uffff":2,"\U0001f600":1}', id="names"),
        pytest.param('"\\u0000\\u001f\\u007f/"', '"\\u0000\\u001f\x7f/"', id="escapes"),
        pytest.param("1e21", "1e21", id="large"),
        pytest.param("null", "null", id="null"),
    ],
)
def test_the_hash_is_that_of_the_originals_text_and_not_of_jcs(
    tenant: Tenant, payload: str, text: str
) -> None:
    event = unsigned(tenant, "PAYLOAD", payload_hash=text_hash(text))
    answer = post_raw(tenant, body(tenant, event).replace(b'"PAYLOAD"', payload.encode()))
    assert answer.json()["events_accepted"] == 1, answer.text
    assert f'"payload":{text},'.encode() in get(tenant, "events").content


@pytest.mark.parametrize(
    "payload",
    ['{"a":1,"a":1}', "9007199254740993", "1e16", '"\\ud800"', '{"a":{"\\u0061":1,"a":2}}'],
    ids=["doubled", "big", "big-double", "half-a-pair", "doubled-escaped"],
)
def test_a_payload_that_readers_would_not_agree_on_is_one_events_fault(tenant: Tenant, payload: str) -> None:
    bad, good = unsigned(tenant, "PAYLOAD"), unsigned(tenant, {"n": 1})
    answer = post_raw(tenant, body(tenant, bad, good).replace(b'"PAYLOAD"', payload.encode()))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [(r["event_id"], r["reason"]) for r in told["rejections"]] == [
        (bad["event_id"], "SchemaValidation")
    ]
    assert told["rejections"][0]["message"].startswith("payload")
    assert told["events_accepted"] == 1


def test_policies_count_for_new_events_and_never_make_an_old_one_look_new(tenant: Tenant) -> None:
    old = unsigned(tenant, {"total": -1})
    post(tenant, old)
    registered = register(tenant, POSITIVE)
    assert registered.status_code == 200, registered.text
    answer = post(tenant, old, unsigned(tenant, {"total": CANARY}), unsigned(tenant, {"total": 1}))
    assert reasons(answer) == ["DuplicateEventId", "SchemaValidation"]
    assert "/total does not satisfy type" in answer["rejections"][1]["message"]
    assert CANARY not in json.dumps(answer)
    set_policy(tenant, entityTypes=["invoice"])
    assert reasons(post(tenant, old, unsigned(tenant, {"total": 1}))) == [
        "DuplicateEventId",
        "SchemaValidation",
    ]
    set_policy(tenant, schemaMode="required", entityTypes=["order"])
    assert reasons(post(tenant, unsigned(tenant, {}, event_type="order.paid"))) == ["SchemaValidation"]


# What is refused as a whole.


TWICE = b'"payload_hash": 1, "payload_hash"'


def without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}


def test_a_body_of_the_wrong_shape_is_refused_as_a_whole_and_named(tenant: Tenant) -> None:
    good, event = unsigned(tenant, {"n": 1}), unsigned(tenant, {"n": 2})
    agent = str(tenant.agent.agent_id)
    cases: list[tuple[int, str, bytes]] = [
        (400, "not JSON", body(tenant, good) + b" {}"),
        (400, "not JSON", body(tenant, good)[:-1]),
        (400, "not UTF-8", body(tenant, good).replace(b"order.created", b"order\xff")),
        (400, "nested", body(tenant, event | {"payload": "P"}).replace(b'"P"', b"[" * 200 + b"]" * 200)),
        (422, "agent_id", json.dumps({"agentId": agent, "events": [good]}).encode()),
        (422, "events", json.dumps({"agent_id": agent, "events": {}}).encode()),
        (422, "agent_id is given twice", b'{"agent_id": "x", ' + body(tenant, good)[1:]),
        (422, "events[1].payload", body(tenant, good, without(event, "payload"))),
        (422, "events[1].source_agent", body(tenant, good, without(event, "source_agent"))),
        (422, "events[1].payload_hash", body(tenant, good, event | {"payload_hash": "0x" + "ab" * 32})),
        (422, "events[1].created_at", body(tenant, good, event | {"created_at": "yesterday"})),
        (422, "events[1].created_at", body(tenant, good, event | {"created_at": "0000-01-01T00:00:00Z"})),
        (422, "events[1].signature", body(tenant, good, event | {"signature": "c2ln"})),
        (422, "events[1].signature", body(tenant, good, event | {"signature": [256]})),
        (422, "events[1].base_version", body(tenant, good, event | {"base_version": 1.5})),
        (422, "events[1].event_id", body(tenant, good, event | {"event_id": "7"})),
        (
            422,
            "given twice",
            body(tenant, good, event).replace(b'"payload_hash"', b'"payload_hash":1,"payload_hash"'),
        ),
        (400, "tenant_id and store_id", body(tenant, good, event | {"store_id": str(uuid.uuid4())})),
        (400, "source_agent", body(tenant, good, event | {"source_agent": str(uuid.uuid4())})),
        (413, "at most 1000", body(tenant, *[good] * 1001)),
    ]
    for status, text, sent in cases:
        answer = post_raw(tenant, sent)
        assert answer.status_code == status, (text, answer.text)
        assert text in answer.json()["error"]["message"], answer.text
        assert answer.json()["message"] == answer.json()["error"]["message"]
    assert post_raw(tenant, body(tenant, good), **{"content-type": "text/plain"}).status_code == 415
    assert head(tenant) == 0


def test_an_empty_batch_is_no_free_pass(tenant: Tenant) -> None:
    answer = post(tenant)
    answer.pop("batch_id")
    assert answer == {
        "events_accepted": 0,
        "events_rejected": 0,
        "assigned_sequence_start": None,
        "assigned_sequence_end": None,
        "head_sequence": 0,
    }
    with as_key(tenant, tenant.new_api_key(["read"])) as reader:
        refused = reader.post("/api/v1/events/ingest", json={"agent_id": str(uuid.uuid4()), "events": []})
        assert refused.status_code == 403
    with as_key(tenant, tenant.new_api_key(["write"], agentId=str(uuid.uuid4()))) as other:
        refused = other.post(
            "/api/v1/events/ingest", content=body(tenant), headers={"content-type": "application/json"}
        )
        assert (refused.status_code, "Agent mismatch" in refused.text) == (403, True)


def test_a_credential_stays_within_its_agent_store_and_tenant(server: Server, tenant: Tenant) -> None:
    event = unsigned(tenant, {"card": CANARY})
    post(tenant, event)
    sent = {"content": body(tenant, unsigned(tenant, {})), "headers": {"content-type": "application/json"}}
    stranger = Tenant(server)
    keys = {
        "another tenant": stranger.api_key,
        "another agent": tenant.new_api_key(["write"], agentId=str(uuid.uuid4())),
        "another store": tenant.new_api_key(["read", "write"], storeIds=[str(uuid.uuid4())]),
    }
    for who, key in keys.items():
        with as_key(tenant, key) as client:
            assert client.post("/api/v1/events/ingest", **sent).status_code == 403, who  # type: ignore[arg-type]
            for path in ("events", "head", "entities/order/" + event["entity_id"]):
                answer = client.get(f"/api/v1/{path}", params=tenant.stream)
                assert answer.status_code == 403, (who, path)
                assert CANARY not in answer.text
    assert head(tenant) == 1


# At rest.


def test_a_payload_is_sealed_at_rest_and_a_row_that_was_changed_is_named(tenant: Tenant) -> None:
    post(tenant, unsigned(tenant, {"card": CANARY}), unsigned(tenant, {"card": CANARY}))
    dsn = embedded_dsn(tenant.server)
    rows = asyncio.run(sealed_rows(dsn, tenant))
    assert all(row.startswith(b"SSE2") and CANARY.encode() not in row for row in rows)
    assert CANARY not in tenant.server.log.read_text(errors="replace")

    asyncio.run(exchange(dsn, tenant, *rows))
    answer = get(tenant, "events")
    assert answer.status_code == 503
    assert f"store {tenant.store_id}, sequence_number 1 does not open" in answer.json()["message"]
    assert CANARY not in answer.text


async def sealed_rows(dsn: str, tenant: Tenant) -> list[bytes]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT payload_encrypted FROM record.events WHERE tenant_id = $1 ORDER BY sequence_number",
            tenant.tenant_id,
        )
        return [bytes(row[0]) for row in rows]
    finally:
        await connection.close()


async def exchange(dsn: str, tenant: Tenant, first: bytes, second: bytes) -> None:
    """As somebody who may write that column: the first row gets the second one's frame."""
    connection = await asyncpg.connect(dsn.replace("://sequencer_owner@", "://sequencer_admin_login@"))
    try:
        done = await connection.execute(
            "UPDATE record.events SET payload_encrypted = $2 WHERE tenant_id = $1 AND sequence_number = 1",
            tenant.tenant_id,
            second,
        )
        assert (done, first != second) == ("UPDATE 1", True)
    finally:
        await connection.close()


# Others at the same time.


@pytest.mark.slow
def test_two_nodes_that_race_on_one_entity_in_both_streams_agree_on_every_version(
    nodes: list[Server],
) -> None:
    tenant = Tenant(nodes[0])
    doors = [tenant, tenant.seen_from(nodes[1])]
    entity = {"entity_id": "raced"}
    problems: list[str] = []
    claimed: list[int] = []

    def race(door: Tenant, make: Callable[[int], tuple[int, int]]) -> None:
        """Each claims the version it saw, until it has won thirty times: no version is won twice."""
        won = 0
        while won < 30 and not problems:
            seen = get(door, "entities/order/raced", limit=1).json()["version"]
            status, accepted = make(seen)
            if status not in (200, 503):
                problems.append(str(status))
            if accepted:
                won += 1
                claimed.append(seen)

    def legacy(door: Tenant) -> Callable[[int], tuple[int, int]]:
        def make(seen: int) -> tuple[int, int]:
            answer = post_raw(door, body(door, unsigned(door, {}, base_version=seen, **entity)))
            return answer.status_code, answer.json().get("events_accepted", 0)

        return make

    def ves(door: Tenant) -> Callable[[int], tuple[int, int]]:
        def make(seen: int) -> tuple[int, int]:
            answer = door.post(door.agent.event({}, base_version=seen, **entity))
            return answer.status_code, answer.json().get("eventsAccepted", 0)

        return make

    threads = [
        threading.Thread(target=race, args=(door, kind(door)), daemon=True)
        for door in doors
        for kind in (legacy, ves)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not problems
    assert sorted(claimed) == list(range(120)), "a version was won twice or left out"
    assert get(tenant, "entities/order/raced").json()["version"] == 120
    assert len(whole_stream(tenant)) == 60 == tenant.head()
    assert whole_stream(doors[1]) == whole_stream(tenant)
