"""The chain of a sequencer's receipt keys: how a new key is vouched for by the one before it.

    statement = SHA-256("VES_RECEIPT_KEY_V1" || UUID(sequencer_id) || U32(key_version) || new_public_key[32])

``previous_signature`` is the Ed25519 signature of version ``key_version - 1`` over that statement; version 1
has none. So whoever believes one version can follow to every later one, and to no key that its predecessor
did not sign. It alone knows the statement's preimage. It cannot tell an honest rotation from one by a thief
of the old key: a chain says who passed the pen on, not whether it was stolen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from ves.constants import RECEIPT_KEY
from ves.encoding import u32
from ves.records import Uuid
from ves.signatures import Signer, verify_signature

FIRST_VERSION = 1


class BrokenChain(ValueError):
    """A key is shown that its predecessor did not sign, or that contradicts a key already believed."""


class ReceiptKeyLink(NamedTuple):
    """One published key of one sequencer."""

    key_version: int
    public_key: bytes
    previous_signature: bytes | None


def rotation_statement(sequencer_id: Uuid, key_version: int, new_public_key: bytes) -> bytes:
    """The 32 bytes that the old key signs; the preimage has 70. ``key_version`` is the new key's."""
    return sha256(RECEIPT_KEY + sequencer_id + u32(key_version) + new_public_key).digest()


def sign_rotation(previous: Signer, sequencer_id: Uuid, key_version: int, new_public_key: bytes) -> bytes:
    """The new key's ``previous_signature``."""
    return previous.sign(rotation_statement(sequencer_id, key_version, new_public_key))


def rotation_holds(previous_public_key: bytes, sequencer_id: Uuid, link: ReceiptKeyLink) -> bool:
    """Whether the key before it signed this one."""
    statement = rotation_statement(sequencer_id, link.key_version, link.public_key)
    return verify_signature(previous_public_key, statement, link.previous_signature or b"")


def follow(
    believed: Mapping[int, bytes], sequencer_id: Uuid, shown: Iterable[ReceiptKeyLink]
) -> dict[int, bytes]:
    """What is believed of one sequencer, by version, after looking at what it shows: ``believed`` and every
    later key, each signed by the one before.

    Nothing believed yet: the lowest shown version is taken at its word. Versions below the lowest believed
    one are left out: nothing leads back to them. BrokenChain when a believed key is shown differently or no
    longer, a version is shown twice or missing in between, or a signature is missing or wrong."""
    links: dict[int, ReceiptKeyLink] = {}
    for link in shown:
        if links.setdefault(link.key_version, link).public_key != link.public_key:
            raise BrokenChain(f"version {link.key_version} is shown with two keys")
    keys = dict(believed)
    for version, key in believed.items():
        if version not in links or links[version].public_key != key:
            raise BrokenChain(f"version {version} is no longer shown as it was")
    if not keys and links:
        first = min(links)
        keys[first] = links[first].public_key
    for version in sorted(v for v in links if v > min(keys)):
        link, previous = links[version], keys.get(version - 1)
        if previous is None:
            raise BrokenChain(f"version {version} is shown without version {version - 1}")
        if not rotation_holds(previous, sequencer_id, link):
            raise BrokenChain(f"version {version} is not signed by version {version - 1}")
        keys[version] = link.public_key
    return keys
