"""VES-ENC-1 (VES 4): payloads that only their recipients can read.

It alone knows the ``payload_encrypted`` object: its structure rules, the hashes over it, and how agents seal
and open one. The sequencer only ever calls ``parse_payload_encrypted`` and ``cipher_hash``; it never sees a
plaintext. Only one profile can be used: enc_version 1, HPKE base mode, X25519, HKDF-SHA256, AES-256-GCM.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ves.canonical import NotCanonical, canonical_payload, exceeds_depth, jcs, parse_strictly
from ves.constants import (
    ENC_AEAD,
    ENC_VERSION,
    HPKE_AEAD,
    HPKE_KDF,
    HPKE_KEM,
    HPKE_MODE,
    PAYLOAD_CIPHER,
    PAYLOAD_DEPTH_MAX,
    RECIPIENTS,
    U32_MAX,
)
from ves.encoding import base64url, base64url_bytes, u32
from ves.events import EventHeader, payload_aad, payload_plain_hash

SALT_BYTES = 16
DEK_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
ENC_BYTES = 32
CT_BYTES = 48


class EncryptedPayloadRefused(ValueError):
    """The object breaks a structure rule; ``field`` is its full name as in ``schema_validation: <field>``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotOpened(Exception):
    """This key does not open this payload, or what it opens is not what the agent hashed and signed."""


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """The data key, wrapped for one recipient (decoded bytes)."""

    kid: int
    enc: bytes
    ct: bytes


class PayloadEncrypted(msgspec.Struct, frozen=True, gc=False):
    """A well-formed ``payload_encrypted`` of the one usable profile (decoded bytes)."""

    nonce: bytes
    ciphertext: bytes
    tag: bytes
    recipients: tuple[Recipient, ...]

    def text(self) -> bytes:
        """Its JSON text: known members only, in the order of VES 4.1, base64url unpadded. What is stored."""
        recipients = [
            {"recipient_kid": to.kid, "enc_b64u": base64url(to.enc), "ct_b64u": base64url(to.ct)}
            for to in self.recipients
        ]
        return orjson.dumps(
            {
                "enc_version": ENC_VERSION,
                "aead": ENC_AEAD,
                "nonce_b64u": base64url(self.nonce),
                "ciphertext_b64u": base64url(self.ciphertext),
                "tag_b64u": base64url(self.tag),
                "hpke": {"mode": HPKE_MODE, "kem": HPKE_KEM, "kdf": HPKE_KDF, "aead": HPKE_AEAD},
                "recipients": recipients,
            }
        )


def parse_payload_encrypted(raw: bytes) -> PayloadEncrypted:
    """The object these JSON bytes spell; EncryptedPayloadRefused at the first broken rule (wire 23.3 V8)."""
    try:
        if exceeds_depth(raw, PAYLOAD_DEPTH_MAX):
            raise NotCanonical(f"nested deeper than {PAYLOAD_DEPTH_MAX} levels")
        given = parse_strictly(raw)
    except NotCanonical as wrong:
        raise EncryptedPayloadRefused("payload_encrypted", str(wrong)) from None
    if not isinstance(given, dict):
        raise EncryptedPayloadRefused("payload_encrypted", "payload_encrypted must be an object")
    if type(given.get("enc_version")) is not int or given["enc_version"] != ENC_VERSION:
        raise EncryptedPayloadRefused("payload_encrypted.enc_version", "enc_version must be 1")
    _expect(given, "aead", ENC_AEAD, "")
    hpke = given.get("hpke")
    if not isinstance(hpke, dict):
        raise EncryptedPayloadRefused("payload_encrypted.hpke", "hpke must be an object")
    _expect(hpke, "mode", HPKE_MODE, "hpke.")
    _expect(hpke, "kem", HPKE_KEM, "hpke.")
    _expect(hpke, "kdf", HPKE_KDF, "hpke.")
    _expect(hpke, "aead", HPKE_AEAD, "hpke.")
    nonce = _decoded(given, "nonce_b64u", NONCE_BYTES, "")
    ciphertext = _decoded(given, "ciphertext_b64u", None, "")
    tag = _decoded(given, "tag_b64u", TAG_BYTES, "")
    return PayloadEncrypted(nonce, ciphertext, tag, _recipients(given.get("recipients")))


def _expect(members: dict[str, Any], name: str, value: str, path: str) -> None:
    if members.get(name) != value:
        raise EncryptedPayloadRefused(f"payload_encrypted.{path}{name}", f"{path}{name} must be {value}")


def _decoded(members: dict[str, Any], name: str, length: int | None, path: str) -> bytes:
    field = f"payload_encrypted.{path}{name}"
    text = members.get(name)
    if not isinstance(text, str):
        raise EncryptedPayloadRefused(field, "must be base64url")
    try:
        raw = base64url_bytes(text)
    except ValueError as wrong:
        raise EncryptedPayloadRefused(field, str(wrong)) from None
    if length is None and not raw:
        raise EncryptedPayloadRefused(field, f"{name} must not be empty")
    if length is not None and len(raw) != length:
        raise EncryptedPayloadRefused(field, f"{name} must decode to {length} bytes")
    return raw


def _recipients(given: Any) -> tuple[Recipient, ...]:
    field = "payload_encrypted.recipients"
    if not isinstance(given, list) or not given:
        raise EncryptedPayloadRefused(field, "recipients must not be empty")
    recipients: list[Recipient] = []
    for entry in given:
        kid = entry.get("recipient_kid") if isinstance(entry, dict) else None
        if type(kid) is not int or not 0 <= kid <= U32_MAX:
            raise EncryptedPayloadRefused(field, f"recipient_kid must be an integer from 0 to {U32_MAX}")
        if recipients and kid <= recipients[-1].kid:
            raise EncryptedPayloadRefused(field, "recipients must be sorted by recipient_kid and unique")
        enc = _decoded(entry, "enc_b64u", ENC_BYTES, "recipients.")
        ct = _decoded(entry, "ct_b64u", CT_BYTES, "recipients.")
        recipients.append(Recipient(kid, enc, ct))
    return tuple(recipients)


def recipients_hash(recipients: tuple[Recipient, ...]) -> bytes:
    """Hash over the wrapped keys in list order (VES 3.1)."""
    parts = [RECIPIENTS]
    for to in recipients:
        parts += (u32(to.kid), u32(len(to.enc)), to.enc, u32(len(to.ct)), to.ct)
    return sha256(b"".join(parts)).digest()


def cipher_hash(sealed: PayloadEncrypted, aad: bytes) -> bytes:
    """``payload_cipher_hash`` of an encrypted event (VES 3.1); ``aad`` is its payload AAD."""
    return sha256(
        b"".join(
            (
                PAYLOAD_CIPHER,
                u32(ENC_VERSION),
                sealed.nonce,
                aad,
                u32(len(sealed.ciphertext)),
                sealed.ciphertext,
                sealed.tag,
                recipients_hash(sealed.recipients),
            )
        )
    ).digest()


# For agents.


_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealedForRecipients(NamedTuple):
    """What an encrypted envelope is made of, see ``ves.events.encrypted_envelope``."""

    payload_encrypted: bytes
    payload_plain_hash: bytes
    payload_cipher_hash: bytes


def seal(
    header: EventHeader,
    payload: Any,
    recipients: Mapping[int, bytes],
    *,
    salt: bytes,
    dek: bytes,
    nonce: bytes,
) -> SealedForRecipients:
    """Encrypt ``payload`` for recipients given as kid -> X25519 public key (VES 4.2).

    Salt (16), data key (32) and nonce (12) must be fresh random bytes for every event. HPKE draws its own
    ephemeral keys inside the library; nothing else here is random. ``NotCanonical`` for an unusable payload.
    """
    if (len(salt), len(dek), len(nonce)) != (SALT_BYTES, DEK_BYTES, NONCE_BYTES):
        raise ValueError("salt has 16 bytes, the data key 32, the nonce 12")
    if not recipients:
        raise ValueError("recipients must not be empty")
    canonical = canonical_payload(jcs(payload))
    plain_hash = payload_plain_hash(canonical, salt)
    aad = payload_aad(header.encoded(), plain_hash)
    sealed = AESGCM(dek).encrypt(nonce, salt + canonical, aad)
    wrapped = []
    for kid in sorted(recipients):
        enc_ct = _SUITE.encrypt(dek, X25519PublicKey.from_public_bytes(recipients[kid]), info=aad)
        wrapped.append(Recipient(kid, enc_ct[:ENC_BYTES], enc_ct[ENC_BYTES:]))
    made = PayloadEncrypted(nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:], tuple(wrapped))
    return SealedForRecipients(made.text(), plain_hash, cipher_hash(made, aad))


def unseal(
    header: EventHeader, payload_encrypted: bytes, plain_hash: bytes, kid: int, private_key: bytes
) -> bytes:
    """The canonical JSON of the payload, for the holder of recipient ``kid``'s X25519 private key (VES 4.3).

    ``NotOpened`` when the key is no recipient's, the bytes or the header were changed, or the plaintext does
    not give ``plain_hash``, which the sequencer could not check.
    """
    try:
        sealed = parse_payload_encrypted(payload_encrypted)
    except EncryptedPayloadRefused as wrong:
        raise NotOpened(f"{wrong.field}: {wrong}") from None
    wrapped = next((to for to in sealed.recipients if to.kid == kid), None)
    if wrapped is None:
        raise NotOpened(f"no recipient has the key id {kid}")
    aad = payload_aad(header.encoded(), plain_hash)
    try:
        key = X25519PrivateKey.from_private_bytes(private_key)
        dek = _SUITE.decrypt(wrapped.enc + wrapped.ct, key, info=aad)
        plaintext = AESGCM(dek).decrypt(sealed.nonce, sealed.ciphertext + sealed.tag, aad)
    except InvalidTag:
        raise NotOpened("this key does not open this payload of this event") from None
    salt, text = plaintext[:SALT_BYTES], plaintext[SALT_BYTES:]
    try:
        canonical = canonical_payload(text)
    except NotCanonical as wrong:
        raise NotOpened(f"the plaintext is no acceptable payload: {wrong}") from None
    if payload_plain_hash(canonical, salt) != plain_hash:
        raise NotOpened("the plaintext is not the one the agent hashed")
    return canonical
