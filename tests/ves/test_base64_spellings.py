"""Base64 as people write it: four spellings mean the same bytes, and nothing else means any."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.encoding import base64_bytes, base64url_bytes


@given(raw=st.binary(max_size=70))
def test_every_spelling_means_the_same_bytes(raw: bytes) -> None:
    for spelled in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        for text in (spelled, spelled.rstrip("="), f"\n {spelled}\t"):
            assert base64_bytes(text) == raw


@given(text=st.text("AQgw+/-_= \n", max_size=9))
def test_it_reads_what_the_strict_reader_reads_and_the_other_alphabet(text: str) -> None:
    mixed = any(sign in text for sign in "+/") and any(sign in text for sign in "-_")
    try:
        expected = None if mixed else base64url_bytes(text.strip().replace("+", "-").replace("/", "_"))
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(ValueError, match="alphabet"):
            base64_bytes(text)
    else:
        assert base64_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AB", "AAB", "AA=", "A===", "AA=A", "AAAA=", "é", "AA\n==", "_+AA"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="alphabet"):
        base64_bytes(text)
