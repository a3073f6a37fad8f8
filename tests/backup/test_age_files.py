"""The age format: what others wrote is read, what we wrote is read by the book, and nothing broken passes."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.age import CHUNK_BYTES, TAG_BYTES, AgeError, OpeningReader, SealingWriter

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
PASSPHRASE = "correct horse battery"
BY_ANOTHER_PROGRAM = base64.b64decode(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBBaXBiV2g5S3hqNVdSOS9RWDZRRkx3IDIwCkduMVBlYmVQbnRBWXdYSDFtN1NJ"
    "SGp6S2pwYzlsd2RtZHUvSWJHNlpobDAKLS0tIEIxeTFraHVwVmlXSnhsSFAyaGwvYVMrY2x4SnoyODJGdkthU3NOSEU4bmMKurIinhCA"
    "dx5iCERutBRdgTir65Mhfd7Zx1kb+h/kBkz9JOwCGnTu9rV4ZCNbqBBkRkXlYQgEJn/BDPI="
)
"""Made with pyrage 1.4, a binding of the Rust implementation of age."""


def sealed(content: bytes) -> bytes:
    out = io.BytesIO()
    writer = SealingWriter(out, PASSPHRASE, work_factor=4)
    writer.write(content)
    writer.finish()
    return out.getvalue()


def opened(file: bytes, passphrase: str = PASSPHRASE) -> bytes:
    return OpeningReader(io.BytesIO(file), passphrase).read()


def test_what_another_age_program_wrote_is_read() -> None:
    assert opened(BY_ANOTHER_PROGRAM) == b"made by another age program"


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 200_000]
)
def test_every_length_comes_back(size: int) -> None:
    content = bytes(n * 7 % 251 for n in range(size))
    file = sealed(content)
    assert opened(file) == content
    pieces = max(1, -(-size // CHUNK_BYTES))
    assert len(file) - file.index(b"\n--- ") - len("\n--- \n") - 43 == 16 + size + pieces * TAG_BYTES


def test_another_passphrase_is_told_so() -> None:
    with pytest.raises(AgeError, match="the passphrase is not the one"):
        opened(sealed(b"secret"), "correct horse battery staple")


@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_changed_bit_anywhere_is_noticed(place: int, bit: int) -> None:
    file = bytearray(sealed(b"x" * 100))
    file[place % len(file)] ^= 1 << bit
    with pytest.raises(AgeError):
        opened(bytes(file))


def test_another_spelling_of_the_same_header_is_noticed() -> None:
    file = sealed(b"x" * 100)
    salt, body, mac = file.index(b" 4\n") - 1, file.index(b"\n--- ") - 1, file.index(b"\n--- ") + 5 + 42
    for last in (salt, body, mac):  # of its six bits the lower ones, two or four, say nothing
        digit = ALPHABET.index(file[last])
        changed = bytearray(file)
        changed[last] = ALPHABET[digit ^ 1]
        with pytest.raises(AgeError):
            opened(bytes(changed))


@pytest.mark.parametrize("cut", [1, 16, CHUNK_BYTES + TAG_BYTES, CHUNK_BYTES + TAG_BYTES + 1])
def test_a_cut_or_lengthened_file_is_noticed(cut: int) -> None:
    file = sealed(b"x" * (2 * CHUNK_BYTES + 1))
    for broken in (file[:-cut], file + b"\0" * cut, file[: len(file) // 2]):
        with pytest.raises(AgeError):
            opened(broken)


@pytest.mark.parametrize(
    "file", [b"", b"no age file\n" * 3, b"age-encryption.org/v1\n", b"age-encryption.org/v1\n--- x\n"]
)
def test_what_is_no_age_file_is_told_so(file: bytes) -> None:
    with pytest.raises(AgeError, match="age file"):
        opened(file)


def test_a_file_that_asks_for_all_our_memory_is_refused() -> None:
    with pytest.raises(AgeError, match="work factor"):
        opened(sealed(b"").replace(b" 4\n", b" 40\n", 1))
