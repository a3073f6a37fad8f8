"""The keys that signed tokens (JWT) are believed by: a JSON Web Key Set, and the legacy secret.

Alone reads ``JWT_JWKS_FILE`` and decides what may stand in it: public Ed25519 keys, nothing else. Every key
is bound here to the one algorithm it verifies and to the kind of claims it vouches for; no token can change
that. Pure but for ``read_key_set``. Never holds a private key: a file with one in it is refused.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from jwt import PyJWK

from config.secrets import SecretsError
from config.settings import Settings
from ves.canonical import exceeds_depth, parse_strictly
from ves.encoding import base64url, base64url_bytes, uuid_bytes
from ves.records import Uuid
from ves.signatures import is_registrable

FILE_BYTES_MAX = 65_536
KEYS_MAX = 100
KID_CHARACTERS_MAX = 128
TENANTS_MAX = 1000
_DEPTH_MAX = 8

SECRET_BYTES_MIN = 32
_DISTINCT_MIN = 8
"""Different characters, and different steps from one to the next. Rows of the alphabet have fewer …"""
_DISTINCT_PAIRS_MIN = 20
"""… and words written again and again have fewer different pairs; 32 random hex digits have more of either,
but for once in ten million."""


class BadKeySet(ValueError):
    """This is no key set we believe tokens by. The text names the key and the remedy, never a value."""


@dataclass(frozen=True)
class TokenKey:
    """One key, the one algorithm it is for, and what its tokens look like."""

    kind: Literal["agent", "legacy"]
    """``agent``: the guide's claims, signed with EdDSA; ``legacy``: the original's, with HS256."""
    kid: str | None
    tenant_ids: frozenset[Uuid] | None
    """Whose tokens it may sign; None: any tenant's."""
    public_key: bytes
    """32 bytes; empty for the legacy secret."""
    jwk: PyJWK = field(repr=False, compare=False)
    """Carries its algorithm, whatever a token's header says."""

    @property
    def algorithm(self) -> str:
        return str(self.jwk.algorithm_name)


@dataclass(frozen=True)
class KeySet:
    """All keys believed at one time."""

    keys: tuple[TokenKey, ...] = ()

    def find(self, algorithm: str, kid: str | None) -> TokenKey | None:
        """The one key of this name that is bound to this algorithm. Without a name: the only one there is."""
        of_algorithm = [key for key in self.keys if key.algorithm == algorithm]
        if kid is None:
            return of_algorithm[0] if len(of_algorithm) == 1 else None
        return next((key for key in of_algorithm if key.kid == kid), None)


NO_KEYS = KeySet()
"""No token is believed."""


def read_token_keys(settings: Settings) -> KeySet:
    """At start: the keys of the file and the legacy secret, whichever are set. Raises SecretsError."""
    keys: list[TokenKey] = []
    if settings.jwt_jwks_file is not None:
        try:
            keys += parse_key_set(read_key_set(settings.jwt_jwks_file))
        except (BadKeySet, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SecretsError(f"JWT_JWKS_FILE {settings.jwt_jwks_file}: {reason}") from None
    if settings.jwt_secret is not None:
        keys.append(legacy_key(settings.jwt_secret.get_secret_value()))
    return KeySet(tuple(keys))


def read_key_set(path: Path) -> bytes:
    """The file's bytes. Raises OSError, or BadKeySet when others could write their own keys into it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadKeySet("is no file")
        if found.st_mode & 0o022:
            raise BadKeySet("others may write to it: chmod 644")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise BadKeySet(f"is larger than {FILE_BYTES_MAX} bytes")
    return raw


def parse_key_set(raw: bytes) -> tuple[TokenKey, ...]:
    """The keys of a JSON Web Key Set (RFC 7517, RFC 8037). Empty means that nobody is believed."""
    try:
        if exceeds_depth(raw, _DEPTH_MAX):
            raise ValueError("nested too deeply")
        document = parse_strictly(raw)
    except ValueError:
        raise BadKeySet("is no JSON, or names a member twice") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise BadKeySet('is no key set: write {"keys": [ … ]}')
    if len(listed) > KEYS_MAX:
        raise BadKeySet(f"holds more than {KEYS_MAX} keys")
    keys = tuple(_key(jwk, f"key {number}") for number, jwk in enumerate(listed, start=1))
    names = [key.kid for key in keys]
    if len(keys) > 1 and None in names:
        raise BadKeySet("holds several keys: each needs a kid, so that tokens can name theirs")
    if len(set(names)) < len(names):
        raise BadKeySet("two keys have the same kid")
    return keys


def _key(jwk: Any, what: str) -> TokenKey:
    if not isinstance(jwk, dict):
        raise BadKeySet(f"{what} is no JSON object")
    if jwk.get("kty") == "oct" or "k" in jwk:
        raise BadKeySet(f"{what} is a shared secret (kty oct): only public keys belong here")
    if "d" in jwk:
        raise BadKeySet(f"{what} is a private key: remove its member d, and consider the key known")
    if (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519"):
        raise BadKeySet(f"{what} must have kty OKP and crv Ed25519; tokens are signed with EdDSA only")
    if jwk.get("alg", "EdDSA") != "EdDSA" or jwk.get("use", "sig") != "sig":
        raise BadKeySet(f"{what}: alg must be EdDSA and use must be sig, or absent")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise BadKeySet(f"{what}: key_ops must contain verify, or be absent")
    public_key = _public_key(jwk.get("x"), what)
    public = {"kty": "OKP", "crv": "Ed25519", "x": base64url(public_key)}
    bound = PyJWK(public, algorithm="EdDSA")
    return TokenKey("agent", _kid(jwk, what), _tenant_ids(jwk, what), public_key, bound)


def _public_key(x: Any, what: str) -> bytes:
    try:
        public_key = base64url_bytes(x)
    except (ValueError, TypeError, AttributeError):
        public_key = b""
    # OpenSSL, which verifies, takes points of small order too, for which anybody can sign.
    if not is_registrable(public_key):
        raise BadKeySet(f"{what}: x is no Ed25519 public key in base64url")
    return public_key


def _kid(jwk: dict[str, Any], what: str) -> str | None:
    kid = jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 1 <= len(kid) <= KID_CHARACTERS_MAX):
        raise BadKeySet(f"{what}: kid must be a text of 1 to {KID_CHARACTERS_MAX} characters")
    return kid


def _tenant_ids(jwk: dict[str, Any], what: str) -> frozenset[Uuid] | None:
    if "tenants" not in jwk:
        return None
    tenants = jwk["tenants"]
    try:
        if not isinstance(tenants, list) or not 1 <= len(tenants) <= TENANTS_MAX:
            raise ValueError
        return frozenset(uuid_bytes(tenant) for tenant in tenants)
    except (ValueError, TypeError):
        raise BadKeySet(f"{what}: tenants must be a list of 1 to {TENANTS_MAX} UUIDs, or absent") from None


def legacy_key(secret: str) -> TokenKey:
    """The shared secret as a key for HS256. Raises SecretsError when it could be guessed, or is no secret."""
    raw = secret.encode()
    if secret.lstrip().startswith(("-----", "{", "ssh-")):
        _refuse_secret("looks like a public key or a file; it must be a random text")
    if len(raw) < SECRET_BYTES_MIN:
        _refuse_secret(f"must have at least {SECRET_BYTES_MIN} characters")
    pairs = set(pairwise(raw))
    steps = {after - before for before, after in pairs}
    if min(len(set(raw)), len(steps)) < _DISTINCT_MIN or len(pairs) < _DISTINCT_PAIRS_MIN:
        _refuse_secret("is not random")
    bound = PyJWK({"kty": "oct", "k": base64url(raw)}, algorithm="HS256")
    return TokenKey("legacy", None, None, b"", bound)


def _refuse_secret(why: str) -> NoReturn:
    raise SecretsError(f"JWT_SECRET {why}; for a good one: openssl rand -hex 32")
