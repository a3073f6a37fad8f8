"""The tables that hold sealed values, and what binds each value to its row.

Alone knows which columns a re-encryption reads: the row's key, what its AAD is made of, and the hash that
its plaintext has to have. A table and its archive are one here: a row moves from the one to the other in one
transaction, so one statement over both sees it exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from ves.at_rest import Row, legacy_payload_aad, validity_proof_aad, ves_payload_aad
from ves.constants import VALIDITY_PROOF_HASH
from ves.encoding import uuid_text
from ves.events import EventHeader
from ves.kdf import Purpose
from ves.records import Uuid
from ves.resealing import Belongs, is_the_payload

if TYPE_CHECKING:
    import asyncpg

Key = tuple[Uuid | int, ...]
"""The primary key of a row."""


class Bound(NamedTuple):
    """What a stored value belongs to."""

    row: Row
    belongs: Belongs


@dataclass(frozen=True)
class SealedTable:
    name: str
    archive: str | None
    column: str
    """The sealed one."""
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    others: tuple[str, ...]
    """Further columns that ``bind`` wants."""
    total: str
    """How many rows there are: a statement of $1 tenant_id and $2 store_id, NULL for all."""
    batch_rows: int
    """Rows in a transaction, unless somebody wants another number (VES 5.5)."""
    bind: Callable[[asyncpg.Record], Bound]

    def first(self, tenant_id: Uuid | None, store_id: Uuid | None) -> Key:
        """Less than every key of this tenant and store."""
        if len(self.key) == 1:
            return (bytes(16),)
        return (tenant_id or bytes(16), store_id or bytes(16), 0)


def _ves_event(row: asyncpg.Record) -> Bound:
    place = row["tenant_id"], row["store_id"], row["event_id"]
    header = EventHeader(
        *place,
        row["source_agent_id"],
        row["agent_key_id"],
        row["entity_type"],
        row["entity_id"],
        row["event_type"],
        row["created_at"],
    )
    kind, hashes = row["payload_kind"], (row["payload_plain_hash"], row["payload_cipher_hash"])
    aad = ves_payload_aad(*place, row["sequence_number"], row["event_signing_hash"])
    return Bound(
        Row(Purpose.VES_EVENTS, row["tenant_id"], aad),
        lambda payload: is_the_payload(header, kind, payload, *hashes),
    )


def _legacy_event(row: asyncpg.Record) -> Bound:
    names = row["entity_type"], row["entity_id"], row["event_type"]
    place = row["tenant_id"], row["store_id"], row["event_id"], row["sequence_number"]
    wanted = row["payload_hash"]
    return Bound(
        Row(Purpose.EVENTS, row["tenant_id"], legacy_payload_aad(*place, *names)),
        lambda payload: sha256(payload).digest() == wanted,
    )


def _validity_proof(row: asyncpg.Record) -> Bound:
    place = row["tenant_id"], row["store_id"], row["batch_id"], row["proof_id"]
    wanted = row["proof_hash"]
    aad = validity_proof_aad(*place, row["proof_version"], row["proof_type"], wanted)
    return Bound(
        Row(Purpose.VALIDITY_PROOFS, row["tenant_id"], aad),
        lambda proof: sha256(VALIDITY_PROOF_HASH + proof).digest() == wanted,
    )


_STREAM_KEY = ("tenant_id", "store_id", "sequence_number")
_STREAM_KEY_TYPES = ("uuid", "uuid", "bigint")
_SCOPE = "($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR store_id = $2)"
_TOTAL_OF_STREAMS = "SELECT coalesce(sum(current_sequence), 0)::bigint FROM record.{} WHERE " + _SCOPE

VES_EVENTS = SealedTable(
    name="ves_events",
    archive="ves_events_archive",
    column="payload_sealed",
    key=_STREAM_KEY,
    key_types=_STREAM_KEY_TYPES,
    others=(
        *("event_id", "source_agent_id", "agent_key_id", "entity_type", "entity_id", "event_type"),
        *("created_at", "payload_kind", "payload_plain_hash", "payload_cipher_hash", "event_signing_hash"),
    ),
    total=_TOTAL_OF_STREAMS.format("ves_sequence_counters"),
    batch_rows=500,
    bind=_ves_event,
)
EVENTS = SealedTable(
    name="events",
    archive="events_archive",
    column="payload_encrypted",
    key=_STREAM_KEY,
    key_types=_STREAM_KEY_TYPES,
    others=("event_id", "entity_type", "entity_id", "event_type", "payload_hash"),
    total=_TOTAL_OF_STREAMS.format("sequence_counters"),
    batch_rows=500,
    bind=_legacy_event,
)
VALIDITY_PROOFS = SealedTable(
    name="ves_validity_proofs",
    archive=None,
    column="proof",
    key=("proof_id",),
    key_types=("uuid",),
    others=("tenant_id", "store_id", "batch_id", "proof_version", "proof_type", "proof_hash"),
    total="SELECT count(*) FROM record.ves_validity_proofs WHERE " + _SCOPE,
    batch_rows=200,
    bind=_validity_proof,
)
SEALED_TABLES = {table.name: table for table in (VES_EVENTS, EVENTS, VALIDITY_PROOFS)}


def place_of(row: asyncpg.Record) -> dict[str, str | int]:
    """What names a row to people: never its content."""
    names = ("tenant_id", "store_id", "sequence_number" if "sequence_number" in row else "proof_id")
    return {name: value if isinstance(value := row[name], int) else uuid_text(value) for name in names}
