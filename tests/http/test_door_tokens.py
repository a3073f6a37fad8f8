"""Signed tokens at the door: what they may do, how they end, and who has to wait after failing too often."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from actors.failed_attempts import Patience
from actors.token_rules import Rules
from journal.port import AuditEntry
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_STORE,
    OTHER_TENANT,
    STORE,
    STREAM,
    TENANT,
    Cardboard,
    serving,
)
from tests.http.test_door_refusals import check_shape
from tests.tokens.token_mint import OTHER_PRIVATE, SECRET, jwk, keys, legacy_claims, macced, signed
from tests.tokens.token_mint import claims as claims_at
from transport.http.permissions import NEEDED, OF_THE_NODE, holds
from transport.http.tokens import GRANTABLE
from ves.records import IssuedToken

EVENTS = "/api/v1/ves/events"
REVOKE = "/api/v1/admin/tokens/revoke"
REVOCATIONS = "/api/v1/admin/tokens/revocations"
BAD_KEY = "ss_00000000000000000000000000000000"


def now() -> int:
    return int(time.time())


def claims(**changes: Any) -> dict[str, Any]:
    return claims_at(**({"iat": now(), "exp": now() + 3600} | changes))


def house(**more: Any) -> Cardboard:
    more.setdefault("token_keys", keys(jwk(), secret=SECRET))
    return Cardboard(**more)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def test_a_token_posts_and_reads_as_its_agent_and_nobody_else() -> None:
    async with serving(house=house()) as cardboard, cardboard.client() as client:
        mine = bearer(signed(claims(stores=[str(STORE)])))
        assert (await client.post(INGEST, content=b"{}", headers=JSON | mine)).status_code == 200
        scope = cardboard.verifiers.asked[0].scope
        assert (scope.tenant_id, scope.store_ids, scope.agent_id) == (
            TENANT.bytes,
            (STORE.bytes,),
            AGENT.bytes,
        )
        appended = cardboard.sequencer.asked[0]
        assert isinstance(appended.credential_id, IssuedToken)
        assert appended.credential_id.subject == AGENT.bytes
        assert (await client.get(EVENTS, params=STREAM, headers=mine)).status_code == 200
        foreign = await client.get(EVENTS, params=STREAM | {"tenant_id": str(OTHER_TENANT)}, headers=mine)
        check_shape(foreign, 403, "INSUFFICIENT_PERMISSIONS")
        elsewhere = await client.get(EVENTS, params=STREAM | {"store_id": str(OTHER_STORE)}, headers=mine)
        check_shape(elsewhere, 403, "INSUFFICIENT_PERMISSIONS")
        none = bearer(signed(claims(stores=[])))
        assert (await client.get(EVENTS, params=STREAM, headers=none)).status_code == 403


async def test_a_scope_gives_what_it_names_and_never_the_operators_rights() -> None:
    async with (
        serving(house=house()) as cardboard,
        cardboard.client(admin=True) as admin,
        cardboard.client() as client,
    ):
        for scope in ([], ["events:admin"], ["operator"], ["operator:*"], ["commitments:*"], ["event:*"]):
            headers = bearer(signed(claims(scope=scope)))
            answer = await client.get(EVENTS, params=STREAM, headers=headers)
            error = check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
            assert "insufficient_scope" in answer.headers["www-authenticate"], error
        for scope in (["*"], ["events:*"], ["events:read", "nonsense"]):
            headers = bearer(signed(claims(scope=scope)))
            assert (await client.get(EVENTS, params=STREAM, headers=headers)).status_code == 200
        for scope in (["*"], ["operator"], ["*", "operator", "operator:*"]):
            headers = bearer(signed(claims(scope=scope)))
            answer = await admin.get("/api/v1/admin/actors", headers=headers)
            check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
        for perms in ("admin", "metrics:read", "admin,metrics:read,operator"):
            said = legacy_claims(iat=now(), nbf=now(), exp=now() + 60, perms=perms)
            answer = await admin.get("/metrics", headers=bearer(macced(said)))
            check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")


def test_every_permission_of_the_table_but_the_operators_can_be_given() -> None:
    for needed in NEEDED.values():
        for one in needed:
            assert (one in GRANTABLE) == (one not in OF_THE_NODE)
            assert holds(frozenset({f"{one.partition(':')[0]}:*"}) & GRANTABLE, (one,)) == (
                one not in OF_THE_NODE
            )


async def test_a_legacy_token_is_taken_only_where_a_secret_is_set() -> None:
    said = legacy_claims(iat=now(), nbf=now(), exp=now() + 60)
    for with_secret in (True, False):
        ours = keys(jwk(), secret=SECRET if with_secret else None)
        async with serving(house=house(token_keys=ours)) as cardboard, cardboard.client() as client:
            answer = await client.get(EVENTS, params=STREAM, headers=bearer(macced(said)))
            assert answer.status_code == (200 if with_secret else 401)
    async with serving(house=house()) as cardboard, cardboard.client() as client:
        alone = bearer(macced(said | {"perms": "admin"}))
        assert (await client.get(EVENTS, params=STREAM, headers=alone)).status_code == 200, "* in its tenant"
        nobody = bearer(macced(said | {"perms": "Read, write"}))
        assert (await client.get(EVENTS, params=STREAM, headers=nobody)).status_code == 403
        master = bearer(macced(said | {"perms": "admin", "sub": str(uuid.UUID(int=0))}))
        check_shape(await client.get(EVENTS, params=STREAM, headers=master), 401, "INVALID_TOKEN")


async def test_what_is_wrong_with_a_token_is_told_as_rfc_6750_says() -> None:
    async with serving(house=house()) as cardboard, cardboard.client() as client:
        expired = await client.get(EVENTS, headers=bearer(signed(claims(iat=now() - 7200, exp=now() - 3600))))
        check_shape(expired, 401, "TOKEN_EXPIRED")
        wrong = await client.get(EVENTS, headers=bearer(signed(claims(), private=OTHER_PRIVATE)))
        check_shape(wrong, 401, "INVALID_TOKEN")
        for answer in (expired, wrong):
            assert answer.headers["www-authenticate"] == (
                'Bearer realm="sequencer", error="invalid_token", ApiKey'
            )
        missing = await client.get(EVENTS)
        check_shape(missing, 401, "AUTH_REQUIRED")
        assert missing.headers["www-authenticate"] == 'Bearer realm="sequencer", ApiKey'
        for header in ("Bearer", "Bearer a.b", f"bearer {signed(claims())} x", "Basic YTpi"):
            answer = await client.get(EVENTS, headers={"authorization": header})
            assert answer.status_code == 401, header
        raw = await client.get(EVENTS, headers={"authorization": signed(claims())})
        check_shape(raw, 401, "AUTH_REQUIRED")


async def test_no_credential_is_ever_in_the_log() -> None:
    with capture_logs() as logs:
        async with serving(house=house()) as cardboard, cardboard.client() as client:
            texts = [signed(claims()), signed(claims(), private=OTHER_PRIVATE), macced(), BAD_KEY]
            for text in texts:
                await client.get(EVENTS, params=STREAM, headers=bearer(text))
    told = str(logs)
    assert f"token:{AGENT}" in told
    for text in texts:
        assert not any(part in told for part in text.split("."))


# Revoking.


async def test_a_revocation_ends_a_token_at_once_and_is_audited_and_told() -> None:
    async with (
        serving(house=house()) as cardboard,
        cardboard.client() as client,
        cardboard.client(BOOTSTRAP, admin=True) as admin,
    ):
        mine = bearer(signed(claims()))
        cardboard.tokens.fresh_since(float("inf"))
        assert (await client.get(EVENTS, params=STREAM, headers=mine)).status_code == 200
        body = {"tenantId": str(TENANT), "agentId": str(AGENT), "reason": "lost laptop"}
        with capture_logs() as logs:
            answer = await admin.post(REVOKE, json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["subject"], told["reason"]) == (str(AGENT), "lost laptop")
        check_shape(await client.get(EVENTS, params=STREAM, headers=mine), 401, "INVALID_TOKEN")
        [line] = [line for line in logs if line.get("kind") == "credential_revoked"]
        assert (line["credential"], line["tenant"], line["by"]) == (
            f"token:{AGENT}",
            str(TENANT),
            "bootstrap",
        )
        entry = cardboard.journal.audits[-1]
        assert (entry.action, entry.subject, entry.tenant_id) == (
            "token.revoke",
            str(AGENT),
            TENANT.bytes,
        )
        assert entry.details["reason"] == "lost laptop"
        listed = (await admin.get(REVOCATIONS, params={"tenant_id": str(TENANT)})).json()
        assert listed["revocations"] == [told]
        assert (listed["has_more"], listed["next_after"]) == (False, None)


async def test_revocations_are_listed_in_pages_within_the_callers_tenant() -> None:
    async with serving(house=house()) as cardboard:
        mine, theirs = cardboard.api_key("admin"), cardboard.api_key("admin", tenant=OTHER_TENANT)
        async with cardboard.client(mine, admin=True) as admin, cardboard.client(theirs, admin=True) as other:
            for n in range(3):
                body = {"tenantId": str(TENANT), "subject": str(uuid.UUID(int=n + 1))}
                assert (await admin.post(REVOKE, json=body)).status_code == 200
            first = (await admin.get(REVOCATIONS, params={"limit": 2})).json()
            assert (first["count"], first["has_more"]) == (2, True)
            rest = (await admin.get(REVOCATIONS, params={"after": first["next_after"]})).json()
            assert [one["subject"] for one in rest["revocations"]] == [str(uuid.UUID(int=3))]
            assert (await other.get(REVOCATIONS)).json()["count"] == 0
            foreign = await other.get(REVOCATIONS, params={"tenant_id": str(TENANT)})
            check_shape(foreign, 403, "INSUFFICIENT_PERMISSIONS")
            foreign = await other.post(REVOKE, json={"tenantId": str(TENANT), "subject": str(AGENT)})
            check_shape(foreign, 403, "INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize("names", [{}, {"subject": str(AGENT), "agentId": str(AGENT)}])
async def test_a_revocation_names_one_subject(names: dict[str, str]) -> None:
    async with serving(house=house()) as cardboard, cardboard.client(BOOTSTRAP, admin=True) as admin:
        answer = await admin.post(REVOKE, json={"tenantId": str(TENANT)} | names)
        check_shape(answer, 400, "MISSING_REQUIRED_FIELD")


async def test_a_credential_of_one_agent_or_some_stores_revokes_nobody() -> None:
    async with serving(house=house()) as cardboard, cardboard.client(admin=True) as admin:
        keys_of_some = [cardboard.api_key("admin", stores=[STORE]), cardboard.api_key("admin", agent=AGENT)]
        for text in (*keys_of_some, signed(claims(scope=["*"]))):
            body = {"tenantId": str(TENANT), "subject": str(AGENT)}
            answer = await admin.post(REVOKE, json=body, headers=bearer(text))
            check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")


# Failing too often.


async def fail(client: httpx.AsyncClient, times: int, text: str = BAD_KEY) -> list[int]:
    return [(await client.get(EVENTS, params=STREAM, headers=bearer(text))).status_code for _ in range(times)]


async def test_an_address_that_fails_too_often_waits_before_anything_is_looked_up() -> None:
    async with (
        serving(house=house(patience=Patience(burst=3, per_minute=0.01))) as cardboard,
        cardboard.client() as client,
    ):
        assert await fail(client, 3) == [401, 401, 401]
        looked_up = cardboard.journal.lookups
        answer = await client.get(EVENTS, headers=bearer(BAD_KEY))
        check_shape(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert int(answer.headers["retry-after"]) > 60
        assert await fail(client, 5) == [429] * 5
        assert cardboard.journal.lookups == looked_up == 3
        unknown = cardboard.api_key("read")  # a good one, never seen here: it has to wait too
        assert await fail(client, 1, unknown) == [429]
        counts = cardboard.security.counts
        assert (counts["authentication_failed"], counts["authentication_throttled"]) == (3, 7)


async def test_one_bad_neighbour_locks_out_nobody_who_is_known() -> None:
    async with (
        serving(house=house(patience=Patience(burst=3, per_minute=0.01))) as cardboard,
        cardboard.client() as client,
    ):
        known = cardboard.api_key("read")
        cardboard.credentials.heard(asked_at=float("inf"))
        assert await fail(client, 1, known) == [200]
        await fail(client, 5)
        assert await fail(client, 2, known) == [200, 200]
        assert await fail(client, 2, signed(claims())) == [200, 200]
        assert await fail(client, 1, BOOTSTRAP) == [200]
        expired = signed(claims(iat=now() - 7200, exp=now() - 3600))
        assert await fail(client, 2, expired) == [401, 401], "its holder must learn that"
        ended = cardboard.api_key("read", expires_at_us=1)
        assert await fail(client, 1, ended) == [429], "unknown here"
        assert await fail(client, 2, signed(claims(), private=OTHER_PRIVATE)) == [429, 429]
        # While the node hears of no revocations it asks the database, for those it knows.
        cardboard.credentials.heard(asked_at=-float("inf"))
        assert await fail(client, 1, known) == [200]


async def test_an_api_key_that_has_expired_is_no_guess() -> None:
    async with (
        serving(house=house(patience=Patience(burst=3, per_minute=0.01))) as cardboard,
        cardboard.client() as client,
    ):
        ended = cardboard.api_key("read", expires_at_us=1)
        assert await fail(client, 5, ended) == [401] * 5, "its holder must learn that"
        assert await fail(client, 1, cardboard.api_key("read")) == [200], "and nobody waits for it"
        assert cardboard.security.counts["authentication_failed"] == 5


async def test_a_revoked_key_is_a_stranger_again() -> None:
    async with (
        serving(house=house(patience=Patience(burst=3, per_minute=0.01))) as cardboard,
        cardboard.client() as client,
    ):
        key = cardboard.api_key("read")
        cardboard.credentials.heard(asked_at=float("inf"))
        assert await fail(client, 1, key) == [200]
        [record] = cardboard.journal.api_keys.values()
        audit = AuditEntry("cli", "x", "", None)
        await cardboard.journal.revoke_api_key(record.id, tenant_id=None, audit=audit)
        cardboard.credentials.forget([record.id])
        assert await fail(client, 4, key) == [401, 401, 401, 429]


async def test_coming_without_a_credential_is_no_failed_attempt() -> None:
    async with (
        serving(house=house(patience=Patience(burst=1, per_minute=0.01))) as cardboard,
        cardboard.client() as client,
    ):
        for _ in range(3):
            check_shape(await client.get(EVENTS), 401, "AUTH_REQUIRED")
        assert cardboard.security.counts["authentication_failed"] == 0
        assert await fail(client, 2) == [401, 429]


async def test_the_metrics_show_a_broken_key_file_and_lost_entries() -> None:
    async with (
        serving(house=house(token_rules=Rules())) as cardboard,
        cardboard.client(BOOTSTRAP, admin=True) as admin,
    ):
        text = (await admin.get("/metrics")).text
        assert "sequencer_token_keys_broken 0.0" in text
        assert "sequencer_failed_attempts_not_audited_total 0.0" in text
        cardboard.tokens.key_file_broken = True
        assert "sequencer_token_keys_broken 1.0" in (await admin.get("/metrics")).text


async def test_a_token_makes_no_api_key_that_would_outlive_it() -> None:
    async with (
        serving(house=house()) as cardboard,
        cardboard.client() as client,
        cardboard.client(admin=True) as admin,
    ):
        agents = bearer(signed(claims(scope=["*"])))
        answer = await client.post(f"/api/v1/agents/{AGENT}/api-keys", json={}, headers=agents)
        check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
        said = legacy_claims(iat=now(), nbf=now(), exp=now() + 60, perms="read,write,admin")
        body = {"tenantId": str(TENANT), "role": "agent"}
        answer = await admin.post("/api/v1/admin/api-keys", json=body, headers=bearer(macced(said)))
        check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
        assert not cardboard.journal.api_keys


async def test_a_token_sees_and_ends_its_agents_keys_only_when_its_scope_says_so() -> None:
    async with serving(house=house()) as cardboard, cardboard.client() as client:
        path = f"/api/v1/agents/{AGENT}/api-keys"
        for scope, status in ((["events:read"], 403), (["self"], 200), (["*"], 200)):
            answer = await client.get(path, headers=bearer(signed(claims(scope=scope))))
            assert answer.status_code == status, scope
