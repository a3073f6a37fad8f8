"""JSON Schemas at work: compiled, kept while they are used, compared with payloads (jsonschema-rs).

Runs in worker processes only. Fetches nothing, whatever a ``$ref`` says; regular expressions run in linear
time and have a limited size; what a payload holds goes into no message. Alone knows the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import jsonschema_rs
import msgspec

from actors.schema_bounds import Unfit, check_bounds
from journal.port import Compatibility
from ves.policy import Mismatch
from ves.records import Uuid

TEXT_BYTES_MAX = 102_400
"""Of a schema (wire 15.1)."""
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Text of the compiled schemas that are kept; compiled they take several times as much."""
MASK = "…"
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=64 * 1024, dfa_size_limit=256 * 1024)
_NO_PATTERN = "is no pattern that ends soon: no look-around, no back-references, nothing that grows large"
ERRORS_MAX = 20
MESSAGE_CHARACTERS_MAX = 300


def compiled(text: str) -> jsonschema_rs.Validator:
    """Raises Unfit, in words for the author of the schema."""
    schema = _read(text)
    try:
        return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True, mask=MASK)
    except (jsonschema_rs.ValidationError, ValueError) as wrong:
        raise Unfit(_reason(wrong)) from None


def checked(text: str) -> jsonschema_rs.Validator:
    """As ``compiled``, of a text that nobody has looked at before."""
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise Unfit(f"the schema has more than {TEXT_BYTES_MAX} bytes")
    check_bounds(msgspec.json.decode(text))
    return compiled(text)


def compatible(new: str, old: str, how: Compatibility) -> bool:
    """Whether it was proven that one takes everything the other takes; in doubt it was not.

    backward: new takes what old took. forward: old takes what new takes. full: both.
    """
    backward = how in ("backward", "full")
    forward = how in ("forward", "full")
    return (not backward or _covers(new, old)) and (not forward or _covers(old, new))


def _covers(wide: str, narrow: str) -> bool:
    yes = jsonschema_rs.canonical.Containment.YES
    try:
        return _canonical(wide).covers(_canonical(narrow)) == yes
    except ValueError:  # also for what the engine cannot reason about
        return False


def mismatch(validator: jsonschema_rs.Validator, payload: bytes) -> Mismatch | None:
    """The first place where the payload leaves the schema."""
    value = msgspec.json.decode(payload)
    if validator.is_valid(value):
        return None
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as wrong:
        return Mismatch(pointer(wrong.instance_path), wrong.kind.name, pointer(wrong.schema_path))
    raise RuntimeError("the engine contradicts itself")


def errors(validator: jsonschema_rs.Validator, payload: bytes) -> list[tuple[str, str]]:
    """The first few places and what is wrong there, without the payload's values."""
    found: list[tuple[str, str]] = []
    for wrong in validator.iter_errors(msgspec.json.decode(payload)):
        found.append((pointer(wrong.instance_path), wrong.message[:MESSAGE_CHARACTERS_MAX]))
        if len(found) == ERRORS_MAX:
            break
    return found


def pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class Shelf:
    """Compiled schemas by id, least recently used ones forgotten."""

    def __init__(self, *, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._kept_bytes = 0
        self._schemas: OrderedDict[Uuid, tuple[jsonschema_rs.Validator, int]] = OrderedDict()

    def has(self, schema_id: Uuid) -> bool:
        """Whether it is here; then it is used next, and forgotten last."""
        if schema_id not in self._schemas:
            return False
        self._schemas.move_to_end(schema_id)
        return True

    def put(self, schema_id: Uuid, text: str) -> None:
        if schema_id not in self._schemas:
            self._schemas[schema_id] = (compiled(text), len(text))
            self._kept_bytes += len(text)

    def get(self, schema_id: Uuid) -> jsonschema_rs.Validator:
        return self._schemas[schema_id][0]

    def tidy(self) -> None:
        """Between two requests: one request needs all of its own."""
        while self._kept_bytes > self._kept_bytes_max:
            _, (_, size) = self._schemas.popitem(last=False)
            self._kept_bytes -= size


def _read(text: str) -> Any:
    schema = msgspec.json.decode(text)
    if isinstance(schema, dict):
        schema.pop("$id", None)  # references lead into this document, whatever it is called elsewhere
    return schema


def _canonical(text: str) -> jsonschema_rs.CanonicalSchema:
    return jsonschema_rs.canonicalize(_read(text), pattern_options=_PATTERNS, offline=True)


def _reason(wrong: Exception) -> str:
    if isinstance(wrong, jsonschema_rs.ValidationError):
        where = pointer(wrong.instance_path) or "the schema"
        what = wrong.message.replace('is not a "regex"', _NO_PATTERN)
        return f"{where}: {what}"[:MESSAGE_CHARACTERS_MAX]
    return str(wrong)[:MESSAGE_CHARACTERS_MAX]
