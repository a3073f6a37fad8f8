"""What must not be read by others: keys from the environment, or made on first start and kept as files.

    DATA_DIR                              0700
    DATA_DIR/keys                         0700, every file in it 0600
    DATA_DIR/keys/bootstrap-admin-api-key `ss_` + 43 random characters
    DATA_DIR/keys/receipt-signing-seed    Ed25519 seed, hex
    DATA_DIR/keys/payload-encryption-keys at-rest ring, current first, hex, one a line
    DATA_DIR/keys/sequencer-id            UUID; not secret, but it belongs to the seed

Alone reads and writes these files. Never prints, logs or puts into an error a value: an
error names the variable or the file and what helps.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from config.files import sync_folder
from config.settings import Settings

BOOTSTRAP_KEY_PREFIX = "ss_"
BOOTSTRAP_KEY_CHARACTERS_MIN = 24
"""After the prefix."""
_DISTINCT_CHARACTERS_MIN = 8
"""Even 24 random hex digits have fewer only once in thousands; "aaaa…" and "0123…" loops do."""
_FILE_BYTES_MAX = 65_536

_KEY_BYTES = 32
"""Of at-rest keys (AES-256) and of the Ed25519 seed."""

ParseKey = Callable[[str], bytes]
"""32 bytes from a key's text (VES 1.5); ValueError, without the value, for anything else."""
Checkpoint = Callable[[str], None]
"""Called at the named points of a first start. It may end the process: a crash exactly there."""
KeyId = Callable[[bytes], bytes]
"""From an at-rest key to the id that the journal knows it by."""


class SecretsError(Exception):
    """A secret is missing, malformed or readable by others. The text holds no secret; do not start."""


@dataclass(frozen=True)
class Secrets:
    """Everything secret that the server holds. Its repr shows nothing of it."""

    bootstrap_api_key: str = field(repr=False)
    receipt_signing_seed: bytes = field(repr=False)
    """32 bytes."""
    sequencer_id: bytes
    """16 bytes; public."""
    at_rest_ring: tuple[bytes, ...] = field(repr=False)
    """32 bytes each, the current one first."""
    created: tuple[Path, ...] = ()
    """Files made just now, for the operator to know of and to back up."""


def load_secrets(
    settings: Settings,
    data_dir: Path,
    *,
    parse_key: ParseKey,
    key_id: KeyId,
    checkpoint: Checkpoint = lambda name: None,
) -> Secrets:
    """From the environment where it says, else from the files, which are made where there are none.

    ``data_dir`` was prepared by ``prepare_data_dir`` and nobody else uses it now; how a key is spelled and
    named is the protocol's business and comes in as functions. Raises SecretsError."""
    return _Loading(data_dir / "keys", parse_key, key_id, checkpoint).secrets(settings)


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


def read_or_create_secret(
    path: Path, make: Callable[[], str], checkpoint: Checkpoint = lambda name: None
) -> tuple[str, bool]:
    """The file's text without surrounding space, and whether it was made just now.

    Made means: durable, whole and 0600 from its first moment on, also when two start at once: then both get
    the same. Raises SecretsError when others can read it."""
    try:
        if not path.exists():
            _create(path, make(), checkpoint)
            created = True
        else:
            created = False
        return _read(path), created
    except FileExistsError:
        return _read(path), False
    except OSError as error:
        raise SecretsError(f"{path} cannot be used: {error.strerror}") from None


class _Loading:
    """Walks over the secrets and remembers which files it made."""

    def __init__(self, keys_dir: Path, parse_key: ParseKey, key_id: KeyId, checkpoint: Checkpoint) -> None:
        self._dir = keys_dir
        self._parse_key = parse_key
        self._key_id = key_id
        self._checkpoint = checkpoint
        self._created: list[Path] = []

    def secrets(self, settings: Settings) -> Secrets:
        return Secrets(
            bootstrap_api_key=self._bootstrap_api_key(settings.bootstrap_admin_api_key),
            receipt_signing_seed=self._seed(settings.ves_sequencer_signing_key),
            sequencer_id=self._sequencer_id(settings.ves_sequencer_id),
            at_rest_ring=self._at_rest_ring(settings),
            created=tuple(self._created),
        )

    def _bootstrap_api_key(self, given: SecretStr | None) -> str:
        text, what = self._given_or_file(
            given,
            "BOOTSTRAP_ADMIN_API_KEY",
            "bootstrap-admin-api-key",
            lambda: BOOTSTRAP_KEY_PREFIX + secrets.token_urlsafe(32),
        )
        return _check_bootstrap_key(text, what)

    def _seed(self, given: SecretStr | None) -> bytes:
        return self._key(
            *self._given_or_file(given, "VES_SEQUENCER_SIGNING_KEY", "receipt-signing-seed", _new_key)
        )

    def _sequencer_id(self, given: uuid.UUID | None) -> bytes:
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
        text, what = self._given_or_file(given, name, "payload-encryption-keys", _new_key)
        # A trailing comma is a typing slip that could hide a key left out: refused as an empty key.
        words = text.split(",") if given is not None else text.split()
        if name == "PAYLOAD_ENCRYPTION_KEY" and len(words) > 1:
            raise SecretsError("PAYLOAD_ENCRYPTION_KEY is one key; several go into PAYLOAD_ENCRYPTION_KEYS")
        ring = tuple(self._key(word, f"{what}, key {n}") for n, word in enumerate(words, start=1))
        if not ring:
            raise SecretsError(f"{what} holds no key")
        if len({self._key_id(key) for key in ring}) < len(ring):
            raise SecretsError(f"{what}: two keys have the same key id; leave one of them out")
        return ring

    def _key(self, text: str, what: str) -> bytes:
        try:
            return self._parse_key(text)
        except ValueError:
            raise SecretsError(
                f"{what} is no key of {_KEY_BYTES} bytes in hex, base64 or base64url"
            ) from None

    def _given_or_file(
        self, given: SecretStr | None, variable: str, file: str, make: Callable[[], str]
    ) -> tuple[str, str]:
        """The text, and what to call it in an error."""
        if given is not None:
            return given.get_secret_value().strip(), variable
        self._prepare_folder()
        for abandoned in self._dir.glob(f".{file}.*"):
            abandoned.unlink()  # by a first start that was killed: a key where nobody looks for one
        path = self._dir / file
        text, created = read_or_create_secret(path, make, self._checkpoint)
        if created:
            self._created.append(path)
        return text, str(path)

    def _prepare_folder(self) -> None:
        try:
            self._dir.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SecretsError(f"{self._dir} cannot be made: {error.strerror}") from None
        if self._dir.stat().st_mode & 0o077:
            raise SecretsError(f"{self._dir} is open to others: chmod 700 {self._dir}")


def _new_key() -> str:
    return secrets.token_hex(_KEY_BYTES)


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


def _create(path: Path, text: str, checkpoint: Checkpoint) -> None:
    """Written aside and linked into place, so that the name never shows a half-written file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.write(descriptor, text.encode("ascii") + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        checkpoint("key_file.written")
        os.link(aside, path)  # unlike rename it never replaces what another start has just made
        checkpoint("key_file.named")
    finally:
        aside.unlink()
    sync_folder(path.parent)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SecretsError(f"{path} is no file")
        if found.st_mode & 0o077:
            raise SecretsError(f"{path} can be read by others: chmod 600 {path} and consider the key known")
        try:
            text = os.read(descriptor, _FILE_BYTES_MAX).decode("ascii").strip()
        except UnicodeDecodeError:
            raise SecretsError(f"{path} is no text") from None
        if not text:
            raise SecretsError(f"{path} is empty; restore it from a backup")
        return text
    finally:
        os.close(descriptor)
