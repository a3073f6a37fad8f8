"""Schemas and policies at the doors: who may do what with whose, and what is answered."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from actors.errors import Unavailable
from actors.messages import CheckPayload, CheckSchema, Verify
from journal.port import EventSchema, Moved, SchemaLimit
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_TENANT,
    STORE,
    TENANT,
    Cardboard,
    batch,
    serving,
    verified,
)
from ves.policy import Policy
from ves.records import NeedsPolicy, SchemaChecks, VerifiedBatch, Warned

PATH = "/api/v1/schemas"
POLICY = f"/api/v1/admin/tenants/{TENANT}/policy"
NUMBERS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "number"}}


def body(tenant: uuid.UUID = TENANT, **more: Any) -> dict[str, Any]:
    return {"tenantId": str(tenant), "eventType": "order.created", "schemaJson": NUMBERS, **more}


async def registered(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post(PATH, json=body(**more))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_schema_is_tried_registered_and_read_back_as_it_was() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        first = await registered(client, description="totals")
        second = await registered(client, schemaJson=True, compatibility="none")
        assert (first["eventType"], first["version"], second["version"]) == ("order.created", 1, 2)
        assert house.schema_checker.asked[0] == CheckSchema(
            json.dumps(NUMBERS, separators=(",", ":")), "backward", None, 0
        )
        one = (await client.get(f"{PATH}/{first['id']}")).json()
        assert one["schemaJson"] == NUMBERS
        assert (one["tenantId"], one["status"], one["compatibility"], one["description"]) == (
            str(TENANT),
            "active",
            "backward",
            "totals",
        )
        assert one["createdBy"].startswith("api_key:")
        assert one["createdAt"] == first["createdAt"]
        assert [a.action for a in house.journal.audits] == ["schema.create"] * 2
        assert set(house.journal.audits[0].details) >= {"event_type", "compatibility", "sha256", "request_id"}


async def test_the_newest_active_version_is_what_the_next_one_is_compared_with() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        await registered(client)
        second = await registered(client, schemaJson=True)
        await client.put(f"{PATH}/{second['id']}/status", json={"status": "deprecated"})
        await registered(client, compatibility="full")
        asked = house.schema_checker.asked[-1]
        assert (asked.compatibility, json.loads(asked.previous), asked.previous_version) == (
            "full",
            NUMBERS,
            1,
        )


async def test_lists_are_paged_and_a_version_is_found() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        for name in ("b", "a", "b"):
            await registered(client, eventType=name)
        page = (await client.get(PATH, params={"tenant_id": str(TENANT), "limit": 2})).json()
        assert [(s["eventType"], s["version"]) for s in page["schemas"]] == [("a", 1), ("b", 2)]
        assert (page["count"], page["hasMore"]) == (2, True)
        rest = (await client.get(PATH, params={"after": page["nextAfter"]})).json()
        assert [(s["eventType"], s["version"]) for s in rest["schemas"]] == [("b", 1)]
        assert (rest["hasMore"], rest["nextAfter"]) == (False, None)
        versions = await client.get(f"{PATH}/event-type/b", params={"event_type": "ignored"})
        assert [s["version"] for s in versions.json()["schemas"]] == [2, 1]
        one = (await client.get(f"{PATH}/event-type/b", params={"version": 1})).json()
        assert list(one) == ["schema"]
        assert one["schema"]["version"] == 1
        assert code(await client.get(f"{PATH}/event-type/b", params={"version": 9})) == (
            404,
            "SCHEMA_NOT_FOUND",
        )
        assert (await client.get(f"{PATH}/event-type/b/latest")).json()["version"] == 2
        assert code(await client.get(f"{PATH}/event-type/c/latest")) == (404, "SCHEMA_NOT_FOUND")
        assert (await client.get(PATH, params={"limit": 101})).status_code == 400


async def test_a_status_is_set_and_deleting_archives() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        schema_id = (await registered(client))["id"]
        answer = await client.put(f"{PATH}/{schema_id}/status", json={"status": "deprecated"})
        assert answer.json() == {"new_status": "deprecated", "schema_id": schema_id, "success": True}
        answer = await client.delete(f"{PATH}/{schema_id}")
        assert answer.json() == {"deleted_schema_id": schema_id, "success": True}
        assert (await client.get(f"{PATH}/{schema_id}")).json()["status"] == "archived"
        assert (await registered(client))["version"] == 2
        assert code(await client.put(f"{PATH}/{schema_id}/status", json={"status": "gone"}))[0] == 422
        assert [a.action for a in house.journal.audits][1:3] == ["schema.status", "schema.archive"]


async def test_a_foreign_schema_is_not_there_and_a_foreign_tenant_is_forbidden() -> None:
    async with serving() as house:
        async with house.client(house.api_key("admin")) as client:
            schema_id = (await registered(client))["id"]
        async with house.client(house.api_key("admin", tenant=OTHER_TENANT)) as client:
            absent = await client.get(f"{PATH}/{uuid.uuid4()}")
            for answer in (
                await client.get(f"{PATH}/{schema_id}"),
                await client.put(f"{PATH}/{schema_id}/status", json={"status": "archived"}),
                await client.delete(f"{PATH}/{schema_id}"),
            ):
                assert code(answer) == (404, "SCHEMA_NOT_FOUND")
                assert answer.json()["message"] == absent.json()["message"]
            for answer in (
                await client.post(PATH, json=body()),
                await client.get(PATH, params={"tenant_id": str(TENANT)}),
                await client.get(f"{PATH}/event-type/x/latest", params={"tenant_id": str(TENANT)}),
                await client.post(f"{PATH}/validate", json=body(payload=1)),
            ):
                assert code(answer) == (403, "INSUFFICIENT_PERMISSIONS")
        assert house.journal.tables.schemas[uuid.UUID(schema_id).bytes].status == "active"


@pytest.mark.parametrize("scope", [{"stores": [STORE]}, {"agent": AGENT}])
async def test_whoever_is_bound_to_a_store_or_an_agent_reads_schemas_and_changes_none(scope: Any) -> None:
    async with serving() as house:
        async with house.client(house.api_key("admin")) as client:
            schema_id = (await registered(client))["id"]
        async with house.client(house.api_key("admin", **scope)) as client:
            assert (await client.get(f"{PATH}/{schema_id}")).status_code == 200
            assert (await client.get(PATH)).json()["count"] == 1
            assert code(await client.post(PATH, json=body()))[0] == 403
            assert code(await client.delete(f"{PATH}/{schema_id}"))[0] == 403
            assert code(await client.put(f"{PATH}/{schema_id}/status", json={"status": "archived"}))[0] == 403
        async with house.client(house.api_key("admin", **scope), admin=True) as client:
            assert code(await client.get(POLICY))[0] == 403
            assert code(await client.put(POLICY, json={}))[0] == 403


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schemaJson": {"description": "x" * 102_400}}, (413, "PAYLOAD_TOO_LARGE")),
        ({"eventType": ""}, (422, "INVALID_FIELD_VALUE")),
        ({"eventType": "é" * 200}, (400, "INVALID_FIELD_VALUE")),
        ({"eventType": "a\u0000b"}, (422, "INVALID_FIELD_VALUE")),
        ({"description": "é" * 2000}, (400, "INVALID_FIELD_VALUE")),
        ({"compatibility": "sideways"}, (422, "INVALID_FIELD_VALUE")),
        ({"tenantId": "nobody"}, (422, "INVALID_FIELD_VALUE")),
    ],
)
async def test_what_is_wrong_with_a_registration_is_named(changes: Any, expected: tuple[int, str]) -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        assert code(await client.post(PATH, json=body() | changes)) == expected
        assert house.journal.tables.schemas == {}


async def test_a_deep_or_doubled_schema_is_refused_as_a_body() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        text = json.dumps(body()).replace('"additionalProperties"', '"type": "array", "additionalProperties"')
        assert (await client.post(PATH, content=text, headers=JSON)).status_code == 422
        deep = '{"not": ' * 130 + "{}" + "}" * 130
        text = json.dumps(body(schemaJson="DEEP")).replace('"DEEP"', deep)
        assert code(await client.post(PATH, content=text, headers=JSON)) == (400, "INVALID_REQUEST_BODY")


async def test_what_the_checker_refuses_is_refused_in_its_words_and_its_absence_is_503() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:

        async def refuse(message: Any) -> str:
            return "it leads nowhere"

        house.schema_checker.reply = refuse
        answer = await client.post(PATH, json=body())
        assert code(answer) == (400, "SCHEMA_VALIDATION_FAILED")
        assert answer.json()["message"] == "schemaJson: it leads nowhere"

        async def away(message: Any) -> None:
            raise Unavailable("no processes today")

        house.schema_checker.reply = away
        assert code(await client.post(PATH, json=body()))[0] == 503
        assert house.journal.tables.schemas == {}


async def test_others_who_register_meanwhile_are_waited_for_a_few_times() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        create, moved = house.journal.create_schema, [Moved("x")] * 2

        async def busy(schema: EventSchema, **more: Any) -> Any:
            return moved.pop() if moved else await create(schema, **more)

        house.journal.create_schema = busy  # type: ignore[method-assign, assignment]
        await registered(client)
        assert len(house.schema_checker.asked) == 3, "each time tried against what is newest then"
        moved += [Moved("x")] * 3
        assert code(await client.post(PATH, json=body())) == (409, "CONFLICT")

        async def full(schema: EventSchema, **more: Any) -> SchemaLimit:
            return SchemaLimit()

        house.journal.create_schema = full  # type: ignore[method-assign, assignment]
        assert code(await client.post(PATH, json=body())) == (409, "CONFLICT")


async def test_a_payload_is_tried_and_nothing_stored() -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        ask = body(payload={"a": None})
        nothing = (await client.post(f"{PATH}/validate", json=ask)).json()
        assert nothing == {"valid": True, "schemaId": None, "schemaVersion": None, "errors": []}
        schema_id = (await registered(client))["id"]

        async def wrong(message: CheckPayload) -> list[tuple[str, str]]:
            assert message.payload == b'{"a":null}'
            return [("/a", '… is not of type "number"')]

        house.schema_checker.reply = wrong
        told = (await client.post(f"{PATH}/validate", json=ask)).json()
        assert told == {
            "valid": False,
            "schemaId": schema_id,
            "schemaVersion": 1,
            "errors": [{"path": "/a", "message": '… is not of type "number"'}],
        }
        unknown = await client.post(f"{PATH}/validate", json=ask | {"schemaVersion": 7})
        assert code(unknown) == (404, "SCHEMA_NOT_FOUND")

        async def endless(message: CheckPayload) -> None:
            return None

        house.schema_checker.reply = endless
        assert code(await client.post(f"{PATH}/validate", json=ask)) == (400, "SCHEMA_VALIDATION_FAILED")
        assert (await client.get(f"{PATH}/validate")).status_code == 405


# Policies.


async def test_a_policy_is_set_replaced_and_shown_with_what_comes_of_it() -> None:
    async with serving(allowed_entity_types="order, invoice", schema_validation_mode="warn") as house:
        async with house.client(BOOTSTRAP, admin=True) as client:
            unset = (await client.get(POLICY)).json()
            assert unset == {
                "tenantId": str(TENANT),
                "entityTypes": None,
                "schemaMode": None,
                "effective": {"entityTypes": ["order", "invoice"], "schemaMode": "warn"},
                "activeSchemas": 0,
            }
            both = {"entityTypes": ["invoice", "other"], "schemaMode": "required"}
            answer = (await client.put(POLICY, json=both)).json()
            assert (answer["entityTypes"], answer["schemaMode"]) == (["invoice", "other"], "required")
            assert answer["effective"] == {"entityTypes": ["invoice"], "schemaMode": "required"}
            assert (await client.get(POLICY)).json() == answer
            assert (await client.put(POLICY, json={})).json() == unset
            assert code(await client.put(POLICY, json={"schemaMode": "sometimes"}))[0] == 422
            assert code(await client.put(POLICY, json={"entityTypes": ["x" * 129]}))[0] == 422
            assert code(await client.put(POLICY, json={"entityTypes": ["é" * 100]}))[0] == 400
        acts = [a for a in house.journal.audits if a.action == "tenant_policy.set"]
        assert [(a.tenant_id, a.details["schema_mode"]) for a in acts] == [
            (TENANT.bytes, "required"),
            (TENANT.bytes, None),
        ]


async def test_a_tenants_admin_reaches_its_own_policy_only_and_only_on_the_admin_listener() -> None:
    async with serving() as house:
        key = house.api_key("admin")
        async with house.client(key, admin=True) as client:
            assert (await client.put(POLICY, json={"schemaMode": "warn"})).status_code == 200
            foreign = f"/api/v1/admin/tenants/{OTHER_TENANT}/policy"
            assert code(await client.put(foreign, json={}))[0] == 403
            assert code(await client.get(foreign))[0] == 403
        async with house.client(key) as client:
            assert (await client.get(POLICY)).status_code == 404


# Ingest.


async def posted(house: Cardboard, key: str) -> httpx.Response:
    async with house.client(key) as client:
        return await client.post(INGEST, content=b"{}", headers=JSON)


async def test_the_verifiers_are_told_the_policy_as_it_is_now() -> None:
    async with serving() as house:
        key = house.api_key("admin")
        await posted(house, key)
        async with house.client(key, admin=True) as client:
            await client.put(POLICY, json={"schemaMode": "required"})
        await posted(house, key)
        policies = [message.policy for message in house.verifiers.asked]
        assert policies == [Policy(TENANT.bytes), Policy(TENANT.bytes, 1, None, "required")]


async def test_a_credential_of_no_tenant_gets_the_policy_of_the_one_in_the_body() -> None:
    async with serving() as house:

        async def verify(message: Verify) -> VerifiedBatch | NeedsPolicy:
            return NeedsPolicy(TENANT.bytes) if message.policy is None else batch(verified())

        house.verifiers.reply = verify
        assert (await posted(house, BOOTSTRAP)).status_code == 200
        assert [m.policy for m in house.verifiers.asked] == [None, Policy(TENANT.bytes)]


@pytest.mark.parametrize(("mode", "status"), [("enforce", 503), ("required", 503), ("warn", 200)])
async def test_without_the_registry_only_warn_lets_an_event_pass(mode: str, status: int) -> None:
    async with serving(schema_validation_mode=mode) as house:
        key = house.api_key("write")
        await posted(house, key)  # the credential is known now
        house.credentials.heard(asked_at=float("inf"))
        house.policies.forget_all()
        house.journal.away = True
        assert (await posted(house, key)).status_code == status
        assert len(house.verifiers.asked) == (2 if mode == "warn" else 1)


async def test_what_was_compared_is_counted_and_a_warning_logged_without_the_payload(capfd: Any) -> None:
    async with serving() as house:
        found = Warned(b"E" * 16, b"S" * 16, "minimum", "/properties/total/minimum")

        async def verify(message: Verify) -> VerifiedBatch:
            return VerifiedBatch(
                TENANT.bytes,
                STORE.bytes,
                AGENT.bytes,
                [verified()],
                SchemaChecks("warn", 3, 2, 1, [found]),
            )

        house.verifiers.reply = verify
        await posted(house, house.api_key("write"))
        async with house.client(BOOTSTRAP, admin=True) as client:
            metrics = (await client.get("/metrics")).text
    for outcome, count in (("validated", 3), ("failed", 2), ("encrypted", 1)):
        assert f'sequencer_schema_validations_total{{mode="warn",outcome="{outcome}"}} {count}.0' in metrics
    assert 'sequencer_schema_validations_total{mode="enforce",outcome="failed"} 0.0' in metrics
    assert "sequencer_schema_checks_skipped_total 0.0" in metrics
    [line] = [line for line in capfd.readouterr().out.splitlines() if "schema_mismatch" in line]
    assert "/properties/total/minimum" in line
