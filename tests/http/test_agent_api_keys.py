"""An agent's own API keys: what it may make, see and end, and that nothing is wider than what it holds."""

from __future__ import annotations

import time
import uuid
from hashlib import sha256
from typing import Any

import httpx
import pytest
import trio

from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    OTHER_STORE,
    OTHER_TENANT,
    STORE,
    TENANT,
    Cardboard,
    serving,
)
from tests.http.test_door_refusals import check_shape
from transport.http.agent_api_keys import IN_FORCE_MAX

ME = f"/api/v1/agents/{AGENT}"
KEYS = f"{ME}/api-keys"
STRANGER = uuid.UUID("88888888-8888-4888-8888-888888888888")
NOW_US = time.time_ns() // 1000
HOUR_US = 3_600_000_000
IN_A_YEAR = "2099-01-01T00:00:00Z"


def hash_of(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def permissions_of(house: Cardboard, made: httpx.Response) -> tuple[str | None, tuple[str, ...]]:
    record = house.journal.api_keys[sha256(made.json()["apiKey"].encode()).digest()]
    assert record.agent_id == AGENT.bytes
    assert record.tenant_id == TENANT.bytes
    return record.role, record.permissions


async def test_an_agent_makes_itself_a_key_like_its_own_and_uses_it() -> None:
    async with serving() as house:
        mine = house.api_key(role="agent", agent=AGENT, stores=[STORE], rate_limit=50)
        async with house.client(mine) as client:
            made = await client.post(KEYS, json={})
            assert made.status_code == 200, made.text
            assert made.json()["success"]
            assert made.json()["permissions"] == "read_write"
            assert made.json()["keyHashPrefix"] == hash_of(made.json()["apiKey"])[:16]
            assert (made.json()["storeIds"], made.json()["rateLimit"]) == ([str(STORE)], 50)
            assert permissions_of(house, made) == ("agent", ())
        async with house.client(made.json()["apiKey"]) as client:
            shown = (await client.get(ME)).json()
        assert shown == {
            "agentId": str(AGENT),
            "tenantId": str(TENANT),
            "active": True,
            "permissions": "read_write",
            "role": "agent",
            "storeIds": [str(STORE)],
            "rateLimit": 50,
            "expiresAt": None,
        }


@pytest.mark.parametrize(
    ("mine", "body", "becomes"),
    [
        ({"role": "agent"}, {"readOnly": True}, (None, ("events:read",))),
        ({"role": "agent"}, {"readOnly": False}, ("agent", ())),
        ({"role": "agent"}, {"role": "agent"}, ("agent", ())),
        ({"flags": ["read", "write"]}, {}, (None, ("read", "write"))),
        ({"flags": ["read", "write"]}, {"readOnly": True}, ("reader", ())),
        ({"flags": ["read", "write"]}, {"role": "agent"}, ("agent", ())),
        ({"flags": ["write"]}, {}, (None, ("write",))),
        ({"role": "reader"}, {}, ("reader", ())),
        ({"role": "anchor"}, {}, ("anchor", ())),
        ({"role": "anchor"}, {"readOnly": True}, (None, ("commitments:read",))),
        ({"role": "admin"}, {}, ("agent", ())),
        ({"role": "admin"}, {"admin": True, "readOnly": True}, ("admin", ())),
        ({"flags": ["admin"]}, {"role": "anchor"}, ("anchor", ())),
    ],
)
async def test_what_a_new_key_may(
    mine: dict[str, Any], body: dict[str, Any], becomes: tuple[Any, Any]
) -> None:
    async with serving() as house:
        key = house.api_key(*mine.get("flags", ()), role=mine.get("role"), agent=AGENT)
        async with house.client(key) as client:
            made = await client.post(KEYS, json=body)
        assert made.status_code == 200, made.text
        assert permissions_of(house, made) == becomes


@pytest.mark.parametrize(
    ("mine", "body", "why"),
    [
        ({"role": "agent"}, {"admin": True}, "Only admins can mint admin keys"),
        ({"role": "agent"}, {"role": "admin"}, "Only admins can mint admin keys"),
        ({"role": "agent"}, {"role": "reader"}, "broader permissions"),
        ({"role": "agent"}, {"role": "anchor"}, "broader permissions"),
        ({"role": "reader"}, {"role": "agent"}, "broader write permissions"),
        ({"role": "reader"}, {"readOnly": False}, "broader write permissions"),
        ({"flags": ["write"]}, {"readOnly": True}, "does not"),
        ({"stores": [STORE]}, {"storeIds": []}, "Cannot widen store scope"),
        ({"stores": [STORE]}, {"storeIds": [str(STORE), str(OTHER_STORE)]}, "outside the authenticating key"),
        (
            {"stores": [STORE], "role": "admin"},
            {"storeIds": [str(OTHER_STORE)]},
            "outside the authenticating",
        ),
        ({"rate_limit": 50}, {"rateLimit": 51}, "higher rate limit"),
        ({}, {"rateLimit": 601}, "at most 600 a minute"),
        ({"role": "admin"}, {"rateLimit": 6001}, "at most 6000 a minute"),
        ({"expires_at_us": NOW_US + HOUR_US}, {"expiresAt": IN_A_YEAR}, "outlives"),
        ({"role": "admin", "expires_at_us": NOW_US + HOUR_US}, {"expiresAt": IN_A_YEAR}, "outlives"),
    ],
)
async def test_nobody_makes_a_key_wider_than_his_own(
    mine: dict[str, Any], body: dict[str, Any], why: str
) -> None:
    async with serving() as house:
        flags = mine.pop("flags", ())
        key = house.api_key(*flags, **{"role": None if flags else "agent", "agent": AGENT, **mine})
        async with house.client(key) as client:
            refused = check_shape(await client.post(KEYS, json=body), 403, "INSUFFICIENT_PERMISSIONS")
        assert why in refused["message"]
        assert len(house.journal.api_keys) == 1


async def test_an_agent_does_nothing_for_another_and_learns_nothing_of_it() -> None:
    async with serving() as house:
        for role in ("agent", "admin"):
            async with house.client(house.api_key(role=role, agent=STRANGER)) as client:
                house.journal.away = False
                await client.get(f"/api/v1/agents/{STRANGER}")
                house.journal.away = True  # a look into the journal would be a 503
                for method, path in (
                    ("GET", ME),
                    ("POST", KEYS),
                    ("GET", KEYS),
                    ("DELETE", f"{KEYS}/0123456789abcdef"),
                ):
                    house.credentials.heard(asked_at=trio.current_time())
                    more = {"json": {}} if method == "POST" else {}
                    refused = await client.request(method, path, **more)
                    assert (
                        check_shape(refused, 403, "INSUFFICIENT_PERMISSIONS")["message"] == "Agent mismatch"
                    )


async def test_an_administrator_makes_keys_for_an_agent_that_exists() -> None:
    async with serving() as house:
        async with house.client(house.api_key(role="admin")) as admin:
            check_shape(await admin.post(KEYS, json={}), 404, "RESOURCE_NOT_FOUND")
            check_shape(await admin.get(ME), 404, "RESOURCE_NOT_FOUND")
            assert (await admin.get(KEYS)).json() == {
                "keys": [],
                "count": 0,
                "has_more": False,
                "next_after": None,
            }
            house.api_key(role="reader", agent=AGENT)
            made = await admin.post(KEYS, json={"storeIds": [str(STORE)], "rateLimit": 6000})
            assert permissions_of(house, made) == ("agent", ())
        async with house.client(BOOTSTRAP) as operator:
            check_shape(await operator.post(KEYS, json={}), 400, "MISSING_REQUIRED_FIELD")
            there = {"tenant_id": str(TENANT)}
            richer = await operator.post(KEYS, json={"rateLimit": 1_000_000}, params=there)
            assert richer.json()["rateLimit"] == 1_000_000
            elsewhere = await operator.post(KEYS, json={}, params={"tenant_id": str(OTHER_TENANT)})
            check_shape(elsewhere, 404, "RESOURCE_NOT_FOUND")


async def test_an_agents_keys_are_listed_newest_first_page_by_page() -> None:
    async with serving() as house:
        keys = [house.api_key(role="agent", agent=AGENT) for _ in range(5)]
        house.api_key(role="agent", agent=STRANGER)
        house.api_key(role="agent", agent=AGENT, tenant=OTHER_TENANT)
        seen: list[str] = []
        async with house.client(keys[0]) as client:
            query: dict[str, Any] = {"limit": 2}
            while True:
                page = (await client.get(KEYS, params=query)).json()
                seen += [key["keyHashPrefix"] for key in page["keys"]]
                if not page["has_more"]:
                    break
                query["after"] = page["next_after"]
            check_shape(await client.get(KEYS, params={"limit": 1001}), 400, "INVALID_FIELD_VALUE")
        assert seen == [hash_of(key)[:16] for key in reversed(keys)]


async def test_a_key_revokes_itself_and_is_refused_from_then_on() -> None:
    async with serving() as house:
        key = house.api_key(role="reader", agent=AGENT, stores=[STORE])
        async with house.client(key) as client:
            revoked = await client.delete(f"{KEYS}/{hash_of(key)[:8].upper()}")
            assert revoked.json() == {"success": True, "message": "API key revoked successfully"}
            check_shape(await client.get(KEYS), 401, "INVALID_API_KEY")
        async with house.client(house.api_key("read", "write", agent=AGENT)) as client:
            assert (await client.delete(f"{KEYS}/{hash_of(key)}")).status_code == 200, "again is the same"
            listed = (await client.get(KEYS)).json()["keys"]
            assert [one["active"] for one in listed] == [True, False]
        assert [e.action for e in house.journal.audits] == ["api_key.revoke"] * 2
        assert house.house.security.counts["credential_revoked"] == 2


@pytest.mark.parametrize("prefix", ["0", "0123456", "0123456g", "%00", "0" * 65, "12345678%25"])
async def test_a_prefix_too_short_or_no_hex_is_refused_by_name(prefix: str) -> None:
    async with serving() as house, house.client(house.api_key(role="admin")) as admin:
        refused = check_shape(await admin.delete(f"{KEYS}/{prefix}"), 400, "INVALID_FIELD_VALUE")
        assert "key_prefix" in refused["message"]


async def test_a_prefix_that_fits_several_keys_revokes_none() -> None:
    async with serving() as house:
        for end in (b"\x01", b"\x02"):
            house.api_key(role="agent", agent=AGENT)
            _, key = house.journal.api_keys.popitem()
            key_hash = b"\xab" * 31 + end
            house.journal.api_keys[key_hash] = type(key)(
                key.id, key_hash, key.prefix, key.tenant_id, None, key.agent_id, (), None, role="agent"
            )
        async with house.client(house.api_key(role="admin")) as admin:
            check_shape(await admin.delete(f"{KEYS}/{'ab' * 8}"), 409, "CONFLICT")
            check_shape(await admin.delete(f"{KEYS}/{'cd' * 8}"), 404, "RESOURCE_NOT_FOUND")
            assert not house.journal.revoked
            assert (await admin.delete(f"{KEYS}/{'ab' * 31}02")).status_code == 200
        assert len(house.journal.revoked) == 1


async def test_a_narrow_key_of_an_agent_neither_ends_nor_sees_a_wider_one() -> None:
    async with serving() as house:
        wide = house.api_key(role="agent", agent=AGENT)
        reading = house.api_key(role="reader", agent=AGENT)
        there = house.api_key(role="agent", agent=AGENT, stores=[OTHER_STORE])
        async with house.client(reading) as client:
            refused = await client.delete(f"{KEYS}/{hash_of(wide)[:16]}")
            check_shape(refused, 403, "INSUFFICIENT_PERMISSIONS")
        async with house.client(house.api_key(role="agent", agent=AGENT, stores=[STORE])) as client:
            for key in (wide, there):
                absent = await client.delete(f"{KEYS}/{hash_of(key)[:16]}")
                check_shape(absent, 404, "RESOURCE_NOT_FOUND")
            assert (await client.get(KEYS)).json()["count"] == 1
        assert not house.journal.revoked


async def test_an_agent_has_only_so_many_keys_in_force() -> None:
    async with serving() as house:
        async with house.client(house.api_key(role="agent", agent=AGENT)) as client:
            for _ in range(IN_FORCE_MAX - 1):
                assert (await client.post(KEYS, json={})).status_code == 200
            refused = check_shape(await client.post(KEYS, json={}), 409, "CONFLICT")
        assert "revoke one first" in refused["message"]


async def test_an_agent_without_a_key_in_force_is_shown_as_not_active() -> None:
    async with serving() as house:
        house.api_key(role="agent", agent=AGENT, expires_at_us=NOW_US - 1)
        async with house.client(house.api_key(role="admin")) as admin:
            assert (await admin.get(ME)).json()["active"] is False
