"""Our accept/reject policy for Ed25519, case by published case."""

from __future__ import annotations

import pytest
from ed25519_table import DOCUMENT, cctv, speccheck, table

from ves.signatures import Signer, is_registrable, verify_signature


def test_the_published_table_says_what_the_code_does() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == table(), "run: python tests/ves/ed25519_table.py"


def test_only_the_one_case_without_a_flaw_passes_both_doors() -> None:
    cases = cctv()
    assert len(cases) == 914
    assert [flags for flags, verified, registrable in cases if verified and registrable] == [()]


def test_verification_alone_lets_42_mixed_order_keys_through_and_registration_stops_them() -> None:
    mixed = [flags for flags, verified, registrable in cctv() if verified and not registrable]
    assert len(mixed) == 42
    assert all("low_order_component_A" in flags for flags in mixed)


def test_no_key_with_a_flaw_of_its_own_can_be_registered() -> None:
    flawed = {"low_order_A", "low_order_component_A", "non_canonical_A"}
    for flags, _, registrable in cctv():
        assert registrable == (not flawed & set(flags))


def test_a_low_order_or_non_canonical_r_is_never_accepted() -> None:
    refused = {"low_order_R", "non_canonical_R", "low_order_A", "non_canonical_A", "low_order_residue"}
    assert not [flags for flags, verified, _ in cctv() if verified and refused & set(flags)]


def test_the_twelve_speccheck_cases_are_answered_as_their_pynacl_column() -> None:
    cases = speccheck()
    assert len(cases) == 12
    for case in cases:
        key, message, signature = (
            bytes.fromhex(case[name]) for name in ("public_key", "message", "signature")
        )
        assert verify_signature(key, message, signature) == case["pynacl"]


@pytest.mark.parametrize("key_length", [0, 31, 33, 64])
def test_a_key_of_the_wrong_length_is_false_and_no_exception(key_length: int) -> None:
    assert not is_registrable(bytes(key_length))
    assert not verify_signature(bytes(key_length), b"m", bytes(64))


@pytest.mark.parametrize("signature_length", [0, 63, 65, 128])
def test_a_signature_of_the_wrong_length_is_false_even_if_its_bytes_continue_in_the_message(
    signature_length: int,
) -> None:
    signer = Signer(bytes(range(32)))
    whole = signer.sign(b"message") + b"message"
    assert verify_signature(signer.public_key, whole[64:], whole[:64])
    assert not verify_signature(signer.public_key, whole[signature_length:], whole[:signature_length])


def test_every_flipped_bit_of_a_signature_makes_it_false() -> None:
    signer = Signer(bytes(range(32)))
    signature = signer.sign(b"message")
    for bit in range(512):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not verify_signature(signer.public_key, b"message", bytes(flipped))


def test_a_signer_never_shows_its_secret() -> None:
    seed = bytes(range(32))
    assert seed.hex() not in repr(Signer(seed))
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"short")
