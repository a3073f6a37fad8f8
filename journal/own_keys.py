"""Keys of our own: under which key receipts are signed, and which at-rest keys data may exist under.

Records public keys and fingerprints, never a secret. A node that starts with another key than the recorded
one is stopped here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from journal.at_rest_rules import Rings, new_keys, newcomers
from journal.audit import write_audit
from journal.port import (
    AtRestKeyMissing,
    AtRestKeyRetired,
    AuditEntry,
    PlaintextRemains,
    ReceiptKey,
    ReceiptKeyDiffers,
)
from journal.units import Undo
from ves.encoding import uuid_text
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

RING_ENTRIES_MAX = 20
REENCRYPT_COMMANDS = {
    "ves_events": "reencrypt-ves-events",
    "events": "reencrypt-events",
    "ves_validity_proofs": "reencrypt-ves-validity-proofs",
}
"""What seals each table anew, ``sequencer admin …``."""


def receipt_key_claimed(sequencer_id: Uuid, public_key: bytes) -> AuditEntry:
    subject = f"{uuid_text(sequencer_id)}/1"
    details: dict[str, str | int | None] = {"public_key": public_key.hex(), "outcome": "done"}
    return AuditEntry("system", "receipt_key.claim", subject, None, details)


def at_rest_keys_claimed(new: Rings) -> list[AuditEntry]:
    """One for each new key of the default ring, and one for each tenant whose ring has new keys, but of very
    many tenants one for all: a start must not take minutes. The record has each key of each."""
    entries = [_claimed(key_id.hex(), None) for key_id in new.default]
    if len(new.by_tenant) > RING_ENTRIES_MAX:
        return [*entries, _claimed(f"{len(new.by_tenant)} tenants", None)]
    return entries + [
        _claimed(" ".join(key_id.hex() for key_id in key_ids), tenant_id)
        for tenant_id, key_ids in new.by_tenant.items()
    ]


def _claimed(subject: str, tenant_id: Uuid | None) -> AuditEntry:
    return AuditEntry("system", "at_rest_key.claim", subject, tenant_id, {"outcome": "done"})


async def claim_receipt_key(
    connection: Connection, node_id: Uuid, sequencer_id: Uuid, public_key: bytes
) -> int:
    done = await connection.execute(
        "INSERT INTO record.receipt_keys (sequencer_id, key_version, created_at, public_key) "
        "SELECT $1, 1, clock_timestamp(), $2 "
        "WHERE NOT EXISTS (SELECT FROM record.receipt_keys WHERE sequencer_id = $1) ON CONFLICT DO NOTHING",
        sequencer_id,
        public_key,
    )
    if done == "INSERT 0 1":
        await write_audit(connection, node_id, receipt_key_claimed(sequencer_id, public_key))
    row = await connection.fetchrow(
        "SELECT key_version, public_key FROM record.receipt_keys WHERE sequencer_id = $1 "
        "ORDER BY key_version DESC LIMIT 1",
        sequencer_id,
    )
    assert row is not None, "recorded by us or by another"
    if row[1] != public_key:
        raise ReceiptKeyDiffers(
            f"sequencer {uuid_text(sequencer_id)} signs with {row[1].hex()} (version {row[0]}) as recorded, "
            f"but this node's key is {public_key.hex()}: give it the recorded key, or an id of its own. "
            "After receipt-key rotate the recorded key's seed is in DATA_DIR/keys; for a change of your own, "
            "give the recorded key as VES_SEQUENCER_SIGNING_KEY_PREVIOUS"
        )
    return int(row[0])


async def receipt_keys(connection: Connection) -> list[ReceiptKey]:
    rows = await connection.fetch(
        "SELECT sequencer_id, key_version, public_key, created_at, "
        "key_version = max(key_version) OVER (PARTITION BY sequencer_id), previous_signature "
        "FROM record.receipt_keys ORDER BY sequencer_id, key_version"
    )
    return [ReceiptKey(*row) for row in rows]


async def rotate_receipt_key(
    connection: Connection, node_id: Uuid, key: ReceiptKey, audit: AuditEntry
) -> ReceiptKey:
    inserted = await connection.fetchval(
        # Whoever is second at one version waits here for the first, and then finds its row.
        "INSERT INTO record.receipt_keys (sequencer_id, key_version, created_at, public_key, "
        "previous_signature) SELECT $1, $2::integer, clock_timestamp(), $3, $4 "
        "WHERE $2 - 1 = (SELECT max(key_version) FROM record.receipt_keys WHERE sequencer_id = $1) "
        "AND NOT EXISTS (SELECT FROM record.receipt_keys WHERE sequencer_id = $1 AND public_key = $3) "
        "ON CONFLICT DO NOTHING RETURNING key_version",
        key.sequencer_id,
        key.key_version,
        key.public_key,
        key.previous_signature,
    )
    chain = [one for one in await receipt_keys(connection) if one.sequencer_id == key.sequencer_id]
    if inserted is None:
        refuse_a_retired_key(chain, key)
        raise Undo(chain[-1])
    await write_audit(connection, node_id, audit)
    return chain[-1]


def refuse_a_retired_key(chain: list[ReceiptKey], key: ReceiptKey) -> None:
    """ReceiptKeyDiffers when the sequencer is unknown, or had this key under another version."""
    if not chain:
        raise ReceiptKeyDiffers(f"sequencer {uuid_text(key.sequencer_id)} has no receipt key to rotate yet")
    for one in chain:
        if one.public_key == key.public_key and one.key_version != key.key_version:
            raise ReceiptKeyDiffers(
                f"sequencer {uuid_text(key.sequencer_id)} had the receipt key {key.public_key.hex()} before, "
                f"as version {one.key_version}: give it a new one"
            )


async def claim_at_rest_keys(
    connection: Connection, node_id: Uuid, held: Rings, *, current: list[bytes], required: bool
) -> None:
    recorded = await _recorded_rings(connection)
    retired = await _retired(connection)
    check_current(current, retired)
    new = new_keys(recorded, held, await _with_data(connection, newcomers(recorded, held)), retired)
    if required:
        check_plaintext(await tables_with_plaintext(connection))
    await connection.execute(
        "INSERT INTO record.at_rest_keys (key_id, first_seen_at) "
        "SELECT k, clock_timestamp() FROM unnest($1::bytea[]) AS k ORDER BY k ON CONFLICT DO NOTHING",
        new.default,
    )
    pairs = [(tenant_id, key_id) for tenant_id, key_ids in new.by_tenant.items() for key_id in key_ids]
    await connection.execute(
        "INSERT INTO record.tenant_at_rest_keys (tenant_id, key_id, first_seen_at) "
        "SELECT t, k, clock_timestamp() FROM unnest($1::uuid[], $2::bytea[]) AS new (t, k) "
        "ORDER BY t, k ON CONFLICT DO NOTHING",
        [tenant_id for tenant_id, _ in pairs],
        [key_id for _, key_id in pairs],
    )
    for entry in at_rest_keys_claimed(new):
        await write_audit(connection, node_id, entry)


async def _recorded_rings(connection: Connection) -> Rings:
    default = await connection.fetch("SELECT key_id FROM record.at_rest_keys ORDER BY 1")
    by_tenant: defaultdict[Uuid, list[bytes]] = defaultdict(list)
    for tenant_id, key_id in await connection.fetch(
        "SELECT tenant_id, key_id FROM record.tenant_at_rest_keys ORDER BY 1, 2"
    ):
        by_tenant[tenant_id].append(key_id)
    return Rings([row[0] for row in default], by_tenant)


async def _with_data(connection: Connection, tenants: list[Uuid]) -> set[Uuid]:
    """Those that ever had a number given to an event, of either stream, archived or not."""
    rows = await connection.fetch(
        "SELECT t FROM unnest($1::uuid[]) AS t "
        "WHERE EXISTS (SELECT FROM record.ves_sequence_counters c WHERE c.tenant_id = t) "
        "OR EXISTS (SELECT FROM record.sequence_counters c WHERE c.tenant_id = t)",
        tenants,
    )
    return {row[0] for row in rows}


async def _retired(connection: Connection) -> set[bytes]:
    return {row[0] for row in await connection.fetch("SELECT key_id FROM record.at_rest_key_retirements")}


def check_current(current: list[bytes], retired: set[bytes]) -> None:
    """Raises AtRestKeyRetired."""
    for key_id in current:
        if key_id in retired:
            raise AtRestKeyRetired(
                f"the at-rest key {key_id.hex()} is retired and seals nothing any more: "
                "give this node the current ring (PAYLOAD_ENCRYPTION_KEYS, current key first)"
            )


def check_plaintext(tables: list[str]) -> None:
    """Raises PlaintextRemains when there is one."""
    if tables:
        commands = ", ".join(f"sequencer admin {REENCRYPT_COMMANDS[table]}" for table in tables)
        raise PlaintextRemains(
            "PAYLOAD_ENCRYPTION_MODE is required, but plaintext was written (mode disabled) and would not be "
            f"readable: start with optional, and required once these have finished: {commands}"
        )


async def tables_with_plaintext(connection: Connection) -> list[str]:
    """Those in which plaintext was written after the last re-encryption that left none. A few rows are
    looked at, however long the tables are."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (table_name) table_name, noted FROM record.at_rest_notes "
        "WHERE noted <> 'sweep' ORDER BY table_name, note_number DESC"
    )
    return [row[0] for row in rows if row[1] == "plaintext"]


async def is_at_rest_key(connection: Connection, key_id: bytes) -> bool | None:
    """Whether it is retired; None for a key that no node ever had."""
    row = await connection.fetchrow(
        "SELECT EXISTS (SELECT FROM record.at_rest_key_retirements r WHERE r.key_id = k.key_id) "
        "FROM (SELECT key_id FROM record.at_rest_keys UNION SELECT key_id FROM record.tenant_at_rest_keys) k "
        "WHERE k.key_id = $1",
        key_id,
    )
    return None if row is None else bool(row[0])


async def retire_at_rest_key(connection: Connection, node_id: Uuid, key_id: bytes, audit: AuditEntry) -> bool:
    if await is_at_rest_key(connection, key_id) is None:
        raise AtRestKeyMissing(f"no node ever had an at-rest key {key_id.hex()}: there is nothing to retire")
    done = await connection.execute(
        "INSERT INTO record.at_rest_key_retirements (key_id, retired_at) "
        "VALUES ($1, clock_timestamp()) ON CONFLICT DO NOTHING",
        key_id,
    )
    if done != "INSERT 0 1":
        raise Undo(False)
    await write_audit(connection, node_id, audit)
    return True


async def at_rest_key_ids(connection: Connection) -> list[bytes]:
    """Of every ring, without those that are retired."""
    rows = await connection.fetch(
        "SELECT key_id FROM record.at_rest_keys UNION SELECT key_id FROM record.tenant_at_rest_keys "
        "EXCEPT SELECT key_id FROM record.at_rest_key_retirements ORDER BY 1"
    )
    return [row[0] for row in rows]
