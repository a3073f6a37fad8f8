"""A real server, database and chain: a commitment on request, watched until it is final, and verified."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.nodes import metrics
from tests.e2e.world import Server, Tenant

DEADLINE_S = 60.0
QUICK = {
    "ANCHOR": "dev",
    "ANCHOR_POLL_SECS": "0.3",
    "ANCHOR_INTERVAL_SECS": "3600",
    "COMMITMENT_INTERVAL_SECS": "3600",
    "VERIFIERS": "1",
    "ENCRYPTORS": "1",
}


def shown(tenant: Tenant, batch_id: str) -> dict[str, Any]:
    told: dict[str, Any] = tenant.http.get(f"/api/v1/ves/commitments/{batch_id}").json()
    return told


@pytest.mark.slow
def test_a_commitment_is_anchored_on_request_and_is_called_final_when_the_chain_says_so(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(**QUICK).start()
    server.wait_ready()
    tenant, other = Tenant(server), Tenant(server)
    for one in (tenant, other):
        assert one.post(one.agent.event({"n": 1})).json()["eventsAccepted"] == 1
    waiting = other.http.post("/api/v1/ves/commitments", json=other.stream).json()
    assert waiting["anchor"] is None

    answer = tenant.http.post("/api/v1/ves/commitments/anchor", json=tenant.stream)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["status"] == "anchored"
    assert told["state"] in ("included", "safe", "finalized")
    assert told["local_chain"] is True
    assert "no third party witnesses it" in told["message"]
    again = tenant.http.post("/api/v1/ves/anchor", json={"batch_id": told["batch_id"]}).json()
    assert (again["status"], again["chain_tx_hash"]) == ("already_anchored", told["chain_tx_hash"])

    give_up = time.monotonic() + DEADLINE_S
    while (seen := shown(tenant, told["batch_id"]))["anchor"]["state"] != "finalized":
        assert seen["anchored_at"] is None
        assert time.monotonic() < give_up, seen
        time.sleep(0.3)
    assert seen["is_anchored"] is True
    assert seen["anchored_at"] is not None
    assert seen["chain_tx_hash"] == told["chain_tx_hash"]
    anchor = seen["anchor"]
    assert anchor["confirmations"] > 1
    assert int(anchor["cost_wei"]) > 0
    assert anchor["batch_count"] >= 1

    verified = tenant.http.get(f"/api/v1/ves/anchor/{told['batch_id']}/verify").json()
    assert verified["anchored_on_chain"] is True
    assert (verified["compared"], verified["road"]) == ("verifyIncluded", "aggregate")
    foreign = other.http.get(f"/api/v1/ves/anchor/{told['batch_id']}/verify")
    assert foreign.status_code == 404

    operator = httpx.Client(base_url=server.url, headers={"authorization": f"ApiKey {server.bootstrap_key}"})
    with operator:
        node = operator.get("/api/v1/anchor/status").json()["node"]
        assert (node["role"], node["trouble"]) == ("active", None)
        assert node["anchored_events"] >= 1
    assert tenant.http.get("/api/v1/anchor/status").json()["node"] is None
    found = metrics(server)
    assert found["sequencer_anchor_gas_used_total"] >= anchor["gas_used"]
    assert found["sequencer_anchor_lease_held"] == 1
    assert found["sequencer_anchor_local_chain"] == 1
