"""Credentials, tokens and their keys, the secrets that an operator gives, and what lies encrypted at rest."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from actors.token_keys import BadKeySet, legacy_key, parse_key_set
from actors.token_rules import Rules, TokenRefused, verify
from config.database_tls import protected, remote_hosts
from config.exposure import Exposed
from config.own_keys import parsed_key
from config.secret_sources import SecretsError
from config.secrets import _check_bootstrap_key
from config.tenant_rings import parse_rings
from tests.fuzz.target import Plant, Target, law, unnamed
from tests.tokens.token_mint import (
    NOW_S,
    OTHER_PRIVATE,
    SECRET,
    TENANT,
    claims,
    jwk,
    key_file,
    keys,
    macced,
    signed,
)
from transport.http import key_format
from ves import at_rest
from ves.at_rest import FrameNotOpened, Ring, RingKey, Row
from ves.kdf import Purpose

_TRUSTED = keys(jwk(), jwk(OTHER_PRIVATE, kid="two", tenants=[str(TENANT)]), secret=SECRET)
_TOKENS = [signed(), signed(claims(scope=["*"])), signed(private=OTHER_PRIVATE, kid="two"), macced()]
_KEY_SETS = [key_file(jwk()), key_file(jwk(kid="a"), jwk(OTHER_PRIVATE, kid="b", tenants=[str(TENANT)]))]
_RULES = Rules()


def _token(data: bytes) -> None:
    """No text but the ones that were signed is believed: one byte more, less or other, and it is refused."""
    text = data.decode("latin-1")
    try:
        verify(text, _TRUSTED, _RULES, NOW_S + 1)
    except TokenRefused as refused:
        law(len(text) < 24 or text not in str(refused), "the refusal shows the token")
        return
    law(text in _TOKENS, "another spelling of a signed token is believed")


def _key_set(data: bytes) -> None:
    """Only public Ed25519 keys; nothing private slips in under another spelling."""
    try:
        found = parse_key_set(data)
    except BadKeySet:
        return
    listed = json.loads(data)["keys"]
    law(len(found) == len(listed), "keys are missing")
    law(all(len(key.public_key) == 32 and key.algorithm == "EdDSA" for key in found), "another kind of key")
    law(not [one for one in listed if "d" in one or "k" in one], "a private key")


def _api_key(data: bytes) -> None:
    """What passes has the shape and the checksum; a second checksum is computed bit by bit."""
    text = data.decode("utf-8", "surrogateescape")
    for kind in ("live", "test"):
        if key_format.trouble(text, kind) is None:  # type: ignore[arg-type]
            law(len(text) == 46 and text.isascii() and text.startswith(f"sk_{kind}_"), "another shape")
            law(_slow_checksum(text[:-6]) == text[-6:], "another checksum")


def _slow_checksum(body: str) -> str:
    crc = 0xFFFFFFFF
    for byte in body.encode():
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    number, digits = crc ^ 0xFFFFFFFF, ""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    while len(digits) < 6:
        digits = alphabet[number % 62] + digits
        number //= 62
    return digits


_KEYS = [RingKey(bytes(range(32))), RingKey(bytes(range(1, 33)))]
_ROW = Row(Purpose.VES_EVENTS, b"T" * 16, b"r" * 32)
_FRAMES = {
    frame: plaintext
    for key in _KEYS
    for plaintext in (b"x", b'{"a":1}')
    for frame in (key.seal(_ROW, b"n" * 12, plaintext), key.seal_sse1(b"n" * 12, plaintext, _ROW.row_hash))
}


def _frame(data: bytes) -> None:
    """Nothing opens but what was sealed, for its own row, to what it was."""
    ring = Ring(_KEYS)
    with suppress(FrameNotOpened):  # it is cut off
        named = at_rest.frame_key_id(data)
        law(named is None or data[:4] == b"SSE2", "a name in a frame that has none")
    law(not _opens(ring, Row(_ROW.purpose, b"U" * 16, b"s" * 32), data), "it opens for another row")
    opened = _opens(ring, _ROW, data)
    law(opened is None or _FRAMES.get(data) == opened, "it opens to something that was never sealed")


def _opens(ring: Ring, row: Row, data: bytes) -> bytes | None:
    try:
        return ring.open(row, data)
    except FrameNotOpened:
        return None


def _secret_texts(data: bytes) -> None:
    """Keys, rings, the bootstrap key, the tokens' secret, the database's address: refused but never shown."""
    text = data.decode("utf-8", "replace")
    for reader in (at_rest.parse_key, _rings, legacy_key, _bootstrap, _database_address):
        try:
            reader(text)
        except (ValueError, SecretsError, Exposed) as refused:
            secret = text.strip()
            law(len(secret) < 24 or secret not in str(refused), "the refusal shows the secret")


def _rings(text: str) -> None:
    found = parse_rings(text, "PAYLOAD_ENCRYPTION_KEYS_BY_TENANT", _ring)
    law(all(len(tenant_id) == 16 for tenant_id in found), "a ring of nobody")


def _ring(keys: list[str], what: str) -> tuple[bytes, ...]:
    return tuple(parsed_key(key, what, at_rest.parse_key) for key in keys)


def _bootstrap(text: str) -> None:
    _check_bootstrap_key(text, "BOOTSTRAP_ADMIN_API_KEY")


def _database_address(text: str) -> None:
    """Nothing passes that would reach another machine without a checked certificate."""
    passed = protected("DATABASE_URL", text, "verify-full", {"HOME": "/nonexistent"})
    law(not remote_hosts("DATABASE_URL", passed, {}) or "sslmode=verify-full" in passed, "an open way")


def _without_tag(right: Any) -> Any:
    """Frames whose last byte may be anything."""

    def wrong(self: RingKey, row: Row, frame: bytes) -> bytes:
        try:
            opened: bytes = right(self, row, frame)
        except FrameNotOpened:
            if row == _ROW and len(frame) > 33 and frame[:4] == b"SSE2":
                return b""
            raise
        return opened

    return wrong


def _any_checksum(right: Any) -> Any:
    def wrong(key: str, kind: str) -> str | None:
        told: str | None = right(key, kind)
        return (
            None if told and "checksum" in told and len(key) == 46 and key.startswith(f"sk_{kind}_") else told
        )

    return wrong


TARGETS = (
    Target(
        "token", _token, [one.encode() for one in _TOKENS], Plant("actors.token_rules", "_object", unnamed)
    ),
    Target("key-set", _key_set, _KEY_SETS, Plant("actors.token_keys", "base64url_bytes", unnamed)),
    Target(
        "api-key",
        _api_key,
        [key_format.new_key("live").encode(), key_format.new_key("test").encode()],
        Plant("transport.http.key_format", "trouble", _any_checksum),
        bytes_max=64,
    ),
    Target(
        "at-rest-frame",
        _frame,
        list(_FRAMES),
        Plant("ves.at_rest", "RingKey.open", _without_tag),
        bytes_max=256,
    ),
    Target(
        "secret-text",
        _secret_texts,
        [
            *(
                b"0x" + b"ab" * 32,
                b"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=",
                b"ab" * 32 + b"," + b"cd" * 32,
            ),
            *(
                b"ss_3q2o7wDEADbeefDEADbeefDEADbeef",
                SECRET.encode(),
                b'{"6f1d3c1e-0000-4000-8000-00000000000a": ["' + b"ab" * 32 + b'", "0x' + b"cd" * 32 + b'"]}',
                b"postgresql://a:b@h:5432/d?sslmode=verify-full",
            ),
        ],
        Plant("ves.at_rest", "parse_key", unnamed),
        bytes_max=512,
    ),
)
