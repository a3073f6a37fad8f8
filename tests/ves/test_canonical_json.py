"""Canonical JSON: the fast way, the slow way and the rfc8785 package agree, and the predicate refuses."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from vector_book import VECTORS

from ves.canonical import (
    NotCanonical,
    NotJson,
    _everyday,
    canonical_payload,
    exceeds_depth,
    jcs,
    parse_strictly,
)
from ves.constants import INTEGER_MAX

REFERENCE = ("arrays", "french", "structures", "unicode", "values", "weird")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda x: not INTEGER_MAX < abs(x) < 1e21  # written as integers nobody reads back exactly
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | floats
    | st.floats(-1000, 1000)
    | texts
    | st.sampled_from(["\u003a", ":", '":', '\\":', "\0", "\x7f", "\u2028", "\U0001f600", "\ufb33"])
)
payloads = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def test_the_reference_files_come_out_byte_for_byte() -> None:
    assert sorted(path.stem for path in (VECTORS / "jcs/input").iterdir()) == sorted(REFERENCE)
    for name in REFERENCE:
        raw = (VECTORS / "jcs/input" / f"{name}.json").read_bytes()
        expected = (VECTORS / "jcs/output" / f"{name}.json").read_bytes().rstrip(b"\n")
        assert canonical_payload(raw) == expected
        assert jcs(json.loads(raw)) == expected


@given(payloads, st.sampled_from([None, 1]), st.booleans())
@example({"a": 1e-7, "b": -0.0, "c": 5e-324, "d": 1e21, "e": 999999999999999.9}, None, True)
@example({"\ue000": 1, "\U00010000": 2, "a": 3}, None, False)
@example([5.0, 0.001, 10.05, "1.0", {"a": 99.0}], None, True)
@example([[[[[[[[1.5, {"b": 1, "a": 2.0}]]]]]]]], None, True)
def test_fast_and_slow_and_the_package_agree(value: Any, indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    slow = rfc8785.dumps(parse_strictly(raw))
    assert canonical_payload(raw) == slow == rfc8785.dumps(value) == jcs(value)


EVERYDAY = b'{"b":[1.5,-12,{"x":"a:b"}],"a":10.25,"c":9007199254740991,"d":true}'


def test_an_everyday_payload_with_one_wrong_character_is_read_as_slowly_as_any() -> None:
    """Whatever stands at one place of it: the bytes of the slow way, or its refusal."""
    everyday = 0
    for at in range(len(EVERYDAY)):
        for character in b'0159.eE+-:,[]{} "\\nat\0\x01\xff':
            raw = EVERYDAY[:at] + bytes([character]) + EVERYDAY[at + 1 :]
            everyday += _everyday(raw) is not None
            assert _answer(canonical_payload, raw) == _answer(
                lambda raw: rfc8785.dumps(parse_strictly(raw)), raw
            )
    assert everyday > 200


def _answer(canonical: Callable[[bytes], bytes], raw: bytes) -> bytes | str:
    try:
        return canonical(raw)
    except NotCanonical as refused:
        return str(refused)


@given(payloads)
def test_canonical_bytes_are_their_own_canonical_form(value: Any) -> None:
    canonical = jcs(value)
    assert canonical_payload(canonical) == canonical
    assert orjson.loads(canonical) == value or b"e+" in canonical or value != value


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
@example(b"[" * 100_000)
@example(b"[" * 100_000 + b"]" * 100_000)
@example(b'{"a":' * 5000)
@example(b"1" * 5000)
@example(b"-" + b"9" * 400_000)
@example(b"1" * 200_000 + b"e5")
@example(b"0." + b"1" * 200_000)
@example(b'"\\ud800"')
@example(b'{"\\ud800":1}')
@example(b'"\xed\xa0\x80"')
@example(b"\xef\xbb\xbf{}")
@example(b"[1]\x00")
@example(b"\xff\xfe[\x001\x00]\x00")
@example(b'"' + b"\\" * 9999)
def test_whatever_the_bytes_it_is_bytes_or_not_canonical(raw: bytes) -> None:
    try:
        canonical = canonical_payload(raw)
    except NotCanonical:
        return
    assert canonical_payload(canonical) == canonical


json_like = st.text(alphabet='{}[]":,\\u0039aedE+-. \nntrfls', max_size=40)


@given(json_like)
def test_what_orjson_and_the_standard_library_refuse_is_refused(text: str) -> None:
    raw = text.encode()
    try:
        canonical_payload(raw)
    except NotCanonical:
        return
    json.loads(text)
    orjson.loads(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a":1,"b":2,"a":3}', "given twice"),
        (b'{"a":1,"a" :2}', "given twice"),
        (b'{"a":1,"\\u0061":2}', "given twice"),
        (b'[{"x":[{"k":":","k":"\\u003a:"}]}]', "given twice"),
        (b'{"a":":::","a":1}', "given twice"),
        (b'{"a":1,"a":2,"b":"\\u003a"}', "given twice"),
        (b'{"a":1,"a":2,"b\\u003A":1}', "given twice"),
        (b'{"a":1,"b":"\\u003a\\u003A","a":1}', "given twice"),
        (b"9007199254740992", "beyond 2^53-1"),
        (b"-9007199254740992", "beyond 2^53-1"),
        (b"18446744073709551616", "beyond 2^53-1"),
        (b"1e16", "beyond 2^53-1"),
        (b"9007199254740992.0", "beyond 2^53-1"),
        (b"-1.0e20", "beyond 2^53-1"),
        (b"100000000000000000000000", "beyond 2^53-1"),
        (b"1e400", "out of range"),
        (b"-1e400", "out of range"),
        (b"NaN", "not JSON"),
        (b"-Infinity", "not JSON"),
        (b'"\\ud83d"', "surrogate"),
        (b'{"\\ude00":1}', "surrogate"),
        (b'"\xff"', "not UTF-8"),
        (b"01", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"", "not JSON"),
        (b'"\t"', "not JSON"),
        (b"[" * 125 + b"]" * 125, "deeper than 124"),
    ],
)
def test_what_readers_would_read_differently_is_refused_with_its_reason(raw: bytes, why: str) -> None:
    with pytest.raises(NotCanonical, match=why.replace("^", r"\^")):
        canonical_payload(raw)


def test_bytes_that_are_no_json_are_told_from_json_that_has_no_canonical_form() -> None:
    for raw in (b"", b"\xff", b"[1,]", b"NaN"):
        with pytest.raises(NotJson):
            canonical_payload(raw)
    for raw in (b'{"a":1,"a":1}', b"1e16", b'"\\ud800"'):
        with pytest.raises(NotCanonical) as caught:
            canonical_payload(raw)
        assert not isinstance(caught.value, NotJson)


def test_depth_counts_containers_and_not_brackets_in_strings() -> None:
    deep = b"[" * 124 + b"]" * 124
    assert canonical_payload(deep) == deep
    flat = b'["' + b"[{" * 1000 + b'","\\"[[[[[[[[[[\\\\"]'
    assert not exceeds_depth(flat, 1)
    assert exceeds_depth(b"[[]]", 1)
    assert not exceeds_depth(b"[" + b"[]," * 5000 + b"{}]", 2)
    assert canonical_payload(b"[" + b"[]," * 5000 + b"{}]") == b"[" + b"[]," * 5000 + b"{}]"


@given(st.integers(0, 2**64 - 1))
def test_every_double_is_written_as_ecmascript_writes_it(bits: int) -> None:
    number = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    if not math.isfinite(number):
        with pytest.raises(ValueError, match="not representable"):
            jcs(number)
        return
    text = jcs(number).decode()
    assert float(text) == number
    exponent = "e" in text
    assert exponent == (number != 0 and not 1e-6 <= abs(number) < 1e21)
    assert text[-2:] != ".0"


def test_jcs_rounds_what_the_predicate_refuses() -> None:
    assert jcs(2**53 + 1) == b"9007199254740992"
    assert jcs({"n": (1, 2**64 - 1)}) == b'{"n":[1,18446744073709552000]}'
    for value in ("\ud800", {"\ud800": 1}, {1: 2}, float("nan"), {"a": b"bytes"}):
        with pytest.raises(ValueError):
            jcs(value)
