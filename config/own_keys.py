"""The keys that only an encryptor may have: the at-rest ring and the seeds that sign receipts.

One object holds them, shows nothing of them, and hands them to an encryptor at the start of each of its
lives; everybody else knows public keys and fingerprints. Seeds are named by their public key and never
overwritten:

    DATA_DIR/keys/receipt-signing-seed                  the first, made at the first start
    DATA_DIR/keys/receipt-signing-seed.PUBLIC_KEY_HEX   one per rotation

Which of them signs is not decided here but recorded in the journal. So whatever dies in a rotation, a file
without a record is an unused key, and a record without a file does not happen: the file comes first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from config.key_files import Checkpoint, prepare_folder, read_or_create_secret, read_secret
from config.secret_sources import SecretsError
from config.settings import PayloadEncryptionMode

KEY_BYTES = 32
"""Of at-rest keys (AES-256) and of the Ed25519 seed."""
SEED_FILE = "receipt-signing-seed"

ParseKey = Callable[[str], bytes]
"""32 bytes from a key's text (VES 1.5); ValueError, without the value, for anything else."""
KeyId = Callable[[bytes], bytes]
"""From an at-rest key to the id that the journal knows it by."""
PublicKeyOf = Callable[[bytes], bytes]
"""From an Ed25519 seed to its public key."""


def new_key() -> str:
    return secrets.token_hex(KEY_BYTES)


def parsed_key(text: str, what: str, parse_key: ParseKey) -> bytes:
    try:
        return parse_key(text)
    except ValueError:
        raise SecretsError(f"{what} is no key of {KEY_BYTES} bytes in hex, base64 or base64url") from None


class ReceiptSeeds:
    """The seeds of one node, by public key. Given ones are held; of the others the files are read."""

    __slots__ = ("_folder", "_given", "_parse_key", "_public_key_of")

    def __init__(
        self, folder: Path, given: tuple[bytes, ...], *, parse_key: ParseKey, public_key_of: PublicKeyOf
    ) -> None:
        """``given``: the current seed and perhaps the previous one; then the files are not looked at."""
        self._folder = folder
        self._given = {public_key_of(seed): seed for seed in given}
        self._parse_key = parse_key
        self._public_key_of = public_key_of

    @property
    def are_given(self) -> bool:
        """Not ours to make: they come from VES_SEQUENCER_SIGNING_KEY."""
        return bool(self._given)

    def public_keys(self) -> list[bytes]:
        """Given ones: the current one first. From files: those there are, the first made first."""
        if self._given:
            return list(self._given)
        return [self._public_key_of(self._read(path)) for path in self._files()]

    def seed(self, public_key: bytes) -> bytes:
        """The 32 bytes that sign for this public key; SecretsError when they are not here."""
        if self._given:
            found = self._given.get(public_key)
        else:
            named = self._named(public_key)
            places = [path for path in (named, self._folder / SEED_FILE) if path.exists()]
            found = next((s for s in map(self._read, places) if self._public_key_of(s) == public_key), None)
        if found is None:
            if self._given:
                where = "VES_SEQUENCER_SIGNING_KEY"
            else:
                where = f"{self._folder / SEED_FILE}*; if the server is given it, give it here too"
            raise SecretsError(f"no seed for the receipt key {public_key.hex()} in {where}")
        return found

    def make(self, checkpoint: Checkpoint) -> bytes:
        """A fresh seed in a file of its own, durable and 0600. Answers its public key."""
        prepare_folder(self._folder)
        text = new_key()
        public_key = self._public_key_of(bytes.fromhex(text))
        read_or_create_secret(self._named(public_key), lambda: text, checkpoint)
        return public_key

    def _named(self, public_key: bytes) -> Path:
        return self._folder / f"{SEED_FILE}.{public_key.hex()}"

    def _files(self) -> list[Path]:
        first, others = self._folder / SEED_FILE, sorted(self._folder.glob(f"{SEED_FILE}.*"))
        return [first, *others] if first.exists() else others

    def _read(self, path: Path) -> bytes:
        return parsed_key(read_secret(path), str(path), self._parse_key)

    def __repr__(self) -> str:
        return "ReceiptSeeds(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not copied or pickled")


class OwnKeys:
    """The one holder of both. Its repr shows nothing."""

    __slots__ = (
        "_by_tenant",
        "_ring",
        "at_rest_current_ids",
        "at_rest_key_ids",
        "at_rest_key_ids_by_tenant",
        "at_rest_mode",
        "receipt_seeds",
    )

    def __init__(
        self,
        ring: tuple[bytes, ...],
        receipt_seeds: ReceiptSeeds,
        *,
        key_id: KeyId,
        mode: PayloadEncryptionMode = "required",
        by_tenant: Mapping[bytes, tuple[bytes, ...]] | None = None,
    ) -> None:
        """``ring``: 32 bytes each, the current one first; ``by_tenant``: rings of tenants that have their
        own, by tenant_id of 16 bytes."""
        self._ring = ring
        self._by_tenant = dict(by_tenant or {})
        self.at_rest_key_ids = [key_id(key) for key in ring]
        self.at_rest_key_ids_by_tenant = {
            tenant_id: [key_id(key) for key in keys] for tenant_id, keys in self._by_tenant.items()
        }
        self.at_rest_current_ids = [key_id(keys[0]) for keys in (ring, *self._by_tenant.values())]
        """Of those that seal: the first of each ring."""
        self.at_rest_mode = mode
        self.receipt_seeds = receipt_seeds

    def at_rest_ring(self) -> tuple[bytes, ...]:
        return self._ring

    def at_rest_rings_by_tenant(self) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
        return tuple(self._by_tenant.items())

    def __repr__(self) -> str:
        return "OwnKeys(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not copied or pickled")
