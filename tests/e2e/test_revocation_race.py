"""A key is revoked on one node while both nodes sequence its events as fast as they can."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import httpx
import pytest

from tests.auditor.audit import audit
from tests.auditor.reading import over_http, read_stream
from tests.auditor.rules import instant_us
from tests.e2e.world import Agent, Server, Tenant

pytestmark = pytest.mark.slow

ROUNDS = 4
CLIENTS_PER_NODE = 3
REFUSALS_ENOUGH = 5
"""Per client, each on an event posted after the revocation was answered."""


class Client(threading.Thread):
    """Posts events of one agent through one node until it was refused often enough."""

    def __init__(self, tenant: Tenant, agent: Agent, node: Server) -> None:
        super().__init__(daemon=True)
        self.accepted: list[int] = []
        self.refused = 0
        self.problems: list[str] = []
        self._tenant, self._agent, self._node = tenant, agent, node

    def run(self) -> None:
        headers = {**self._tenant.http.headers, "content-type": "application/json"}
        with httpx.Client(base_url=self._node.url, timeout=60, headers=headers) as http:
            while self.refused < REFUSALS_ENOUGH:
                body = self._agent.body([self._agent.event({"n": n}) for n in range(2)])
                answer = http.post("/api/v1/ves/events/ingest", content=body)
                if answer.status_code == 503:
                    continue  # contended: nothing of it is stored
                self._hear(answer.json() if answer.status_code == 200 else {"error": answer.text})

    def _hear(self, told: dict[str, Any]) -> None:
        self.accepted += [receipt["sequenceNumber"] for receipt in told.get("receipts", [])]
        reasons = {rejection["reason"] for rejection in told.get("rejections", [])}
        if reasons == {"agent_key_invalid: Agent key has been revoked"} and not told.get("receipts"):
            self.refused += 1
        elif reasons or "error" in told:
            self.problems.append(str(told)[:300])
            self.refused += 1


def test_after_the_answer_to_a_revocation_no_event_of_the_key_is_numbered_on_any_node(
    nodes: list[Server],
) -> None:
    tenant = Tenant(nodes[0])
    for turn in range(ROUNDS):
        agent = tenant.new_agent(uuid.uuid4())
        stream = {"tenant_id": str(tenant.tenant_id), "store_id": str(agent.store_id)}
        clients = [Client(tenant, agent, node) for node in nodes for _ in range(CLIENTS_PER_NODE)]
        for client in clients:
            client.start()
        while min(len(client.accepted) for client in clients) < 4:
            assert all(client.is_alive() for client in clients), [c.problems for c in clients]
            time.sleep(0.01)
        door = tenant.seen_from(nodes[turn % 2])
        name = {"tenantId": str(tenant.tenant_id), "agentId": str(agent.agent_id), "keyId": agent.key_id}
        answer = door.http.post("/api/v1/agents/keys/revoke", json={**name, "reason": "suspected_compromise"})
        assert answer.status_code == 200, answer.text
        other = tenant.seen_from(nodes[(turn + 1) % 2])
        head = other.http.get("/api/v1/ves/head", params=stream).json()["head_sequence"]
        for client in clients:
            client.join(90)
            assert not client.is_alive()
            assert not client.problems
        for node in nodes:
            seen = tenant.seen_from(node)
            assert seen.http.get("/api/v1/ves/head", params=stream).json()["head_sequence"] == head
        assert sorted(n for client in clients for n in client.accepted) == list(range(1, head + 1))
        evidence = read_stream(over_http(nodes[0].url, tenant.api_key), **stream)
        assert audit(evidence) == []
        revoked_us = instant_us(answer.json()["revokedAt"])
        assert all(instant_us(event["sequenced_at"]) <= revoked_us for event in evidence.events)
