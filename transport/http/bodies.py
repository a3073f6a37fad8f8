"""From bytes and query strings to the request structs, strictly, with refusals that name the field.

It alone says what is 400 (no JSON, no such query) and what is 422 (JSON of the wrong shape). The big ingest
body never comes here: the verifiers read it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from transport.http.errors import ApiError, Code
from ves.canonical import exceeds_depth
from ves.constants import INTEGER_MAX

S = TypeVar("S", bound=msgspec.Struct)

BODY_BYTES_MAX = 64 * 1024
"""For every body but ingest's: the largest sensible one is a list of 1,000 store ids."""
BODY_DEPTH_MAX = 16
QUERY_FIELDS_MAX = 32

_JSON_TYPE = re.compile(r"application/(json|[a-z0-9!#$&^_.+-]+\+json)", re.IGNORECASE)
_FIELD = re.compile(r" - at `(?:key in )?\$?\.?(?P<field>[^`]*)`$")


def require_json(content_type: str | None) -> None:
    """415 unless the content type is JSON; parameters are allowed."""
    if not _JSON_TYPE.fullmatch((content_type or "").partition(";")[0].strip()):
        raise ApiError(Code.UNSUPPORTED_MEDIA_TYPE, "send the body with Content-Type: application/json")


def read_json(raw: bytes, shape: type[S], *, depth_max: int = BODY_DEPTH_MAX) -> S:
    """A request body. 400 when it is not JSON, 422 when it is not of this shape."""
    if exceeds_depth(raw, depth_max):
        raise ApiError(Code.INVALID_REQUEST_BODY, f"the body is nested deeper than {depth_max} levels")
    try:
        value = _JSON.decode(raw.decode())
    except UnicodeDecodeError:
        raise ApiError(Code.INVALID_REQUEST_BODY, "the body is not UTF-8") from None
    except ValueError as wrong:
        raise ApiError(Code.INVALID_REQUEST_BODY, f"the body is not JSON: {str(wrong)[:200]}") from None
    try:
        plain = msgspec.json.encode(_in_our_spelling(value, shape))
        return msgspec.json.decode(plain, type=shape)
    except msgspec.ValidationError as wrong:
        raise _refusal(wrong, 422) from None
    except (UnicodeEncodeError, OverflowError):
        text = "half of a surrogate pair, or a number out of range"
        raise ApiError(Code.INVALID_FIELD_VALUE, text, status=422) from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ApiError(Code.INVALID_REQUEST_BODY, "a member is given twice", status=422)
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none")


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:32]} is out of range")
    # To JSON Schema, and so to the OpenAPI document, 1.0 is an integer.
    return int(number) if number.is_integer() and abs(number) <= INTEGER_MAX else number


# Python's own decoder, because it lets us see members given twice; these bodies are small.
_JSON = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant, parse_float=_number)


def read_query(raw: bytes, shape: type[S]) -> S:
    """A query string; every failure is a 400. Unknown parameters are ignored."""
    values: dict[str, str] = {}
    pairs = [pair for pair in raw.split(b"&") if pair]
    if len(pairs) > QUERY_FIELDS_MAX:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"more than {QUERY_FIELDS_MAX} query parameters")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        key = _text(name.replace(b"+", b" "), "the query string")
        if key in values:
            raise ApiError(Code.INVALID_FIELD_VALUE, f"the query parameter {key[:64]!r} is given twice")
        values[key] = _text(value.replace(b"+", b" "), f"the query parameter {key[:64]!r}")
    return _convert(values, shape)


def read_path(values: dict[str, str], shape: type[S]) -> S:
    """Path parameters, still percent-encoded; every failure is a 400."""
    plain = {name: _text(value.encode(), f"{name} in the path") for name, value in values.items()}
    return _convert(plain, shape)


def _text(raw: bytes, what: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{what} is not UTF-8 after percent-decoding") from None


def _convert(values: dict[str, str], shape: type[S]) -> S:
    try:
        read = msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as wrong:
        raise _refusal(wrong, 400) from None
    for name, member in zip(shape.__struct_encode_fields__, shape.__struct_fields__, strict=True):
        # msgspec reads the text «null» as None; to everybody else it is no number.
        if name in values and getattr(read, member) is None:
            raise ApiError(Code.INVALID_FIELD_VALUE, f"{name}: leave it out instead of null")
    return read


def _refusal(wrong: msgspec.ValidationError, status: int) -> ApiError:
    code = Code.MISSING_REQUIRED_FIELD if "missing required" in str(wrong) else Code.INVALID_FIELD_VALUE
    return ApiError(code, _readable(str(wrong)), status=status)


def _readable(text: str) -> str:
    """``Expected `int`, got `str` - at `$.keyId``` as ``keyId: expected int, got str``."""
    where = _FIELD.search(text)
    what = (text[: where.start()] if where else text).replace("`", "")
    what = what[:1].lower() + what[1:]
    return f"{where['field']}: {what}" if where else what


def _in_our_spelling(value: Any, shape: type[msgspec.Struct]) -> Any:
    """The struct's members, given in snake_case or camelCase, under its own spelling; in both is 422."""
    if not isinstance(value, dict):
        return value
    value, given = {}, value
    for field, name in zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True):
        other = field if field != name else _camel(field)
        if name in given and other in given and name != other:
            text = f"{name} is given twice, also as {other}"
            raise ApiError(Code.INVALID_REQUEST_BODY, text, status=422)
        for spelling in (name, other):
            if spelling in given:
                value[name] = given[spelling]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
