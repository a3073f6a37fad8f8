"""What earlier versions wrote is read, verified and replayed by this one."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import trio
import trio_asyncio

from journal.embedded import EmbeddedPostgres
from tests.auditor.audit import audit_tenant
from tests.auditor.reading import over_http, read_stream
from tests.clusters import lend
from tests.e2e.world import Server
from ves.at_rest import key_id

HERE = Path(__file__).parent
KEPT = sorted(folder.name for folder in HERE.iterdir() if (folder / "posted.json").exists())
ROLES = ("sequencer_app", "sequencer_admin", "sequencer_reader")


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """A server of today on the data of then."""
    started: list[Server] = []

    def start(name: str) -> Server:
        data_dir = tmp_path / "data"
        (data_dir / "keys").mkdir(parents=True, mode=0o700)
        data_dir.chmod(0o700)
        for file in (HERE / name).iterdir():
            if file.suffix == "":
                shutil.copy(file, data_dir / "keys" / file.name)
                (data_dir / "keys" / file.name).chmod(0o600)
        with EmbeddedPostgres(lend(data_dir)) as postgres:
            play(postgres.owner_dsn, gzip.decompress((HERE / name / "database.sql.gz").read_bytes()).decode())
        server = Server(data_dir, COMMITMENT_INTERVAL_SECS="3600")
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill_9()


def play(dsn: str, statements: str) -> None:
    async def on_asyncio() -> None:
        connection = await asyncpg.connect(dsn)
        for role in ROLES:
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        await connection.execute(statements)
        await connection.close()

    async def on_trio() -> None:
        async with trio_asyncio.open_loop():
            await trio_asyncio.aio_as_trio(on_asyncio)()

    trio.run(on_trio)


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_data_written_by_an_earlier_version_is_read_verified_and_replayed(
    server_of: Callable[[str], Server], name: str
) -> None:
    posted: list[dict[str, Any]] = json.loads((HERE / name / "posted.json").read_text())
    server = server_of(name)
    server.wait_ready()
    is_what_was_posted(server, posted)
    archived = server.command("admin", "archive", "--older-than", "0s", "--yes", "--json")
    assert archived.returncode == 0, archived.stderr
    assert json.loads(archived.stdout)["events"] > 0
    is_what_was_posted(server, posted)
    assert server.terminate() == 0


def is_what_was_posted(server: Server, posted: list[dict[str, Any]]) -> None:
    """Every request is replayed with its receipts, and the auditor finds every event."""
    tenants: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    keys: dict[str, str] = {}
    for request in posted:
        again = httpx.post(
            server.url + "/api/v1/ves/events/ingest",
            content=request["body"].encode(),
            headers={"authorization": f"ApiKey {request['api_key']}", "content-type": "application/json"},
        )
        assert again.status_code == 200, again.text
        assert again.json()["receipts"] == request["receipts"]
        assert again.json()["eventsAccepted"] == 0
        keys[request["tenant_id"]] = request["api_key"]
        sent = json.loads(request["body"])["events"]
        tenants[request["tenant_id"]][request["store_id"]] += [
            {"event": event, "receipt": receipt}
            for event, receipt in zip(sent, request["receipts"], strict=True)
        ]
    for tenant_id, stores in tenants.items():
        get = over_http(server.url, keys[tenant_id])
        streams = [
            read_stream(get, tenant_id, store_id, acknowledged=acknowledged, proof_every=1)
            for store_id, acknowledged in stores.items()
        ]
        for stream in streams:
            assert len(stream.events) == len(stream.acknowledged)
            assert stream.commitments
            assert stream.proofs
        assert not audit_tenant(streams)


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_data_sealed_by_an_earlier_version_is_sealed_anew(
    server_of: Callable[[str], Server], name: str
) -> None:
    """Beside the server; afterwards all of it is read and replayed with the new key alone."""
    posted: list[dict[str, Any]] = json.loads((HERE / name / "posted.json").read_text())
    server = server_of(name)
    server.wait_ready()
    assert server.terminate() == 0
    ring = server.data_dir / "keys" / "payload-encryption-keys"
    [old] = ring.read_text().split()
    new = "5e" * 32
    ring.write_text(f"{new}\n{old}\n")
    server.start()
    server.wait_ready()
    done = server.command("admin", "reencrypt-ves-events", "--batch-size", "7", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    events = sum(len(request["receipts"]) for request in posted)
    old_id, new_id = (key_id(bytes.fromhex(key)).hex() for key in (old, new))
    assert (report["before"], report["after"]) == (
        {f"SSE1 under {old_id}": events},
        {f"SSE2 {new_id}": events},
    )
    retired = server.command("admin", "retire-at-rest-key", old_id)
    assert retired.returncode == 0, retired.stderr
    assert server.terminate() == 0
    ring.write_text(f"{new}\n")
    server.start()
    server.wait_ready()
    for request in posted:
        key = {"authorization": f"ApiKey {request['api_key']}"}
        stream = {"tenant_id": request["tenant_id"], "store_id": request["store_id"]}
        answer = httpx.get(server.url + "/api/v1/ves/events", headers=key, params=stream | {"limit": 1000})
        assert answer.status_code == 200, answer.text
        found = {event["event_id"]: event for event in answer.json()["events"]}
        for event in json.loads(request["body"])["events"]:
            for member in ("payload", "payload_encrypted"):
                assert found[event["event_id"]].get(member) == event.get(member)
    assert server.terminate() == 0
