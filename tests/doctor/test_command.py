"""``sequencer doctor`` where a server runs: what it finds, what it never shows, and its exit code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import trio

from journal.embedded import embedded_dsn
from journal.embedded_cluster import APP_LOGIN, OWNER
from supervisor.doctor.checks import Finding
from supervisor.doctor.server import SERVER
from tests.e2e.world import Server
from transport.cli.console import Server as Asked


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[str]:
    """Somebody's server that answers everything alike."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(
                f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def looked_at(url: str) -> list[Finding]:
    async with Asked().connect(url, None) as client:
        return await SERVER.run(client)


@pytest.mark.parametrize("status", [200, 503])
async def test_every_check_of_the_server_fails_on_one_that_is_none(status: int) -> None:
    async with answering(status) as url:
        found = await looked_at(url)
    healthy = {"the server answers its health check", "the server is ready"} if status == 200 else set()
    assert {f.item for f in found if f.verdict.kind == "FAIL"} == {c.item for c in SERVER} - healthy


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(**environment: str) -> Server:
        server = Server(tmp_path / "data", RATE_LIMIT_MODE="enforce", **environment)
        running.append(server)
        return server.start()

    yield start
    for one in running:
        assert one.terminate() == 0


@pytest.mark.slow
def test_a_running_server_is_examined_and_a_spoiled_database_is_found_out(
    server: Callable[..., Server],
) -> None:
    node = server()
    node.wait_ready()
    said = node.command("doctor", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    report = json.loads(said.stdout)
    kinds = {check["item"]: check["verdict"] for check in report["checks"]}
    assert report["ok"] is True
    assert "FAIL" not in kinds.values()
    assert "cannot tell" not in kinds.values()
    assert kinds["the server is ready"] == "pass"
    assert kinds["triggers, functions and grants are as the migrations made them"] == "pass"
    shown = said.stdout + said.stderr + node.command("doctor").stdout
    keys = [
        path.read_text().split() for path in (node.data_dir / "keys").iterdir() if path.name != "sequencer-id"
    ]
    assert len(keys) == 3
    for [key] in keys:
        assert key not in shown

    owner = embedded_dsn(node.data_dir, None).replace(APP_LOGIN, OWNER)
    execute(owner, "ALTER TABLE record.audit_log DISABLE TRIGGER append_only_update")
    (node.data_dir / "keys" / "sequencer-id").chmod(0o644)
    told = node.command("doctor")
    assert told.returncode == 1
    failed = [line.split("  ")[2] for line in told.stdout.splitlines() if line.startswith("  FAIL")]
    assert len(failed) == 2
    assert "-> find out who did that" in told.stdout
    assert "sequencer-id has mode 644" in told.stdout
    assert told.stdout.splitlines()[-1].startswith("2 FAIL, ")


def execute(dsn: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.mark.slow
def test_without_a_server_the_rest_is_examined_and_a_bad_address_fails(tmp_path: Path) -> None:
    node = Server(tmp_path / "data", RATE_LIMIT_MODE="enforce").start()
    node.wait_ready()
    assert node.terminate() == 0
    said = node.command("doctor", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    kinds = {check["item"]: check["verdict"] for check in json.loads(said.stdout)["checks"]}
    assert kinds["the database answers"] == "pass"
    assert kinds["the server is ready"] == "cannot tell"
    (node.data_dir / "restoring").touch()
    said = node.command("doctor", "--json")
    assert (said.returncode, "did not end" in said.stdout) == (1, True), "no server starts on half a database"
    (node.data_dir / "restoring").unlink()
    for url, evidence in (
        ("postgresql://u:opensesame@db.example.com/x?sslmode=require", "leads to db.example.com"),
        ("postgresql://u:opensesame@127.0.0.1:1/x", "ConnectionRefusedError"),
    ):
        said = Server(tmp_path / "data", DATABASE_URL=url).command("doctor", "--json")
        assert said.returncode == 1
        [answer] = [c for c in json.loads(said.stdout)["checks"] if c["item"] == "the database answers"]
        assert (answer["verdict"], evidence in answer["evidence"]) == ("FAIL", True)
        assert "opensesame" not in said.stdout + said.stderr
