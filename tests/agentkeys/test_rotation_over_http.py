"""Rotating and revoking agents' keys on a real server, as agents and operators see it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.agentkeys.rotating import (
    REGISTER,
    REVOKE,
    ROTATE,
    listed,
    names,
    operator,
    proof,
    rotate,
    rotation,
    successor,
    word,
)
from tests.auditor.audit import audit
from tests.auditor.reading import over_http, read_stream
from tests.e2e.world import Agent, Tenant


def posted(tenant: Tenant, agent: Agent, n: int = 1) -> dict[str, Any]:
    answer = tenant.post(agent.event({"n": n}), agent=agent)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refusal(told: dict[str, Any]) -> str:
    assert told["eventsAccepted"] == 0
    return str(told["rejections"][0]["reason"])


def audited(tenant: Tenant) -> list[str]:
    get = over_http(tenant.server.url, tenant.api_key)
    return audit(read_stream(get, str(tenant.tenant_id), str(tenant.store_id), proof_every=0))


def test_during_the_grace_both_keys_sign_and_afterwards_only_the_new_one(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    before = old.body([old.event({"n": 0})])
    first = tenant.post_raw(before).json()
    told = rotate(tenant, old, new, gracePeriodSecs=3600)
    assert (told["keyId"], told["replaces"], told["alreadyRotated"]) == (2, 1, False)
    assert (told["proofOfPossession"], told["continuityProven"]) == (2, True)
    assert posted(tenant, old)["eventsAccepted"] == posted(tenant, new)["eventsAccepted"] == 1
    ended = rotate(tenant, old, new, gracePeriodSecs=0)
    assert ended["retiresAt"] < told["retiresAt"]
    assert refusal(posted(tenant, old)) == "agent_key_invalid: Agent key has been retired"
    assert posted(tenant, new)["eventsAccepted"] == 1
    again = tenant.post_raw(before).json()
    assert again["receipts"] == first["receipts"], "a replay is answered whatever became of its key"
    keys = listed(tenant, old)
    assert (keys[1]["retiresAt"], keys[1]["replacedBy"]) == (ended["retiresAt"], 2)
    assert keys[1]["rotationSignature"] == "0x" + word(old, new)
    assert (keys[2]["proofOfPossession"], keys[2]["retiresAt"]) == (2, None)
    assert audited(tenant) == []


def test_the_same_rotation_again_has_the_same_answer(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    first = rotate(tenant, old, new)
    again = rotate(tenant, old, new)
    assert again == first | {"alreadyRotated": True}


def test_an_agents_own_credential_rotates_its_key_with_the_old_keys_word(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    own = tenant.new_api_key(["read", "write"], agentId=str(old.agent_id))
    anothers = tenant.new_api_key(["read", "write"], agentId=str(uuid.uuid4()))
    unbound = tenant.new_api_key(["read", "write"])
    reads = tenant.new_api_key(["read"], agentId=str(old.agent_id))

    def status(key: str, **changes: Any) -> int:
        body = {k: v for k, v in {**rotation(old, new), **changes}.items() if v is not None}
        headers = {"authorization": f"ApiKey {key}"}
        return tenant.http.post(ROTATE, json=body, headers=headers).status_code

    assert [status(key) for key in (anothers, unbound, reads)] == [403, 403, 403]
    assert status(own, previousSignature=None) == 403
    assert status(own, proofOfPossession=None) == 403
    assert status(own, previousSignature=word(new, old)) == 400
    assert status(own, tenantId=str(uuid.uuid4())) == 403
    assert sorted(listed(tenant, old)) == [1], "nothing of that did anything"
    assert status(own) == 200
    assert status(own) == 200, "repeating is harmless"
    assert posted(tenant, new)["eventsAccepted"] == 1
    # The old key, in its grace, has no second successor; the new one may have one.
    third = successor(old, 3)
    assert status(own, **rotation(old, third)) == 409
    assert status(own, **rotation(new, third)) == 200


def test_an_agent_does_not_move_the_end_that_was_set_to_its_key(tenant: Tenant) -> None:
    old = Agent(tenant.tenant_id, tenant.store_id)
    end = "2099-01-01T00:00:00Z"
    body = {**names(old), "keyId": 1, "publicKey": old.public_key, "validTo": end}
    assert tenant.http.post(REGISTER, json=body).status_code == 200
    new = successor(old)
    own = {"authorization": f"ApiKey {tenant.new_api_key(['write'], agentId=str(old.agent_id))}"}
    later = tenant.http.post(ROTATE, json=rotation(old, new, validTo="2099-01-02T00:00:00Z"), headers=own)
    assert later.status_code == 403
    assert "2099-01-01T00:00:00" in later.json()["message"]
    for _ in range(2):
        assert tenant.http.post(ROTATE, json=rotation(old, new), headers=own).status_code == 200
    assert listed(tenant, old)[2]["validTo"] == "2099-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"replaces": 2}, 400, "replaces"),
        ({"replaces": 9}, 404, "replaces"),
        ({"gracePeriodSecs": -1}, 422, "gracePeriodSecs"),
        ({"gracePeriodSecs": 90 * 86_400 + 1}, 422, "gracePeriodSecs"),
        ({"previousSignature": "11" * 64}, 400, "VES_KEY_ROTATION_V1"),
        ({"proofOfPossession": "11" * 64}, 400, "VES_POP_V2"),
        ({"publicKey": "00" * 32}, 400, "publicKey"),
    ],
)
def test_a_bad_rotation_is_refused_by_name_and_does_nothing(
    tenant: Tenant, change: dict[str, Any], status: int, named: str
) -> None:
    old = tenant.agent
    answer = tenant.http.post(ROTATE, json=rotation(old, successor(old), **change))
    assert answer.status_code == status, answer.text
    assert named in answer.json()["message"]
    assert listed(tenant, old)[1]["retiresAt"] is None


def test_a_key_is_not_rotated_to_itself_nor_to_anothers_nor_after_its_revocation(tenant: Tenant) -> None:
    old, other = tenant.agent, tenant.new_agent()
    itself = Agent(old.tenant_id, old.store_id, old.agent_id, 2, old.key)
    stolen = Agent(old.tenant_id, old.store_id, old.agent_id, 2, other.key)
    assert tenant.http.post(ROTATE, json=rotation(old, itself)).status_code == 400
    assert tenant.http.post(ROTATE, json=rotation(old, stolen)).status_code == 409
    tenant.http.post(REVOKE, json={**names(old), "keyId": 1, "reason": "lost"})
    answer = tenant.http.post(ROTATE, json=rotation(old, successor(old)))
    assert answer.status_code == 409
    assert "register a new key" in answer.json()["message"]


def test_all_keys_of_a_compromised_agent_are_revoked_at_once(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    posted(tenant, old)
    rotate(tenant, old, new)
    body = {**names(old), "allKeys": True, "reason": "suspected_compromise"}
    told = tenant.http.post(REVOKE, json=body).json()
    assert (told["keysRevoked"], told["keyId"], told["alreadyRevoked"]) == (2, None, False)
    for agent in (old, new):
        assert refusal(posted(tenant, agent)) == "agent_key_invalid: Agent key has been revoked"
    again = tenant.http.post(REVOKE, json=body).json()
    assert (again["keysRevoked"], again["alreadyRevoked"]) == (0, True)
    assert {key["revocationReason"] for key in listed(tenant, old).values()} == {"suspected_compromise"}
    for wrong, status in (
        ({**body, "keyId": 1}, 400),
        (names(old), 422),
        ({**body, "agentId": str(uuid.uuid4())}, 404),
    ):
        assert tenant.http.post(REVOKE, json=wrong).status_code == status
    lines = [json.loads(line) for line in tenant.server.log.read_text().splitlines() if line[:1] == "{"]
    mine = [x for x in lines if x.get("event") == "security_event" and x.get("agent") == str(old.agent_id)]
    assert [(x["kind"], x.get("replaces")) for x in mine] == [
        ("agent_key_registered", None),
        ("agent_key_registered", 1),
        ("agent_key_revoked", None),
        ("agent_key_compromised", None),
    ]
    assert mine[-1]["keys"] == 2


def test_a_proof_of_possession_may_come_after_the_registration(tenant: Tenant) -> None:
    agent = tenant.agent
    body = {**names(agent), "keyId": 1, "publicKey": agent.public_key}
    assert listed(tenant, agent)[1]["proofOfPossession"] is None
    for version, recorded in ((1, 1), (2, 2), (1, 2)):
        told = tenant.http.post(REGISTER, json={**body, "proofOfPossession": proof(agent, version)}).json()
        assert (told["alreadyRegistered"], told["proofOfPossession"]) == (True, recorded)
    assert listed(tenant, agent)[1]["proofOfPossession"] == 2


def test_what_a_key_has_signed_is_found_without_payloads(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    tenant.post(*(old.event({"n": n}) for n in range(3)))
    rotate(tenant, old, new)
    posted(tenant, new)
    other_store = Agent(old.tenant_id, uuid.uuid4(), old.agent_id, 1, old.key)
    posted(tenant, other_store)
    found: list[dict[str, Any]] = []
    path = f"/api/v1/admin/agent-keys/{old.agent_id}/1/events"
    query: dict[str, Any] = {"tenant_id": str(tenant.tenant_id), "limit": 2}
    while True:
        answer = operator(tenant, "GET", path, params=query)
        assert answer.status_code == 200, answer.text
        found += answer.json()["events"]
        if not answer.json()["has_more"]:
            break
        query["after"] = answer.json()["next_after"]
    places = {(e["store_id"], e["sequence_number"]) for e in found}
    assert len(found) == 4
    assert places == {(str(old.store_id), n) for n in (1, 2, 3)} | {(str(other_store.store_id), 1)}
    assert set(found[0]) == {"store_id", "sequence_number", "event_id", "sequenced_at"}
    unknown = operator(tenant, "GET", path.replace("/1/", "/9/"), params=query)
    assert unknown.status_code == 404
    wrong = operator(tenant, "GET", path, params={**query, "after": f"{uuid.uuid4()}/{2**53}"})
    assert wrong.status_code == 400


def test_an_operator_sees_keys_by_their_stage(tenant: Tenant) -> None:
    old, new = tenant.agent, successor(tenant.agent)
    rotate(tenant, old, new)
    ended = tenant.new_agent()
    tenant.http.post(REVOKE, json={**names(ended), "keyId": 1})
    soon = Agent(tenant.tenant_id, tenant.store_id)
    body = {**names(soon), "keyId": 1, "publicKey": soon.public_key, "validFrom": "2098-01-01T00:00:00Z"}
    tenant.http.post(REGISTER, json=body)

    def stages(**query: Any) -> dict[tuple[str, int], str]:
        found: dict[tuple[str, int], str] = {}
        query = {"tenant_id": str(tenant.tenant_id), "limit": 2, **query}
        while True:
            answer = operator(tenant, "GET", "/api/v1/admin/agent-keys", params=query)
            assert answer.status_code == 200, answer.text
            found |= {(k["agentId"], k["keyId"]): k["status"] for k in answer.json()["keys"]}
            if not answer.json()["has_more"]:
                return found
            query["after"] = answer.json()["next_after"]

    assert stages() == {
        (str(old.agent_id), 1): "retiring",
        (str(old.agent_id), 2): "active",
        (str(ended.agent_id), 1): "revoked",
        (str(soon.agent_id), 1): "pending",
    }
    assert stages(status="revoked") == {(str(ended.agent_id), 1): "revoked"}
    assert stages(status="overdue") == {}
    everybody = operator(tenant, "GET", "/api/v1/admin/agent-keys", params={"limit": 1000}).json()["keys"]
    assert str(tenant.tenant_id) in {key["tenantId"] for key in everybody}
    assert operator(tenant, "GET", "/api/v1/admin/agent-keys", params={"status": "dead"}).status_code == 400
    assert operator(tenant, "GET", "/api/v1/admin/agent-keys", params={"after": "x"}).status_code == 400
