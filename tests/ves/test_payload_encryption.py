"""VES-ENC-1: structure rules in their order, sealing and opening."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from ves.canonical import NotCanonical, jcs
from ves.encoding import base64url
from ves.events import EventHeader, payload_aad, payload_plain_hash
from ves.payload_encryption import (
    EncryptedPayloadRefused,
    NotOpened,
    PayloadEncrypted,
    Recipient,
    cipher_hash,
    parse_payload_encrypted,
    seal,
    unseal,
)

HEADER = EventHeader(b"T" * 16, b"S" * 16, b"E" * 16, b"A" * 16, 1, "t", "i", "e", "2026-01-01T00:00:00Z")
FRESH = {"salt": b"s" * 16, "dek": b"d" * 32, "nonce": b"n" * 12}
PRIVATE = {7: b"\x11" * 32, 3: b"\x22" * 32}
PUBLIC = {
    kid: X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    for kid, raw in PRIVATE.items()
}
RECIPIENT = {"recipient_kid": 1, "enc_b64u": base64url(b"e" * 32), "ct_b64u": base64url(b"c" * 48)}
HONEST: dict[str, Any] = {
    "enc_version": 1,
    "aead": "AES-256-GCM",
    "nonce_b64u": base64url(b"n" * 12),
    "ciphertext_b64u": base64url(b"x" * 40),
    "tag_b64u": base64url(b"t" * 16),
    "hpke": {"mode": "base", "kem": "X25519-HKDF-SHA256", "kdf": "HKDF-SHA256", "aead": "AES-256-GCM"},
    "recipients": [RECIPIENT],
}


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda given: {key: value for key, value in given.items() if key != name}


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda given: {**given, name: value}


def _hpke(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda given: {**given, "hpke": {**given["hpke"], name: value}}


def _recipient(**members: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda given: {**given, "recipients": [{**RECIPIENT, **members}]}


CASES = [
    (".enc_version", "enc_version must be 1", _set("enc_version", 2)),
    (".enc_version", "enc_version must be 1", _set("enc_version", True)),
    (".enc_version", "enc_version must be 1", _set("enc_version", 1.0)),
    (".enc_version", "enc_version must be 1", _without("enc_version")),
    (".aead", "aead must be AES-256-GCM", _set("aead", "AES-128-GCM")),
    (".hpke", "hpke must be an object", _set("hpke", "base")),
    (".hpke.mode", "hpke.mode must be base", _hpke("mode", "hybrid-base")),
    (".hpke.kem", "hpke.kem must be X25519-HKDF-SHA256", _hpke("kem", "mlkem768")),
    (".hpke.kdf", "hpke.kdf must be HKDF-SHA256", _hpke("kdf", None)),
    (".hpke.aead", "hpke.aead must be AES-256-GCM", _hpke("aead", "")),
    (".nonce_b64u", "must be base64url", _set("nonce_b64u", "++++")),
    (".nonce_b64u", "must be base64url", _without("nonce_b64u")),
    (".nonce_b64u", "nonce_b64u must decode to 12 bytes", _set("nonce_b64u", "AAAA")),
    (".ciphertext_b64u", "ciphertext_b64u must not be empty", _set("ciphertext_b64u", "")),
    (".ciphertext_b64u", "must be base64url", _set("ciphertext_b64u", 5)),
    (".tag_b64u", "tag_b64u must decode to 16 bytes", _set("tag_b64u", "AAAA")),
    (".recipients", "recipients must not be empty", _set("recipients", [])),
    (".recipients", "recipients must not be empty", _without("recipients")),
    (
        ".recipients",
        "recipient_kid must be an integer from 0 to 4294967295",
        _recipient(recipient_kid=2**32),
    ),
    (".recipients", "recipient_kid must be an integer from 0 to 4294967295", _set("recipients", [5])),
    (
        ".recipients",
        "recipients must be sorted by recipient_kid and unique",
        _set("recipients", [RECIPIENT, RECIPIENT]),
    ),
    (".recipients.enc_b64u", "enc_b64u must decode to 32 bytes", _recipient(enc_b64u="AAAA")),
    (".recipients.ct_b64u", "ct_b64u must decode to 48 bytes", _recipient(ct_b64u=base64url(b"c" * 60))),
    ("", "payload_encrypted must be an object", lambda _: [1]),
]


@pytest.mark.parametrize(("field", "message", "change"), CASES)
def test_a_broken_rule_is_named_with_its_field(
    field: str, message: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    with pytest.raises(EncryptedPayloadRefused) as caught:
        parse_payload_encrypted(json.dumps(change(HONEST)).encode())
    assert (caught.value.field, str(caught.value)) == ("payload_encrypted" + field, message)


def test_the_first_broken_rule_gives_the_reason() -> None:
    broken = {**HONEST, "recipients": [], "tag_b64u": "", "aead": "none"}
    with pytest.raises(EncryptedPayloadRefused) as caught:
        parse_payload_encrypted(json.dumps(broken).encode())
    assert caught.value.field == "payload_encrypted.aead"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b'{"aead":1,"aead":2}',
        b'{"hpke":{"mode":"base","mode":"base"}}',
        b"[" * 5000,
        b'{"a":"\\ud800"}',
    ],
)
def test_bytes_that_spell_no_single_object_are_that_events_refusal(raw: bytes) -> None:
    with pytest.raises(EncryptedPayloadRefused) as caught:
        parse_payload_encrypted(raw)
    assert caught.value.field == "payload_encrypted"


def test_the_stored_text_has_the_known_members_only_in_one_spelling() -> None:
    padded = base64url(b"x" * 40) + "=="
    sent = {"x": [1], **HONEST, "ciphertext_b64u": padded, "recipients": [{**RECIPIENT, "y": 2}]}
    parsed = parse_payload_encrypted(json.dumps(sent, indent=2).encode())
    assert parsed.text() == json.dumps(HONEST, separators=(",", ":")).encode()
    assert parse_payload_encrypted(parsed.text()) == parsed


payloads = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9), max_size=4)


@settings(max_examples=25)
@given(payloads)
def test_each_recipient_and_nobody_else_opens_what_was_sealed(payload: dict[str, int]) -> None:
    sealed = seal(HEADER, payload, PUBLIC, **FRESH)
    parsed = parse_payload_encrypted(sealed.payload_encrypted)
    assert [to.kid for to in parsed.recipients] == [3, 7]
    aad = payload_aad(HEADER.encoded(), sealed.payload_plain_hash)
    assert cipher_hash(parsed, aad) == sealed.payload_cipher_hash
    for kid, private in PRIVATE.items():
        opened = unseal(HEADER, sealed.payload_encrypted, sealed.payload_plain_hash, kid, private)
        assert opened == jcs(payload)
    for kid, private in ((3, PRIVATE[7]), (9, PRIVATE[7])):
        with pytest.raises(NotOpened):
            unseal(HEADER, sealed.payload_encrypted, sealed.payload_plain_hash, kid, private)


def test_a_payload_of_another_event_or_with_another_hash_does_not_open() -> None:
    sealed = seal(HEADER, {"a": 1}, PUBLIC, **FRESH)
    other = EventHeader(b"T" * 16, b"S" * 16, b"F" * 16, b"A" * 16, 1, "t", "i", "e", "2026-01-01T00:00:00Z")
    with pytest.raises(NotOpened):
        unseal(other, sealed.payload_encrypted, sealed.payload_plain_hash, 3, PRIVATE[3])
    with pytest.raises(NotOpened):
        unseal(HEADER, sealed.payload_encrypted, bytes(32), 3, PRIVATE[3])
    with pytest.raises(NotOpened, match="enc_version"):
        unseal(HEADER, b"{}", sealed.payload_plain_hash, 3, PRIVATE[3])


def test_a_plaintext_that_is_not_the_hashed_one_does_not_open_although_every_key_fits() -> None:
    # The sequencer cannot see this lie: the agent binds another payload's hash to its ciphertext.
    lie = payload_plain_hash(b'{"amount":1}', FRESH["salt"])
    aad = payload_aad(HEADER.encoded(), lie)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    for text, why in (
        (b'{"amount":9}', "not the one the agent hashed"),
        (b"nonsense", "no acceptable payload"),
    ):
        sealed = AESGCM(FRESH["dek"]).encrypt(FRESH["nonce"], FRESH["salt"] + text, aad)
        wrapped = suite.encrypt(FRESH["dek"], X25519PublicKey.from_public_bytes(PUBLIC[3]), info=aad)
        made = PayloadEncrypted(
            FRESH["nonce"], sealed[:-16], sealed[-16:], (Recipient(3, wrapped[:32], wrapped[32:]),)
        )
        with pytest.raises(NotOpened, match=why):
            unseal(HEADER, made.text(), lie, 3, PRIVATE[3])


def test_what_the_sequencer_would_refuse_is_refused_before_sealing() -> None:
    with pytest.raises(NotCanonical):
        seal(HEADER, {"a": 2**53}, PUBLIC, **FRESH)
    with pytest.raises(ValueError, match="recipients"):
        seal(HEADER, {"a": 1}, {}, **FRESH)
    with pytest.raises(ValueError, match="salt has 16 bytes"):
        seal(HEADER, {"a": 1}, PUBLIC, **{**FRESH, "salt": b""})
