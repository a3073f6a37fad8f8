"""Tokens as issuers and attackers write them: by hand, so that what no library would write can be tried."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.token_keys import KeySet, TokenKey, legacy_key, parse_key_set

NOW_S = 1_800_000_000
TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
AGENT = uuid.UUID("55555555-5555-4555-8555-555555555555")
STORE = uuid.UUID("33333333-3333-4333-8333-333333333333")
SECRET = "8c1f7e0a5b9d4c3e2f6a7b8091d2e3f4a5b6c7d8e9f00112"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(private: Ed25519PrivateKey = PRIVATE, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    """The public half."""
    named = {} if kid is None else {"kid": kid}
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(private.public_key().public_bytes_raw())} | named | more


def key_file(*jwks: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(jwks)}).encode()


def keys(*jwks: dict[str, Any], secret: str | None = None) -> KeySet:
    legacy: tuple[TokenKey, ...] = () if secret is None else (legacy_key(secret),)
    return KeySet(parse_key_set(key_file(*(jwks or (jwk(),)))) + legacy)


def claims(**changes: Any) -> dict[str, Any]:
    """The guide's; a change to None leaves the claim out."""
    said = {
        "sub": str(AGENT),
        "tenant": str(TENANT),
        "iat": NOW_S,
        "exp": NOW_S + 3600,
        "scope": ["events:write", "events:read"],
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def legacy_claims(**changes: Any) -> dict[str, Any]:
    said = {
        "sub": str(TENANT),
        "iss": "stateset-sequencer",
        "aud": "stateset-api",
        "iat": NOW_S,
        "nbf": NOW_S,
        "exp": NOW_S + 3600,
        "jti": "j-1",
        "perms": "read,write",
    } | changes
    return {name: value for name, value in said.items() if value is not None}


def parts(header: Any, said: Any) -> str:
    """What is signed; ``bytes`` are taken as they are."""
    texts = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, said))
    return ".".join(map(b64, texts))


def signed(
    said: Any = None, header: Any = None, private: Ed25519PrivateKey = PRIVATE, kid: str | None = "one"
) -> str:
    """A token signed with EdDSA."""
    if header is None:
        header = {"alg": "EdDSA", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    message = parts(header, claims() if said is None else said)
    return f"{message}.{b64(private.sign(message.encode()))}"


def macced(said: Any = None, key: bytes = SECRET.encode(), header: Any = None) -> str:
    """A token with an HMAC."""
    message = parts(
        {"alg": "HS256", "typ": "JWT"} if header is None else header,
        legacy_claims() if said is None else said,
    )
    return f"{message}.{b64(hmac.digest(key, message.encode(), hashlib.sha256))}"
