"""What a request says about a new agent key, checked: its name, its point, its window, and who holds it.

Alone words what is wrong with them. Nothing is looked up here.
"""

from __future__ import annotations

from typing import Literal

from journal.port import AgentKey
from transport.http.errors import ApiError, Code
from transport.http.shapes import RegisterKeyBody
from ves.constants import POP_V1, POP_V2
from ves.encoding import hex_bytes
from ves.records import KeyName
from ves.signatures import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_registrable, proven_possession
from ves.timestamps import parse_rfc3339, utc_text

ED25519 = 1

Required = Literal["off", "v1", "v2"]
"""Which proof of possession a registration must bring."""

HOW_TO_PROVE = (
    f'sign with the new key the 32 bytes SHA-256("{POP_V2.decode()}" || tenantId (16 bytes) || agentId (16) '
    "|| keyId (4, big-endian) || public key (32)) and send the 64-byte signature in hex"
)


def key_of(body: RegisterKeyBody, name: KeyName, required: Required) -> AgentKey:
    """The key to be registered under this name; everything wrong with it is a 4xx."""
    if body.key_algorithm not in (None, 0, ED25519):
        raise ApiError(Code.INVALID_FIELD_VALUE, "keyAlgorithm: only Ed25519 (0 or 1) is supported")
    public_key = _public_key(body)
    version, proof = _possession(body, name, public_key, required)
    key = AgentKey(
        name=name,
        public_key=public_key,
        key_algorithm=ED25519,
        valid_from_us=_time(body.valid_from, "validFrom"),
        valid_to_us=_time(body.valid_to, "validTo"),
        proof_of_possession=version,
        proof=proof,
    )
    if key.valid_from_us is not None and key.valid_to_us is not None and key.valid_from_us > key.valid_to_us:
        raise ApiError(Code.INVALID_FIELD_VALUE, "validTo: earlier than validFrom")
    return key


def signature_bytes(text: str, field: str) -> bytes:
    return _hex(text, field, SIGNATURE_BYTES)


def _public_key(body: RegisterKeyBody) -> bytes:
    public_key = _hex(body.public_key, "publicKey", PUBLIC_KEY_BYTES)
    bundle = body.public_key_bundle
    if bundle is not None and bundle.ed25519_public_key is not None:
        field = "publicKeyBundle.ed25519PublicKey"
        if _hex(bundle.ed25519_public_key, field, PUBLIC_KEY_BYTES) != public_key:
            raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: another key than publicKey")
    if not is_registrable(public_key):
        text = "publicKey: not a canonical Ed25519 point of the prime-order group"
        raise ApiError(Code.INVALID_PUBLIC_KEY, text)
    return public_key


def _possession(
    body: RegisterKeyBody, name: KeyName, public_key: bytes, required: Required
) -> tuple[int | None, bytes | None]:
    """Which challenge was answered, and the answer; None when no proof was sent and none is needed."""
    proof = _proof(body)
    if proof is None:
        if required != "off":
            text = f"proofOfPossession: required by this server; {HOW_TO_PROVE}"
            raise ApiError(Code.MISSING_REQUIRED_FIELD, text)
        return None, None
    version = proven_possession(name, public_key, proof)
    if version is None:
        text = f"proofOfPossession: not this key's signature over its challenge; {HOW_TO_PROVE}"
        raise ApiError(Code.SIGNATURE_VERIFICATION_FAILED, text)
    if required == "v2" and version != 2:
        text = (
            f"proofOfPossession: answers {POP_V1.decode()}, which this server does not accept; {HOW_TO_PROVE}"
        )
        raise ApiError(Code.SIGNATURE_VERIFICATION_FAILED, text)
    return version, proof


def _proof(body: RegisterKeyBody) -> bytes | None:
    """Given as a member of its own, in the original's bundle, or in both alike."""
    bundle = body.proof_of_possession_bundle
    single, bundled = body.proof_of_possession, bundle.ed25519_pop if bundle else None
    proofs = {
        signature_bytes(text, field)
        for text, field in (
            (single, "proofOfPossession"),
            (bundled, "proofOfPossessionBundle.ed25519Pop"),
        )
        if text is not None
    }
    if len(proofs) > 1:
        text = (
            "proofOfPossession: another signature than proofOfPossessionBundle.ed25519Pop; send one of them"
        )
        raise ApiError(Code.INVALID_FIELD_VALUE, text)
    return proofs.pop() if proofs else None


def _hex(text: str, field: str, length: int) -> bytes:
    try:
        return hex_bytes(text, length)
    except ValueError as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: {wrong}", status=422) from None


def _time(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        moment_us = parse_rfc3339(text)
        utc_text(moment_us)  # what cannot be written could never be listed again
    except (ValueError, OverflowError) as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: {wrong}") from None
    return moment_us
