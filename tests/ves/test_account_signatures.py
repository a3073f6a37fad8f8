"""Recovering accounts from signatures, held against eth_keys' own arithmetic in Python."""

from __future__ import annotations

from coincurve import PrivateKey
from eth_keys.backends.native import NativeECCBackend
from eth_keys.datatypes import PrivateKey as Other
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from ves.secp256k1 import ORDER, address_of, checksummed, completed, is_low, recover_address

SECRETS = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))


@settings(max_examples=20, deadline=None)
@given(SECRETS, st.binary(min_size=32, max_size=32))
def test_a_signature_shows_its_account_whichever_half_its_s_came_in(secret: bytes, digest: bytes) -> None:
    other = Other(secret, backend=NativeECCBackend())
    address = address_of(PrivateKey(secret).public_key.format())
    assert address == other.public_key.to_canonical_address()
    assert checksummed(address) == to_checksum_address(address)
    theirs = other.sign_msg_hash(digest)
    whole = completed(digest, theirs.r, theirs.s, address)
    assert whole == completed(digest, theirs.r, ORDER - theirs.s, address)
    assert whole is not None
    y_parity, r, s = whole
    assert is_low(s)
    assert not is_low(ORDER - s)
    assert recover_address(digest, y_parity, r, s) == address
    assert recover_address(digest, 1 - y_parity, r, s) != address
    assert completed(digest, r, s, bytes(20)) is None


def test_what_is_no_signature_shows_nobody() -> None:
    for r, s in ((0, 1), (1, 0), (ORDER, 1), (1, ORDER), (5, 1)):  # 5: no point of the curve
        assert recover_address(bytes(32), 0, r, s) is None
    assert recover_address(bytes(31), 0, 1, 1) is None
    assert recover_address(bytes(32), 2, 1, 1) is None
