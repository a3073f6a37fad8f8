"""No secret and no payload where it does not belong: files, logs, answers, rows, arguments, environments.

Two runs: a server that made its keys itself, and one that was given everything by variables, files and
commands, with a database address that holds a password.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path

import asyncpg
import httpx
import pytest

from config.secret_sources import secret_settings
from config.settings import Settings
from journal.embedded import embedded_dsn
from tests.e2e.leaks import files_below, found, spellings
from tests.e2e.nodes import operated_postgres
from tests.e2e.world import Server, Tenant

OWN_RING = uuid.UUID("6f1d7f0e-0000-4000-8000-00000000abcd")
"""A tenant with a ring of its own."""


def what_children_show(server: Server) -> bytes:
    """Their arguments and environments; of the server itself the arguments (its environment is the
    operator's)."""
    shown = Path(f"/proc/{server.pid}/cmdline").read_bytes()
    for pid, _ in server.children():
        for part in ("cmdline", "environ"):
            shown += Path(f"/proc/{pid}/{part}").read_bytes()
    return shown


def no_core_of(server: Server) -> None:
    for pid in [server.pid, *(pid for pid, _ in server.children())]:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), f"process {pid} may dump its memory"


def environment_of(server: Server) -> bytes:
    return Path(f"/proc/{server.pid}/environ").read_bytes()


def rows(dsn: str) -> bytes:
    """Everything in the database as text, but sealed payloads, hashes and signatures as they are."""

    async def read() -> bytes:
        connection = await asyncpg.connect(dsn)
        try:
            tables = await connection.fetch(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('record', 'work')"
            )
            found = []
            for schema, table in tables:
                for row in await connection.fetch(f'SELECT t::text FROM {schema}."{table}" t'):
                    found.append(row[0].encode())
            return b"\n".join(found)
        finally:
            await connection.close()

    return asyncio.run(read())


def said_by_the_doors(server: Server, tenant: Tenant, canary: str) -> bytes:
    """Works, and tries ways to make it say too much: conflicts, bad bodies, bad keys, refused queries, what
    operators see. All answers, but those that must show a payload."""
    answers: list[httpx.Response] = []
    event = tenant.agent.event({"card": canary, "n": 1})
    assert tenant.post(event).json()["eventsAccepted"] == 1
    answers.append(tenant.post(tenant.agent.event({"card": canary, "n": 2}, event_id=event["event_id"])))
    answers.append(tenant.post_raw(tenant.agent.body([event]) + canary.encode()))
    odd = tenant.agent.event({"card": canary}) | {"payload_kind": canary}
    answers.append(tenant.post_raw(tenant.agent.body([odd])))
    head = server.url + "/api/v1/ves/head"
    answers.append(httpx.get(head, params=tenant.stream, headers={"x-api-key": "ss_" + canary}))
    answers.append(httpx.get(server.url + f"/nope/{canary}", headers={"authorization": f"Bearer {canary}"}))
    answers.append(httpx.get(server.url + "/.well-known/ves-sequencer"))
    answers.append(httpx.get(server.url + "/ready"))
    assert tenant.events()["events"][0]["payload"]["card"] == canary
    tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)
    worker = next(pid for pid, line in server.children() if "actors.worker" in line)
    os.kill(worker, 9)
    key = {"authorization": f"ApiKey {server.bootstrap_key}"}
    with httpx.Client(base_url=server.admin_url, headers=key, timeout=30) as admin:
        actors = "/api/v1/admin/actors"
        seen = [
            admin.get(path) for path in ("/metrics", "/health/detailed", actors, actors + "/dead-letters")
        ]
        seen.append(admin.get("/api/v1/admin/api-keys", params={"tenant_id": str(tenant.tenant_id)}))
        wish = {"path": "house/encryptors", "reason": "leaks"}
        seen.append(admin.post(actors + "/restart", json=wish))
        assert {one.status_code for one in seen} == {200}, [one.text for one in seen]
        answers += [*seen, admin.post("/api/v1/admin/api-keys", content=canary.encode())]
    return b"\n".join(one.content + str(one.headers).encode() for one in answers)


def the_search_can_see(tmp_path: Path, secret: bytes) -> None:
    """A leak on purpose is found in each spelling."""
    leak = tmp_path / "leak"
    leak.write_bytes(b"x" + b"|".join(spellings(secret).values()) + b"y")
    assert len(found({"leak": secret}, leak.read_bytes())) == len(spellings(secret))


def nothing_in_files(outside: dict[str, bytes], server: Server, *more: Path) -> int:
    """Answers how many files were looked at."""
    keys = server.data_dir / "keys"
    looked_at = 0
    for path in [*files_below(server.data_dir), server.log, *more]:
        if keys in path.parents:
            assert path.stat().st_mode & 0o077 == 0, f"{path} is readable by others"
            continue
        leaks = found(outside, path.read_bytes())
        assert not leaks, f"{path}: {leaks}"
        looked_at += 1
    return looked_at


def test_secrets_and_payloads_stay_where_they_belong(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(LOG_LEVEL="debug").start()
    server.wait_ready()
    tenant = Tenant(server)
    canary = "canary-" + secrets.token_urlsafe(24)
    keys = server.data_dir / "keys"
    assert server.command("receipt-key", "rotate").returncode == 0
    answers = said_by_the_doors(server, tenant, canary)
    outside = {"tenant key": tenant.api_key.encode()}
    for path in keys.iterdir():
        text = path.read_text().strip()
        if path.name != "sequencer-id":
            outside[path.name] = text.encode() if text.startswith("ss_") else bytes.fromhex(text)
    assert len(outside) == 5
    shown = what_children_show(server) + environment_of(server)
    no_core_of(server)
    stored = rows(embedded_dsn(server.data_dir))
    assert server.terminate() == 0
    the_search_can_see(tmp_path, canary.encode())
    assert b"receipt_key.rotate" in stored, "the audit rows were not read"
    for secret in outside.values():
        assert not found({"stored": secret}, stored)
    outside["payload"] = canary.encode()
    assert not found(outside, answers)
    assert not found(outside, shown)
    assert nothing_in_files(outside, server) > 100
    assert any("postgresql-" in path.name for path in files_below(server.data_dir)), (
        "no PostgreSQL log was read"
    )


def given_secrets(folder: Path, dsn: str) -> tuple[dict[str, str], dict[str, bytes]]:
    """An environment that gives every secret there is, each in one of the three ways, and what must not
    leak."""
    seed, ring, password = (secrets.token_bytes(32) for _ in range(3))
    bootstrap, chatter = "ss_" + secrets.token_urlsafe(32), "canary-" + secrets.token_urlsafe(24)
    anchor = secrets.token_bytes(32)
    words = {
        "BOOTSTRAP_ADMIN_API_KEY_FILE": bootstrap,
        "PAYLOAD_ENCRYPTION_KEYS_FILE": ring.hex(),
        "DATABASE_URL_FILE": dsn.replace("@", f":{password.hex()}@", 1),
    }
    for name, text in words.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    environment = {name: str(folder / name) for name in words}
    environment["VES_SEQUENCER_SIGNING_KEY"] = seed.hex()
    script = folder / "command"
    script.write_text(f"echo {anchor.hex()}; echo {chatter} >&2; touch {folder}/ran-$1")
    environment["SEQUENCER_PRIVATE_KEY_COMMAND"] = f"sh {script} anchor"
    named = {name.rpartition("_")[0] if "_FILE" in name else name for name in environment}
    outside = {"seed": seed, "ring": ring, "password": password, "bootstrap": bootstrap.encode()}
    outside |= {"anchor": anchor, "what a command says": chatter.encode()}
    for field in secret_settings(Settings):  # those of other rooms, whatever they are: given by a command
        skipped = ("database_admin_url", "payload_encryption_key", "ves_sequencer_signing_key_previous")
        if field.upper() in named | {"SEQUENCER_PRIVATE_KEY"} or field in skipped:
            continue
        outside[field] = secrets.token_bytes(32)
        text = outside[field].hex()
        if field == "payload_encryption_keys_by_tenant":
            text = json.dumps(json.dumps({str(OWN_RING): [text]}))
        (folder / field).write_text(f"echo {text}; echo {chatter} >&2")
        environment[f"{field.upper()}_COMMAND"] = f"sh {folder / field}"
    return environment, outside


@pytest.mark.slow
def test_secrets_that_were_given_stay_where_they_belong_and_nobody_fetches_the_anchors_when_nothing_anchors(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    with operated_postgres(tmp_path / "postgres") as operated:
        environment, outside = given_secrets(given, operated.app_dsn)
        server = own_server(LOG_LEVEL="debug", **environment).start()
        server.wait_ready()
        tenant = Tenant(server, OWN_RING)
        canary = "canary-" + secrets.token_urlsafe(24)
        answers = said_by_the_doors(server, tenant, canary)
        outside["tenant key"] = tenant.api_key.encode()
        shown = what_children_show(server)
        stored = rows(operated.owner_dsn)
        assert found({"seed": outside["seed"]}, environment_of(server)) == {"seed (hex)"}, (
            "the kernel shows what a process was started with: SECURITY.md says so"
        )
        assert server.terminate() == 0
        refused = own_server("refused", **environment | {"SEQUENCER_PRIVATE_KEY_FILE": "/nonexistent"})
        assert refused.launch().wait(60) == 1
        the_search_can_see(tmp_path, outside["ring"])
        for name, secret in outside.items():
            assert not found({name: secret}, stored)
        outside["payload"] = canary.encode()
        assert not found(outside, answers + shown + refused.log.read_bytes())
        logs = [path for path in files_below(tmp_path / "postgres") if "log" in path.name]
        assert logs
        assert nothing_in_files(outside, server, *logs) > 1
    assert list((server.data_dir / "keys").iterdir()) == [server.data_dir / "keys" / "sequencer-id"]
    assert not (given / "ran-anchor").exists()
