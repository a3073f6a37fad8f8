"""Transactions as the anchoring account signs them: EIP-1559 (type 2), no access list, no value sent along.

It alone writes their bytes: what is hashed and signed, what is sent, and back again. It holds no key, makes
no signature, and knows nothing of what the call data means (``ves.anchor_calls`` does). Amounts are wei.
"""

from __future__ import annotations

import msgspec

from ves.rlp_reading import Item, number_of, read_list, text_of
from ves.secp256k1 import ORDER, is_low, recover_address

TRANSACTION_TYPE = b"\x02"  # EIP-1559
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
    if raw[:1] != TRANSACTION_TYPE or len(raw) > RAW_BYTES_MAX:
        raise ValueError("not a transaction of type 2")
    fields = read_list(raw[1:])
    if len(fields) != 12 or fields[8] != []:
        raise ValueError("a transaction of type 2 without an access list has 12 fields, the ninth empty")
    return _decoded(fields[:8] + fields[9:])


def sender_of(signed: SignedTransaction) -> bytes:
    """The account that signed it, 20 bytes. ValueError when no key did."""
    found = recover_address(signing_digest(signed.unsigned), signed.y_parity, signed.r, signed.s)
    if found is None:
        raise ValueError("no key made this signature")
    return found


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


def _decoded(fields: list[Item]) -> SignedTransaction:
    chain_id, nonce, tip, fee, gas, to, value, data, y_parity, r, s = fields
    unsigned = UnsignedTransaction(
        chain_id=_number(chain_id),
        nonce=_number(nonce),
        max_priority_fee_per_gas=_number(tip),
        max_fee_per_gas=_number(fee),
        gas_limit=_number(gas),
        to=text_of(to, "the address", 0, 20) or None,
        data=text_of(data, "the data"),
        value=_number(value),
    )
    signature = (_number(y_parity), _number(r), _number(s))
    _check_signature(*signature)
    return SignedTransaction(unsigned, *signature)


def _check_signature(y_parity: int, r: int, s: int) -> None:
    if y_parity not in (0, 1) or not 0 < r < ORDER or not is_low(s):
        raise ValueError("no signature over secp256k1 with s in the lower half (EIP-2)")


def _word(number: int) -> bytes:
    """RLP's integers: big-endian, no leading zero, 0 is empty."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _number(field: Item) -> int:
    return number_of(field, "a number of a transaction", 32)
