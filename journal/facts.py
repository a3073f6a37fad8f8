"""What the journal knows about a group before it is decided: one statement, one snapshot.

The rows of several tables come back through one UNION, told apart by their first column. Branches nobody
asked for are left out of the text; the texts are few, so each is prepared once per connection. LATERAL with
LIMIT makes each name one look into an index: asked for a thousand names in one list, a planner whose
statistics are a little old would rather read everything the tenant has. Never decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    *("kind", "u1", "u2", "u3", "u4", "t1", "t2", "n1", "n2", "n3"),
    *("w1", "w2", "w3", "w4", "b1", "b2", "b3", "b4"),
)
_EPOCHS, _HEAD, _KNOWN, _COMMAND, _ENTITY, _KEY, _CREDENTIAL, _TOKEN, _TAKEN = range(9)

_TYPES = {"u": "uuid", "t": "text", "n": "bigint", "w": "timestamptz", "b": "bytea"}


def _branch(kind: int, rest: str, **columns: str) -> str:
    """One SELECT of the UNION: the named columns, NULL for the others."""
    values = (columns.get(name, f"NULL::{_TYPES[name[0]]}") for name in _COLUMNS[1:])
    return f"SELECT {kind}, {', '.join(values)} {rest}"


_LITERAL: dict[str, Callable[[list[Any]], str]] = {"uuid[]": uuids, "text[]": texts, "bigint[]": numbers}

_KNOWN_COLUMNS = """store_id, command_id, sequencer_id, sequence_number, base_version, sequencer_key_version,
    sequenced_at, event_signing_hash, agent_signature, receipt_hash, sequencer_signature"""


def _commands(table: str) -> tuple[list[str], str]:
    branch = _branch(
        _COMMAND,
        f"FROM unnest({{}}, {{}}) AS q (store_id, command_id), LATERAL (SELECT FROM record.{table} c "
        "WHERE c.tenant_id = $1 AND c.store_id = q.store_id AND c.command_id = q.command_id LIMIT 1) c",
        u1="q.store_id",
        u2="q.command_id",
    )
    return ["uuid[]", "uuid[]"], branch


_BRANCHES: dict[str, tuple[list[str], str]] = {
    # What can be asked: the types of its parameters, and the branch with a place for each of them.
    "events": (
        ["uuid[]"],
        _branch(
            _KNOWN,
            "FROM unnest({}) AS q (event_id), "  # noqa: S608  texts of this module only
            f"LATERAL (SELECT {_KNOWN_COLUMNS} FROM record.ves_events e "
            "WHERE e.tenant_id = $1 AND e.event_id = q.event_id "
            # Not through the view ves_events_all: planning it costs a single event a fifth of the statement.
            f"UNION ALL SELECT {_KNOWN_COLUMNS} FROM record.ves_events_archive e "
            "WHERE e.tenant_id = $1 AND e.event_id = q.event_id LIMIT 1) e",
            u1="q.event_id",
            u2="store_id",
            u3="command_id",
            u4="sequencer_id",
            n1="sequence_number",
            n2="base_version",
            n3="sequencer_key_version",
            w1="sequenced_at",
            b1="event_signing_hash",
            b2="agent_signature",
            b3="receipt_hash",
            b4="sequencer_signature",
        ),
    ),
    "legacy events": (
        ["uuid[]"],
        _branch(
            _TAKEN,
            "FROM unnest({}) AS q (event_id), LATERAL (SELECT FROM record.events e "
            "WHERE e.tenant_id = $1 AND e.event_id = q.event_id "
            "UNION ALL SELECT FROM record.events_archive e "
            "WHERE e.tenant_id = $1 AND e.event_id = q.event_id LIMIT 1) e",
            u1="q.event_id",
        ),
    ),
    "commands": _commands("ves_command_dedupe"),
    "legacy commands": _commands("event_command_dedupe"),
    "entities": (
        ["uuid[]", "text[]", "text[]"],
        _branch(
            _ENTITY,
            "FROM unnest({}, {}, {}) AS q (store_id, entity_type, entity_id), "
            "LATERAL (SELECT version FROM record.entity_versions v "
            "WHERE v.tenant_id = $1 AND v.store_id = q.store_id "
            'AND v.entity_type = q.entity_type COLLATE "C" AND v.entity_id = q.entity_id COLLATE "C" '
            "LIMIT 1) v",
            u1="q.store_id",
            t1="q.entity_type",
            t2="q.entity_id",
            n1="v.version",
        ),
    ),
    "keys": (
        ["uuid[]", "bigint[]"],
        _branch(
            _KEY,
            "FROM unnest({}, {}) AS q (agent_id, key_id), LATERAL (SELECT k.valid_from, k.valid_to, "
            "k.registered_at, (SELECT min(t.retires_at) FROM record.agent_key_retirements t "
            "WHERE t.tenant_id = k.tenant_id AND t.agent_id = k.agent_id AND t.key_id = k.key_id) "
            "AS retires_at, "
            "(SELECT 1 FROM record.agent_key_revocations r WHERE r.tenant_id = k.tenant_id "
            "AND r.agent_id = k.agent_id AND r.key_id = k.key_id) AS revoked FROM record.agent_keys k "
            "WHERE k.tenant_id = $1 AND k.agent_id = q.agent_id AND k.key_id = q.key_id LIMIT 1) k",
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
        ["uuid[]"],
        _branch(
            _CREDENTIAL,
            "FROM unnest({}) AS q (id), LATERAL (SELECT k.expires_at, (SELECT 1 FROM "
            "record.api_key_revocations r WHERE r.api_key_id = k.id) AS revoked FROM record.api_keys k "
            "WHERE k.id = q.id LIMIT 1) k",
            u1="q.id",
            n1="k.revoked::bigint",
            w1="k.expires_at",
        ),
    ),
    "tokens": (
        ["uuid[]", "bigint[]"],
        _branch(
            _TOKEN,
            "FROM unnest({}, {}) AS q (subject, issued_at_s), "
            "LATERAL (SELECT FROM record.token_revocations r WHERE r.tenant_id = $1 "
            "AND r.subject IN (q.subject, $1) AND r.revoked_until_s >= q.issued_at_s LIMIT 1) r",
            u1="q.subject",
            n1="q.issued_at_s",
        ),
    ),
}


@cache
def _statement(asked: frozenset[str], counters: str) -> str:
    parts = [
        _branch(
            _EPOCHS,
            "FROM (SELECT $1::uuid AS tenant_id) t LEFT JOIN record.tenant_epochs e USING (tenant_id)",
            n1="coalesce(e.key_epoch, 0)",
            n2="coalesce(e.credential_epoch, 0)",
            w1="clock_timestamp()",
        ),
        _branch(
            _HEAD,
            f"FROM record.{counters} WHERE tenant_id = $1 AND store_id = ANY($2::uuid[])",
            u1="store_id",
            n1="current_sequence",
            w1="last_sequenced_at",
        ),
    ]
    number = 3
    for name, (types, branch) in _BRANCHES.items():
        if name in asked:
            parts.append(branch.format(*(f"${number + i}::text::{kind}" for i, kind in enumerate(types))))
            number += len(types)
    return " UNION ALL ".join(parts)


async def read_facts(connection: Connection, question: Question) -> Facts:
    """Everything as of one snapshot; ``now_us`` is the database's clock while it was taken."""
    asked: dict[str, Iterable[list[Any]]] = {}
    stream = "legacy " if question.legacy else ""
    if question.event_ids:
        asked[f"{stream}events"] = [list(question.event_ids)]
    if question.commands:
        asked[f"{stream}commands"] = _columns(question.commands)
    if question.entities:
        asked["entities"] = _columns(question.entities)
    if question.keys:
        asked["keys"] = _columns((k.agent_id, k.key_id) for k in question.keys)
    tokens = [c for c in question.credential_ids if isinstance(c, IssuedToken)]
    if len(tokens) < len(question.credential_ids):
        asked["credentials"] = [[c for c in question.credential_ids if not isinstance(c, IssuedToken)]]
    if tokens:
        asked["tokens"] = _columns(tokens)
    arguments = [
        _LITERAL[kind](column)
        for name, (kinds, _) in _BRANCHES.items()
        if name in asked
        for kind, column in zip(kinds, asked[name], strict=True)
    ]
    counters = "sequence_counters" if question.legacy else "ves_sequence_counters"
    statement = _statement(frozenset(asked), counters)
    rows = await connection.fetch(statement, question.tenant_id, list(question.store_ids), *arguments)
    return _facts(question, rows)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


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
    for kind, u1, u2, u3, u4, t1, t2, n1, n2, n3, w1, w2, w3, w4, b1, b2, b3, b4 in rows:
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
