"""The chain of receipt keys: followed as far as it holds, and not one key further."""

from __future__ import annotations

import hashlib
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ves.receipt_keys import BrokenChain, ReceiptKeyLink, follow, rotation_statement, sign_rotation
from ves.signatures import Signer

WHO = bytes(range(16))


def seeds(count: int) -> list[bytes]:
    return [hashlib.sha256(b"seed %d" % n).digest() for n in range(count)]


def chain(count: int) -> list[ReceiptKeyLink]:
    """Made with the formula as documented and another library."""
    keys = [Ed25519PrivateKey.from_private_bytes(seed) for seed in seeds(count)]
    links = []
    for version, key in enumerate(keys, 1):
        public_key = key.public_key().public_bytes_raw()
        preimage = b"VES_RECEIPT_KEY_V1" + WHO + version.to_bytes(4, "big") + public_key
        assert len(preimage) == 70
        signature = keys[version - 2].sign(hashlib.sha256(preimage).digest()) if version > 1 else None
        links.append(ReceiptKeyLink(version, public_key, signature))
    return links


def test_our_formula_is_the_documented_one() -> None:
    first, second = seeds(2)
    links = chain(2)
    assert sign_rotation(Signer(first), WHO, 2, Signer(second).public_key) == links[1].previous_signature
    assert rotation_statement(WHO, 2, links[1].public_key) != rotation_statement(WHO, 3, links[1].public_key)


@given(st.integers(1, 5), st.integers(0, 4), st.randoms(use_true_random=False))
def test_whoever_believes_one_version_follows_to_all_later_ones_in_any_order(
    count: int, start: int, chance: random.Random
) -> None:
    links = chain(count)
    believed = {link.key_version: link.public_key for link in links[start : start + 1]}
    shown = chance.sample(links, len(links))
    expected = {link.key_version: link.public_key for link in (links[start:] if believed else links)}
    assert follow(believed, WHO, shown) == expected


@given(st.integers(2, 4), st.data())
def test_any_change_to_a_link_breaks_the_chain(count: int, data: st.DataObject) -> None:
    links = chain(count)
    at = data.draw(st.integers(1, count - 1))
    link = links[at]
    bit = data.draw(st.integers(0, 255))
    change = data.draw(st.sampled_from(["key", "signature", "none", "skip", "other sequencer"]))
    assert link.previous_signature is not None
    who = WHO
    if change == "key":
        links[at] = link._replace(public_key=flipped(link.public_key, bit))
    elif change == "signature":
        links[at] = link._replace(previous_signature=flipped(link.previous_signature, bit))
    elif change == "none":
        links[at] = link._replace(previous_signature=None)
    elif change == "skip":
        links[at] = link._replace(key_version=link.key_version + 10)
    else:
        who = bytes(16)
    with pytest.raises(BrokenChain):
        follow({1: links[0].public_key}, who, links)


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_version_shown_twice_or_a_believed_one_shown_otherwise_is_refused() -> None:
    first, second = chain(2)
    other = first._replace(public_key=bytes(32))
    with pytest.raises(BrokenChain, match="two keys"):
        follow({}, WHO, [first, other, second])
    with pytest.raises(BrokenChain, match="version 1 is no longer shown"):
        follow({1: bytes(32)}, WHO, [first, second])
    with pytest.raises(BrokenChain, match="version 1 is no longer shown"):
        follow({1: first.public_key}, WHO, [second])


def test_versions_before_the_believed_one_are_left_out() -> None:
    first, second = chain(2)
    assert follow({2: second.public_key}, WHO, [first, second]) == {2: second.public_key}
