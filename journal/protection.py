"""How the schema protects the record, as one line per fact, and whether it still does.

``protection.txt`` is what the migrations make, besides the triggers against retired at-rest keys;
``read_protection`` is what a database has. Lines that are
only in one of them are tampering, or an act of somebody who meant well: a trigger switched off, a function
rewritten, a right given, a rule or a constraint changed. Changes nothing and judges nothing. Whoever owns the
database can also mend it before we look: receipts and commitments are for that.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from journal.connections import Connection

_LINES = """
WITH ours AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace n
    WHERE n.nspname IN ('record', 'work')
), tables AS (
    SELECT c.oid, s.nspname || '.' || c.relname AS name, c.relowner, c.relacl, c.relrowsecurity, s.nspowner
    FROM pg_catalog.pg_class c JOIN ours s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm')
), functions AS (
    SELECT p.oid, s.nspname || '.' || p.proname AS name, p.proowner, p.proacl, p.prosrc, p.proconfig,
        p.prosecdef, p.provolatile, s.nspowner, l.lanname
    FROM pg_catalog.pg_proc p JOIN ours s ON s.oid = p.pronamespace
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
), grants AS (
    SELECT 'schema ' || nspname AS what, nspowner AS owner, nspacl AS acl FROM ours
    UNION ALL SELECT 'table ' || name, relowner, relacl FROM tables
    UNION ALL SELECT 'column ' || t.name || '.' || a.attname, t.relowner, a.attacl
        FROM pg_catalog.pg_attribute a JOIN tables t ON t.oid = a.attrelid WHERE a.attacl IS NOT NULL
    UNION ALL SELECT 'function ' || name, proowner,
        coalesce(proacl, pg_catalog.acldefault('f', proowner)) FROM functions
)
SELECT 'table ' || name FROM tables
UNION ALL SELECT 'trigger ' || t.tgenabled::text || ' ' || pg_catalog.pg_get_triggerdef(t.oid)
    FROM pg_catalog.pg_trigger t JOIN tables ON tables.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL SELECT 'foreign key not enforced on ' || tables.name
    FROM pg_catalog.pg_trigger t JOIN tables ON tables.oid = t.tgrelid
    WHERE t.tgisinternal AND t.tgenabled <> 'O'
UNION ALL SELECT 'function ' || name || ' ' || lanname || ' ' || provolatile::text
    || CASE WHEN prosecdef THEN ' SECURITY DEFINER' ELSE '' END
    || ' ' || coalesce(pg_catalog.array_to_string(proconfig, '; '), 'no settings')
    || ' ' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(prosrc, 'UTF8')), 'hex')
    FROM functions
UNION ALL SELECT 'constraint ' || t.name || ' ' || k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
    FROM pg_catalog.pg_constraint k JOIN tables t ON t.oid = k.conrelid WHERE k.contype <> 'n'
UNION ALL SELECT 'rule ' || t.name || ' ' || r.rulename
    FROM pg_catalog.pg_rewrite r JOIN tables t ON t.oid = r.ev_class
UNION ALL SELECT 'row security on ' || name FROM tables WHERE relrowsecurity
UNION ALL SELECT 'inherits from ' || t.name || ': ' || i.inhrelid::regclass
    FROM pg_catalog.pg_inherits i JOIN tables t ON t.oid = i.inhparent
UNION ALL SELECT 'another owner than its schema''s: ' || name FROM tables WHERE relowner <> nspowner
UNION ALL SELECT 'another owner than its schema''s: ' || name FROM functions WHERE proowner <> nspowner
UNION ALL SELECT 'role ' || rolname || CASE WHEN rolcanlogin THEN ' LOGIN' ELSE ' NOLOGIN' END
    || CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        THEN ' with attributes' ELSE '' END
    FROM pg_catalog.pg_roles WHERE rolname IN ('sequencer_app', 'sequencer_admin', 'sequencer_reader')
UNION ALL SELECT 'grant ' || g.what || ' to ' || coalesce(r.rolname, 'PUBLIC') || ': '
    || pg_catalog.string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ' '
        ORDER BY a.privilege_type)
    FROM grants g CROSS JOIN pg_catalog.aclexplode(g.acl) a
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
    WHERE a.grantee <> g.owner GROUP BY g.what, a.grantee, r.rolname
"""

_BOTH = {"": "INSERT OR UPDATE", "_archive": "UPDATE"}
_SEALED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ves_events", "payload_sealed", _BOTH),
    ("events", "payload_encrypted", _BOTH),
    ("ves_validity_proofs", "proof", {"": "INSERT OR UPDATE"}),
)
"""Table, its sealed column, and upon which acts it and its archive are judged: migration 14."""


class Differences(NamedTuple):
    """Sorted lines."""

    missing: list[str]
    """Made by the migrations, and not there."""
    added: list[str]
    """There, and not made by the migrations."""


@cache
def expected() -> frozenset[str]:
    text = resources.files("journal").joinpath("protection.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


async def read_protection(connection: Connection) -> list[str]:
    """Any login may ask: the catalogue is everybody's."""
    return sorted({str(row[0]) for row in await connection.fetch(_LINES)})


async def differences(connection: Connection) -> Differences:
    found = set(await read_protection(connection))
    wanted = expected() | await _against_retired_keys(connection)
    return Differences(sorted(wanted - found), sorted(found - wanted))


async def _against_retired_keys(connection: Connection) -> set[str]:
    """The triggers that ``record.forbid_at_rest_keys`` makes, as PostgreSQL shows them."""
    there = await connection.fetchval("SELECT to_regclass('record.at_rest_key_retirements') IS NOT NULL")
    rows = await connection.fetch("SELECT key_id FROM record.at_rest_key_retirements") if there else []
    if not rows:
        return set()
    keys = [f"'\\x{key_id.hex()}'::bytea" for key_id in sorted(row[0] for row in rows)]
    one_of = keys[0] if len(keys) == 1 else f"ANY (ARRAY[{', '.join(keys)}])"
    sse1, sse2 = (f"'\\x{magic.hex()}'::bytea" for magic in (b"SSE1", b"SSE2"))
    return {
        f"trigger A CREATE TRIGGER retired_keys AFTER {acts} ON record.{table}{kind} FOR EACH ROW WHEN ("
        f"((substr(new.{column}, 1, 4) = {sse1}) OR ((substr(new.{column}, 1, 4) = {sse2}) AND "
        f"(substr(new.{column}, 5, 8) = {one_of})))) EXECUTE FUNCTION record.refuse_retired_key()"
        for table, column, kinds in _SEALED
        for kind, acts in kinds.items()
    }
