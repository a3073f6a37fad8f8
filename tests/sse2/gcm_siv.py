"""AES-256-GCM-SIV written from RFC 8452, slowly: one line of Python for each line of the text.

The tests' own implementation, so that a mistake in the library, or in how it is used, cannot hide. It takes
nothing from the library but the AES block cipher, and is of no use for anything but tests: neither fast nor
constant in time.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

BLOCK_BYTES = 16
_MODULUS = (
    (1 << 128) | (1 << 127) | (1 << 126) | (1 << 121) | 1
)  # x^128 + x^127 + x^126 + x^121 + 1, section 3
_X_TO_MINUS_128 = (1 << 127) | (1 << 124) | (1 << 121) | (1 << 114) | 1  # section 3


class Forged(Exception):
    """The tag is not that of this ciphertext, AAD, nonce and key."""


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Ciphertext and tag (section 4)."""
    authentication_key, encryption_key = derive_keys(key, nonce)
    tag = _tag(authentication_key, encryption_key, nonce, plaintext, aad)
    return _counter_mode(encryption_key, tag, plaintext) + tag


def open_(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext (section 5). Raises Forged."""
    authentication_key, encryption_key = derive_keys(key, nonce)
    ciphertext, tag = sealed[:-BLOCK_BYTES], sealed[-BLOCK_BYTES:]
    plaintext = _counter_mode(encryption_key, tag, ciphertext)
    if _tag(authentication_key, encryption_key, nonce, plaintext, aad) != tag:
        raise Forged
    return plaintext


def derive_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """The message-authentication key and the message-encryption key of one nonce (section 4)."""
    halves = [_aes(key, counter.to_bytes(4, "little") + nonce)[:8] for counter in range(6)]
    return b"".join(halves[:2]), b"".join(halves[2:])


def polyval(key: bytes, blocks: bytes) -> bytes:
    """Section 3. ``blocks``: whole ones."""
    h = int.from_bytes(key, "little")
    s = 0
    for at in range(0, len(blocks), BLOCK_BYTES):
        s = _dot(s ^ int.from_bytes(blocks[at : at + BLOCK_BYTES], "little"), h)
    return s.to_bytes(BLOCK_BYTES, "little")


def _dot(a: int, b: int) -> int:
    """a * b * x^-128 (section 3)."""
    return _multiply(_multiply(a, b), _X_TO_MINUS_128)


def _multiply(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        b >>= 1
        a <<= 1
        if a >> 128:
            a ^= _MODULUS
    return product


def _tag(
    authentication_key: bytes, encryption_key: bytes, nonce: bytes, plaintext: bytes, aad: bytes
) -> bytes:
    lengths = (len(aad) * 8).to_bytes(8, "little") + (len(plaintext) * 8).to_bytes(8, "little")
    hashed = bytearray(polyval(authentication_key, _padded(aad) + _padded(plaintext) + lengths))
    for at, byte in enumerate(nonce):
        hashed[at] ^= byte
    hashed[15] &= 0x7F
    return _aes(encryption_key, bytes(hashed))


def _counter_mode(key: bytes, tag: bytes, text: bytes) -> bytes:
    counter, rest = int.from_bytes(tag[:4], "little"), tag[4:15] + bytes([tag[15] | 0x80])
    stream = bytearray()
    while len(stream) < len(text):
        stream += _aes(key, counter.to_bytes(4, "little") + rest)
        counter = (counter + 1) % (1 << 32)
    return bytes(a ^ b for a, b in zip(text, stream, strict=False))


def _padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % BLOCK_BYTES)


def _aes(key: bytes, block: bytes) -> bytes:
    return Cipher(AES(key), ECB()).encryptor().update(block)
