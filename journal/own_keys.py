"""Keys of our own: under which key receipts are signed, and which at-rest keys data may exist under.

Records public keys and fingerprints, never a secret. A node that starts with another key than the recorded
one is stopped here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.audit import write_audit
from journal.port import AtRestKeyMissing, AuditEntry, ReceiptKey, ReceiptKeyDiffers
from journal.units import Undo
from ves.encoding import uuid_text
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection


def receipt_key_claimed(sequencer_id: Uuid, public_key: bytes) -> AuditEntry:
    subject = f"{uuid_text(sequencer_id)}/1"
    details: dict[str, str | int | None] = {"public_key": public_key.hex(), "outcome": "done"}
    return AuditEntry("system", "receipt_key.claim", subject, None, details)


def at_rest_key_claimed(key_id: bytes) -> AuditEntry:
    return AuditEntry("system", "at_rest_key.claim", key_id.hex(), None, {"outcome": "done"})


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


async def claim_at_rest_keys(connection: Connection, node_id: Uuid, key_ids: list[bytes]) -> None:
    recorded = await at_rest_key_ids(connection)
    missing = [key_id.hex() for key_id in recorded if key_id not in key_ids]
    if missing:
        raise AtRestKeyMissing(
            f"data exists under the at-rest key {', '.join(missing)}, which is not in the ring: "
            "restore the key file or add the key to PAYLOAD_ENCRYPTION_KEYS"
        )
    await connection.execute(
        "INSERT INTO record.at_rest_keys (key_id, first_seen_at) "
        "SELECT k, clock_timestamp() FROM unnest($1::bytea[]) AS k ORDER BY k ON CONFLICT DO NOTHING",
        key_ids,
    )
    for key_id in dict.fromkeys(key_ids):
        if key_id not in recorded:
            await write_audit(connection, node_id, at_rest_key_claimed(key_id))


async def at_rest_key_ids(connection: Connection) -> list[bytes]:
    return [row[0] for row in await connection.fetch("SELECT key_id FROM record.at_rest_keys ORDER BY 1")]
