"""``sequencer doctor``: a deployment held against the guide's checklists, from where the server runs.

Runs every check there is, whether a server runs on DATA_DIR or not, changes nothing, and says what it found:
one line for each item, and exit code 1 when one failed. Alone knows what the checks need to look at.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial

import asyncpg
import msgspec
import trio

from config.database_tls import remote_hosts
from config.exposure import Exposed
from config.settings import Settings
from journal import hosts
from journal.aio import cross, open_loop
from journal.connections import Limits, session_settings, use_our_types
from journal.embedded_cluster import EmbeddedPostgresError
from journal.port import JournalError
from journal.units import not_stored
from supervisor.doctor.checks import Finding, Kind, Verdict
from supervisor.doctor.database import DATABASE, Examined
from supervisor.doctor.here import HERE, Surroundings
from supervisor.doctor.server import SERVER
from supervisor.doctor.yours import yours
from supervisor.shell import RESTORING, StartRefused, database_beside, read_settings, readably
from transport.cli.console import Server
from transport.client.errors import ClientError

ANSWERS = "the database answers"
CONNECT_S = 10.0
_SECTIONS = ("Deployment", "Operations", "Development", "Compliance")


class Told(msgspec.Struct):
    """What a running server left in DATA_DIR/server.json, as far as we need it."""

    pid: int
    url: str
    certificate_file: str | None = None


def doctor_command(as_json: bool) -> int:
    """Exit code 0: nothing failed; 1: something did, or the settings cannot be used."""
    failed: list[bool] = []

    def work() -> None:
        findings = _examine(read_settings())
        print(_json(findings) if as_json else _table(findings))
        failed.append(any(finding.verdict.kind == "FAIL" for finding in findings))

    return readably(work) or int(failed[0])


def _examine(settings: Settings) -> list[Finding]:
    told = _announcement(settings)
    here = Surroundings(settings, os.environ, told.pid if told else None)
    findings = trio.run(HERE.run, here)
    findings += _database(settings)
    findings += trio.run(_server, told)
    findings += yours()
    return sorted(findings, key=lambda finding: _SECTIONS.index(finding.section))


def _announcement(settings: Settings) -> Told | None:
    """Of a server that still runs."""
    try:
        told = msgspec.json.decode((settings.data_dir / "server.json").read_bytes(), type=Told)
        os.kill(told.pid, 0)
    except PermissionError:
        return told  # another account's, and alive
    except (OSError, msgspec.DecodeError):
        return None
    return told


def _database(settings: Settings) -> list[Finding]:
    try:
        with database_beside(settings) as dsn:
            return trio.run(_database_checks, settings, dsn)
    except (StartRefused, EmbeddedPostgresError) as error:
        remedy = "run it where the server runs, in its environment"
        there = any((settings.data_dir / name).exists() for name in ("postgres", RESTORING))
        verdict = Verdict("FAIL" if there else "cannot tell", str(error), remedy)
    except Exposed as error:
        verdict = Verdict("FAIL", str(error), "docs/database.md, TLS")
    return _not_asked(verdict)


def _not_asked(verdict: Verdict) -> list[Finding]:
    return [Finding("Deployment", ANSWERS, verdict), *DATABASE.cannot_tell("the database was not asked")]


async def _database_checks(settings: Settings, dsn: str) -> list[Finding]:
    remote = tuple(remote_hosts("DATABASE_URL", dsn, os.environ))
    async with open_loop():
        try:
            connection = await cross(partial(_connect, dsn))
        except JournalError as error:
            return _not_asked(Verdict("FAIL", str(error), "docs/database.md"))
        try:
            answers = Finding("Deployment", ANSWERS, Verdict("pass", "it does"))
            return [answers, *await DATABASE.run(Examined(connection, settings, remote))]
        finally:
            await cross(partial(connection.close, timeout=CONNECT_S))


async def _connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    try:
        connection = await hosts.connect(
            dsn, timeout=CONNECT_S, server_settings=session_settings(Limits(), "sequencer doctor")
        )
        await use_our_types(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        not_stored(error)
    return connection


async def _server(told: Told | None) -> list[Finding]:
    if told is None:
        return SERVER.cannot_tell("no server runs on DATA_DIR")
    try:
        async with Server().connect(told.url, None, shown=told.certificate_file) as client:
            return await SERVER.run(client)
    except ClientError as error:
        return SERVER.cannot_tell(str(error))


def _json(findings: list[Finding]) -> str:
    counts = Counter(finding.verdict.kind for finding in findings)
    return json.dumps(
        {
            "ok": not counts["FAIL"],
            "counts": dict(sorted(counts.items())),
            "checks": [
                {
                    "section": section,
                    "item": item,
                    "verdict": v.kind,
                    "evidence": v.evidence,
                    "remedy": v.remedy,
                }
                for section, item, v in findings
            ],
        }
    )


def _table(findings: list[Finding]) -> str:
    wide = max(len(finding.item) for finding in findings)
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        kind, evidence, remedy = finding.verdict
        lines.append(f"  {kind:<11}  {finding.item:<{wide}}  {evidence}")
        if remedy and kind != "pass":
            lines.append(f"  {'':<11}  {'':<{wide}}  -> {remedy}")
    counts = Counter(finding.verdict.kind for finding in findings)
    kinds: tuple[Kind, ...] = ("FAIL", "warn", "cannot tell", "yours", "pass")
    return "\n".join([*lines[1:], "", ", ".join(f"{counts[kind]} {kind}" for kind in kinds)])
