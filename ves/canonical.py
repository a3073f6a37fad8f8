"""Canonical JSON (RFC 8785, VES 1.8) and the one predicate that says which payloads are accepted.

It alone decides what a payload's canonical bytes are. A payload is accepted when its canonical form can be
read back by the same rules and gives the same bytes again, so every reader who hashes it hashes the same
thing: no doubled member names, no integer beyond 2**53-1, no lone surrogates, no bottomless nesting.
Whatever bytes come in, ``canonical_payload`` answers bytes or raises ``NotCanonical``, nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Annotated, Any, NoReturn

import msgspec
import orjson
import rfc8785

from ves.constants import INTEGER_MAX, PAYLOAD_DEPTH_MAX

_PLAIN_FLOAT_MIN = 1e-3
_PLAIN_FLOAT_MAX = 1e15
_EVERYDAY_DEPTH = 6
_EXPONENT_FROM = 1e21
"""From here on RFC 8785 writes a double with an exponent, which nobody reads as an integer."""


class NotCanonical(ValueError):
    """These bytes have no canonical form we accept; the text says why and what to send instead."""


class NotJson(NotCanonical):
    """These bytes are no JSON text at all (RFC 8259, UTF-8)."""


def canonical_payload(raw: bytes) -> bytes:
    """The RFC 8785 bytes of an acceptable payload; raises ``NotCanonical`` otherwise, whatever the input."""
    if exceeds_depth(raw, PAYLOAD_DEPTH_MAX):
        raise NotCanonical(f"nested deeper than {PAYLOAD_DEPTH_MAX} levels")
    return canonical_of_bounded(raw)


def canonical_of_bounded(raw: bytes) -> bytes:
    """``canonical_payload`` for a caller who has already bounded the nesting."""
    text = _everyday(raw) or _plain_text(raw)
    if text == raw:
        return text
    # Both ways keep the last of doubled members silently. Every member brings a colon, so a dropped one
    # shows as a difference in colons; only an escaped colon inside a string could hide it.
    if text is None or raw.count(b":") != text.count(b":") or may_escape_a_colon(raw):
        return rfc8785.dumps(parse_strictly(raw))  # which says what is wrong, if anything is
    return text


def _everyday(raw: bytes) -> bytes | None:
    """The sorted text of a payload that is read as values which orjson writes as RFC 8785 does. None for all
    others, and for a few of these."""
    try:
        value = _everyday_value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    # ASCII text has ASCII names; and a double that is an integer is written by the two in different ways.
    if text.isascii() and not (b".0" in text and _INTEGRAL.search(text)):
        return text
    return text if _plain(value) else None


def _plain_text(raw: bytes) -> bytes | None:
    """The sorted text of a plain value, looked through one by one."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if _plain(value) else None


def may_escape_a_colon(raw: bytes) -> bool:
    """Whether a JSON text may spell a colon as ``\\u003a``; False is certain, True is a guess."""
    return b"\\" in raw and b"\\u003" in raw


def parse_strictly(raw: bytes, *, signed_zero: bool = False) -> Any:
    """The value of a JSON text under our rules; raises ``NotCanonical``. Nesting is the caller's to bound.
    ``signed_zero``: ``-0`` is read as the double it looks like, not as the integer 0."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise NotJson("not UTF-8") from None
    try:
        value = (_SIGNED if signed_zero else _STRICT).decode(text)
    except json.JSONDecodeError as wrong:
        raise NotJson(f"not JSON: {wrong.msg.removesuffix(' at')} at character {wrong.pos}") from None
    except RecursionError:
        raise NotCanonical("nested too deeply") from None
    _refuse_surrogates(value, text)
    return value


def exceeds_depth(raw: bytes, limit: int) -> bool:
    """Whether a JSON text nests more than ``limit`` containers; exact for valid JSON."""
    # All brackets, wherever they stand, bound the depth from above; only dense texts need the exact count.
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", raw).translate(_STEPS, _NOT_BRACKETS)
    return max(accumulate(memoryview(brackets).cast("b")), default=0) > limit


# Possessive, and an unterminated string is taken to its end: every byte is looked at once, whatever comes.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", bytes((1, 1, 255, 255)))  # read as signed bytes: +1 and -1


def jcs(value: Any) -> bytes:
    """RFC 8785 bytes of a Python value, with every number taken as a double first (VES 1.8).

    For values you made yourself. It raises ``ValueError`` for what has no canonical form at all (NaN, lone
    surrogates, non-text names); unlike ``canonical_payload`` it rounds integers beyond 2**53-1.
    """
    try:
        if _plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        pass  # a name that is no text, or a lone surrogate: the other writer says which
    return rfc8785.dumps(_as_doubles(value))


def _plain(value: Any) -> bool:
    """Whether orjson's sorted text of ``value`` is RFC 8785's: ASCII names, safe integers, everyday floats.

    Then byte order is UTF-16 order, and both write the shortest digits without an exponent.
    """
    todo = [value]
    for item in todo:
        kind = type(item)
        if kind is str:
            continue
        if kind is dict:
            if not "".join(item).isascii():
                return False
            todo += item.values()
        elif kind is int:
            if not -INTEGER_MAX <= item <= INTEGER_MAX:
                return False
        elif kind is float:
            if not _PLAIN_FLOAT_MIN <= abs(item) < _PLAIN_FLOAT_MAX or item.is_integer():
                return False
        elif kind is list:
            todo += item
        elif item is not None and kind is not bool:
            return False
    return True


def _everyday_decoder() -> Callable[[bytes], Any]:
    integer = Annotated[int, msgspec.Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
    double = Annotated[float, msgspec.Meta(ge=_PLAIN_FLOAT_MIN, lt=_PLAIN_FLOAT_MAX)]
    value: Any = None
    for _ in range(_EVERYDAY_DEPTH + 1):  # a type as deep as values may be
        value = str | integer | double | bool | None | list[value] | dict[str, value]
    return msgspec.json.Decoder(value).decode


_everyday_value = _everyday_decoder()
_INTEGRAL = re.compile(rb"\.0(?:[,}\]]|\Z)")
"""Found in every text of orjson's with an integral double, and hardly in others."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        doubled = _first_doubled(name for name, _ in pairs)
        raise NotCanonical(f"member {doubled[:64]!r} is given twice")
    return members


def _first_doubled(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _integer(digits: str) -> int:
    # Length first: int() of thousands of digits is slow, and refused by Python itself.
    if len(digits) > 17 or not -INTEGER_MAX <= int(digits) <= INTEGER_MAX:
        raise NotCanonical(f"integer {digits[:24]} is beyond 2^53-1; send it as a string")
    return int(digits)


def _double(digits: str) -> float:
    number = float(digits)
    if INTEGER_MAX < abs(number) < _EXPONENT_FROM:
        raise NotCanonical(f"number {digits[:24]} is an integer beyond 2^53-1; send it as a string")
    if number in (float("inf"), float("-inf")):
        raise NotCanonical(f"number {digits[:24]} is out of range")
    return number


def _constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")


def _integer_or_minus_zero(digits: str) -> int | float:
    return -0.0 if digits == "-0" else _integer(digits)


def _decoder(parse_int: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_members, parse_int=parse_int, parse_float=_double, parse_constant=_constant
    )


_STRICT = _decoder(_integer)
_SIGNED = _decoder(_integer_or_minus_zero)


def _refuse_surrogates(value: Any, text: str) -> None:
    if "\\u" not in text:
        return
    todo = [value]
    for item in todo:
        if type(item) is str:
            _refuse_surrogate(item)
        elif type(item) is dict:
            _refuse_surrogate("".join(item))
            todo += item.values()
        elif type(item) is list:
            todo += item


def _refuse_surrogate(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotCanonical("a string holds half of a surrogate pair") from None


def _as_doubles(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > INTEGER_MAX:
        return float(value)
    if isinstance(value, dict):
        return {name: _as_doubles(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_doubles(item) for item in value]
    return value
