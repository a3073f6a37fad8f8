"""Rows of the tables that hold sealed values, put there by the database's owner, sealed in every way."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from journal_builders import uuid
from journal_worlds import sql

from journal.sealed_tables import EVENTS, VALIDITY_PROOFS, VES_EVENTS, SealedTable
from ves.at_rest import (
    AtRest,
    AtRestMode,
    Ring,
    RingKey,
    Row,
    legacy_payload_aad,
    validity_proof_aad,
    ves_payload_aad,
)
from ves.constants import VALIDITY_PROOF_HASH
from ves.events import payload_plain_hash
from ves.kdf import Purpose

NEW, OLD, STRANGE = (RingKey(bytes([n]) * 32) for n in (1, 2, 3))
AT_REST = AtRest(AtRestMode.REQUIRED, Ring([NEW, OLD]))
NAMES = ("order", "o-1", "order.created")
SEALED = {
    f"SSE2 {NEW.key_id.hex()}": lambda row, plaintext: NEW.seal(row, os.urandom(12), plaintext),
    f"SSE2 {OLD.key_id.hex()}": lambda row, plaintext: OLD.seal(row, os.urandom(12), plaintext),
    f"SSE1 under {NEW.key_id.hex()}": lambda row, plaintext: NEW.seal_sse1(
        os.urandom(12), plaintext, row.row_hash
    ),
    f"SSE1 under {OLD.key_id.hex()}": lambda row, plaintext: OLD.seal_sse1(
        os.urandom(12), plaintext, row.row_hash
    ),
    "plaintext": lambda row, plaintext: plaintext,
}
"""What seals, by the kind of its outcome."""
CURRENT = f"SSE2 {NEW.key_id.hex()}"


@dataclass
class Rows:
    """One stream, or the proofs of one batch, in a table and its archive."""

    owner_dsn: str
    table: SealedTable
    tenant: bytes = field(default_factory=uuid)
    store: bytes = field(default_factory=uuid)
    batch: bytes = field(default_factory=uuid)
    count: int = 0
    plaintexts: dict[tuple[Any, ...], bytes] = field(default_factory=dict)
    bound: dict[tuple[Any, ...], Row] = field(default_factory=dict)

    async def add(self, kind: str, *, archived: bool = False) -> tuple[Any, ...]:
        """A row of that kind; answers its key."""
        self.count += 1
        insert = {"ves_events": self._ves, "events": self._legacy, "ves_validity_proofs": self._proof}
        return await insert[self.table.name](kind, archived)

    async def _insert(self, archived: bool, columns: dict[str, Any]) -> None:
        name = str(self.table.archive if archived else self.table.name)
        if archived:
            columns["archived_at"] = 0
        given = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        statement = f"INSERT INTO record.{name} ({', '.join(columns)}) VALUES ({given})"
        if not archived:
            await sql(self.owner_dsn, statement, arguments=tuple(columns.values()))
            return
        # As if it had been in the stream and its range committed: the owner looks away for a moment.
        guards = ("only_archived", "archived_once")
        off, on = (
            [f"ALTER TABLE record.{name} {how} TRIGGER {guard}" for guard in guards]
            for how in ("DISABLE", "ENABLE ALWAYS")
        )
        await sql(self.owner_dsn, *off, statement, arguments=tuple(columns.values()))
        await sql(self.owner_dsn, *on)

    def _kept(self, kind: str, key: tuple[Any, ...], row: Row, plaintext: bytes) -> bytes:
        self.plaintexts[key], self.bound[key] = plaintext, row
        return SEALED[kind](row, plaintext)

    async def _ves(self, kind: str, archived: bool) -> tuple[Any, ...]:
        event, signing_hash, payload = uuid(), os.urandom(32), b'{"n":%d}' % self.count
        key = (self.tenant, self.store, self.count)
        aad = ves_payload_aad(self.tenant, self.store, event, self.count, signing_hash)
        sealed = self._kept(kind, key, Row(Purpose.VES_EVENTS, self.tenant, aad), payload)
        columns = dict(zip(("tenant_id", "store_id", "sequence_number"), key, strict=True))
        columns |= dict(zip(("entity_type", "entity_id", "event_type"), NAMES, strict=True))
        columns |= {"sequenced_at": 0, "agent_key_id": 1, "sequencer_key_version": 1, "payload_kind": 0}
        columns |= {"event_id": event, "source_agent_id": uuid(), "sequencer_id": uuid()}
        columns |= {"created_at": "2026-01-01T00:00:00Z", "payload_plain_hash": payload_plain_hash(payload)}
        columns |= {"payload_cipher_hash": bytes(32), "agent_signature": bytes(64)}
        columns |= {"event_signing_hash": signing_hash, "receipt_hash": bytes(32)}
        await self._insert(archived, columns | {"sequencer_signature": bytes(64), "payload_sealed": sealed})
        return key

    async def _legacy(self, kind: str, archived: bool) -> tuple[Any, ...]:
        event, payload = uuid(), b'{"n":%d.0}' % self.count
        key = (self.tenant, self.store, self.count)
        aad = legacy_payload_aad(self.tenant, self.store, event, self.count, *NAMES)
        sealed = self._kept(kind, key, Row(Purpose.EVENTS, self.tenant, aad), payload)
        columns = dict(zip(("tenant_id", "store_id", "sequence_number"), key, strict=True))
        columns |= dict(zip(("entity_type", "entity_id", "event_type"), NAMES, strict=True))
        columns |= {"sequenced_at": 0, "created_at": 0, "event_id": event, "source_agent": uuid()}
        columns |= {"payload_hash": sha256(payload).digest(), "payload_encrypted": sealed}
        await self._insert(archived, columns)
        return key

    async def _proof(self, kind: str, archived: bool) -> tuple[Any, ...]:
        if self.count == 1:
            await sql(
                self.owner_dsn,
                "INSERT INTO record.ves_commitments VALUES "
                "($1, $2, $3, 1, 1, now(), 1, 0, 1, 1, $4, $4, $4, $4)",
                arguments=(self.batch, self.tenant, self.store, bytes(32)),
            )
        proof_id, proof = uuid(), b"\x00proof %d" % self.count
        proof_hash = sha256(VALIDITY_PROOF_HASH + proof).digest()
        named = (self.batch, proof_id, self.count, "other", proof_hash)
        aad = validity_proof_aad(self.tenant, self.store, *named)
        sealed = self._kept(kind, (proof_id,), Row(Purpose.VALIDITY_PROOFS, self.tenant, aad), proof)
        columns = dict(
            zip(("batch_id", "proof_id", "proof_version", "proof_type", "proof_hash"), named, strict=True)
        )
        columns |= {"tenant_id": self.tenant, "store_id": self.store, "submitted_at": 0, "proof": sealed}
        await self._insert(False, columns)
        return (proof_id,)

    async def stored(self) -> dict[tuple[Any, ...], bytes]:
        """What is stored now, by key, wherever it is."""
        found: dict[tuple[Any, ...], bytes] = {}
        for name in filter(None, (self.table.name, self.table.archive)):
            rows = await sql(
                self.owner_dsn,
                f"SELECT {', '.join(self.table.key)}, {self.table.column} FROM record.{name} "
                "WHERE tenant_id = $1",
                arguments=(self.tenant,),
            )
            for *key, sealed in rows:
                assert tuple(key) not in found, "in both tables"
                found[tuple(key)] = sealed
        return found

    async def all_current(self) -> None:
        """Every row is what it was, under the new key."""
        found = await self.stored()
        assert found.keys() == self.plaintexts.keys()
        for key, sealed in found.items():
            assert NEW.open(self.bound[key], sealed) == self.plaintexts[key]


TABLES = (VES_EVENTS, EVENTS, VALIDITY_PROOFS)
