"""What the disk shows: every file of a server that has worked is searched for what its callers stored."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from journal.embedded import embedded_dsn
from journal.embedded_cluster import APP_LOGIN, OWNER
from tests.e2e.leaks import leaks_below, spellings
from tests.e2e.world import Server, Tenant
from tests.e2e.writers import WRITERS

pytestmark = pytest.mark.slow


def planted(server: Server) -> dict[str, bytes]:
    """By writer, what must not be found."""
    tenant = Tenant(server)
    return {
        name: write(tenant, b"canary-" + secrets.token_bytes(15).hex().encode())
        for name, write in WRITERS.items()
    }


def checkpoint(server: Server) -> None:
    """What is in the database's memory is in its files afterwards."""

    async def ask() -> None:
        connection = await asyncpg.connect(embedded_dsn(server.data_dir).replace(APP_LOGIN, OWNER))
        await connection.execute("CHECKPOINT")
        await connection.close()

    asyncio.run(ask())


def parts_of(paths: set[str], server: Server) -> set[str]:
    """In which parts of a data directory these files are: tables, write-ahead log, PostgreSQL's log …"""
    database = server.data_dir / "postgres" / "data"
    return {
        Path(path).relative_to(database).parts[0] if database in Path(path).parents else Path(path).name
        for path in paths
    }


def test_in_mode_required_no_file_holds_a_payload_in_any_spelling_and_names_are_found(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(LOG_LEVEL="debug").start()
    server.wait_ready()
    needles = planted(server)
    assert len(needles) == len(WRITERS)
    name = b"name-" + secrets.token_bytes(15).hex().encode()
    tenant = Tenant(server)
    assert tenant.post(tenant.agent.event({}, entity_id=name.decode())).json()["eventsAccepted"] == 1
    checkpoint(server)
    for stop in (lambda: None, server.kill_9):
        stop()
        leaks = leaks_below({**needles, "name": name}, server.data_dir, server.log)
        assert {"base", "pg_wal"} <= parts_of(leaks.pop("name"), server), "names are not encrypted: found"
        assert leaks == {writer: set() for writer in WRITERS}
    server.start()  # recovers from the write-ahead log, and stops in order
    assert server.terminate() == 0
    assert leaks_below(needles, server.data_dir, server.log) == {writer: set() for writer in WRITERS}


def test_in_mode_disabled_the_same_search_finds_every_writer_in_tables_and_write_ahead_log(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(LOG_LEVEL="debug", PAYLOAD_ENCRYPTION_MODE="disabled").start()
    server.wait_ready()
    needles = planted(server)
    checkpoint(server)
    assert server.terminate() == 0
    for writer, paths in leaks_below(needles, server.data_dir, server.log).items():
        assert parts_of(paths, server) == {"base", "pg_wal"}, f"{writer}: its payloads stand elsewhere"
    assert "new payloads are stored unencrypted" in server.log.read_text()


def test_the_search_finds_each_spelling_also_inside_longer_texts(tmp_path: Path) -> None:
    secret = b"canary-" + secrets.token_bytes(15).hex().encode()
    assert len(spellings(secret)) == 10
    for before in range(3):
        for after in range(3):
            text = b"x" * before + secret + b"y" * after
            for leak in (text, text.hex().encode(), base64.b64encode(text), base64.urlsafe_b64encode(text)):
                (tmp_path / "leak").write_bytes(b"\0\xff" + leak + b"\n")
                assert leaks_below({"it": secret}, tmp_path)["it"], (before, after, leak)
    (tmp_path / "leak").write_bytes(secret[:-1] + b"|" + secret[1:])
    assert not leaks_below({"it": secret}, tmp_path)["it"]
