"""What the journal knows about groups before they are decided: one statement, one snapshot.

One statement answers several tenants' questions; ``g`` says whose a row or a parameter is. The rows of
several tables come back through one UNION, told apart by their first column. Branches nobody asked for are
left out of the text; the texts are few, so each is prepared once per connection. LATERAL with LIMIT makes
each name one look into an index: asked for a thousand names in one list, a planner whose statistics are a
little old would rather read everything the tenant has. A plan is made once (``connections.GENERIC_PLANS``),
perhaps while the tables are empty, so no statistics choose the index either: where there are several, only
one has the order that is asked for. Never decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from journal.arrays import numbers, texts, uuids
from ves.records import (
    NEW_STREAM,
    CommandName,
    CredentialId,
    EntityName,
    Facts,
    Fence,
    Head,
    IssuedToken,
    KeyName,
    KeyStatus,
    KnownEvent,
    Question,
    Receipt,
    Uuid,
)

if TYPE_CHECKING:
    from journal.connections import Connection

_COLUMNS = (
    *("kind", "g", "u1", "u2", "u3", "u4", "t1", "t2", "n1", "n2", "n3"),
    *("w1", "w2", "w3", "w4", "b1", "b2", "b3", "b4"),
)
_EPOCHS, _HEAD, _KNOWN, _COMMAND, _ENTITY, _KEY, _CREDENTIAL, _TOKEN, _TAKEN = range(9)

_TYPES = {"u": "uuid", "t": "text", "n": "bigint", "w": "timestamptz", "b": "bytea"}


def _branch(kind: int, rest: str, **columns: str) -> str:
    """One SELECT of the UNION: the named columns, NULL for the others."""
    values = (columns.get(name, f"NULL::{_TYPES[name[0]]}") for name in _COLUMNS[2:])
    return f"SELECT {kind}, q.g, {', '.join(values)} {rest}"


_LITERAL: dict[str, Callable[[list[Any]], str]] = {
    "integer[]": numbers,
    "uuid[]": uuids,
    "text[]": texts,
    "bigint[]": numbers,
}

_KNOWN_COLUMNS = """store_id, command_id, sequencer_id, sequence_number, base_version, sequencer_key_version,
    sequenced_at, event_signing_hash, agent_signature, receipt_hash, sequencer_signature"""
_KNOWN_AS = {
    "u1": "q.event_id",
    "u2": "store_id",
    "u3": "command_id",
    "u4": "sequencer_id",
    "n1": "sequence_number",
    "n2": "base_version",
    "n3": "sequencer_key_version",
    "w1": "sequenced_at",
    "b1": "event_signing_hash",
    "b2": "agent_signature",
    "b3": "receipt_hash",
    "b4": "sequencer_signature",
}


def _by_event_id(table: str, columns: str = "") -> str:
    """The row of each event asked for. Compared as pairs and in their order, which is that of one index."""
    return (
        f"LATERAL (SELECT {columns} FROM record.{table} e "  # noqa: S608  texts of this module only
        "WHERE (e.tenant_id, e.event_id) >= ($1[q.g], q.event_id) "
        "AND (e.tenant_id, e.event_id) <= ($1[q.g], q.event_id) ORDER BY e.tenant_id, e.event_id LIMIT 1) e"
    )


def _events(kind: int, table: str, columns: str, **named: str) -> tuple[list[str], str]:
    """In the table, and, where one of the tenants has an archive at all, in the archive: a row is in exactly
    one of them, in this snapshot and in every other."""
    in_table = _branch(
        kind, f"FROM unnest({{0}}, {{1}}) AS q (g, event_id), {_by_event_id(table, columns)}", **named
    )
    archive = f"{table}_archive"
    in_archive = _branch(
        kind,
        f"FROM unnest({{0}}, {{1}}) AS q (g, event_id), {_by_event_id(archive, columns)} "  # noqa: S608
        "WHERE (SELECT true FROM unnest($1) AS t (tenant_id), "
        f"LATERAL (SELECT FROM record.{archive} a WHERE a.tenant_id = t.tenant_id LIMIT 1) a LIMIT 1)",
        **named,
    )
    return ["integer[]", "uuid[]"], f"{in_table} UNION ALL {in_archive}"


def _commands(table: str) -> tuple[list[str], str]:
    branch = _branch(
        _COMMAND,
        "FROM unnest({0}, {1}, {2}) AS q (g, store_id, command_id), "
        f"LATERAL (SELECT FROM record.{table} c WHERE c.tenant_id = $1[q.g] "
        "AND c.store_id = q.store_id AND c.command_id = q.command_id LIMIT 1) c",
        u1="q.store_id",
        u2="q.command_id",
    )
    return ["integer[]", "uuid[]", "uuid[]"], branch


def _heads(counters: str) -> tuple[list[str], str]:
    branch = _branch(
        _HEAD,
        "FROM unnest({0}, {1}) AS q (g, store_id), LATERAL (SELECT current_sequence, last_sequenced_at "  # noqa: S608
        f"FROM record.{counters} c WHERE c.tenant_id = $1[q.g] AND c.store_id = q.store_id LIMIT 1) c",
        u1="q.store_id",
        n1="current_sequence",
        w1="last_sequenced_at",
    )
    return ["integer[]", "uuid[]"], branch


_BRANCHES: dict[str, tuple[list[str], str]] = {
    # What can be asked: the types of its parameters, and the branch with a place for each of them.
    "heads": _heads("ves_sequence_counters"),
    "legacy heads": _heads("sequence_counters"),
    "events": _events(_KNOWN, "ves_events", _KNOWN_COLUMNS, **_KNOWN_AS),
    "legacy events": _events(_TAKEN, "events", "", u1="q.event_id"),
    "commands": _commands("ves_command_dedupe"),
    "legacy commands": _commands("event_command_dedupe"),
    "entities": (
        ["integer[]", "uuid[]", "text[]", "text[]"],
        _branch(
            _ENTITY,
            "FROM unnest({0}, {1}, {2}, {3}) AS q (g, store_id, entity_type, entity_id), "
            "LATERAL (SELECT version FROM record.entity_versions v "
            "WHERE v.tenant_id = $1[q.g] AND v.store_id = q.store_id "
            'AND v.entity_type = q.entity_type COLLATE "C" AND v.entity_id = q.entity_id COLLATE "C" '
            "LIMIT 1) v",
            u1="q.store_id",
            t1="q.entity_type",
            t2="q.entity_id",
            n1="v.version",
        ),
    ),
    "keys": (
        ["integer[]", "uuid[]", "bigint[]"],
        _branch(
            _KEY,
            "FROM unnest({0}, {1}, {2}) AS q (g, agent_id, key_id), LATERAL (SELECT k.valid_from, "
            "k.valid_to, k.registered_at, (SELECT min(t.retires_at) FROM record.agent_key_retirements t "
            "WHERE t.tenant_id = k.tenant_id AND t.agent_id = k.agent_id AND t.key_id = k.key_id) "
            "AS retires_at, "
            "(SELECT 1 FROM record.agent_key_revocations r WHERE r.tenant_id = k.tenant_id "
            "AND r.agent_id = k.agent_id AND r.key_id = k.key_id) AS revoked FROM record.agent_keys k "
            "WHERE k.tenant_id = $1[q.g] AND k.agent_id = q.agent_id AND k.key_id = q.key_id LIMIT 1) k",
            u1="q.agent_id",
            n1="q.key_id",
            n2="k.revoked::bigint",
            w1="k.valid_from",
            w2="k.valid_to",
            w3="k.retires_at",
            w4="k.registered_at",
        ),
    ),
    "credentials": (
        ["integer[]", "uuid[]"],
        _branch(
            _CREDENTIAL,
            "FROM unnest({0}, {1}) AS q (g, id), LATERAL (SELECT k.expires_at, (SELECT 1 FROM "
            "record.api_key_revocations r WHERE r.api_key_id = k.id) AS revoked FROM record.api_keys k "
            "WHERE k.id = q.id LIMIT 1) k",
            u1="q.id",
            n1="k.revoked::bigint",
            w1="k.expires_at",
        ),
    ),
    "tokens": (
        ["integer[]", "uuid[]", "bigint[]"],
        _branch(
            _TOKEN,
            "FROM unnest({0}, {1}, {2}) AS q (g, subject, issued_at_s), "
            "LATERAL (SELECT FROM record.token_revocations r WHERE r.tenant_id = $1[q.g] "
            "AND r.subject IN (q.subject, $1[q.g]) AND r.revoked_until_s >= q.issued_at_s LIMIT 1) r",
            u1="q.subject",
            n1="q.issued_at_s",
        ),
    ),
}


@cache
def _statement(asked: frozenset[str]) -> str:
    parts = [
        _branch(
            _EPOCHS,
            "FROM unnest($1::uuid[]) WITH ORDINALITY AS q (tenant_id, g) LEFT JOIN LATERAL "
            "(SELECT key_epoch, credential_epoch FROM record.tenant_epochs e "
            "WHERE e.tenant_id = q.tenant_id LIMIT 1) e ON true",
            n1="coalesce(e.key_epoch, 0)",
            n2="coalesce(e.credential_epoch, 0)",
            w1="clock_timestamp()",
        )
    ]
    number = 2
    for name, (types, branch) in _BRANCHES.items():
        if name in asked:
            parts.append(branch.format(*(f"${number + i}::text::{kind}" for i, kind in enumerate(types))))
            number += len(types)
    return " UNION ALL ".join(parts)


async def read_facts(connection: Connection, questions: Sequence[Question]) -> list[Facts]:
    """Everything as of one snapshot, one answer per question, each about another tenant; ``now_us`` is the
    database's clock while it was taken."""
    asked: dict[str, list[list[Any]]] = {}
    for g, question in enumerate(questions, 1):
        for name, columns in _asked(question):
            if columns:
                columns = [[g] * len(columns[0]), *columns]
                for whole, part in zip(asked.setdefault(name, [[] for _ in columns]), columns, strict=True):
                    whole += part
    arguments = [
        _LITERAL[kind](column)
        for name, (kinds, _) in _BRANCHES.items()
        if name in asked
        for kind, column in zip(kinds, asked[name], strict=True)
    ]
    found: list[list[Any]] = [[] for _ in questions]
    tenants = [question.tenant_id for question in questions]
    for row in await connection.fetch(_statement(frozenset(asked)), tenants, *arguments):
        found[row[1] - 1].append(row)
    return [_facts(question, rows) for question, rows in zip(questions, found, strict=True)]


def _asked(question: Question) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """The columns of what is asked for; none of what is not."""
    stream = "legacy " if question.legacy else ""
    tokens = [c for c in question.credential_ids if isinstance(c, IssuedToken)]
    yield f"{stream}heads", _columns((store_id,) for store_id in question.store_ids)
    yield f"{stream}events", [list(question.event_ids)] if question.event_ids else []
    yield f"{stream}commands", _columns(question.commands)
    yield "entities", _columns(question.entities)
    yield "keys", _columns((key.agent_id, key.key_id) for key in question.keys)
    yield "credentials", _columns((c,) for c in question.credential_ids if not isinstance(c, IssuedToken))
    yield "tokens", _columns(tokens)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True))


def _facts(question: Question, rows: Iterable[Any]) -> Facts:
    now_us = key_epoch = credential_epoch = 0
    heads: dict[Uuid, Head] = dict.fromkeys(question.store_ids, NEW_STREAM)
    known: dict[Uuid, KnownEvent] = {}
    taken: set[Uuid] = set()
    commands: set[CommandName] = set()
    versions: dict[EntityName, int] = {}
    keys: dict[KeyName, KeyStatus] = {}
    revoked: set[CredentialId] = set()
    credential_ends_us: dict[CredentialId, int] = {}
    for kind, _, u1, u2, u3, u4, t1, t2, n1, n2, n3, w1, w2, w3, w4, b1, b2, b3, b4 in rows:
        if kind == _ENTITY:
            versions[EntityName(u1, t1, t2)] = n1
        elif kind == _KNOWN:
            receipt = Receipt(u1, n1, w1, b3, u4, n3, b4)
            known[u1] = KnownEvent(u2, b1, b2, u3, n2, receipt)
        elif kind == _TAKEN:
            taken.add(u1)
        elif kind == _HEAD:
            heads[u1] = Head(n1, w1)
        elif kind == _KEY:
            keys[KeyName(question.tenant_id, u1, n1)] = KeyStatus(w1, w2, bool(n2), w3, w4)
        elif kind == _COMMAND:
            commands.add(CommandName(u1, u2))
        elif kind == _CREDENTIAL:
            if n1:
                revoked.add(u1)
            if w1 is not None:
                credential_ends_us[u1] = w1
        elif kind == _TOKEN:
            revoked.add(IssuedToken(u1, n1))
        else:
            key_epoch, credential_epoch, now_us = n1, n2, w1
    return Facts(
        now_us=now_us,
        fence=Fence(question.tenant_id, key_epoch, credential_epoch, heads),
        known=known,
        used_commands=frozenset(commands),
        entity_versions=versions,
        keys=keys,
        revoked_credentials=frozenset(revoked),
        credential_ends_us=credential_ends_us,
        taken=frozenset(taken),
    )
