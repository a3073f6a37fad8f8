"""The key in an encrypted file (Web3 Secret Storage, version 3): the default, made once per installation.

    DATA_DIR/keys/anchor-keystore.json       0600; the address in it is readable, the key encrypted (scrypt)
    DATA_DIR/keys/anchor-keystore-password   0600, random, made first; not used when ANCHOR_KEYSTORE_PASSWORD…
                                             is given

The password is durable before the keystore is there under its name, so a crash at any point leaves a password
without a keystore, which the next start uses, and never a keystore that nobody can open. Password and file
beside each other keep a key from those who get one of them, a stray copy or a listing; against whoever reads
the whole folder they do nothing: give the password from elsewhere. Alone reads and writes keystores.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import msgspec

from actors.chain import SignerRefused
from actors.chain_keys.accounts import Account
from actors.chain_keys.held import HeldKey
from actors.chain_keys.port import fetch
from actors.chain_signer_wire import KeystoreKey
from config.key_files import Checkpoint, prepare_folder, read_or_create_secret, read_secret
from config.secret_sources import FetchedSecret, SecretsError

KEYSTORE_BYTES_MAX = 16_384
SCRYPT_N = 2**18
"""256 MiB and half a second for each guess, as geth has it."""
_SCRYPT_MEMORY_MAX = 2**30
"""A file may name its own cost: no more than a gigabyte of memory …"""
_SCRYPT_P_MAX = 16
_PBKDF2_ROUNDS_MAX = 10_000_000
"""… or some seconds."""
_GIVEN = "ANCHOR_KEYSTORE_FILE"


class _KdfParams(msgspec.Struct):
    dklen: int
    salt: str
    n: int = 0
    r: int = 0
    p: int = 0
    c: int = 0
    prf: str = ""


class _Crypto(msgspec.Struct):
    cipher: str
    ciphertext: str
    cipherparams: dict[str, str]
    kdf: str
    kdfparams: _KdfParams
    mac: str


class _Keystore(msgspec.Struct):
    version: int
    crypto: _Crypto


def open_keystore(
    place: KeystoreKey, *, scrypt_n: int = SCRYPT_N, checkpoint: Checkpoint = lambda name: None
) -> tuple[HeldKey, str]:
    """The key, and the file that was made just now, or nothing."""
    path = Path(place.path)
    try:
        made = ""
        if not path.exists() and _make(place, path, scrypt_n, checkpoint):
            made = str(path)
        return _decrypt(place, path), made
    except SecretsError as error:
        raise SignerRefused(str(error)) from None


def _make(place: KeystoreKey, path: Path, scrypt_n: int, checkpoint: Checkpoint) -> bool:
    """Whether it was us."""
    if not place.may_make:
        raise SignerRefused(
            f"{place.path} ({_GIVEN}) is not there: mount it, or make one there: sequencer anchor key"
        )
    if place.password is None:
        folder = Path(place.password_path).parent
        prepare_folder(folder)
        password, _ = read_or_create_secret(
            Path(place.password_path), lambda: secrets.token_urlsafe(32), checkpoint
        )
    else:
        password = fetch(place.password)
    if not place.given:
        prepare_folder(path.parent)
    checkpoint("anchor_keystore.password")
    text = json.dumps(_encrypt(secrets.token_bytes(32), password, scrypt_n))
    return read_or_create_secret(path, lambda: text, checkpoint)[1]


def _encrypt(secret: bytes, password: str, scrypt_n: int) -> dict[str, Any]:
    return dict(Account.encrypt(secret, password, kdf="scrypt", iterations=scrypt_n))


def _decrypt(place: KeystoreKey, path: Path) -> HeldKey:
    # A file that was given may be its owner's group's to read, as Kubernetes mounts it; ours may not.
    text = (
        FetchedSecret(_GIVEN, place.path, frozenset()).get_secret_value()
        if place.given
        else read_secret(path)
    )
    whence = f"{place.path} ({_GIVEN})" if place.given else place.path
    _judge(text, whence)
    password, named = _password(place)
    try:
        secret = bytes(Account.decrypt(text, password))
    except ValueError:
        raise SignerRefused(f"{whence} does not open with the password of {named}, or is damaged") from None
    return HeldKey(secret, whence)


def _password(place: KeystoreKey) -> tuple[str, str]:
    """With the name of where it is from."""
    if place.password is not None:
        return fetch(place.password), place.password.variable
    if not Path(place.password_path).exists():
        raise SignerRefused(
            f"there is no password for {place.path}: give ANCHOR_KEYSTORE_PASSWORD (_FILE, _COMMAND), or "
            f"restore {place.password_path} from a backup"
        )
    return read_secret(Path(place.password_path)), place.password_path


def _judge(text: str, whence: str) -> None:
    """It is a keystore, and opening it costs no more than we have. Raises SignerRefused."""
    try:
        if len(text) > KEYSTORE_BYTES_MAX:
            raise ValueError("too long")
        found = msgspec.json.decode(text.encode(), type=_Keystore)
    except (ValueError, RecursionError):
        raise SignerRefused(f"{whence} is no keystore (Web3 Secret Storage, version 3)") from None
    kdf, params = found.crypto.kdf, found.crypto.kdfparams
    if found.version != 3 or found.crypto.cipher != "aes-128-ctr" or kdf not in ("scrypt", "pbkdf2"):
        raise SignerRefused(
            f"{whence} is a keystore of another kind: version 3, aes-128-ctr, scrypt is wanted"
        )
    dear = (
        not 1 < params.n <= 2**30
        or not 0 < params.r <= 2**10
        or 128 * params.n * params.r > _SCRYPT_MEMORY_MAX
        or not 0 < params.p <= _SCRYPT_P_MAX
        if kdf == "scrypt"
        else not 0 < params.c <= _PBKDF2_ROUNDS_MAX
    )
    if dear or not 32 <= params.dklen <= 64:
        raise SignerRefused(f"{whence} asks for {kdf} parameters that nobody uses: not opened")
