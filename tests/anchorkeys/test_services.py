"""AWS KMS and Vault, held against what their interfaces are described to be. No real one was at hand: that
these adapters work with one is not shown here."""

from __future__ import annotations

import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError, NoCredentialsError
from botocore.stub import Stubber
from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from actors.chain import SignerAway, SignerRefused
from actors.chain_keys import vault
from actors.chain_keys.kms import INSTALL, KeyInKms, open_kms
from actors.chain_keys.vault import open_vault
from actors.chain_signer_wire import KmsKey, Secret, VaultKey
from tests.anchorkeys.signing import DIGEST, account_of
from tests.tls.authority import Authority
from ves.secp256k1 import ORDER, completed

KEY_ID = "alias/anchor"


@cache
def kms() -> Any:
    """A client of the real SDK, for a service that is not there."""
    nobody = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.session.Session().client("kms", region_name="eu-west-1", **nobody)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def described(public: bytes, **other: str) -> dict[str, Any]:
    return {
        "KeyId": KEY_ID,
        "PublicKey": public,
        "KeySpec": "ECC_SECG_P256K1",
        "KeyUsage": "SIGN_VERIFY",
    } | other


@pytest.mark.parametrize("upper", [False, True], ids=["low s", "high s"])
def test_kms_is_asked_for_a_signature_over_the_digest_itself(upper: bool) -> None:
    secret = PrivateKey().secret
    private = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())
    raw = PrivateKey(secret).sign_recoverable(DIGEST, hasher=None)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    client = kms()
    with Stubber(client) as stub:
        stub.add_response("get_public_key", described(spki(private)), {"KeyId": KEY_ID})
        stub.add_response(
            "sign",
            {"KeyId": KEY_ID, "Signature": encode_dss_signature(r, ORDER - s if upper else s)},
            {
                "KeyId": KEY_ID,
                "Message": DIGEST,
                "MessageType": "DIGEST",
                "SigningAlgorithm": "ECDSA_SHA_256",
            },
        )
        key = KeyInKms(KEY_ID, client)
        assert key.address() == account_of(secret)
        assert completed(DIGEST, *key.sign(DIGEST), key.address()) == (raw[64], r, s)
        stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDeniedException", 400, SignerRefused),
        ("DisabledException", 400, SignerRefused),
        ("NotFoundException", 400, SignerRefused),
        ("KMSInvalidStateException", 400, SignerRefused),
        ("ExpiredTokenException", 400, SignerRefused),
        ("ThrottlingException", 400, SignerAway),
        ("KeyUnavailableException", 500, SignerAway),
        ("KMSInternalException", 500, SignerAway),
        ("Canary text with arn:aws", 500, SignerAway),
    ],
)
def test_what_kms_refuses_and_what_it_cannot_do_now_are_told_apart(
    code: str, status: int, kind: type[Exception]
) -> None:
    client = kms()
    with Stubber(client) as stub:
        private = ec.generate_private_key(ec.SECP256K1())
        stub.add_response("get_public_key", described(spki(private)))
        key = KeyInKms(KEY_ID, client)
        stub.add_client_error("sign", code, "canary: arn:aws:iam::1:role/x", http_status_code=status)
        with pytest.raises(kind) as failed:
            key.sign(DIGEST)
        assert "arn:aws" not in str(failed.value)
        stub.add_response("sign", {"KeyId": KEY_ID, "Signature": b"no DER"})
        with pytest.raises(SignerAway, match="something else than a signature"):
            key.sign(DIGEST)


def test_a_kms_key_of_another_kind_is_refused() -> None:
    good, other = ec.generate_private_key(ec.SECP256K1()), ec.generate_private_key(ec.SECP256R1())
    for answer, reason in (
        (described(spki(good), KeyUsage="KEY_AGREEMENT"), "for SIGN_VERIFY is wanted"),
        (described(spki(other), KeySpec="ECC_NIST_P256"), "ECC_SECG_P256K1 for SIGN_VERIFY is wanted"),
        (described(spki(other)), "on another curve"),
    ):
        client = kms()
        with Stubber(client) as stub:
            stub.add_response("get_public_key", answer)
            with pytest.raises(SignerRefused, match=reason):
                KeyInKms(KEY_ID, client)


class Unreachable:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_public_key(self, **_: str) -> None:
        raise self._error


def test_a_kms_that_does_not_answer_is_away_and_missing_credentials_take_an_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SignerAway, match="KMS does not answer: ConnectTimeoutError"):
        KeyInKms(KEY_ID, Unreachable(ConnectTimeoutError(endpoint_url="https://canary")))
    with pytest.raises(SignerRefused, match="NoCredentialsError"):
        KeyInKms(KEY_ID, Unreachable(NoCredentialsError()))
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(SignerRefused, match="NoRegionError"):
        open_kms(KmsKey(KEY_ID))


def test_without_the_sdk_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(SignerRefused) as refused:
        open_kms(KmsKey(KEY_ID))
    assert INSTALL in str(refused.value)


# Vault.

TOKEN = "hvs." + secrets.token_hex(16)


@contextmanager
def a_vault(authority: Authority, answer: tuple[int, bytes]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """One that speaks TLS and gives this answer to whoever shows the token; what it was asked."""
    asked: list[tuple[str, str]] = []

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("X-Vault-Token", "")))
            status, body = answer if asked[-1][1] == TOKEN else (403, b'{"errors": ["permission denied"]}')
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "https://localhost:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.write_pair())
    with HTTPServer(("127.0.0.1", 0), Door) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def held(secret: bytes, field: str = "private_key") -> bytes:
    return json.dumps({"data": {"data": {field: secret.hex()}, "metadata": {"version": 1}}}).encode()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("VAULT_CACERT", str(made.file))
    return made


def place(address: str, path: str = "secret/data/anchor", token: str = TOKEN) -> VaultKey:
    return VaultKey(address, path, Secret("ANCHOR_VAULT_TOKEN", token))


def test_vault_gives_the_key_of_a_field_to_whoever_has_the_token(authority: Authority) -> None:
    secret = PrivateKey().secret
    with a_vault(authority, (200, held(secret))) as (address, asked):
        assert open_vault(place(address)).address() == account_of(secret)
        assert asked == [("/v1/secret/data/anchor", TOKEN)]
        with pytest.raises(SignerRefused, match="no text in field other of secret/data/anchor"):
            open_vault(place(address, "secret/data/anchor#other"))
        with pytest.raises(SignerRefused, match=r"refuses \(403\)") as refused:
            open_vault(place(address, token="canary"))
        assert "canary" not in str(refused.value)
    with a_vault(authority, (200, held(secret, "key"))) as (address, _):
        assert open_vault(place(address, "secret/data/anchor#key")).address() == account_of(secret)


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (404, b"", SignerRefused, "MOUNT/data/NAME"),
        (429, b"", SignerAway, "429"),
        (503, b"sealed", SignerAway, "503"),
        (302, b"", SignerRefused, "302"),
        (200, b"<html>", SignerAway, "something else than JSON"),
        (200, b'{"data": {"private_key": "KV version 1"}}', SignerRefused, "KV version 2"),
        (200, b'{"data": {"data": {"private_key": "canary"}}}', SignerRefused, "is no private key"),
        (200, b" " * (vault.ANSWER_BYTES_MAX + 1), SignerRefused, "far too long"),
    ],
)
def test_what_vault_refuses_and_what_it_cannot_do_now_are_told_apart(
    status: int, body: bytes, kind: type[Exception], reason: str, authority: Authority
) -> None:
    with (
        a_vault(authority, (status, body)) as (address, asked),
        pytest.raises(kind, match=reason) as failed,
    ):
        open_vault(place(address))
    assert len(asked) == 1
    assert "canary" not in str(failed.value)


def test_a_vault_whose_certificate_nobody_vouches_for_hears_no_token(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_CACERT")
    with a_vault(authority, (200, held(PrivateKey().secret))) as (address, asked):
        with pytest.raises(SignerAway, match="its certificate is not believed"):
            open_vault(place(address))
        for unsafe in (address.replace("https", "http"), "vault:8200", "https://"):
            with pytest.raises(SignerRefused, match="ANCHOR_VAULT_ADDRESS"):
                open_vault(place(unsafe))
        for path in ("anchor", "/secret/data/anchor", "secret/../sys/seal", "secret/data/a?b"):
            with pytest.raises(SignerRefused, match="ANCHOR_VAULT_PATH"):
                open_vault(place(address, path))
        assert asked == []
