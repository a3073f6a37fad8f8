"""The audit trail of a real server: what it says, who sees it, and that nobody changes it unnoticed.

The attacker is a PostgreSQL superuser who switches the append-only triggers off. Both verifiers must notice:
`sequencer audit verify`, and the auditor, which shares no code with it.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
import httpx
import msgspec
import pytest
import trio

from tests.auditor.audit_chain import audit_all, proof_holds, read_chains
from tests.auditor.reading import over_http
from tests.e2e.nodes import Operated, operated_postgres
from tests.e2e.world import OPENED, Server, Tenant
from tests.no_house import NO_HOUSE
from transport.cli.app import build_app
from transport.client.audit_trail import KeptHeads, Verdict, check, from_lines
from transport.client.audit_trail import over_http as over_admin
from transport.client.sequencer import SequencerClient
from transport.client.wire import decode

AUDIT = "/api/v1/admin/audit"
OFF = "ALTER TABLE record.{0} DISABLE TRIGGER ALL"
ON = "ALTER TABLE record.{0} ENABLE ALWAYS TRIGGER {1}"


@dataclass
class Estate:
    database: Operated
    server: Server
    tenant: Tenant
    other: Tenant
    kept: Path
    """Heads as an auditor kept them, after everything below was done."""

    def get(self, path: str, key: str | None = None, **query: Any) -> httpx.Response:
        key = key or self.server.bootstrap_key
        headers = {"authorization": f"ApiKey {key}"}
        return httpx.get(self.server.admin_url + path, params=query, headers=headers, timeout=30)

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        answer = self.get(AUDIT, **query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["entries"])

    @property
    def node(self) -> str:
        return self.server.environment["VES_SEQUENCER_ID"]

    def sql(self, *statements: str) -> list[Any]:
        """As the superuser, in one transaction, with the triggers off."""
        return asyncio.run(_as_superuser(self.database.owner_dsn, statements))

    def command(self, *words: str) -> tuple[int, str]:
        """`sequencer audit …` on this machine, without a process of its own: exit code and what it said."""
        said = io.StringIO()
        app = build_app(NO_HOUSE)
        here = mock.patch.dict(os.environ, self.server._env(), clear=True)
        with here, redirect_stdout(said), redirect_stderr(said):
            code = app(["audit", *words], result_action="return_value")
        return int(code), said.getvalue()

    def verify(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, said = self.command("verify", "--json", *words)
        return code, json.loads(said)

    def findings(self) -> list[str]:
        """What `sequencer audit verify --heads` would print, without starting it."""
        return trio.run(self._findings)

    async def _findings(self) -> list[str]:
        kept = decode(self.kept.read_bytes(), KeptHeads, "kept").by_node()
        async with SequencerClient(self.server.admin_url, api_key=self.server.bootstrap_key) as client:
            return [finding async for finding in check(over_admin(client), Verdict(kept))]

    def auditor_says(self) -> list[str]:
        chains = read_chains(over_http(self.server.admin_url, self.server.bootstrap_key))
        return audit_all(chains, json.loads(self.kept.read_bytes())["heads"])


async def _as_superuser(dsn: str, statements: tuple[str, ...]) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            for table in TABLES:
                await connection.execute(OFF.format(table))
            for statement in statements[:-1]:
                await connection.execute(statement)
            rows = list(await connection.fetch(statements[-1]))
            for table, triggers in TABLES.items():
                for trigger in triggers:
                    await connection.execute(ON.format(table, trigger))
            return rows
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    folder = tmp_path_factory.mktemp("audited")
    with operated_postgres(folder / "postgres") as database:
        server = database.node(
            folder / "node",
            COMMITMENT_SWEEP_SECS="0.2",
            AUDIT_COMMITMENT_ENTRIES="4",
            AUDIT_COMMITMENT_INTERVAL_SECS="3600",
            BOOTSTRAP_ADMIN_API_KEY=f"ss_{secrets.token_hex(24)}",
        ).start()
        server.wait_ready()
        tenant, other = Tenant(server), Tenant(server)
        body = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 1}
        revoked = tenant.http.post(
            "/api/v1/agents/keys/revoke",
            json=body | {"reason": "suspected_compromise"},
            headers={"x-request-id": "the-revocation"},
        )
        assert revoked.status_code == 200, revoked.text
        found = Estate(database, server, tenant, other, folder / "heads.json")
        committed(found, at_least=8)
        code, said = found.command("heads", "--out", str(found.kept))
        assert code == 0, said
        found.sql(*(f"CREATE TABLE public.was_{t} AS TABLE record.{t}" for t in TABLES), "SELECT 1")
        yield found
        for one in (tenant, other):
            OPENED.remove(one)
            one.http.close()
        assert server.terminate() == 0, server.tail()
        entries = asyncio.run(_as_superuser(database.owner_dsn, (LAST_ENTRY,)))
        assert (entries[0]["action"], entries[0]["stops"]) == ("server.stop", 1)
        assert entries[0]["through"] == entries[0]["entry_number"], "the last entry is not committed"


KEPT = ("append_only_delete", "append_only_truncate")
TABLES = {
    "audit_log": (*KEPT, "append_only_update"),
    "audit_counters": KEPT,
    "audit_commitments": (*KEPT, "append_only_update"),
}
LAST_ENTRY = (
    "SELECT action, entry_number, (SELECT max(entry_end) FROM record.audit_commitments) AS through, "
    "(SELECT count(*) FROM record.audit_log WHERE action = 'server.stop') AS stops "
    "FROM record.audit_log ORDER BY entry_number DESC LIMIT 1"
)


def committed(estate: Estate, *, at_least: int) -> None:
    for _ in range(600):
        [head] = estate.get(f"{AUDIT}/heads").json()["heads"]
        if head["committed_through"] >= at_least:
            return
    raise AssertionError(f"the chain is not committed: {head}")


@pytest.fixture
def restored(estate: Estate) -> Iterator[Estate]:
    """What a test does to the tables is undone."""
    yield estate
    estate.sql(
        *(f"DELETE FROM record.{t}" for t in TABLES),
        *(f"INSERT INTO record.{t} SELECT * FROM public.was_{t}" for t in TABLES),
        "SELECT 1",
    )


def test_an_entry_says_who_did_what_from_where_when_how_it_ended_and_in_which_request(
    estate: Estate,
) -> None:
    [entry] = estate.entries(tenant_id=str(estate.tenant.tenant_id), action="agent_key.revoke")
    told = json.loads(entry["entry"])
    assert told["actor"].startswith("api_key:")
    assert told["subject"] == f"{estate.tenant.agent.agent_id}/1"
    assert told["details"] == {
        "reason": "suspected_compromise",
        "request_id": "the-revocation",
        "address": "127.0.0.1",
        "outcome": "done",
    }
    assert (told["recorded_at_us"], told["number"]) == (entry["recorded_at_us"], entry["entry_number"])
    assert entry["entry_hash"] == (
        sha256(
            b"VES_AUDIT_ENTRY_V1" + bytes.fromhex(entry["prev_hash"]) + entry["entry"].encode()
        ).hexdigest()
    )
    [use, *_] = estate.entries(actor="bootstrap", action="credential.use", limit=1)
    assert json.loads(use["entry"])["details"]["outcome"] == "begun"


def test_a_start_is_recorded_with_version_and_fingerprint_of_the_configuration_and_no_secret(
    estate: Estate,
) -> None:
    [start] = estate.entries(action="server.start")
    details = json.loads(start["entry"])["details"]
    assert len(details["configuration"]) == 64
    assert details["version"]
    assert details["schema_version"] >= 4
    everything = json.dumps(estate.entries(limit=1000))
    for name in ("BOOTSTRAP_ADMIN_API_KEY", "VES_SEQUENCER_SIGNING_KEY", "PAYLOAD_ENCRYPTION_KEYS"):
        assert estate.server.environment[name] not in everything
    assert {one["action"] for one in estate.entries(limit=1000)} >= {
        "receipt_key.claim",
        "at_rest_key.claim",
        "api_key.create",
        "agent_key.register",
    }


def test_a_tenants_administrator_sees_and_proves_its_own_entries_only(estate: Estate) -> None:
    mine, theirs = estate.tenant, estate.other
    own = estate.get(AUDIT, mine.api_key).json()["entries"]
    assert own
    assert {one["tenant_id"] for one in own} == {str(mine.tenant_id)}
    assert estate.get(AUDIT, mine.api_key, tenant_id=str(theirs.tenant_id)).status_code == 403
    foreign = estate.entries(tenant_id=str(theirs.tenant_id), limit=1)[0]
    path = f"{AUDIT}/proofs/{foreign['node_id']}/{foreign['entry_number']}"
    absent = f"{AUDIT}/proofs/{foreign['node_id']}/1000000"
    answers = [estate.get(one, mine.api_key) for one in (path, absent)]
    assert [one.status_code for one in answers] == [404, 404]
    texts = [one.json()["error"] | {"request_id": ""} for one in answers]
    assert texts[0] == texts[1]
    for operators in (f"{AUDIT}/heads", f"{AUDIT}/chains/{estate.node}", "/metrics"):
        assert estate.get(operators, mine.api_key).status_code == 403, operators
    reader = mine.new_api_key(["read", "write"])
    assert estate.get(AUDIT, reader).status_code == 403


def test_the_inclusion_of_every_committed_entry_is_proven(estate: Estate) -> None:
    [head] = [h for h in estate.get(f"{AUDIT}/heads").json()["heads"] if h["node_id"] == estate.node]
    for number in range(1, head["committed_through"] + 1):
        proof = estate.get(f"{AUDIT}/proofs/{estate.node}/{number}").json()
        assert proof["entry"]["entry_number"] == number
        assert proof_holds(proof)
        proof["entry"]["entry"] = proof["entry"]["entry"].replace("action", "acted")
        assert not proof_holds(proof)


def test_entries_are_paged_newest_first_within_limits(estate: Estate) -> None:
    first = estate.get(AUDIT, tenant_id=str(estate.tenant.tenant_id), limit=1).json()
    second = estate.get(
        AUDIT, tenant_id=str(estate.tenant.tenant_id), limit=1, after=first["next_after"]
    ).json()
    assert first["entries"][0]["recorded_at_us"] >= second["entries"][0]["recorded_at_us"]
    assert first["entries"] != second["entries"]
    for wrong in (
        {"limit": 1001},
        {"after": "x"},
        {"from": "yesterday"},
        {"node_id": "x"},
        {"after": f"99999999999999999.{'0' * 32}.9999999999999999"},
    ):
        answer = estate.get(AUDIT, **wrong)
        assert answer.status_code in (200, 400), answer.text
        assert answer.status_code == 400 or "after" in wrong
    assert estate.get(f"{AUDIT}/chains/{uuid.uuid4()}").json()["entries"] == []


def test_an_honest_trail_verifies_and_is_trusted_only_against_kept_heads(
    estate: Estate, tmp_path: Path
) -> None:
    code, told = estate.verify()
    assert (code, told["problems"], told["trusted"]) == (3, [], False)
    code, told = estate.verify("--heads", str(estate.kept))
    assert (code, told["problems"], told["trusted"]) == (0, [], True)
    assert told["commitments"] > 1
    assert estate.auditor_says() == []
    export = tmp_path / "trail.jsonl"
    code, said = estate.command("export", "--out", str(export))
    assert code == 0, said
    assert export.stat().st_mode & 0o777 == 0o600
    code, told = estate.verify("--file", str(export), "--heads", str(estate.kept))
    assert (code, told["problems"]) == (0, [])
    code, _ = estate.command("export", "--out", str(export))
    assert code == 2, "an export overwrites nothing"
    code, listed = estate.command("list", "--limit", "2")
    assert (code, len(listed.splitlines())) == (0, 2)
    real = estate.server.command("audit", "list", "--limit", "1", "--json")
    assert json.loads(real.stdout)["action"] == "credential.use"


RECHAINED = """
DO $$ DECLARE prev bytea := (SELECT prev_hash FROM record.audit_log WHERE entry_number = 3); r record;
BEGIN
  UPDATE record.audit_log SET entry = replace(entry, '"actor":"', '"actor":"not_'), actor = 'not_' || actor
    WHERE entry_number = 3;
  FOR r IN SELECT * FROM record.audit_log WHERE entry_number >= 3 ORDER BY entry_number LOOP
    UPDATE record.audit_log SET prev_hash = prev,
      entry_hash = sha256('VES_AUDIT_ENTRY_V1'::bytea || prev || convert_to(r.entry, 'UTF8'))
      WHERE entry_number = r.entry_number RETURNING entry_hash INTO prev;
  END LOOP;
  UPDATE record.audit_counters SET last_hash = prev;
  DELETE FROM record.audit_commitments;
END $$
"""
"""All of it consistent again, and nothing committed: only what somebody kept outside shows it."""

TAMPERINGS = {
    "edited text": (
        ["UPDATE record.audit_log SET entry = replace(entry, 'number', 'n') WHERE entry_number = 4"],
        "hash is not the hash of its text",
    ),
    "edited column": (
        ["UPDATE record.audit_log SET actor = 'nobody' WHERE entry_number = 4"],
        "actor is not the one in its text",
    ),
    "swapped rows": (
        [
            "UPDATE record.audit_log SET entry_number = 1000000 WHERE entry_number = 2",
            "UPDATE record.audit_log SET entry_number = 2 WHERE entry_number = 3",
            "UPDATE record.audit_log SET entry_number = 3 WHERE entry_number = 1000000",
        ],
        "does not follow the entry before it",
    ),
    "removed tail": (
        [
            "DELETE FROM record.audit_log WHERE entry_number > 2",
            "UPDATE record.audit_counters SET last_number = 2, last_hash = (SELECT entry_hash "
            "FROM record.audit_log WHERE entry_number = 2)",
            "DELETE FROM record.audit_commitments",
        ],
        "kept",
    ),
    "removed middle": (["DELETE FROM record.audit_log WHERE entry_number IN (3, 4)"], "3 to 4 is missing"),
    "removed commitment": (
        ["DELETE FROM record.audit_commitments WHERE entry_start = 1"],
        "the next to commit was 1",
    ),
    "forged commitment": (
        ["UPDATE record.audit_commitments SET merkle_root = sha256('x') WHERE entry_start = 1"],
        "merkle_root is not the root of its entries",
    ),
    "forged state root": (
        ["UPDATE record.audit_commitments SET new_state_root = sha256('x') WHERE entry_start = 1"],
        "new_state_root does not chain",
    ),
    "rewritten from an entry on": ([RECHAINED], "the chain was rewritten"),
    "removed chain": ([f"DELETE FROM record.{table}" for table in TABLES], "kept"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_a_superuser_with_the_triggers_off_changes_nothing_unnoticed(restored: Estate, how: str) -> None:
    statements, finding = TAMPERINGS[how]
    restored.sql(*statements, "SELECT 1")
    found = restored.findings()
    assert any(finding in problem for problem in found), found
    assert restored.auditor_says() != []


def test_the_command_answers_1_for_a_trail_that_was_changed(restored: Estate) -> None:
    restored.sql("DELETE FROM record.audit_log WHERE entry_number = 3", "SELECT 1")
    code, told = restored.verify("--heads", str(restored.kept))
    assert (code, told["ok"]) == (1, False)
    assert any("3 is missing" in problem for problem in told["problems"]), told["problems"]


def test_what_the_application_may_do_cannot_change_the_trail(estate: Estate) -> None:
    for attack in (
        "UPDATE record.audit_log SET actor = 'x'",
        "DELETE FROM record.audit_log",
        "DELETE FROM record.audit_commitments",
        "UPDATE record.audit_commitments SET entry_end = 9",
        "ALTER TABLE record.audit_log DISABLE TRIGGER ALL",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            asyncio.run(_plainly(estate.database.app_dsn, attack))


async def _plainly(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_a_damaged_export_is_found_out_wherever_it_was_damaged(estate: Estate) -> None:
    lines = trio.run(_exported, estate)
    assert _problems(lines) == []
    for at in range(len(lines)):
        assert _problems(lines[:at] + lines[at + 1 :]), f"line {at} is gone"
    for at in range(len(lines) - 1):
        assert _problems([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]), f"{at} swapped"
    for at in range(len(lines)):
        assert _problems([*lines[:at], lines[at], *lines[at:]]), f"line {at} twice"


async def _exported(estate: Estate) -> list[bytes]:
    async with SequencerClient(estate.server.admin_url, api_key=estate.server.bootstrap_key) as client:
        return [msgspec.json.encode(record) async for record in over_admin(client)]


def _problems(lines: list[bytes]) -> list[str]:
    async def found() -> list[str]:
        return [one async for one in check(from_lines(lines, "export"), Verdict(None))]

    return trio.run(found)


def test_files_that_are_no_trail_or_no_heads_are_refused_with_a_reason(
    estate: Estate, tmp_path: Path
) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"nonsense\n")
    assert estate.command("verify", "--heads", str(nonsense))[0] == 2
    assert estate.command("verify", "--file", str(nonsense))[0] == 1
    code, said = estate.command("verify", "--file", str(tmp_path / "missing"))
    assert code == 2
    assert "missing" in said
