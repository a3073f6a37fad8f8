"""Ed25519 as VES uses it: 32-byte seeds, 32-byte public keys, 64-byte signatures, and our strictness.

It alone calls the signature library. Verification is libsodium's: S canonical, no small-order R or A,
non-canonical A refused. Registration is stricter: the key must be a canonical point of the prime-order
group, because libsodium's verification alone lets some mixed-order keys through. ``docs/ed25519.md`` lists
every published edge case with our answer. A wrong signature is ``False``, never an exception.
"""

from __future__ import annotations

from hashlib import sha256

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from ves.constants import KEY_ROTATION, POP_V1, POP_V2
from ves.encoding import u32
from ves.records import KeyName

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEED_BYTES = 32


class Signer:
    """A private key that signs. Deterministic (RFC 8032): the same message gives the same signature."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        """``seed`` is the 32-byte private key of RFC 8032; ValueError for another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.public_key: bytes
        self.public_key, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``."""
        signed: bytes = crypto_sign(message, self._secret)
        return signed[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"Signer(public_key={self.public_key.hex()})"


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``public_key``'s over ``message``; False also for wrong lengths."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        return False
    return True


def is_registrable(public_key: bytes) -> bool:
    """Whether an agent may register this key: 32 bytes, canonical, on the curve, of prime order."""
    return len(public_key) == PUBLIC_KEY_BYTES and bool(crypto_core_ed25519_is_valid_point(public_key))


def pop_challenge_v1(public_key: bytes) -> bytes:
    """What the holder of a key signs to show it has it (VES 6.3). 32 bytes."""
    return sha256(POP_V1 + public_key).digest()


def pop_challenge_v2(name: KeyName, public_key: bytes) -> bytes:
    """As version 1, but bound to the name it is registered under, so it cannot be replayed elsewhere."""
    return sha256(POP_V2 + name.tenant_id + name.agent_id + u32(name.key_id) + public_key).digest()


def proven_possession(name: KeyName, public_key: bytes, proof: bytes) -> int | None:
    """Which challenge ``proof`` answers: 2, 1, or None when neither."""
    if verify_signature(public_key, pop_challenge_v2(name, public_key), proof):
        return 2
    if verify_signature(public_key, pop_challenge_v1(public_key), proof):
        return 1
    return None


def rotation_hash(old: KeyName, old_public_key: bytes, new_key_id: int, new_public_key: bytes) -> bytes:
    """What an agent's key signs to name the one that takes its place. 32 bytes."""
    return sha256(
        KEY_ROTATION
        + old.tenant_id
        + old.agent_id
        + u32(old.key_id)
        + old_public_key
        + u32(new_key_id)
        + new_public_key
    ).digest()
