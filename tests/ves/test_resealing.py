"""What a stored value is found to be, and what is sealed anew."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ves.at_rest import AtRest, AtRestMode, Ring, RingKey, Row, is_frame
from ves.constants import ENCRYPTED, PLAINTEXT
from ves.events import EventHeader, payload_plain_hash
from ves.kdf import Purpose
from ves.payload_encryption import seal
from ves.resealing import PLAIN, UNREADABLE, is_the_payload, is_under, look, sealed_under

NEW, OLD, STRANGE, OWN = (RingKey(bytes([n]) * 32) for n in (1, 2, 3, 4))
OWNER = b"o" * 16
AT_REST = AtRest(AtRestMode.REQUIRED, Ring([NEW, OLD]), {OWNER: Ring([OWN, OLD])})
ROW = Row(Purpose.EVENTS, b"t" * 16, b"h" * 32)
OTHER = Row(Purpose.EVENTS, b"t" * 16, b"i" * 32)
NONCE = b"n" * 12


def is_it(plaintext: bytes) -> Callable[[bytes], bool]:
    return lambda found: found == plaintext


plaintexts = st.binary(min_size=1, max_size=200).filter(lambda p: not is_frame(p))


@given(plaintexts)
def test_what_the_current_key_sealed_is_left_as_it_is_and_all_else_is_opened(plaintext: bytes) -> None:
    cases = {
        NEW.seal(ROW, NONCE, plaintext): (f"SSE2 {NEW.key_id.hex()}", None),
        OLD.seal(ROW, NONCE, plaintext): (f"SSE2 {OLD.key_id.hex()}", plaintext),
        NEW.seal_sse1(NONCE, plaintext, ROW.row_hash): (f"SSE1 under {NEW.key_id.hex()}", plaintext),
        OLD.seal_sse1(NONCE, plaintext, ROW.row_hash): (f"SSE1 under {OLD.key_id.hex()}", plaintext),
        plaintext: (PLAIN, plaintext),
    }
    for stored, (kind, to_seal) in cases.items():
        found = look(AT_REST, ROW, stored, is_it(plaintext))
        assert (found.kind, found.plaintext, found.reason) == (kind, to_seal, None)
        assert found.framed is (kind != PLAIN)


@given(plaintexts)
def test_sealing_anew_is_done_once_and_loses_nothing(plaintext: bytes) -> None:
    for tenant in (ROW.tenant_id, OWNER):
        row = ROW._replace(tenant_id=tenant)
        for stored in (OLD.seal(row, NONCE, plaintext), plaintext):
            found = look(AT_REST, row, stored, is_it(plaintext))
            assert found.plaintext is not None
            anew = look(AT_REST, row, AT_REST.store(row, os.urandom(12), found.plaintext), is_it(plaintext))
            current = OWN if tenant == OWNER else NEW
            assert (anew.kind, anew.plaintext) == (sealed_under(current), None)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (STRANGE.seal(ROW, NONCE, b"{}"), "its key .* is not in the ring"),
        (STRANGE.seal_sse1(NONCE, b"{}", ROW.row_hash), "no key of the ring opens it"),
        (OWN.seal(ROW, NONCE, b"{}"), "its key .* is not in the ring"),
        (OLD.seal(OTHER, NONCE, b"{}"), "another row, or changed"),
        (NEW.seal(OTHER, NONCE, b"{}"), "another row, or changed"),
        (NEW.seal(ROW, NONCE, b"{}")[:-1], "another row, or changed"),
        (NEW.seal(ROW, NONCE, b"{}")[:30], "cut off"),
        (OLD.seal_sse1(NONCE, b"{}", ROW.row_hash)[:20], "cut off"),
        (OLD.seal(ROW, NONCE, b"[]"), "not what its hash says"),
        (NEW.seal(ROW, NONCE, b"[]"), "not what its hash says"),
        (b"[]", "not what its hash says"),
        (b"XSE2" + NEW.seal(ROW, NONCE, b"{}")[4:], "not what its hash says"),
        (b"", "empty"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_does_not_open_or_is_not_what_was_hashed_is_never_sealed_anew(
    stored: bytes, reason: str
) -> None:
    found = look(AT_REST, ROW, stored, is_it(b"{}"))
    assert (found.kind, found.plaintext) == (UNREADABLE, None)
    assert found.reason is not None
    assert re.search(reason, found.reason)
    assert found.framed is is_frame(stored)


def test_a_frame_is_under_the_key_it_names_or_that_opens_it_and_else_nobody_knows() -> None:
    for key in (NEW, OLD):
        for other in (NEW, OLD):
            same = key is other
            assert is_under(AT_REST, ROW, key.seal(ROW, NONCE, b"{}"), other.key_id) is same
            assert is_under(AT_REST, ROW, key.seal(ROW, NONCE, b"{}")[:12], other.key_id) is same
            assert is_under(AT_REST, ROW, key.seal_sse1(NONCE, b"{}", ROW.row_hash), other.key_id) is same
    assert is_under(AT_REST, ROW, STRANGE.seal(ROW, NONCE, b"{}"), STRANGE.key_id) is True
    assert is_under(AT_REST, ROW, STRANGE.seal_sse1(NONCE, b"{}", ROW.row_hash), OLD.key_id) is None
    assert is_under(AT_REST, ROW, b"SSE2", OLD.key_id) is False
    assert is_under(AT_REST, ROW, b'{"n":1}' + OLD.key_id, OLD.key_id) is False


def test_a_payload_is_the_one_of_its_event_only_with_its_very_bytes() -> None:
    header = EventHeader(
        *(bytes([n]) * 16 for n in range(4)), 1, "order", "1", "made", "2026-01-01T00:00:00Z"
    )
    wanted = payload_plain_hash(b'{"n":1}')
    assert is_the_payload(header, PLAINTEXT, b'{"n":1}', wanted, bytes(32))
    assert not is_the_payload(header, PLAINTEXT, b'{"n": 1}', wanted, bytes(32))
    assert not is_the_payload(header, PLAINTEXT, b'{"n":2}', wanted, bytes(32))
    assert not is_the_payload(header, ENCRYPTED, b'{"n":1}', wanted, sha256(b"").digest())
    assert not is_the_payload(header, 2, b'{"n":1}', wanted, bytes(32))


def test_an_encrypted_payload_is_the_one_of_its_event_by_its_cipher_hash() -> None:
    header = EventHeader(
        *(bytes([n]) * 16 for n in range(4)), 1, "order", "1", "made", "2026-01-01T00:00:00Z"
    )
    recipient = X25519PrivateKey.generate().public_key().public_bytes_raw()
    sealed = seal(header, {"n": 1}, {1: recipient}, salt=bytes(16), dek=bytes(32), nonce=bytes(12))
    hashes = sealed.payload_plain_hash, sealed.payload_cipher_hash
    assert is_the_payload(header, ENCRYPTED, sealed.payload_encrypted, *hashes)
    other = seal(header, {"n": 2}, {1: recipient}, salt=bytes(16), dek=bytes(32), nonce=bytes(12))
    assert not is_the_payload(header, ENCRYPTED, other.payload_encrypted, *hashes)
    moved = msgspec.structs.replace(header, entity_id="2")
    assert not is_the_payload(moved, ENCRYPTED, sealed.payload_encrypted, *hashes)
