"""Frames at rest: they open for their own row under their own key, and for nothing else."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from ves.at_rest import (
    AtRest,
    AtRestMode,
    FrameNotOpened,
    Ring,
    RingKey,
    Row,
    key_id,
    parse_key,
    ves_payload_aad,
)
from ves.kdf import Purpose

RAW = bytes(range(32))
KEY, OTHER = RingKey(RAW), RingKey(bytes(range(1, 33)))
NONCE = bytes(12)
PLACE = (b"T" * 16, b"S" * 16, b"E" * 16, 7, b"H" * 32)
ROW = Row(Purpose.VES_EVENTS, b"T" * 16, ves_payload_aad(*PLACE))
FRAMES = {
    "SSE1": (lambda key, plaintext: key.seal_sse1(NONCE, plaintext, ROW.row_hash), 32),
    "SSE2": (lambda key, plaintext: key.seal(ROW, NONCE, plaintext), 40),
}
both_frames = pytest.mark.parametrize("kind", FRAMES)


def sealed(kind: str, plaintext: bytes, key: RingKey = KEY) -> bytes:
    return FRAMES[kind][0](key, plaintext)


@both_frames
@given(plaintext=st.binary(min_size=1, max_size=200))
def test_what_is_sealed_opens_again(kind: str, plaintext: bytes) -> None:
    frame = sealed(kind, plaintext)
    assert frame[:4] == kind.encode()
    assert len(frame) == FRAMES[kind][1] + len(plaintext)
    assert KEY.open(ROW, frame) == plaintext


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=12, max_size=12), st.sampled_from(Purpose))
def test_an_sse2_frame_is_the_documented_one(plaintext: bytes, nonce: bytes, purpose: Purpose) -> None:
    row = Row(purpose, b"T" * 16, b"r" * 32)
    header = b"SSE2" + sha256(b"STATESET_ATREST_KEYID_V1" + RAW).digest()[:8] + nonce
    name = purpose.value.encode()
    info = b"stateset-sequencer-v1-encryption\0" + len(name).to_bytes(4, "big") + name + b"T" * 16
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(RAW)
    expected = header + AESGCMSIV(derived).encrypt(nonce, plaintext, header + b"r" * 32)
    assert KEY.seal(row, nonce, plaintext) == expected


def test_the_row_hash_is_the_documented_one() -> None:
    place = b"T" * 16 + b"S" * 16 + b"E" * 16 + (7).to_bytes(8, "big")
    expected = sha256(b"STATESET_VES_PAYLOAD_ATREST_AAD_V1" + place + b"H" * 32).digest()
    assert ves_payload_aad(*PLACE) == expected


@both_frames
@pytest.mark.parametrize("position", range(5))
def test_a_frame_moved_to_another_row_does_not_open(kind: str, position: int) -> None:
    frame = sealed(kind, b"secret")
    place = list(PLACE)
    place[position] = 8 if position == 3 else b"x" + PLACE[position][1:]  # type: ignore[index]
    with pytest.raises(FrameNotOpened):
        KEY.open(ROW._replace(row_hash=ves_payload_aad(*place)), frame)  # type: ignore[arg-type]


def test_an_sse2_frame_opens_for_its_own_tenant_and_table_only() -> None:
    frame = sealed("SSE2", b"secret")
    for other in (ROW._replace(tenant_id=b"U" * 16), ROW._replace(purpose=Purpose.EVENTS)):
        with pytest.raises(FrameNotOpened):
            KEY.open(other, frame)


@given(st.binary(min_size=16, max_size=64), st.binary(min_size=16, max_size=64))
def test_a_repeated_nonce_tells_no_more_than_that_two_plaintexts_are_equal(one: bytes, other: bytes) -> None:
    """With GCM the ciphertexts' XOR would be that of the plaintexts."""
    first, second = KEY.seal(ROW, NONCE, one), KEY.seal(ROW, NONCE, other)
    assert (first == second) == (one == other)
    if one != other:
        assert xor(first[24:40], second[24:40]) != xor(one[:16], other[:16])
        gcm = (KEY.seal_sse1(NONCE, text, ROW.row_hash)[16:32] for text in (one, other))
        assert xor(*gcm) == xor(one[:16], other[:16]), "what is seen here would be seen there"
        moved = KEY.seal(ROW._replace(row_hash=bytes(32)), NONCE, one)
        assert moved[24:40] != first[24:40], "at another row not even that"


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@both_frames
def test_every_flipped_bit_of_a_frame_is_noticed(kind: str) -> None:
    frame = sealed(kind, b"secret")
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameNotOpened):
            Ring([KEY]).open(ROW, bytes(flipped))
    for cut in range(len(frame)):
        with pytest.raises(FrameNotOpened):
            Ring([KEY]).open(ROW, frame[:cut])


@both_frames
def test_a_ring_opens_what_any_of_its_keys_sealed(kind: str) -> None:
    frame = sealed(kind, b"secret", OTHER)
    assert Ring([KEY, OTHER]).open_and_tell(ROW, frame) == (b"secret", OTHER)
    with pytest.raises(FrameNotOpened, match="ring"):
        Ring([KEY]).open(ROW, frame)
    with pytest.raises(ValueError, match="at least one"):
        Ring([])


def test_the_mode_decides_what_is_written_and_read() -> None:
    ring, frame, plain = Ring([KEY]), sealed("SSE2", b"{}"), b"{}"
    required, optional, disabled = (AtRest(mode, ring) for mode in AtRestMode)
    for mode in (required, optional, disabled):
        assert mode.read(ROW, frame) == plain
        assert mode.read(ROW, sealed("SSE1", b"{}")) == plain
    assert required.store(ROW, NONCE, plain) == optional.store(ROW, NONCE, plain) == frame
    assert disabled.store(ROW, NONCE, plain) == plain
    assert optional.read(ROW, plain) == disabled.read(ROW, plain) == plain
    with pytest.raises(FrameNotOpened, match="it is no frame"):
        required.read(ROW, plain)


@pytest.mark.parametrize("magic", [b"SSE1", b"SSE2"])
def test_what_looks_like_a_frame_is_sealed_in_every_mode(magic: bytes) -> None:
    disabled = AtRest(AtRestMode.DISABLED, Ring([KEY]))
    stored = disabled.store(ROW, NONCE, magic)
    assert stored != magic
    assert disabled.read(ROW, stored) == magic


def test_a_tenants_own_ring_takes_the_place_of_the_default_one() -> None:
    at_rest = AtRest(AtRestMode.REQUIRED, Ring([KEY]), {b"T" * 16: Ring([OTHER])})
    assert at_rest.read(ROW, sealed("SSE2", b"mine", OTHER)) == b"mine"
    for kind in FRAMES:
        with pytest.raises(FrameNotOpened):
            at_rest.read(ROW, sealed(kind, b"not mine"))
    assert at_rest.ring_of(b"U" * 16).current is KEY


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


def test_a_fingerprint_is_eight_bytes_and_a_key_shows_nothing_else() -> None:
    assert key_id(RAW) == sha256(b"STATESET_ATREST_KEYID_V1" + RAW).digest()[:8]
    assert repr(KEY) == f"RingKey({key_id(RAW).hex()})"
    with pytest.raises(ValueError, match="32 bytes"):
        RingKey(b"short")
    for seal in (lambda: KEY.seal(ROW, b"short", b"x"), lambda: KEY.seal_sse1(b"short", b"x", b"")):
        with pytest.raises(ValueError, match="12 bytes"):
            seal()
    with pytest.raises(ValueError, match="nothing to seal"):
        KEY.seal(ROW, NONCE, b"")
