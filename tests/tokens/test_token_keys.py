"""What may stand in a key set, and what keeps a server from starting."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

from actors.token_keys import BadKeySet, KeySet, parse_key_set, read_token_keys
from config.secrets import SecretsError
from config.settings import Settings
from tests.tokens.token_mint import OTHER_PRIVATE, PRIVATE, SECRET, TENANT, b64, jwk, key_file


def start(**chosen: Any) -> KeySet:
    return read_token_keys(Settings(_env_file=None, **chosen))


def refused(raw: bytes) -> str:
    with pytest.raises(BadKeySet) as caught:
        parse_key_set(raw)
    return str(caught.value)


def test_keys_are_bound_to_their_algorithm_and_their_tenants() -> None:
    one, two = parse_key_set(
        key_file(jwk(alg="EdDSA", use="sig"), jwk(OTHER_PRIVATE, "two", tenants=[str(TENANT)]))
    )
    assert (one.algorithm, one.kid, one.tenant_ids) == ("EdDSA", "one", None)
    assert two.tenant_ids == {TENANT.bytes}
    assert parse_key_set(b'{"keys": []}') == ()
    [legacy] = start(jwt_secret=SECRET).keys
    assert (legacy.algorithm, legacy.kind) == ("HS256", "legacy")
    assert SECRET not in repr(legacy)


@pytest.mark.parametrize(
    ("jwks", "why"),
    [
        ([jwk(d=b64(PRIVATE.private_bytes_raw()))], "private key"),
        ([{"kty": "oct", "k": b64(b"s" * 32)}], "shared secret"),
        ([jwk(k="AA")], "shared secret"),
        ([{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "r"}], "kty OKP"),
        ([jwk(crv="X25519")], "crv Ed25519"),
        ([jwk(crv="Ed448")], "crv Ed25519"),
        ([jwk(alg="HS256")], "alg must be EdDSA"),
        ([jwk(use="enc")], "use must be sig"),
        ([jwk(key_ops=["sign"])], "key_ops"),
        ([jwk(x="AA")], "no Ed25519 public key"),
        ([jwk(x=b64(bytes(31) + b"\x00"))], "no Ed25519 public key"),
        ([jwk(x=b64(b"\x01" + bytes(31)))], "no Ed25519 public key"),
        ([jwk(x=None)], "no Ed25519 public key"),
        ([jwk(kid="")], "kid"),
        ([jwk(kid=7)], "kid"),
        ([jwk(), jwk(OTHER_PRIVATE, None)], "needs a kid"),
        ([jwk(), jwk(OTHER_PRIVATE)], "same kid"),
        ([jwk(tenants=[])], "tenants"),
        ([jwk(tenants="all")], "tenants"),
        ([jwk(tenants=["x"])], "tenants"),
        (["x"], "no JSON object"),
        ([jwk(kid=str(n)) for n in range(101)], "more than 100"),
    ],
)  # fmt: skip
def test_a_key_that_is_no_public_ed25519_key_is_refused_with_the_reason(jwks: list[Any], why: str) -> None:
    assert why in refused(key_file(*jwks))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', b"\xff", b"[" * 5000]
)
def test_what_is_no_key_set_is_refused(raw: bytes) -> None:
    refused(raw)


def test_a_start_without_its_key_file_or_with_a_bad_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    with pytest.raises(SecretsError, match=r"JWT_JWKS_FILE .*No such file"):
        start(jwt_jwks_file=path)
    path.write_bytes(key_file(jwk(d=b64(PRIVATE.private_bytes_raw()))))
    with pytest.raises(SecretsError, match="private key") as caught:
        start(jwt_jwks_file=path)
    assert b64(PRIVATE.private_bytes_raw()) not in str(caught.value)
    path.write_bytes(key_file(jwk()))
    path.chmod(0o666)
    with pytest.raises(SecretsError, match="others may write"):
        start(jwt_jwks_file=path)
    path.chmod(0o644)
    assert [key.kid for key in start(jwt_jwks_file=path, jwt_secret=SECRET).keys] == ["one", None]
    path.write_bytes(b" " * 65_537)
    with pytest.raises(SecretsError, match="larger"):
        start(jwt_jwks_file=path)
    with pytest.raises(SecretsError, match="no file"):
        start(jwt_jwks_file=tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(SecretsError, match="no file"):
        start(jwt_jwks_file=tmp_path / "fifo")


@pytest.mark.parametrize(
    "secret",
    [
        "short", "x" * 64, "changeme-changeme-changeme-changeme", "secret" * 10,
        "abcdefghijklmnopqrstuvwxyz0123456789", "0123456789abcdef" * 4,
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----",
        '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7kTqYbO0ydGHIiPvU7",
    ],
)  # fmt: skip
def test_a_secret_that_could_be_guessed_or_is_none_keeps_the_server_from_starting(secret: str) -> None:
    with pytest.raises(SecretsError, match="JWT_SECRET") as caught:
        start(jwt_secret=secret)
    assert secret not in str(caught.value)


def test_random_secrets_of_any_usual_spelling_are_taken() -> None:
    for _ in range(300):
        for text in (secrets.token_hex(16), secrets.token_hex(32), secrets.token_urlsafe(32)):
            if not text.startswith(("-----", "{", "ssh-")):
                start(jwt_secret=text)
