"""A broken processor, library or memory under a whole server: what it seals wrongly is never stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import pytest

from journal.embedded import embedded_dsn
from tests.e2e.world import Server, Tenant
from tests.lying_cipher import LIAR

pytestmark = pytest.mark.slow


def restarts(server: Server) -> dict[str, int]:
    """Of every pool and of the sequencers, lives after the first."""
    lines = httpx.get(
        server.admin_url + "/metrics", headers={"authorization": f"ApiKey {server.bootstrap_key}"}
    ).text.splitlines()
    name = "sequencer_actor_restarts{"
    counted = [line.removeprefix(name).split() for line in lines if line.startswith(name)]
    return {address.split('"')[1]: int(float(value)) for address, value in counted}


def stored(server: Server) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(embedded_dsn(server.data_dir))
        try:
            return int(await connection.fetchval("SELECT count(*) FROM record.ves_events"))
        finally:
            await connection.close()

    return asyncio.run(count())


def test_what_a_lying_cipher_sealed_is_never_stored_and_only_those_it_concerns_notice(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    fault = tmp_path / "fault"
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(LIAR.replace("FAULT", str(fault)))
    server = own_server(PYTHONPATH=str(tmp_path / "patch"), ENCRYPTORS="1", VERIFIERS="1").start()
    server.wait_ready()
    one, two = Tenant(server), Tenant(server)

    def post(tenant: Tenant, text: str) -> httpx.Response:
        return tenant.post(tenant.agent.event({"text": text}))

    assert post(one, "honest").json()["eventsAccepted"] == 1
    fault.write_text("once")
    assert post(one, "retried").json()["eventsAccepted"] == 1, "the next process sealed it"
    assert not fault.exists(), "the lie was told"
    assert restarts(server)["encryptors/0"] == 1
    assert "what was sealed does not open again" in server.log.read_text()

    fault.write_text("poison stuck")
    event = one.agent.event({"text": "stuck"})
    refused = one.post(event)
    assert refused.status_code == 503, refused.text
    assert stored(server) == 2
    assert post(two, "healthy").json()["eventsAccepted"] == 1, "nobody else is concerned"
    assert post(one, "healthy").json()["eventsAccepted"] == 1
    lives = restarts(server)
    assert lives["encryptors/0"] == 3, "two lives for the one that is stuck, then it is put aside"
    assert {name: count for name, count in lives.items() if count} == {"encryptors/0": 3}

    fault.write_text("always")
    for tenant in (one, two):
        assert post(tenant, "hopeless").status_code == 503
        assert tenant.events()["events"][-1]["payload"] == {"text": "healthy"}, "reads go on"
    assert stored(server) == 4
    fault.unlink()
    for tenant in (one, two):
        assert post(tenant, "healed").json()["eventsAccepted"] == 1
    assert one.post(event).json()["eventsAccepted"] == 1, "resending it is harmless, and works now"
    numbers = [e["sequence_number"] for e in one.events()["events"]]
    assert numbers == [1, 2, 3, 4, 5], "no gap, no double"
    assert server.terminate() == 0
