"""Frames at rest: they open for their own row under their own key, and for nothing else."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.at_rest import (
    FrameNotOpened,
    RingKey,
    key_id,
    open_frame,
    parse_key,
    parse_ring,
    ves_payload_aad,
)

RAW = bytes(range(32))
KEY, OTHER = RingKey(RAW), RingKey(bytes(range(1, 33)))
NONCE = bytes(12)
ROW = (b"T" * 16, b"S" * 16, b"E" * 16, 7, b"H" * 32)


@given(st.binary(max_size=200))
def test_what_is_sealed_opens_again(plaintext: bytes) -> None:
    frame = KEY.seal(NONCE, plaintext, ves_payload_aad(*ROW))
    assert frame[:4] == b"SSE1"
    assert len(frame) == 32 + len(plaintext)
    assert KEY.open(frame, ves_payload_aad(*ROW)) == plaintext


def test_the_row_hash_is_the_documented_one() -> None:
    place = b"T" * 16 + b"S" * 16 + b"E" * 16 + (7).to_bytes(8, "big")
    expected = sha256(b"STATESET_VES_PAYLOAD_ATREST_AAD_V1" + place + b"H" * 32).digest()
    assert ves_payload_aad(*ROW) == expected


@pytest.mark.parametrize("position", range(5))
def test_a_frame_moved_to_another_row_does_not_open(position: int) -> None:
    frame = KEY.seal(NONCE, b"secret", ves_payload_aad(*ROW))
    row = list(ROW)
    row[position] = 8 if position == 3 else b"x" + ROW[position][1:]  # type: ignore[index]
    with pytest.raises(FrameNotOpened):
        KEY.open(frame, ves_payload_aad(*row))  # type: ignore[arg-type]


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    frame = KEY.seal(NONCE, b"secret", b"aad")
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameNotOpened):
            KEY.open(bytes(flipped), b"aad")
    for cut in range(len(frame)):
        with pytest.raises(FrameNotOpened):
            KEY.open(frame[:cut], b"aad")


def test_a_ring_opens_what_any_of_its_keys_sealed() -> None:
    frame = OTHER.seal(NONCE, b"secret", b"aad")
    assert open_frame([KEY, OTHER], frame, b"aad") == b"secret"
    for ring in ([KEY], []):
        with pytest.raises(FrameNotOpened, match="no key of the ring"):
            open_frame(ring, frame, b"aad")


def test_a_key_is_read_in_each_of_its_spellings() -> None:
    standard = base64.b64encode(bytes([251] * 32)).decode()
    assert "+" in standard
    for text in (
        RAW.hex(),
        "0x" + RAW.hex().upper(),
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("="),
        f" {RAW.hex()}\n",
    ):
        assert parse_key(text) == RAW
    assert parse_key(standard) == bytes([251] * 32)
    assert parse_key(standard.translate(str.maketrans("+/", "-_")).rstrip("=")) == bytes([251] * 32)


@pytest.mark.parametrize(
    "text", ["", "0x", RAW.hex()[:-2], RAW.hex() + "00", "AAAA", "not a key", "é" * 43, "0X" + RAW.hex()]
)
def test_a_text_that_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="at-rest key must") as caught:
        parse_key(text)
    assert not text or text not in str(caught.value)


def test_a_ring_names_the_bad_entry_and_refuses_a_key_given_twice() -> None:
    other = bytes(range(1, 33)).hex()
    assert [key.key_id for key in parse_ring(f"{RAW.hex()},{other}")] == [KEY.key_id, OTHER.key_id]
    with pytest.raises(ValueError, match="key 2 of the list"):
        parse_ring(f"{RAW.hex()},short")
    with pytest.raises(ValueError, match=KEY.key_id.hex()):
        parse_ring(f"{RAW.hex()},{other},{base64.b64encode(RAW).decode()}")
    for empty in ("", "  "):
        with pytest.raises(ValueError, match="empty"):
            parse_ring(empty)


def test_a_fingerprint_is_eight_bytes_and_a_key_shows_nothing_else() -> None:
    assert key_id(RAW) == sha256(b"STATESET_ATREST_KEYID_V1" + RAW).digest()[:8]
    assert repr(KEY) == f"RingKey({key_id(RAW).hex()})"
    with pytest.raises(ValueError, match="32 bytes"):
        RingKey(b"short")
    with pytest.raises(ValueError, match="12 bytes"):
        KEY.seal(b"short", b"", b"")
