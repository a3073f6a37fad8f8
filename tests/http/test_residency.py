"""Tenants pinned to regions: a node elsewhere is shut to them, and only operators move a pin."""

from __future__ import annotations

import uuid

import httpx
import pytest
import trio

from actors.policies import PolicyBook
from journal.port import AuditEntry, JournalAway
from tests.http.doubles import BOOTSTRAP, JSON, TENANT, Cardboard, batch, serving, verified
from ves.records import NeedsPolicy, VerifiedBatch

INGEST = "/api/v1/ves/events/ingest"
REGIONS = f"/api/v1/admin/tenants/{TENANT}/regions"
NOBODY = AuditEntry("test", "tenant_regions.set", "x", None, {})


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers["x-error-code"]


async def pin(house: Cardboard, *regions: str) -> None:
    await house.journal.set_regions(TENANT.bytes, regions=regions, audit=NOBODY)


async def posted(house: Cardboard, key: str, path: str = INGEST) -> httpx.Response:
    async with house.client(key) as client:
        return await client.post(path, content=b"{}", headers=JSON)


@pytest.mark.parametrize(
    ("pins", "required", "served"),
    [
        ((), "false", True),
        ((), "true", False),
        (("eu-west-1",), "true", True),
        (("eu-central-1", "eu-west-1"), "false", True),
        (("us-east-1",), "false", False),
    ],
)
async def test_a_tenant_is_served_where_it_is_pinned(
    pins: tuple[str, ...], required: str, served: bool
) -> None:
    async with serving(region="eu-west-1", tenant_region_required=required) as house:
        await pin(house, *pins)
        key = house.api_key("admin")
        async with house.client(key) as client:
            read = await client.get(
                "/api/v1/ves/head", params={"tenant_id": str(TENANT), "store_id": str(TENANT)}
            )
        async with house.client(key, admin=True) as client:
            administered = await client.get("/api/v1/admin/api-keys")
        for answer in (read, administered, await posted(house, key)):
            if served:
                assert answer.status_code == 200, answer.text
            else:
                assert code(answer) == (421, "WRONG_REGION")
        assert bool(house.verifiers.asked) is served, "the body was read"


@pytest.mark.parametrize("path", [INGEST, "/api/v1/events/ingest"])
async def test_nothing_of_a_pinned_tenant_enters_through_a_credential_of_no_tenant(path: str) -> None:
    async with serving(region="eu-west-1") as house:
        await pin(house, "us-east-1")

        async def verify(message: object) -> VerifiedBatch | NeedsPolicy:
            return NeedsPolicy(TENANT.bytes) if message.policy is None else batch(verified())  # type: ignore[attr-defined]

        house.verifiers.reply = verify
        answer = await posted(house, BOOTSTRAP, path)
        assert code(answer) == (421, "WRONG_REGION")
        assert "us-east-1" in answer.text


async def test_no_key_schema_or_proof_of_a_pinned_tenant_enters_through_an_operator() -> None:
    async with serving(region="eu-west-1") as house, house.client(BOOTSTRAP) as client:
        await pin(house, "us-east-1")
        batch_id = uuid.UUID(bytes=house.journal.commit([b"x" * 32], 1).batch_id)
        named = {"tenantId": str(TENANT)}
        key = named | {"agentId": str(TENANT), "keyId": 1, "publicKey": "11" * 32}
        schema = named | {"eventType": "order.created", "schemaJson": True}
        proof = {"proofType": "x", "proofVersion": 1, "proofB64": "eA=="}
        for path, body in (
            ("/api/v1/agents/keys", key),
            ("/api/v1/schemas", schema),
            (f"/api/v1/ves/validity/{batch_id}/proofs?tenant_id={TENANT}", proof),
        ):
            assert code(await client.post(path, json=body)) == (421, "WRONG_REGION"), path


async def test_who_waits_for_events_while_the_tenant_is_pinned_elsewhere_gets_none() -> None:
    async with serving(region="eu-west-1") as house, house.client(house.api_key("admin")) as client:
        answers: list[httpx.Response] = []
        stream = {"tenant_id": str(TENANT), "store_id": str(TENANT)}

        async def wait() -> None:
            answers.append(await client.get("/api/v1/ves/events", params=stream | {"from": 1, "wait_s": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.3)
            await pin(house, "us-east-1")
            house.house.policies.forget([TENANT.bytes])
        assert code(answers[0]) == (421, "WRONG_REGION")


async def test_operators_pin_and_lift_and_everybody_else_is_refused() -> None:
    async with serving(region="eu-west-1") as house:
        async with house.client(BOOTSTRAP, admin=True) as client:
            answer = await client.put(REGIONS, json={"regions": ["us-east-1", "us-east-1"]})
            assert answer.json() == {
                "tenantId": str(TENANT),
                "regions": ["us-east-1"],
                "here": "eu-west-1",
                "servedHere": False,
            }
            assert (await client.get(REGIONS)).json() == answer.json()
            listed = (await client.get("/api/v1/admin/tenant-regions")).json()
            assert listed["tenants"] == [{"tenantId": str(TENANT), "regions": ["us-east-1"]}]
            for bad in (["Europe"], ["-x"], [""], ["x" * 64], ["a"] * 17, "eu-west-1"):
                assert (await client.put(REGIONS, json={"regions": bad})).status_code == 422
            assert (await client.put(REGIONS, json={"regions": []})).json()["servedHere"] is True
        async with house.client(house.api_key("admin"), admin=True) as client:
            assert (await client.put(REGIONS, json={"regions": []})).status_code == 403
            assert (await client.get(REGIONS)).status_code == 403
        acts = [a for a in house.journal.audits if a.action == "tenant_regions.set"]
        assert [a.details["regions"] for a in acts] == ["us-east-1", None]


async def test_a_node_that_does_not_know_where_it_is_pins_nobody() -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as client:
        assert code(await client.put(REGIONS, json={"regions": ["eu-west-1"]})) == (409, "CONFLICT")


async def test_without_the_database_a_known_pin_stands_and_an_unknown_tenant_is_not_served() -> None:
    async with serving(region="eu-west-1") as house:
        await pin(house, "us-east-1")
        book: PolicyBook = house.house.policies
        assert await book.regions(TENANT.bytes) == ("us-east-1",)
        house.journal.away = True
        book._freshness.heard(asked_at=-1000.0)
        with pytest.raises(JournalAway):
            await book.regions(b"?" * 16)
