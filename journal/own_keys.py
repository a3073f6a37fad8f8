"""Keys of our own: under which key receipts are signed, and which at-rest keys data may exist under.

Records public keys and fingerprints, never a secret. A node that starts with another key than the recorded
one is stopped here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from journal.at_rest_rules import Rings, new_keys, newcomers
from journal.audit import write_audit
from journal.port import AuditEntry, ReceiptKey, ReceiptKeyDiffers
from journal.units import Undo
from ves.encoding import uuid_text
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

RING_ENTRIES_MAX = 20


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


async def claim_at_rest_keys(connection: Connection, node_id: Uuid, held: Rings) -> None:
    recorded = await _recorded_rings(connection)
    new = new_keys(recorded, held, await _with_data(connection, newcomers(recorded, held)))
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
