"""The text of a legacy payload that its hash is of (VES 3.10): not JCS, although everyday payloads agree.

Compact, members sorted by the UTF-8 bytes of their names, integers as they are, doubles the way the original
writes them: always with ``.0`` or an exponent (``1.0``, ``1e-6``, ``1e21``). Which payloads are accepted is
said in ``ves.canonical``, for both streams. Whatever bytes come in, ``legacy_text`` answers bytes or raises
``NotCanonical``, nothing else.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from ves.canonical import may_escape_a_colon, parse_strictly
from ves.constants import INTEGER_MAX

_EVERYDAY_MIN = 1e-3
_EVERYDAY_MAX = 1e15
_WHOLE_DIGITS_MAX = 16
"""A double with more digits before its point is written with an exponent."""
_ZEROS_MAX = 5
"""So is one with so many zeros or more after it."""


def legacy_text(raw: bytes) -> bytes:
    """The text of an acceptable payload of bounded nesting; raises ``NotCanonical`` otherwise."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _slowly(raw)  # which says what is wrong
    if _everyday(value) and b"-0" not in raw:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        # orjson keeps the last of doubled members: see ves.canonical.
        if raw.count(b":") == text.count(b":") and not may_escape_a_colon(raw):
            return text
    return _slowly(raw)


def text_of(value: Any) -> str:
    """Of a Python value whose integers and doubles are told apart by their types."""
    if isinstance(value, dict):
        members = sorted(value.items())  # by code point, which is the order of the UTF-8 bytes
        return "{" + ",".join(f"{_string(name)}:{text_of(item)}" for name, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    if isinstance(value, float):
        return _double(value)
    return _string(value)


def _slowly(raw: bytes) -> bytes:
    return text_of(parse_strictly(raw, signed_zero=True)).encode()


def _string(value: str | int | bool | None) -> str:
    return json.dumps(value, ensure_ascii=False)


def _everyday(value: Any) -> bool:
    """Whether orjson's sorted text of ``value`` is the one wanted: safe integers, plain doubles."""
    todo = [value]
    for item in todo:
        kind = type(item)
        if kind is str:
            continue
        if kind is dict:
            todo += item.values()
        elif kind is int:
            if not -INTEGER_MAX <= item <= INTEGER_MAX:
                return False
        elif kind is float:
            if not _EVERYDAY_MIN <= abs(item) < _EVERYDAY_MAX:
                return False
        elif kind is list:
            todo += item
        elif item is not None and kind is not bool:
            return False
    return True


def _double(number: float) -> str:
    sign, digits, point = _shortest(number)
    if digits == "0":
        return sign + "0.0"
    if 0 < point <= _WHOLE_DIGITS_MAX:
        whole = digits[:point].ljust(point, "0")
        return f"{sign}{whole}.{digits[point:] or '0'}"
    if -_ZEROS_MAX < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1}"


def _shortest(number: float) -> tuple[str, str, int]:
    """Sign, shortest digits that mean this double, and how many of them stand before the point."""
    text = repr(number)
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    return sign, digits.rstrip("0") or "0", point
