"""Transactions: the bytes that eth_account writes are ours, and there is one spelling."""

import msgspec
import pytest
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chain_keys.accounts import Account
from ves.anchor_transactions import (
    SignedTransaction,
    UnsignedTransaction,
    decode_transaction,
    sender_of,
    signed_bytes,
    signing_digest,
    transaction_hash,
)
from ves.secp256k1 import address_of

KEY = PrivateKey(bytes(range(1, 33)))
SAMPLE = UnsignedTransaction(84532001, 7, 10**9, 3 * 10**9, 200_000, bytes(range(20)), b"\x01\x02" * 50)


def sign(unsigned: UnsignedTransaction) -> bytes:
    signature = KEY.sign_recoverable(signing_digest(unsigned), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return signed_bytes(unsigned, signature[64], r, s)


@given(
    st.builds(
        UnsignedTransaction,
        st.integers(1, 2**53 - 1),
        st.integers(0, 2**40),
        st.integers(0, 2**70),
        st.integers(0, 2**70),
        st.integers(0, 2**32),
        st.none() | st.binary(min_size=20, max_size=20),
        st.binary(max_size=300),
        st.integers(0, 2**80),
    )
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_what_is_signed_reads_back_and_names_its_signer(unsigned: UnsignedTransaction) -> None:
    signed = decode_transaction(sign(unsigned))
    assert signed.unsigned == unsigned
    assert sender_of(signed) == address_of(KEY.public_key.format(compressed=False))


@pytest.mark.parametrize("to", [bytes(range(20)), None], ids=["call", "deployment"])
def test_another_library_writes_the_same_bytes(to: bytes | None) -> None:
    unsigned = msgspec.structs.replace(SAMPLE, to=to)
    theirs = Account.from_key(KEY.secret).sign_transaction(
        {
            "type": 2,
            "chainId": unsigned.chain_id,
            "nonce": unsigned.nonce,
            "maxPriorityFeePerGas": unsigned.max_priority_fee_per_gas,
            "maxFeePerGas": unsigned.max_fee_per_gas,
            "gas": unsigned.gas_limit,
            "to": "" if to is None else "0x" + to.hex(),
            "value": 0,
            "data": unsigned.data,
        }
    )
    raw = sign(unsigned)
    assert raw == bytes(theirs.raw_transaction)
    assert transaction_hash(raw) == bytes(theirs.hash)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: b"\x01" + raw[1:],
        lambda raw: raw + b"\0",
        lambda raw: raw[:-1],
        lambda raw: raw[:1],
        lambda raw: b"\x02\xc0",
        lambda raw: b"\x02" + b"\x80",
    ],
    ids=["type", "more", "less", "nothing", "empty", "no-list"],
)
def test_any_other_bytes_are_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):
        decode_transaction(spoil(sign(SAMPLE)))


def test_a_high_s_is_refused() -> None:
    signed = decode_transaction(sign(SAMPLE))
    order = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
    with pytest.raises(ValueError):
        signed_bytes(SAMPLE, 1 - signed.y_parity, signed.r, order - signed.s)


def test_a_signature_of_nobody_has_no_sender() -> None:
    with pytest.raises(ValueError):
        sender_of(SignedTransaction(SAMPLE, 0, 5, 1))
