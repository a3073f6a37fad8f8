"""Checks of the database, with the server's own login: who it is, what protects the record, what can be lost.

Each looks at facts of ``journal.examination`` and its neighbours; here is only what they come to. The
anchor's login is looked at too, where its address is known.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from config.database_tls import database_address
from config.exposure import Exposed
from config.secret_sources import SecretsError
from config.settings import Settings
from journal import examination as facts
from journal import hosts
from journal.aio import cross
from journal.migrate import check_schema, migrations
from journal.port import SchemaMismatch
from journal.privileges import anchor_excess, excess, read_privileges, superfluous
from journal.protection import differences
from supervisor.doctor.checks import Checklist, Section, Verdict, failed, passed, unknown, warned

CLOCK_OFF_WARN_S, CLOCK_OFF_FAIL_S = 1.0, 5.0
ARCHIVE_AGE_MAX_S = 3600.0
_CONNECT_S = 5.0
_LOGGING = [
    "log_statement",
    "log_min_duration_statement",
    "log_min_duration_sample",
    "log_parameter_max_length",
    "log_parameter_max_length_on_error",
    "pgaudit.log_parameter",
]
NAMED_MAX = 5
"""Of what a line of the report lists."""


@dataclass(frozen=True)
class Examined:
    """A database, connected to as the server does."""

    connection: asyncpg.Connection[asyncpg.Record]
    settings: Settings
    remote: tuple[str, ...] = ()
    """The other machines its address leads to."""


DATABASE: Checklist[Examined] = Checklist()


def _check(
    section: Section, item: str
) -> Callable[[Callable[[Examined], Awaitable[Verdict]]], Callable[[Examined], Awaitable[Verdict]]]:
    """Like the list's own decorator; the check runs on the driver's side, which ends it by itself."""

    def put(look: Callable[[Examined], Awaitable[Verdict]]) -> Callable[[Examined], Awaitable[Verdict]]:
        DATABASE.check(section, item)(lambda at: cross(lambda: look(at)))
        return look

    return put


@_check("Deployment", "the database's schema is this program's")
async def schema(at: Examined) -> Verdict:
    try:
        await check_schema(at.connection)
    except SchemaMismatch as error:
        return failed(str(error), "sequencer migrate")
    return passed(f"step {len(migrations())}")


@_check("Deployment", "the server's database login is bound by grants")
async def login(at: Examined) -> Verdict:
    found = await read_privileges(at.connection)
    above = excess(found)
    if above:
        return failed(f"{found['login']} {above.partition(';')[0]}", "docs/database.md, logins")
    if needless := superfluous(found):
        return warned(
            f"{found['login']} has more than it needs: {_some(needless)}", "docs/database.md, logins"
        )
    return passed(f"{found['login']}: no superuser, no owner, no administrator")


@_check("Deployment", "triggers, functions and grants are as the migrations made them")
async def protection(at: Examined) -> Verdict:
    found = await differences(at.connection)
    if not any(found):
        return passed("every trigger, function, constraint and grant")
    told = _some([*(f"gone: {line}" for line in found.missing), *(f"new: {line}" for line in found.added)])
    return failed(told, "find out who did that (pgaudit, docs/database.md), then undo it as the owner")


@_check("Deployment", "the connection to the database is verified TLS")
async def connection_tls(at: Examined) -> Verdict:
    if not at.remote:
        return passed("it stays on this machine")
    version = await facts.protocol_of_session(at.connection)
    if at.settings.database_tls == "insecure-allowed":
        return failed(
            f"DATABASE_TLS=insecure-allowed, to {_some(list(at.remote))}: {version or 'clear text'}, "
            "not verified",
            "unset DATABASE_TLS; docs/database.md, TLS",
        )
    if version is None:
        return failed(f"clear text to {_some(list(at.remote))}", "sslmode=verify-full; docs/database.md, TLS")
    return passed(f"{version}, certificate and name verified")


@_check("Deployment", "what is acknowledged is durable")
async def durability(at: Examined) -> Verdict:
    names = ["fsync", "full_page_writes", "synchronous_commit"]
    found = await facts.server_settings(at.connection, [*names, "data_checksums"])
    for name in names:
        if found.get(name) == "off":
            return failed(
                f"{name} is off", f"{name} = on in postgresql.conf, and for every role and database"
            )
    if found.get("data_checksums") != "on":
        return warned("data_checksums are off: rot on the disk goes unnoticed", "pg_checksums --enable")
    return passed(", ".join(f"{name}={found.get(name)}" for name in names))


@_check("Operations", "PostgreSQL's log holds no payload")
async def statement_log(at: Examined) -> Verdict:
    found = await facts.server_settings(at.connection, _LOGGING)
    statements = found.get("log_statement") in ("mod", "all") or any(
        found.get(name, "-1") != "-1" for name in ("log_min_duration_statement", "log_min_duration_sample")
    )
    if statements and found.get("log_parameter_max_length") != "0":
        return failed("statements are logged with their parameters", "log_parameter_max_length = 0")
    if found.get("log_parameter_max_length_on_error", "0") != "0":
        return failed("parameters of failed statements are logged", "log_parameter_max_length_on_error = 0")
    if found.get("pgaudit.log_parameter") == "on":
        return failed("pgaudit logs parameters", "pgaudit.log_parameter = off")
    return passed("no statement is logged with its parameters")


@_check("Compliance", "writes past the server are logged (pgaudit)")
async def pgaudit(at: Examined) -> Verdict:
    found = await facts.server_settings(at.connection, ["pgaudit.log"])
    remedy = "docs/database.md, pgaudit"
    if "pgaudit.log" not in found:
        return warned("pgaudit is not loaded", remedy)
    if lacking := pgaudit_lacks(found["pgaudit.log"]):
        return failed(f"pgaudit.log = '{found['pgaudit.log']}' lacks {', '.join(lacking)}", remedy)
    return passed(f"pgaudit.log = '{found['pgaudit.log']}'")


def pgaudit_lacks(setting: str) -> list[str]:
    """Which of the classes needed it does not log; one with a minus is taken away again."""
    classes = [word.strip() for word in setting.lower().split(",")]
    logged = {"write", "ddl", "role"} if "all" in classes else set(classes)
    return sorted({"write", "ddl", "role"} - (logged - {word[1:] for word in classes if word[:1] == "-"}))


@_check("Compliance", "who may seal anew and archive is known")
async def admins(at: Examined) -> Verdict:
    members = await facts.members_of(at.connection, "sequencer_admin")
    both = sorted(set(members) & set(await facts.members_of(at.connection, "sequencer_app")))
    if both:
        return failed(f"{_some(both)}: sequencer_app as well", f"REVOKE sequencer_admin FROM {both[0]}")
    return passed(f"members of sequencer_admin: {_some(members) if members else 'nobody'}")


@_check("Deployment", "the anchor's database login is its own")
async def anchor_login(at: Examined) -> Verdict:
    members = await facts.members_of(at.connection, "sequencer_anchor")
    for role in ("sequencer_app", "sequencer_admin"):
        both = sorted(set(members) & set(await facts.members_of(at.connection, role)))
        if both:
            return failed(f"{_some(both)}: {role} as well", f"REVOKE {role} FROM {both[0]}")
    if at.settings.anchor_database_url is None:
        return passed(f"members of sequencer_anchor: {_some(members) if members else 'nobody'}")
    try:
        found = await _privileges_at(database_address(at.settings, "anchor_database_url", os.environ))
    except (SecretsError, Exposed) as error:
        return failed(str(error), "docs/database.md, logins")
    excess = anchor_excess(found)
    if excess:
        return failed(f"{found['login']} {excess.partition(';')[0]}", "docs/database.md, logins")
    return passed(f"{found['login']}: a member of sequencer_anchor and of nothing else")


async def _privileges_at(dsn: str) -> asyncpg.Record:
    connection = await hosts.connect(dsn, timeout=_CONNECT_S)
    try:
        return await read_privileges(connection)
    finally:
        await connection.close(timeout=_CONNECT_S)


@_check("Operations", "the write-ahead log is kept elsewhere")
async def write_ahead_log(at: Examined) -> Verdict:
    found = await facts.archiving(at.connection)
    remedy = "BACKUP_WAL_DIR, docs/backup.md; with a database of your own docs/database.md, what to keep"
    if found.mode != "off" and found.failed_since:
        return failed("archiving fails", "PostgreSQL's log says why; a full WAL disk ends writing")
    if found.mode != "off" and found.archived_ago_s is not None:
        told = f"archived {found.archived_ago_s:.0f} s ago"
        return passed(told) if found.archived_ago_s < ARCHIVE_AGE_MAX_S else warned(told, "archive_timeout")
    if found.slots:
        return passed(f"{found.slots} physical replication slots")
    return warned("neither archived nor replicated: what the last backup lacks is lost with the disk", remedy)


@_check("Compliance", "the audit trail's ends verify")
async def audit_trail(at: Examined) -> Verdict:
    chains = await facts.audit_heads(at.connection)
    broken = [f"node {UUID(bytes=bytes(c.node_id))} at entry {c.broken_at}" for c in chains if c.broken_at]
    if broken:
        return failed(f"broken: {_some(broken)}", "sequencer audit verify; docs/audit.md")
    return passed(f"{len(chains)} chains, the last {sum(c.looked_at for c in chains)} entries computed anew")


@_check("Operations", "receipt keys are young enough")
async def receipt_keys(at: Examined) -> Verdict:
    ages = await facts.receipt_key_age_days(at.connection)
    if not ages:
        return unknown("no server has run on this database yet")
    told = f"the oldest is {ages[0]:.0f} days old"
    if ages[0] > at.settings.sequencer_key_max_age_days:
        return failed(told, "sequencer receipt-key rotate")
    return passed(told)


@_check("Operations", "agents' keys are young enough")
async def agent_keys(at: Examined) -> Verdict:
    count = await facts.agent_keys_older_than(at.connection, at.settings.agent_key_max_age_days)
    if count:
        told = f"{count} older than {at.settings.agent_key_max_age_days} days"
        return failed(told, "sequencer agent-key list --status overdue; docs/agent-keys.md")
    return passed(f"none is older than {at.settings.agent_key_max_age_days} days")


@_check("Operations", "what is stored is encrypted, under one key")
async def at_rest(at: Examined) -> Verdict:
    samples = await facts.sealed_samples(at.connection)
    looked_at = sum(sample.rows for sample in samples)
    plain = [f"{s.table}: {s.plain} of {s.rows}" for s in samples if s.plain]
    if plain:
        return failed(
            f"not encrypted: {_some(plain)}",
            "sequencer admin reencrypt-…; docs/operations.md, changing at-rest keys",
        )
    keys = {key for sample in samples for key in sample.key_ids}
    recorded = await facts.at_rest_keys(at.connection)
    if len(keys) > 1 or (keys and any(sample.old_frames for sample in samples)):
        return warned(
            f"{looked_at} rows looked at: {len(keys)} keys in use, "
            f"{sum(sample.old_frames for sample in samples)} older frames",
            "docs/operations.md, changing at-rest keys; keys of tenants count too",
        )
    if recorded > 1:
        return warned(
            f"{recorded} keys recorded, one in use in {looked_at} rows",
            "sequencer admin retire-at-rest-key; docs/operations.md",
        )
    return passed(f"{looked_at} rows looked at, all encrypted")


@_check("Operations", "the clocks agree")
async def clock(at: Examined) -> Verdict:
    off = await facts.clock_off_s(at.connection)
    told = f"the database's is {abs(off):.2f} s {'ahead' if off > 0 else 'behind'}"
    if abs(off) > CLOCK_OFF_FAIL_S:
        return failed(told, "run NTP on both machines: key windows and tokens are judged by the clock")
    return warned(told, "run NTP on both machines") if abs(off) > CLOCK_OFF_WARN_S else passed(told)


def _some(things: list[str]) -> str:
    rest = len(things) - NAMED_MAX
    return "; ".join(things[:NAMED_MAX]) + (f"; and {rest} more" if rest > 0 else "")
