"""What must not be read by others: keys that were given, or made on first start and kept as files.

    DATA_DIR                              0700
    DATA_DIR/keys                         0700, every file in it 0600
    DATA_DIR/keys/bootstrap-admin-api-key `ss_` + 43 random characters
    DATA_DIR/keys/receipt-signing-seed…   Ed25519 seeds, hex: ``config.own_keys``
    DATA_DIR/keys/payload-encryption-keys at-rest ring, current first, hex, one a line
    DATA_DIR/keys/payload-encryption-keys-by-tenant  JSON, never made by us: ``config.tenant_rings``
    DATA_DIR/keys/sequencer-id            UUID; not secret, but it belongs to the seed

Alone knows which secret is where. Never prints, logs or puts into an error a value: an error names the
variable or the file and what helps.
"""

from __future__ import annotations

import os
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import SecretStr

from config.key_files import Checkpoint, prepare_folder, read_or_create_secret, read_secret
from config.own_keys import (
    SEED_FILE,
    KeyId,
    OwnKeys,
    ParseKey,
    PublicKeyOf,
    ReceiptSeeds,
    new_key,
    parsed_key,
)
from config.secret_sources import SecretsError
from config.settings import Settings
from config.tenant_rings import parse_rings

BOOTSTRAP_KEY_PREFIX = "ss_"
BOOTSTRAP_KEY_CHARACTERS_MIN = 24
"""After the prefix."""
RINGS_BY_TENANT_FILE = "payload-encryption-keys-by-tenant"
AT_REST_FILE = "payload-encryption-keys"
_DISTINCT_CHARACTERS_MIN = 8
"""Even 24 random hex digits have fewer only once in thousands; "aaaa…" and "0123…" loops do."""


@dataclass(frozen=True)
class Secrets:
    """What a node knows of its secrets. The keys themselves are in ``keys``, for encryptors alone."""

    bootstrap_key_sha256: bytes
    sequencer_id: bytes
    """16 bytes; public."""
    keys: OwnKeys = field(repr=False)
    created: tuple[Path, ...] = ()
    """Files made just now, for the operator to know of and to back up."""


@dataclass(frozen=True)
class Formats:
    """How a key is spelled and named: the protocol's business, so it comes in as functions."""

    parse_key: ParseKey
    key_id: KeyId
    public_key_of: PublicKeyOf


def load_secrets(
    settings: Settings,
    data_dir: Path,
    formats: Formats,
    *,
    checkpoint: Checkpoint = lambda name: None,
) -> Secrets:
    """From where the settings say, else from the files, which are made where there are none.

    ``data_dir`` was prepared by ``prepare_data_dir`` and nobody else uses it now. Raises SecretsError."""
    return _Loading(data_dir / "keys", formats, checkpoint).secrets(settings)


def load_receipt_seeds(settings: Settings, data_dir: Path, formats: Formats) -> tuple[bytes, ReceiptSeeds]:
    """The sequencer_id and the seeds of a node that has run before. Makes nothing and asks for no other
    secret. Raises SecretsError."""
    loading = _Loading(data_dir / "keys", formats, lambda name: None)
    if settings.ves_sequencer_id is None and not (data_dir / "keys" / "sequencer-id").exists():
        raise SecretsError(f"no sequencer has run on DATA_DIR {data_dir} yet: there is no key to rotate")
    return loading.sequencer_id(settings.ves_sequencer_id), loading.receipt_seeds(settings)


def load_at_rest_keys(settings: Settings, data_dir: Path, formats: Formats) -> tuple[bytes, OwnKeys]:
    """The sequencer_id and the rings of a node that has run before. Makes nothing. Raises SecretsError."""
    sequencer_id, seeds = load_receipt_seeds(settings, data_dir, formats)
    ring = data_dir / "keys" / AT_REST_FILE
    given = settings.payload_encryption_keys or settings.payload_encryption_key
    if given is None and not ring.exists():
        raise SecretsError(
            f"no at-rest keys ({ring} is not there): give this command the server's PAYLOAD_ENCRYPTION_KEYS"
        )
    return sequencer_id, _Loading(data_dir / "keys", formats, lambda name: None).own_keys(settings, seeds)


def load_sequencer_id(settings: Settings, data_dir: Path, formats: Formats) -> bytes:
    """The sequencer_id of a node that has run before, and no secret. Makes nothing. Raises SecretsError."""
    if settings.ves_sequencer_id is None and not (data_dir / "keys" / "sequencer-id").exists():
        raise SecretsError(f"no sequencer has run on DATA_DIR {data_dir} yet")
    return _Loading(data_dir / "keys", formats, lambda name: None).sequencer_id(settings.ves_sequencer_id)


def load_or_make_sequencer_id(settings: Settings, data_dir: Path, formats: Formats) -> bytes:
    """Of a node that serves nothing, and needs no other secret for being one. Raises SecretsError."""
    return _Loading(data_dir / "keys", formats, lambda name: None).sequencer_id(settings.ves_sequencer_id)


def prepare_data_dir(data_dir: Path) -> None:
    """Afterwards it exists, is ours, and nobody else can read or write it. Raises SecretsError.

    An empty folder (a fresh volume) is closed to others; one that holds something and is open to others is
    refused: it may be a folder that somebody else shares on purpose."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = data_dir.stat()
        if found.st_uid != os.geteuid():
            raise SecretsError(f"DATA_DIR {data_dir} belongs to uid {found.st_uid}, we are {os.geteuid()}")
        if found.st_mode & 0o066:
            if any(data_dir.iterdir()):
                raise SecretsError(f"DATA_DIR {data_dir} is open to others: chmod 700 {data_dir}")
            data_dir.chmod(0o700)
    except OSError as error:
        raise SecretsError(f"DATA_DIR {data_dir} cannot be used: {error.strerror}") from None


class _Loading:
    """Walks over the secrets and remembers which files it made."""

    def __init__(self, keys_dir: Path, formats: Formats, checkpoint: Checkpoint) -> None:
        self._dir = keys_dir
        self._formats = formats
        self._checkpoint = checkpoint
        self._created: list[Path] = []

    def secrets(self, settings: Settings) -> Secrets:
        bootstrap = self._bootstrap_api_key(settings.bootstrap_admin_api_key)
        seeds = self.receipt_seeds(settings)
        if not seeds.are_given:
            self._clear_away(SEED_FILE)
        if not seeds.public_keys():
            self._given_or_file(None, "VES_SEQUENCER_SIGNING_KEY", SEED_FILE, new_key)
        return Secrets(
            bootstrap_key_sha256=sha256(bootstrap.encode()).digest(),
            sequencer_id=self.sequencer_id(settings.ves_sequencer_id),
            keys=self.own_keys(settings, seeds),
            created=tuple(self._created),
        )

    def own_keys(self, settings: Settings, seeds: ReceiptSeeds) -> OwnKeys:
        return OwnKeys(
            self._at_rest_ring(settings),
            seeds,
            key_id=self._formats.key_id,
            mode=settings.payload_encryption_mode,
            by_tenant=self._at_rest_rings_by_tenant(settings.payload_encryption_keys_by_tenant),
        )

    def _bootstrap_api_key(self, given: SecretStr | None) -> str:
        text, what = self._given_or_file(
            given,
            "BOOTSTRAP_ADMIN_API_KEY",
            "bootstrap-admin-api-key",
            lambda: BOOTSTRAP_KEY_PREFIX + secrets.token_urlsafe(32),
        )
        return _check_bootstrap_key(text, what)

    def receipt_seeds(self, settings: Settings) -> ReceiptSeeds:
        current, previous = settings.ves_sequencer_signing_key, settings.ves_sequencer_signing_key_previous
        if current is None and previous is not None:
            raise SecretsError(
                "VES_SEQUENCER_SIGNING_KEY_PREVIOUS is given without VES_SEQUENCER_SIGNING_KEY"
            )
        named = ((current, "VES_SEQUENCER_SIGNING_KEY"), (previous, "VES_SEQUENCER_SIGNING_KEY_PREVIOUS"))
        given = tuple(self._key(_value(secret), name) for secret, name in named if secret is not None)
        if not given and self._dir.exists():
            prepare_folder(self._dir)
        return ReceiptSeeds(
            self._dir, given, parse_key=self._formats.parse_key, public_key_of=self._formats.public_key_of
        )

    def sequencer_id(self, given: uuid.UUID | None) -> bytes:
        if given is not None:
            return given.bytes
        text, what = self._given_or_file(None, "VES_SEQUENCER_ID", "sequencer-id", lambda: str(uuid.uuid4()))
        try:
            return uuid.UUID(text).bytes
        except ValueError:
            raise SecretsError(f"{what} is no UUID") from None

    def _at_rest_ring(self, settings: Settings) -> tuple[bytes, ...]:
        if settings.payload_encryption_keys is not None or settings.payload_encryption_key is None:
            given, name = settings.payload_encryption_keys, "PAYLOAD_ENCRYPTION_KEYS"
        else:
            given, name = settings.payload_encryption_key, "PAYLOAD_ENCRYPTION_KEY"
        text, what = self._given_or_file(given, name, AT_REST_FILE, new_key)
        # A trailing comma is a typing slip that could hide a key left out: refused as an empty key.
        words = text.split(",") if given is not None else text.split()
        if name == "PAYLOAD_ENCRYPTION_KEY" and len(words) > 1:
            raise SecretsError("PAYLOAD_ENCRYPTION_KEY is one key; several go into PAYLOAD_ENCRYPTION_KEYS")
        return self._ring(words, what)

    def _at_rest_rings_by_tenant(self, given: SecretStr | None) -> dict[bytes, tuple[bytes, ...]]:
        path = self._dir / RINGS_BY_TENANT_FILE
        if given is not None:
            return parse_rings(_value(given), "PAYLOAD_ENCRYPTION_KEYS_BY_TENANT", self._ring)
        if not path.exists():
            return {}
        prepare_folder(self._dir)
        return parse_rings(read_secret(path), str(path), self._ring)

    def _ring(self, words: list[str], what: str) -> tuple[bytes, ...]:
        ring = tuple(self._key(word, f"{what}, key {n}") for n, word in enumerate(words, start=1))
        if not ring:
            raise SecretsError(f"{what} holds no key")
        if len({self._formats.key_id(key) for key in ring}) < len(ring):
            raise SecretsError(f"{what}: two keys have the same key id; leave one of them out")
        return ring

    def _key(self, text: str, what: str) -> bytes:
        return parsed_key(text, what, self._formats.parse_key)

    def _given_or_file(
        self, given: SecretStr | None, variable: str, file: str, make: Callable[[], str]
    ) -> tuple[str, str]:
        """The text, and what to call it in an error."""
        if given is not None:
            return _value(given), variable
        prepare_folder(self._dir)
        self._clear_away(file)
        path = self._dir / file
        text, created = read_or_create_secret(path, make, self._checkpoint)
        if created:
            self._created.append(path)
        return text, str(path)

    def _clear_away(self, file: str) -> None:
        """What a start or a rotation that was killed has left: a key where nobody looks for one."""
        for abandoned in self._dir.glob(f".{file}.*"):
            abandoned.unlink(missing_ok=True)


def _value(given: SecretStr) -> str:
    return given.get_secret_value().strip()


def _check_bootstrap_key(text: str, what: str) -> str:
    body = text.removeprefix(BOOTSTRAP_KEY_PREFIX)
    remedy = f"for a good one: echo {BOOTSTRAP_KEY_PREFIX}$(openssl rand -hex 24)"
    if body == text:
        raise SecretsError(f"{what} must start with {BOOTSTRAP_KEY_PREFIX}; {remedy}")
    if len(body) < BOOTSTRAP_KEY_CHARACTERS_MIN:
        raise SecretsError(
            f"{what} must have at least {BOOTSTRAP_KEY_CHARACTERS_MIN} random characters"
            f" after {BOOTSTRAP_KEY_PREFIX}; {remedy}"
        )
    if not re.fullmatch(r"[!-~]+", body):
        raise SecretsError(f"{what} must be printable ASCII without spaces: it travels in a header; {remedy}")
    if len(set(body)) < _DISTINCT_CHARACTERS_MIN:
        raise SecretsError(f"{what} is not random; {remedy}")
    return text
