"""Signatures of Ethereum accounts: (r, s) over 32 bytes, the parity that goes with it, the address it shows.

Alone knows the curve's order and how an account's address comes from its public key. Never sees a private
key; who verifies nothing never loads the libraries.
"""

from __future__ import annotations

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of the group (SEC 2, 2.4.1)."""
ADDRESS_BYTES = 20
DIGEST_BYTES = 32


def address_of(public_key: bytes) -> bytes:
    """The 20 bytes, from 33 or 65 bytes of SEC 1. ValueError when they are no point of the curve."""
    from coincurve import PublicKey

    return _hashed(PublicKey(public_key).format(compressed=False))


def recover_address(digest: bytes, y_parity: int, r: int, s: int) -> bytes | None:
    """Whose signature it is; None: nobody's."""
    if len(digest) != DIGEST_BYTES or y_parity not in (0, 1) or not (0 < r < ORDER and 0 < s < ORDER):
        return None
    from coincurve import PublicKey

    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([y_parity])
    try:
        point = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception:  # the library raises nothing narrower for "there is no such point"
        return None
    return _hashed(point.format(compressed=False))


def is_low(s: int) -> bool:
    """In the lower half of the order: of the two that verify, the one that chains take (EIP-2)."""
    return 0 < s <= ORDER // 2


def completed(digest: bytes, r: int, s: int, address: bytes) -> tuple[int, int, int] | None:
    """``(y_parity, r, s)`` with s in the lower half, which recovers to ``address``; None: it is not its."""
    low = s if is_low(s) else ORDER - s
    return next(
        ((parity, r, low) for parity in (0, 1) if recover_address(digest, parity, r, low) == address), None
    )


def checksummed(address: bytes) -> str:
    """As people see it: 0x and 40 digits, whose case holds a checksum (EIP-55)."""
    text = address.hex()
    marks = _keccak256(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, marks, strict=False))


def _hashed(point: bytes) -> bytes:
    """``point``: 0x04 || x || y."""
    return _keccak256(point[1:])[-ADDRESS_BYTES:]


def _keccak256(data: bytes) -> bytes:
    from eth_hash.auto import keccak  # picks its backend when imported

    return bytes(keccak(data))
