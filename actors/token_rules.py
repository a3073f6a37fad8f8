"""Whether a token is to be believed, decided in one pure function: text, keys, rules and time come in.

The signature is checked first, with the algorithm bound to the key (``actors.token_keys``); only then is a
claim looked at. What a header may say is a short list: nothing in a token can bring its own key, name another
algorithm, or be read in two ways (doubled members, other spellings of the same base64). Every text costs at
most one signature check. Whether a token was revoked is not decided here.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

import msgspec
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from actors.token_keys import KID_CHARACTERS_MAX, KeySet, TokenKey
from ves.canonical import exceeds_depth, parse_strictly
from ves.constants import INTEGER_MAX
from ves.encoding import base64url, base64url_bytes, uuid_bytes
from ves.records import Uuid

TOKEN_BYTES_MAX = 8192
LIFETIME_MAX_S = 24 * 3600
"""Of agents' tokens, ``exp - iat``."""
SCOPES_MAX = 100
STORES_MAX = 1000
_DEPTH_MAX = 4
_HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
_TYPES = frozenset({"jwt", "at+jwt"})
_NOBODY = bytes(16)
"""The nil UUID is nobody's: in the original it made a token the master of all tenants."""

_JWS = PyJWS(algorithms=["EdDSA", "HS256"], options={"enforce_minimum_key_length": True})


class TokenRefused(Exception):
    """Not believed. The text is for the caller: it says what is wrong and shows nothing of the token."""

    def __init__(self, text: str, *, expired: bool = False) -> None:
        super().__init__(text)
        self.expired = expired


class Rules(msgspec.Struct, frozen=True):
    """What tokens have to say about whom they are from and for. The names are the operator's choice."""

    issuer: str | None = None
    audience: str | None = None
    """None: this server has no name, so an agent's token made for somebody named is not for us."""
    leeway_s: int = 60
    """How far the clocks of issuers may be off."""


LEGACY_ISSUER = "stateset-sequencer"
LEGACY_AUDIENCE = "stateset-api"


class Token(msgspec.Struct, frozen=True):
    """What a believed token says. Only ``verify`` makes one."""

    kind: Literal["agent", "legacy"]
    tenant_id: Uuid
    subject: Uuid
    """Whom it speaks for, and by what it is revoked: the agent, or the tenant if there is none."""
    agent_id: Uuid | None
    store_ids: tuple[Uuid, ...] | None
    permissions: tuple[str, ...]
    """As it names them: permissions, or the flags of a legacy token."""
    issued_at_s: int
    expires_at_s: int
    valid_from_s: int


def verify(text: str, keys: KeySet, rules: Rules, now_s: float) -> Token:
    """Raises TokenRefused. ``now_s``: seconds since the Unix epoch."""
    key, claims = _signed_by(text, keys)
    token = _legacy_token(claims, rules) if key.kind == "legacy" else _agent_token(claims, rules)
    if key.tenant_ids is not None and token.tenant_id not in key.tenant_ids:
        _refuse("its key may not sign for this tenant")
    check_times(token, rules, now_s)
    return token


def check_times(token: Token, rules: Rules, now_s: float) -> None:
    """Raises TokenRefused unless the token is valid now."""
    if now_s >= token.expires_at_s + rules.leeway_s:
        raise TokenRefused("Token expired", expired=True)
    if now_s < token.issued_at_s - rules.leeway_s:
        _refuse("iat is in the future")
    if now_s < token.valid_from_s - rules.leeway_s:
        _refuse("it is not valid yet (nbf)")


def _refuse(why: str) -> NoReturn:
    raise TokenRefused(f"Invalid token: {why}")


# The envelope.


def _signed_by(text: str, keys: KeySet) -> tuple[TokenKey, dict[str, Any]]:
    """The key whose signature it bears, and its claims."""
    if len(text) > TOKEN_BYTES_MAX:
        _refuse(f"longer than {TOKEN_BYTES_MAX} bytes")
    parts = text.split(".")
    if len(parts) != 3:
        _refuse("not three parts")
    raw_header, raw_claims, _ = map(_canonical_base64url, parts)
    header = _object(raw_header)
    key = _key_for(header, keys)
    try:
        _JWS.decode(text, key.jwk, algorithms=[key.algorithm])
    except PyJWTError:
        _refuse("the signature does not verify")
    return key, _object(raw_claims)


def _canonical_base64url(text: str) -> bytes:
    try:
        raw = base64url_bytes(text)
    except ValueError:
        raw = b""
    if not raw or base64url(raw) != text:
        _refuse("not base64url as RFC 7515 writes it")
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = None if exceeds_depth(raw, _DEPTH_MAX) else parse_strictly(raw)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        _refuse("not a JSON object, or a member twice")
    return value


def _key_for(header: dict[str, Any], keys: KeySet) -> TokenKey:
    if not header.keys() <= _HEADER_MEMBERS:
        _refuse("the header may only say alg, kid and typ")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("typ is not JWT")
    algorithm, kid = header.get("alg"), header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and 1 <= len(kid) <= KID_CHARACTERS_MAX):
        _refuse("kid is no name of a key")
    key = keys.find(algorithm, kid) if isinstance(algorithm, str) else None
    if key is None:
        _refuse("no key of this server verifies it (alg, kid)")
    return key


# The guide's claims.


def _agent_token(claims: dict[str, Any], rules: Rules) -> Token:
    _check_audience(claims.get("aud"), rules.audience)
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        _refuse("iss is not the one this server believes")
    issued_at_s, expires_at_s = _time(claims, "iat"), _time(claims, "exp")
    if not 0 < expires_at_s - issued_at_s <= LIFETIME_MAX_S:
        _refuse("exp must be after iat, at most 24 hours")
    agent_id = _uuid(claims, "sub")
    return Token(
        kind="agent",
        tenant_id=_uuid(claims, "tenant"),
        subject=agent_id,
        agent_id=agent_id,
        store_ids=_store_ids(claims["stores"]) if "stores" in claims else None,
        permissions=_texts(claims.get("scope"), "scope", SCOPES_MAX),
        issued_at_s=issued_at_s,
        expires_at_s=expires_at_s,
        valid_from_s=_time(claims, "nbf") if "nbf" in claims else issued_at_s,
    )


def _check_audience(claim: Any, ours: str | None) -> None:
    """RFC 7519 section 4.1.3: who does not find himself in ``aud`` must refuse the token."""
    named = [claim] if isinstance(claim, str) else claim
    if ours is None and named is not None:
        _refuse("it is for somebody (aud), and this server has no JWT_AUDIENCE")
    if ours is not None and not (isinstance(named, list) and ours in named):
        _refuse("aud is not this server")


def _time(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        _refuse(f"{name} must be whole seconds since 1970")
    return value


def _uuid(claims: dict[str, Any], name: str) -> Uuid:
    value = claims.get(name)
    try:
        found = uuid_bytes(value) if isinstance(value, str) else _NOBODY
    except ValueError:
        found = _NOBODY
    if found == _NOBODY:
        _refuse(f"{name} must be a UUID, not the nil one")
    return found


def _texts(value: Any, name: str, at_most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > at_most or not all(isinstance(t, str) for t in value):
        _refuse(f"{name} must be a list of at most {at_most} texts")
    return tuple(value)


def _store_ids(value: Any) -> tuple[Uuid, ...]:
    """An empty list is a token for no store at all, not for every one."""
    return tuple(dict.fromkeys(_store_id(text) for text in _texts(value, "stores", STORES_MAX)))


def _store_id(text: str) -> Uuid:
    try:
        return uuid_bytes(text)
    except ValueError:
        _refuse("stores must be UUIDs")


# The original's claims.


def _legacy_token(claims: dict[str, Any], rules: Rules) -> Token:
    if claims.get("iss") != (rules.issuer or LEGACY_ISSUER):
        _refuse("iss is not the one this server believes")
    if claims.get("aud") != (rules.audience or LEGACY_AUDIENCE):
        _refuse("aud is not this server")
    if not isinstance(claims.get("jti"), str):
        _refuse("jti must be a text")
    tenant_id = _uuid(claims, "sub")
    agent_id = _uuid(claims, "agent") if claims.get("agent") is not None else None
    return Token(
        kind="legacy",
        tenant_id=tenant_id,
        subject=agent_id or tenant_id,
        agent_id=agent_id,
        store_ids=_legacy_stores(claims.get("stores")),
        permissions=tuple(_legacy_text(claims.get("perms"), "perms").split(",")),
        issued_at_s=_time(claims, "iat"),
        expires_at_s=_time(claims, "exp"),
        valid_from_s=_time(claims, "nbf"),
    )


def _legacy_text(value: Any, name: str) -> str:
    if value is not None and not isinstance(value, str):
        _refuse(f"{name} must be a text")
    return value or ""


def _legacy_stores(value: Any) -> tuple[Uuid, ...] | None:
    text = _legacy_text(value, "stores").strip()
    return tuple(dict.fromkeys(_store_id(one.strip()) for one in text.split(","))) if text else None
