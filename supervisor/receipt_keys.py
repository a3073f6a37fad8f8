"""The node's receipt key at a start, and its rotation: which key is claimed, and in which order things
happen.

    seed in a file, durable and 0600    a crash here leaves an unused key
    row in the journal, with its audit  from here on it is the node's key: the record decides, not a file
    next life of an encryptor           signs with it

The old key signs the new one before the row is written. Every step can be repeated; two rotations at once
make one new version each or one of them learns that the other was first. Alone decides this order; the seed
of the old key passes through here for the length of one signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from config.key_files import Checkpoint
from config.own_keys import ReceiptSeeds
from config.secret_sources import SecretsError
from journal.port import AuditEntry, Journal, ReceiptKey
from ves.encoding import uuid_text
from ves.receipt_keys import sign_rotation
from ves.records import Uuid
from ves.signatures import Signer

COMPROMISED = """\
What this cannot undo: whoever has the old key can still sign receipts that name its version, for any event
and any number, and date them as they like: a receipt does not carry its time under the signature. From now
on a receipt of the old version counts only together with a commitment that was kept or anchored before the
theft, or with the stream itself. The thief can also sign a rival successor: tell those who pinned the old
key, by another way than this server, which key is the right one."""


GIVEN = "receipt-key-is-given"
"""Under DATA_DIR since a start whose key came from VES_SEQUENCER_SIGNING_KEY: whoever rotates from a shell
may not have that variable, and a seed that lies in a file all the same would become a key no start knows."""


class RotatedMeanwhile(SecretsError):
    """Another rotation was first; nothing of ours was recorded."""


@dataclass(frozen=True)
class Claimed:
    key: ReceiptKey
    rotated: bool
    """By us, just now."""


async def claim(journal: Journal, sequencer_id: Uuid, seeds: ReceiptSeeds) -> Claimed:
    """The key that the journal has recorded as newest and whose seed is here; recorded now if none was. With
    VES_SEQUENCER_SIGNING_KEY_PREVIOUS given and recorded, the current one becomes the next version.

    Raises ReceiptKeyDiffers and SecretsError: do not start."""
    recorded = await _chain(journal, sequencer_id)
    here = seeds.public_keys()
    if not recorded:
        if not seeds.are_given and len(here) > 1:
            raise SecretsError(
                f"{len(here)} receipt seeds and no record of which one signs: is this the right database? "
                "For a new one, move all but the seed to sign with out of DATA_DIR/keys"
            )
        await journal.claim_receipt_key(sequencer_id, here[0])
        recorded = await _chain(journal, sequencer_id)
    newest = recorded[-1]
    if newest.public_key == here[0] or (not seeds.are_given and newest.public_key in here):
        return Claimed(newest, rotated=False)
    if seeds.are_given and newest.public_key in here:
        rotated = await _record(journal, seeds, newest, here[0], "system", {"from": "environment"})
        return Claimed(rotated, rotated=True)
    await journal.claim_receipt_key(sequencer_id, here[0])  # raises: it says which key was recorded
    return Claimed(newest, rotated=False)


async def current(journal: Journal, sequencer_id: Uuid) -> ReceiptKey:
    """The key to be rotated."""
    recorded = await _chain(journal, sequencer_id)
    if not recorded:
        raise SecretsError(f"sequencer {uuid_text(sequencer_id)} has no receipt key recorded: start it first")
    return recorded[-1]


def may_rotate(seeds: ReceiptSeeds, data_dir: Path) -> None:
    """Raises SecretsError when the seeds are not files that we may add to."""
    if seeds.are_given or (data_dir / GIVEN).exists():
        raise SecretsError(
            "the receipt key is given by VES_SEQUENCER_SIGNING_KEY: give a new one there, the old one as "
            "VES_SEQUENCER_SIGNING_KEY_PREVIOUS, and restart; the start then signs and records it"
        )
    if not seeds.public_keys():
        raise SecretsError(f"there is no receipt seed in {data_dir / 'keys'}")


def note_source(seeds: ReceiptSeeds, data_dir: Path) -> None:
    """At each start, for ``may_rotate``."""
    if seeds.are_given:
        (data_dir / GIVEN).touch(mode=0o600)
    else:
        (data_dir / GIVEN).unlink(missing_ok=True)


def make_seed(seeds: ReceiptSeeds, old: ReceiptKey, checkpoint: Checkpoint) -> bytes:
    """A fresh seed, once it is sure that the old one is here to vouch for it. Answers its public key."""
    seeds.seed(old.public_key)
    return seeds.make(checkpoint)


async def rotate(
    journal: Journal,
    seeds: ReceiptSeeds,
    old: ReceiptKey,
    public_key: bytes,
    *,
    compromised: bool,
    reason: str,
) -> ReceiptKey:
    """``public_key``, whose seed is durable, is now the next version: may be done again after any failure.
    Raises RotatedMeanwhile, and what the journal raises."""
    details: dict[str, str | int | None] = {"compromised": int(compromised), "reason": reason or None}
    return await _record(journal, seeds, old, public_key, "cli", details)


async def _record(
    journal: Journal,
    seeds: ReceiptSeeds,
    old: ReceiptKey,
    public_key: bytes,
    actor: str,
    details: dict[str, str | int | None],
) -> ReceiptKey:
    version = old.key_version + 1
    signature = sign_rotation(Signer(seeds.seed(old.public_key)), old.sequencer_id, version, public_key)
    details |= {"key_version": version, "public_key": public_key.hex(), "outcome": "done"}
    subject = f"{uuid_text(old.sequencer_id)}/{version}"
    new = ReceiptKey(old.sequencer_id, version, public_key, 0, True, signature)
    newest = await journal.rotate_receipt_key(
        new, AuditEntry(actor, "receipt_key.rotate", subject, None, details)
    )
    # Recorded, durably, from here on: ours, or another's. Ours may even have a successor by now, when this is
    # the second try after one that nobody heard of.
    for recorded in [newest, *await _chain(journal, old.sequencer_id)]:
        if recorded.public_key == public_key:
            return recorded
    raise RotatedMeanwhile(
        f"another rotation was first: version {newest.key_version} is {newest.public_key.hex()}; "
        "the seed made for this one is unused"
    )


async def _chain(journal: Journal, sequencer_id: Uuid) -> list[ReceiptKey]:
    return [key for key in await journal.receipt_keys() if key.sequencer_id == sequencer_id]
