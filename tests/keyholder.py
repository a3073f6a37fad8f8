"""Keys for a house that a test builds: what ``load_secrets`` would give, from bytes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from config.own_keys import OwnKeys, ReceiptSeeds
from config.secrets import Secrets
from journal.port import ReceiptKey
from ves.at_rest import key_id, parse_key
from ves.signatures import Signer


def public_key_of(seed: bytes) -> bytes:
    return Signer(seed).public_key


def own_keys(seed: bytes, ring: tuple[bytes, ...]) -> OwnKeys:
    seeds = ReceiptSeeds(Path("/nonexistent"), (seed,), parse_key=parse_key, public_key_of=public_key_of)
    return OwnKeys(ring, seeds, key_id=key_id)


def secrets_of(bootstrap_key: str, seed: bytes, sequencer_id: bytes, ring: tuple[bytes, ...]) -> Secrets:
    return Secrets(sha256(bootstrap_key.encode()).digest(), sequencer_id, own_keys(seed, ring))


def first_receipt_key(seed: bytes, sequencer_id: bytes) -> ReceiptKey:
    """As a first start claims it."""
    return ReceiptKey(sequencer_id, 1, public_key_of(seed), 0, True)
