"""HKDF: RFC 5869's vectors, a second implementation, separated purposes, and nobody else who derives keys."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.kdf import Purpose, context, derive_key, hkdf_sha256

ROOT = Path(__file__).resolve().parents[2]
RFC_5869 = [
    (
        "0b" * 22,
        bytes(range(13)).hex(),
        bytes(range(0xF0, 0xFA)).hex(),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]
"""Appendix A.1 to A.3: key material, salt, info, output."""


@pytest.mark.parametrize(("material", "salt", "info", "output"), RFC_5869)
def test_the_vectors_of_rfc_5869_hold(material: str, salt: str, info: str, output: str) -> None:
    expected = bytes.fromhex(output)
    made = hkdf_sha256(
        bytes.fromhex(material), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=len(expected)
    )
    assert made == expected


def by_the_book(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2, with nothing but HMAC."""
    pseudorandom = hmac.digest(salt or bytes(32), material, "sha256")
    block, made = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        made += block
    return made[:length]


@given(st.binary(max_size=100), st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 255 * 32))
def test_a_second_implementation_agrees(material: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf_sha256(material, salt=salt, info=info, length=length) == by_the_book(
        material, salt, info, length
    )


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Purpose), st.uuids())
def test_a_derived_key_is_the_documented_formula(master: bytes, purpose: Purpose, tenant: uuid.UUID) -> None:
    name = purpose.value.encode()
    info = b"stateset-sequencer-v1-encryption\0" + len(name).to_bytes(4, "big") + name + tenant.bytes
    assert context(purpose, tenant.bytes) == info
    assert derive_key(master, purpose, tenant.bytes) == by_the_book(master, b"", info, 32)


def test_no_two_purposes_or_tenants_share_a_key_and_none_is_the_master_key() -> None:
    tenants = [uuid.uuid4().bytes for _ in range(3)]
    master = bytes(range(32))
    derived = {derive_key(master, purpose, tenant) for purpose, tenant in product(Purpose, tenants)}
    assert len(derived) == len(Purpose) * 3
    assert master not in derived
    assert hashlib.sha256(master).digest() not in derived


@pytest.mark.parametrize(("master", "tenant"), [(b"short", bytes(16)), (bytes(32), b"short")])
def test_a_key_or_tenant_of_the_wrong_length_is_refused(master: bytes, tenant: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        derive_key(master, Purpose.VES_EVENTS, tenant)


def test_nobody_else_makes_a_key_from_a_key() -> None:
    """A new one belongs into ``ves/kdf.py`` with a purpose of its own. The format of a backup's file, age's,
    is somebody else's and prescribes how its keys are made from the passphrase."""
    making = re.compile(
        r"\bHKDF(?:Expand)?\(|kdf\.(?:hkdf|pbkdf2|scrypt|concatkdf|kbkdf|x963kdf)|hmac\.(?:new|digest)|\bHMAC\("
        r"|pbkdf2_hmac|hashlib\.scrypt|crypto_kdf|blake2[bs]\([^)]*key"
    )
    rooms = ("ves", "config", "contracts", "journal", "actors", "transport", "supervisor")
    found = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if making.search(path.read_text())
    }
    assert found == {"ves/kdf.py", "journal/age.py"}
