"""What the server's own login, and the anchor's, may do beyond what they need: found in the catalogue, and
named with its remedy.

Grants and triggers bind only a login that is not above them: a superuser, an owner or whoever can become one
passes by. Such a login is refused by ``excess``; less is told by ``superfluous``. One statement, asked on
each new connection, so that rights given while we run are noticed at the next one. Changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from journal.port import JournalRefused

if TYPE_CHECKING:
    from journal.connections import Connection

_REMEDY = (
    "give the server a login of its own: CREATE ROLE sequencer_server LOGIN PASSWORD '…' "
    "IN ROLE sequencer_app, and name it in DATABASE_URL; the owner belongs into DATABASE_ADMIN_URL"
)
_ANCHOR_REMEDY = (
    "give the anchor a login of its own: CREATE ROLE sequencer_anchor_server LOGIN PASSWORD '…' "
    "IN ROLE sequencer_anchor, and name it in ANCHOR_DATABASE_URL"
)

# The login itself and every role it may act as: SET ROLE gives attributes too, which are never inherited.
_FACTS = """
WITH own AS (
    SELECT r.oid, r.rolname, r.rolsuper, r.rolcreaterole, r.rolreplication, r.rolbypassrls, r.rolcreatedb
    FROM pg_catalog.pg_roles r
    WHERE r.rolname = session_user
        OR pg_catalog.pg_has_role(session_user, r.oid, CASE
            WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
        OR pg_catalog.pg_has_role(session_user, r.oid, 'USAGE')
)
SELECT
    pg_catalog.quote_ident(session_user) AS login,
    pg_catalog.bool_or(rolsuper) AS superuser,
    pg_catalog.bool_or(rolcreaterole) AS createrole,
    pg_catalog.bool_or(rolreplication) AS replication,
    pg_catalog.bool_or(rolbypassrls) AS bypassrls,
    pg_catalog.bool_or(rolcreatedb) AS createdb,
    coalesce(pg_catalog.bool_or(rolname = 'sequencer_admin'), false) AS admin,
    coalesce(pg_catalog.bool_or(rolname = 'sequencer_anchor'), false) AS anchor,
    coalesce(pg_catalog.bool_or(rolname = 'sequencer_app'), false) AS app,
    ARRAY(SELECT o.rolname::text FROM own o WHERE o.rolname IN ('pg_write_all_data', 'pg_read_server_files',
        'pg_write_server_files', 'pg_execute_server_program', 'pg_database_owner')
        ORDER BY 1) AS dangerous,
    ARRAY(SELECT o.rolname::text FROM own o WHERE o.rolname IN ('pg_signal_backend', 'pg_maintain',
        'pg_checkpoint', 'pg_create_subscription', 'pg_read_all_data') ORDER BY 1) AS needless,
    ARRAY(
        SELECT 'database ' || d.datname FROM pg_catalog.pg_database d JOIN own o ON o.oid = d.datdba
            WHERE d.datname = pg_catalog.current_database()
        UNION ALL SELECT 'schema ' || n.nspname FROM pg_catalog.pg_namespace n
            JOIN own o ON o.oid = n.nspowner
            WHERE n.nspname IN ('record', 'work')
        UNION ALL (SELECT 'table ' || c.oid::regclass FROM pg_catalog.pg_class c
            JOIN own o ON o.oid = c.relowner
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname IN ('record', 'work') AND c.relkind IN ('r', 'p') ORDER BY 1 LIMIT 1)
        UNION ALL (SELECT 'function ' || p.proname FROM pg_catalog.pg_proc p
            JOIN own o ON o.oid = p.proowner
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname IN ('record', 'work') ORDER BY 1 LIMIT 1)
    ) AS owned,
    ARRAY(
        SELECT c.relname || ': ' || p FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN pg_catalog.unnest('{DELETE,TRUNCATE,TRIGGER,REFERENCES}'::text[]) p
        WHERE n.nspname = 'record' AND c.relkind IN ('r', 'p')
            AND pg_catalog.has_table_privilege(session_user, c.oid, p)
        ORDER BY 1 LIMIT 5
    ) AS grants,
    pg_catalog.has_database_privilege(session_user, pg_catalog.current_database(), 'CREATE') AS may_create,
    pg_catalog.current_setting('synchronous_commit') AS synchronous_commit
FROM own
"""

_ATTRIBUTES = (("superuser", "SUPERUSER"), ("createrole", "CREATEROLE"), ("replication", "REPLICATION"))
_NEEDLESS_ATTRIBUTES = (("bypassrls", "BYPASSRLS"), ("createdb", "CREATEDB"))


async def read_privileges(connection: Connection) -> asyncpg.Record:
    """One row of facts about the login of this session, for the two below."""
    facts = await connection.fetchrow(_FACTS)
    assert facts is not None  # an aggregate
    return facts


async def refuse_excess(connection: Connection) -> None:
    """Raises JournalRefused when this login is above the grants and triggers that protect the record, or
    would acknowledge what is not durable (a login may set that for itself)."""
    facts = await read_privileges(connection)
    _refuse("the server", facts, excess(facts))


async def refuse_as_anchor(connection: Connection) -> None:
    """The same for the anchor's login, which holds nothing but what sequencer_anchor may do."""
    facts = await read_privileges(connection)
    _refuse("the anchor", facts, anchor_excess(facts))


def _refuse(who: str, facts: Any, found: str | None) -> None:
    if found:
        raise JournalRefused(f"{who} may not work as the database role {facts['login']}: it {found}")
    if facts["synchronous_commit"] == "off":
        raise JournalRefused(
            f"synchronous_commit is off for the database role {facts['login']}: an acknowledged event could "
            f"be lost: ALTER ROLE {facts['login']} RESET synchronous_commit"
        )


def excess(facts: Any) -> str | None:
    """Why grants and triggers mean nothing to this login, with the SQL that helps; None: they bind it."""
    login = facts["login"]
    above = _above_grants(facts, _REMEDY)
    if above is None and facts["anchor"]:
        return (
            "may act as sequencer_anchor, which records what is on a chain: REVOKE sequencer_anchor FROM "
            f"{login}; ANCHOR_DATABASE_URL is for that"
        )
    return above


def anchor_excess(facts: Any) -> str | None:
    """Why this login is not the anchor's own, with the SQL that helps; None: it is."""
    login = facts["login"]
    above = _above_grants(facts, _ANCHOR_REMEDY)
    if above is not None:
        return above
    if not facts["anchor"]:
        return f"is no member of sequencer_anchor: GRANT sequencer_anchor TO {login}, or {_ANCHOR_REMEDY}"
    if facts["app"]:
        return (
            "may act as sequencer_app too, and whoever holds the chain's key needs no events: "
            f"REVOKE sequencer_app FROM {login}"
        )
    return None


def _above_grants(facts: Any, remedy: str) -> str | None:
    login = facts["login"]
    for attribute, word in _ATTRIBUTES:
        if facts[attribute]:
            return f"is, or may become, a role with {word}. ALTER ROLE {login} NO{word}, or better {remedy}"
    if facts["owned"]:
        return f"owns {facts['owned'][0]}, and grants do not bind an owner; {remedy}"
    if facts["admin"]:
        return (
            "may act as sequencer_admin, which seals anew and archives: REVOKE sequencer_admin FROM "
            f"{login}; DATABASE_ADMIN_URL is for that"
        )
    if facts["dangerous"]:
        return f"may act as {facts['dangerous'][0]}: REVOKE {facts['dangerous'][0]} FROM {login}"
    return None


def superfluous(facts: Any) -> list[str]:
    """What this login does not need and the triggers still hold against, each with the SQL that takes it."""
    login = facts["login"]
    found = [f"{w}: ALTER ROLE {login} NO{w}" for name, w in _NEEDLESS_ATTRIBUTES if facts[name]]
    found += [f"{role}: REVOKE {role} FROM {login}" for role in facts["needless"]]
    found += [f"{grant}: REVOKE it" for grant in facts["grants"]]
    if facts["may_create"]:
        found.append("CREATE on the database: REVOKE it")
    return found
