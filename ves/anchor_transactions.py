"""Transactions as the anchoring account signs them: EIP-1559 (type 2), no access list, no value sent along.

It alone writes their bytes: what is hashed and signed, what is sent, and back again. It holds no key, makes
no signature, and knows nothing of what the call data means (``ves.anchor_calls`` does). Amounts are wei.
"""

from __future__ import annotations

import msgspec

TRANSACTION_TYPE = b"\x02"  # EIP-1559
_CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
RAW_BYTES_MAX = 131_072  # what nodes take into their pools


class UnsignedTransaction(msgspec.Struct, frozen=True):
    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: bytes | None
    """20 bytes; None: it deploys a contract."""
    data: bytes
    value: int = 0


class SignedTransaction(msgspec.Struct, frozen=True):
    unsigned: UnsignedTransaction
    y_parity: int
    r: int
    s: int


def signing_digest(unsigned: UnsignedTransaction) -> bytes:
    """The 32 bytes that are signed."""
    return _keccak256(TRANSACTION_TYPE + _rlp(_fields(unsigned)))


def signed_bytes(unsigned: UnsignedTransaction, y_parity: int, r: int, s: int) -> bytes:
    """What an endpoint is sent. ValueError for a signature that chains do not take (EIP-2)."""
    _check_signature(y_parity, r, s)
    return TRANSACTION_TYPE + _rlp([*_fields(unsigned), _word(y_parity), _word(r), _word(s)])


def transaction_hash(raw: bytes) -> bytes:
    return _keccak256(raw)


def decode_transaction(raw: bytes) -> SignedTransaction:
    """Of ``signed_bytes``, and only of what it writes: ValueError for any other spelling or type."""
    import rlp

    if raw[:1] != TRANSACTION_TYPE or len(raw) > RAW_BYTES_MAX:
        raise ValueError("not a transaction of type 2")
    try:
        fields = rlp.decode(raw[1:])
    except rlp.exceptions.DecodingError as error:
        raise ValueError(f"not RLP: {error}") from None
    if not isinstance(fields, list) or len(fields) != 12 or fields[8] != []:
        raise ValueError("a transaction of type 2 without an access list has 12 fields, the ninth empty")
    return _decoded(fields[:8] + fields[9:])


def sender_of(signed: SignedTransaction) -> bytes:
    """The account that signed it, 20 bytes. ValueError when no key did."""
    from coincurve import PublicKey

    signature = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big") + bytes([signed.y_parity])
    try:
        key = PublicKey.from_signature_and_message(signature, signing_digest(signed.unsigned), hasher=None)
    except Exception as error:  # coincurve raises bare ones
        raise ValueError("no key made this signature") from error
    return address_of(key.format(compressed=False))


def address_of(public_key: bytes) -> bytes:
    """``public_key``: the 65 bytes of an uncompressed point on secp256k1."""
    if len(public_key) != 65 or public_key[0] != 4:
        raise ValueError("an uncompressed public key has 65 bytes, the first one 4")
    return _keccak256(public_key[1:])[12:]


def created_by(sender: bytes, nonce: int) -> bytes:
    """The address of the contract that this transaction deploys, 20 bytes."""
    return _keccak256(_rlp([sender, _word(nonce)]))[12:]


# The libraries are imported where they are used: a server without anchoring pays for none of them.


def _keccak256(data: bytes) -> bytes:
    from eth_hash.auto import keccak

    return bytes(keccak(data))


def _rlp(fields: list[bytes | list[bytes]]) -> bytes:
    import rlp

    return bytes(rlp.encode(fields))


def _fields(unsigned: UnsignedTransaction) -> list[bytes | list[bytes]]:
    return [
        _word(unsigned.chain_id),
        _word(unsigned.nonce),
        _word(unsigned.max_priority_fee_per_gas),
        _word(unsigned.max_fee_per_gas),
        _word(unsigned.gas_limit),
        unsigned.to or b"",
        _word(unsigned.value),
        unsigned.data,
        [],
    ]


def _decoded(fields: list[bytes]) -> SignedTransaction:
    if not all(isinstance(field, bytes) for field in fields):
        raise ValueError("a field is a list")
    chain_id, nonce, tip, fee, gas, to, value, data, y_parity, r, s = fields
    if len(to) not in (0, 20):
        raise ValueError("an address has 20 bytes")
    unsigned = UnsignedTransaction(
        chain_id=_number(chain_id),
        nonce=_number(nonce),
        max_priority_fee_per_gas=_number(tip),
        max_fee_per_gas=_number(fee),
        gas_limit=_number(gas),
        to=to or None,
        data=data,
        value=_number(value),
    )
    signature = (_number(y_parity), _number(r), _number(s))
    _check_signature(*signature)
    return SignedTransaction(unsigned, *signature)


def _check_signature(y_parity: int, r: int, s: int) -> None:
    if y_parity not in (0, 1) or not 0 < r < _CURVE_ORDER or not 0 < s <= _CURVE_ORDER // 2:
        raise ValueError("no signature over secp256k1 with s in the lower half (EIP-2)")


def _word(number: int) -> bytes:
    """RLP's integers: big-endian, no leading zero, 0 is empty."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _number(field: bytes) -> int:
    if field[:1] == b"\0" or len(field) > 32:
        raise ValueError("an integer starts with a zero byte or is longer than 32")
    return int.from_bytes(field, "big")
