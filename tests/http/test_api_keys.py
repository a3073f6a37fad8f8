"""API keys at the door: the new format, roles, ends, rate limits, and what their making leaves behind."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from actors.errors import CredentialExpired
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_TENANT,
    STORE,
    STREAM,
    TENANT,
    Cardboard,
    serving,
)
from tests.http.test_door_refusals import check_shape
from transport.http.asked import Asked
from transport.http.callers import authenticate
from transport.http.key_format import new_key

KEYS = "/api/v1/admin/api-keys"
HEAD = "/api/v1/ves/head"
IN_A_YEAR = "2099-01-01T00:00:00Z"
NOW_US = time.time_ns() // 1000
HOUR_US = 3_600_000_000


async def make(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(KEYS, json={"tenantId": str(TENANT), **body})


@pytest.mark.parametrize("spelled", ["Bearer {}", "bearer  {}", "ApiKey {}", "{}"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_a_new_key_may_be_sent_in_every_way(spelled: str, header: str) -> None:
    async with serving() as house, house.client() as client:
        headers = {header: spelled.format(house.api_key(role="reader"))}
        assert (await client.get(HEAD, params=STREAM, headers=headers)).status_code == 200


async def test_a_mistyped_cut_or_foreign_key_is_told_so_and_nobody_is_asked() -> None:
    async with serving() as house:
        key = house.api_key(role="reader")
        typo = key[:20] + ("x" if key[20] != "x" else "y") + key[21:]
        for wrong, why in (
            (typo, "mistyped"),
            (key[:-1], "cut"),
            (key + "0", "mistyped"),
            (key[:9], "cut"),
            (new_key("test"), "is a test key, and this server takes live keys only"),
        ):
            async with house.client(wrong) as client:
                refused = check_shape(await client.get(HEAD, params=STREAM), 401, "INVALID_API_KEY")
            assert why in refused["message"]
            assert wrong not in refused["message"]
        assert house.journal.lookups == 0
        async with house.client(new_key("live")) as client:
            check_shape(await client.get(HEAD, params=STREAM), 401, "INVALID_API_KEY")
        assert house.journal.lookups == 1


async def test_a_node_for_tests_issues_test_keys_and_takes_no_live_ones_but_all_old_ones() -> None:
    async with serving(api_key_mode="test") as house, house.client(BOOTSTRAP, admin=True) as admin:
        made = (await make(admin, role="reader")).json()
        assert made["apiKey"].startswith("sk_test_")
        for key, status in (
            (made["apiKey"], 200),
            (house.api_key(role="reader"), 401),
            (house.api_key("read"), 200),
        ):
            async with house.client(key) as client:
                assert (await client.get(HEAD, params=STREAM)).status_code == status


async def test_a_key_has_the_permissions_of_its_role_its_end_and_its_rate_limit() -> None:
    house = Cardboard()
    end_us = NOW_US + HOUR_US
    key = house.api_key(role="anchor", stores=[STORE], expires_at_us=end_us, rate_limit=77)
    asked = Asked("GET", "/", b"", [(b"authorization", f"Bearer {key}".encode())], "127.0.0.1", "http")
    caller = await authenticate(asked, house.house, "127.0.0.1")
    assert caller.permissions == {"commitments:*", "anchor:*"}
    assert (caller.rate_limit_per_minute, caller.expires_at_us) == (77, end_us)
    assert caller.store_ids == (STORE.bytes,)


async def test_a_role_of_a_newer_node_gives_nothing() -> None:
    async with serving() as house, house.client(house.api_key(role="archivist")) as client:
        check_shape(await client.get(HEAD, params=STREAM), 403, "INSUFFICIENT_PERMISSIONS")


async def test_a_key_that_expires_is_refused_from_that_moment_also_when_it_is_remembered() -> None:
    async with serving() as house:
        key = house.api_key(role="reader", expires_at_us=NOW_US + HOUR_US)
        house.credentials.heard(asked_at=trio.current_time())
        async with house.client(key) as client:
            assert (await client.get(HEAD, params=STREAM)).status_code == 200
            house.credentials.now_us = lambda: NOW_US + HOUR_US - 1
            assert (await client.get(HEAD, params=STREAM)).status_code == 200
            house.credentials.now_us = lambda: NOW_US + HOUR_US
            refused = await client.get(HEAD, params=STREAM)
        assert "expired" in check_shape(refused, 401, "INVALID_API_KEY")["message"]
        assert house.journal.lookups == 1, "it was remembered"


async def test_a_key_that_has_expired_by_the_databases_clock_appends_nothing_and_is_told_so() -> None:
    async with serving() as house:

        async def too_late(message: Any) -> Any:
            raise CredentialExpired("by the database's clock")

        house.sequencer.reply = too_late
        async with house.client(house.api_key(role="agent")) as client:
            refused = await client.post(INGEST, content=b"{}", headers=JSON)
        assert "expired" in check_shape(refused, 401, "INVALID_API_KEY")["message"]


async def test_a_key_is_made_with_all_that_was_asked_and_shows_it_in_the_list() -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as admin:
        wanted = {
            "role": "agent",
            "storeIds": [str(STORE)],
            "agentId": str(AGENT),
            "expiresAt": IN_A_YEAR,
            "rateLimit": 1_000_000,
            "name": "till 4",
        }
        with capture_logs() as lines:
            made = (await make(admin, **wanted)).json()
        key = made.pop("apiKey")
        assert made["permissions"] == ["events:read", "events:write"]
        assert {name: made[name] for name in wanted} == wanted | {"expiresAt": "2099-01-01T00:00:00+00:00"}
        assert (made["expired"], made["prefix"]) == (False, key[:12])
        await make(admin, permissions=["read"])
        everybody = (await admin.get(KEYS)).json()
        assert everybody["count"] == 2
        listed = (await admin.get(KEYS, params={"prefix": key[:12]})).json()["apiKeys"]
        assert listed == [made]
        house.credentials.now_us = lambda: 10 * NOW_US
        assert (await admin.get(KEYS, params={"prefix": key[:12]})).json()["apiKeys"][0]["expired"]

        entry = next(e for e in house.journal.audits if e.action == "api_key.create")
        assert entry.details["role"] == "agent"
        assert entry.details["stores"] == str(STORE)
        assert entry.details["agent"] == str(AGENT)
        assert entry.details["expires_at"] == "2099-01-01T00:00:00+00:00"
        assert entry.details["rate_limit"] == 1_000_000
        assert key not in str(house.journal.audits)
        assert key not in str(lines)
        said = [line for line in lines if line["event"] == "security_event"]
        assert [(line["kind"], line["api_key_id"]) for line in said] == [("credential_created", made["id"])]
        await admin.delete(f"{KEYS}/{made['id']}")
        counts = house.house.security.counts
        assert (counts["credential_created"], counts["credential_revoked"]) == (2, 1)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "role"),
        ({"role": "agent", "permissions": ["read"]}, 422, "role"),
        ({"role": "king"}, 422, "role"),
        ({"permissions": []}, 422, "permissions"),
        ({"role": "agent", "rateLimit": 0}, 422, "rateLimit"),
        ({"role": "agent", "rateLimit": 1_000_001}, 422, "rateLimit"),
        ({"role": "agent", "expiresAt": "tomorrow"}, 400, "expiresAt"),
        ({"role": "agent", "expiresAt": "2020-01-01T00:00:00Z"}, 400, "expiresAt"),
        ({"role": "agent", "expiresAt": "9999-12-31T23:59:59-12:00"}, 400, "expiresAt"),
    ],
)
async def test_nonsense_is_refused_by_name(body: dict[str, Any], status: int, field: str) -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as admin:
        answer = await make(admin, **body)
        assert (answer.status_code, answer.json()["message"].split(":")[0]) == (status, field), answer.text
        assert not house.journal.api_keys


async def test_a_whole_key_is_never_accepted_in_an_address() -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as admin:
        answer = await admin.get(KEYS, params={"prefix": new_key("live")})
        check_shape(answer, 400, "INVALID_FIELD_VALUE")


@pytest.mark.parametrize(
    ("maker", "body", "status"),
    [
        ({}, {"rateLimit": 6000}, 201),
        ({}, {"rateLimit": 6001}, 403),
        ({"rate_limit": 60}, {"rateLimit": 60}, 201),
        ({"rate_limit": 60}, {"rateLimit": 61}, 403),
        ({"rate_limit": 100_000}, {"rateLimit": 6001}, 403),
        ({"expires_at_us": NOW_US + HOUR_US}, {"expiresAt": IN_A_YEAR}, 403),
        ({"stores": [STORE]}, {}, 403),
        ({"agent": AGENT}, {}, 403),
        ({"tenant": OTHER_TENANT}, {}, 403),
    ],
)
async def test_a_tenants_administrator_gives_no_more_than_he_has(
    maker: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    async with serving() as house, house.client(house.api_key(role="admin", **maker), admin=True) as admin:
        answer = await make(admin, role="admin", **body)
        assert answer.status_code == status, answer.text


async def test_what_is_left_out_is_as_with_the_key_that_asks() -> None:
    async with serving() as house:
        maker = house.api_key(role="admin", rate_limit=60, expires_at_us=4_000_000_000_000_000)
        async with house.client(maker, admin=True) as admin:
            made = (await make(admin, role="reader")).json()
        assert (made["rateLimit"], made["expiresAt"]) == (60, "2096-10-02T07:06:40+00:00")


async def test_a_key_revoked_a_moment_ago_elsewhere_makes_no_other() -> None:
    async with serving() as house:
        house.credentials.heard(asked_at=trio.current_time())
        async with house.client(house.api_key(role="admin"), admin=True) as admin:
            assert (await make(admin, role="reader")).status_code == 201
            house.journal.revoked.append(next(iter(house.journal.api_keys.values())).id)
            check_shape(await make(admin, role="reader"), 401, "INVALID_API_KEY")


async def test_a_key_of_another_tenant_is_as_absent_as_one_that_never_was() -> None:
    async with serving() as house:
        house.api_key(role="agent", tenant=OTHER_TENANT)
        foreign = uuid.UUID(bytes=next(iter(house.journal.api_keys.values())).id)
        headers = {"x-request-id": "same"}
        async with house.client(house.api_key(role="admin"), admin=True) as admin:
            answers = [
                await admin.delete(f"{KEYS}/{one}", headers=headers) for one in (foreign, uuid.uuid4())
            ]
        check_shape(answers[0], 404, "RESOURCE_NOT_FOUND")
        assert answers[0].content == answers[1].content
