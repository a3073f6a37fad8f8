"""The files of whoever signs tokens: a private key of one's own, and the key set the server reads.

Alone writes both. A private key is whole and mode 0600 from its first moment on and never replaced; the key
set is replaced in one step, so that a server reading it sees the old one or the new one. Never prints a key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.token_keys import FILE_BYTES_MAX, BadKeySet, parse_key_set
from config.files import sync_folder
from transport.client.errors import ClientError
from ves.encoding import base64url, base64url_bytes


class SigningKey(NamedTuple):
    """A private key and the name it has in the key set."""

    private: Ed25519PrivateKey
    kid: str

    @classmethod
    def generate(cls, kid: str | None) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        return cls(private, kid or _thumbprint(private))

    @property
    def public_jwk(self) -> dict[str, Any]:
        return _public_members(self.private) | {"kid": self.kid, "alg": "EdDSA", "use": "sig"}


def _public_members(private: Ed25519PrivateKey) -> dict[str, Any]:
    return {"crv": "Ed25519", "kty": "OKP", "x": base64url(private.public_key().public_bytes_raw())}


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """RFC 7638: what a key is called when nobody gave it a name."""
    text = json.dumps(_public_members(private), sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(text.encode()).digest())


# The private key.


def write_signing_key(path: Path, key: SigningKey) -> None:
    """As a JWK when the name ends with .jwk or .json, else as PEM. ClientError if the file exists."""
    if path.suffix in (".jwk", ".json"):
        private = {"d": base64url(key.private.private_bytes_raw())}
        text = json.dumps(key.public_jwk | private, indent=2) + "\n"
    else:
        text = key.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
    write_private(path, text)


def write_private(path: Path, text: str) -> None:
    """A new file, for its owner alone. ClientError if there is one of this name."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        sync_folder(path.parent)
    except FileExistsError:
        raise ClientError(f"{path} exists; it is never overwritten") from None
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error


def read_signing_key(path: Path, kid: str | None) -> SigningKey:
    """ClientError when it is no private Ed25519 key, or when others can read it."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ClientError(f"{path} can be read by others: chmod 600 it, and consider the key known")
            raw = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error
    try:
        return _from_jwk(raw, kid) if raw.lstrip().startswith(b"{") else _from_pem(raw, kid)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ClientError(f"{path} is no private Ed25519 key (PEM or JWK)") from None


def _from_jwk(raw: bytes, kid: str | None) -> SigningKey:
    jwk = json.loads(raw)
    if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
        raise ValueError
    private = Ed25519PrivateKey.from_private_bytes(base64url_bytes(jwk["d"]))
    return SigningKey(private, kid or jwk.get("kid") or _thumbprint(private))


def _from_pem(raw: bytes, kid: str | None) -> SigningKey:
    private = serialization.load_pem_private_key(raw, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise TypeError
    return SigningKey(private, kid or _thumbprint(private))


# The key set.


@contextmanager
def key_set_to_change(path: Path) -> Iterator[KeySetFile]:
    """The key set as it is, read under a lock of its folder, so that two who add a key both do."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ClientError(f"{path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield KeySetFile(path)
    finally:
        os.close(folder)


class KeySetFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: list[dict[str, Any]] = []
        if path.exists():
            try:
                raw = path.read_bytes()
                parse_key_set(raw)
            except (OSError, BadKeySet) as error:
                raise ClientError(f"{path}: {error}") from None
            self._keys = json.loads(raw)["keys"]

    def add(self, jwk: dict[str, Any]) -> None:
        """Afterwards the file holds this key too. ClientError, and it is as before, when it cannot."""
        text = json.dumps({"keys": [*self._keys, jwk]}, indent=2) + "\n"
        try:
            parse_key_set(text.encode())
        except BadKeySet as error:
            raise ClientError(f"{self._path}: {error}") from None
        aside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            with aside.open("x") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise ClientError(f"{self._path}: {error.strerror}") from error
        finally:
            aside.unlink(missing_ok=True)
