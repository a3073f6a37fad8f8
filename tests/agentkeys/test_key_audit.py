"""Every act on agent keys leaves who did what to which key."""

from __future__ import annotations

from tests.agentkeys.rotating import REGISTER, REVOKE, ROTATE, names, rotation, successor, word
from tests.e2e.world import Agent
from tests.http.doubles import AGENT, STORE, TENANT, serving


async def test_registering_rotating_and_revoking_leave_their_entries_once() -> None:
    old = Agent(TENANT, STORE, AGENT)
    new = successor(old)
    body = {**names(old), "keyId": 1, "publicKey": old.public_key}
    revocation = {**names(old), "allKeys": True, "reason": "suspected_compromise"}
    async with serving() as house:
        async with house.client(house.api_key("admin")) as client:
            for path, sent in ((REGISTER, body), (ROTATE, rotation(old, new, gracePeriodSecs=60))):
                for _ in range(2):
                    assert (await client.post(path, json=sent)).status_code == 200
            one = {**names(old), "keyId": 2, "reason": "lost"}
            assert (await client.post(REVOKE, json=one)).status_code == 200
            assert (await client.post(REVOKE, json=revocation)).status_code == 200
        entries = house.journal.audits
        counts = house.house.security.counts
    told = [(entry.action, entry.subject) for entry in entries]
    assert told == [
        ("agent_key.register", f"{AGENT}/1"),
        ("agent_key.rotate", f"{AGENT}/2"),
        ("agent_key.revoke", f"{AGENT}/2"),
        ("agent_key.revoke_all", str(AGENT)),
    ]
    rotated = entries[1].details
    assert (rotated["replaces"], rotated["grace_period_secs"]) == (1, 60)
    assert (rotated["public_key"], rotated["proof_of_possession"]) == (new.public_key, 2)
    assert rotated["rotation_signature"] == word(old, new)
    assert [entry.details["reason"] for entry in entries[2:]] == ["lost", "suspected_compromise"]
    assert all(entry.tenant_id == TENANT.bytes and entry.details["request_id"] for entry in entries)
    assert all(entry.actor.startswith("api_key:") for entry in entries)
    assert (counts["agent_key_registered"], counts["agent_key_revoked"]) == (2, 2)
