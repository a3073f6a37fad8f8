"""ANCHOR=dev: a server with a chain beside it, killed and started again, from an event to final evidence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow
STATE_IS_WRITTEN_S = 2.5
DEV = {
    "ANCHOR": "dev",
    "ANCHOR_DEV_PORT": "0",
    "ANCHOR_INTERVAL_SECS": "0.5",
    "COMMITMENT_INTERVAL_SECS": "3600",
}


def commit_and_wait_until_final(tenant: Tenant) -> str:
    """The id of an event in it."""
    event = tenant.agent.event({"n": 1})
    assert tenant.post(event).json()["eventsAccepted"] == 1
    batch_id = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream).json()["batch_id"]
    give_up = time.monotonic() + 60
    while (anchor(tenant, batch_id) or {}).get("state") != "finalized":
        assert time.monotonic() < give_up, tenant.server.tail()
        time.sleep(0.2)
    return str(event["event_id"])


def anchor(tenant: Tenant, batch_id: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = tenant.http.get(f"/api/v1/ves/commitments/{batch_id}").json()["anchor"]
    return found


def evidence_holds(tenant: Tenant, event_id: str, folder: Path) -> None:
    raw = tenant.http.get(f"/api/v1/ves/events/{event_id}/evidence", params=tenant.stream)
    (folder / "evidence.json").write_bytes(raw.content)
    status = tenant.http.get("/api/v1/anchor/status").json()
    assert status["local_chain"]
    keys = httpx.get(tenant.server.url + "/.well-known/ves-sequencer").json()
    trust = keys | {"chain_id": status["chain_id"], "contract": status["contract"]}
    (folder / "trust.json").write_text(json.dumps(trust))
    rpc = json.loads((tenant.server.data_dir / "server.json").read_text())["development_chain"]
    said = tenant.server.command(
        *("verify", "evidence", str(folder / "evidence.json"), "--trust", str(folder / "trust.json")),
        *("--rpc", rpc, "--require-final", "--json"),
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert json.loads(said.stdout)["verdict"].startswith("valid")


def test_a_development_chain_without_its_program_is_refused_in_one_line(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(**DEV, ANVIL_BIN=str(tmp_path / "none"))
    assert server.launch().wait(60) == 1
    said = server.log.read_text()
    assert "sequencer: no anvil here: npm ci" in said
    assert "Traceback" not in said


@pytest.mark.thorough
def test_what_was_final_is_so_after_a_kill_and_the_next_commitment_follows(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(**DEV).start()
    server.wait_ready()
    assert "nobody else witnesses it" in server.log.read_text()
    tenant = Tenant(server)
    first = commit_and_wait_until_final(tenant)
    time.sleep(STATE_IS_WRITTEN_S)
    server.kill_9()
    server.start()
    server.wait_ready()
    tenant.moved_to(server)
    second = commit_and_wait_until_final(tenant)
    evidence_holds(tenant, first, tmp_path)
    evidence_holds(tenant, second, tmp_path)
    status = server.command("anchor", "status")
    assert status.returncode == 0, status.stderr
    assert "anchored_events: 2" in status.stdout
    assert server.command("anchor", "retry").returncode == 0
    assert server.terminate() == 0, server.tail()
