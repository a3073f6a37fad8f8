"""What a schema checker's process does: compiles schemas that nobody has looked at, and tries them out.

Whatever a schema does to it stays in here: processor time and memory are limited, and whoever asked notices
that the process is gone. It keeps nothing between two questions.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from actors.cpu_limit import cpu_limit
from actors.schema_bounds import Unfit
from actors.schema_engine import checked, compatible, compiled, errors
from actors.worker_wire import (
    BecomeChecker,
    CheckerAnswer,
    ComparePayload,
    PayloadErrors,
    SchemaFit,
    TrySchema,
    Unfitting,
)

CPU_S = 0.5
"""For compiling a schema and the tries: a thousand times what a usual one takes."""
MEMORY_BYTES = 2 * 1024**3
NAMES_MAX = 64
DEPTH = 100

_request: msgspec.msgpack.Decoder[TrySchema | ComparePayload] = msgspec.msgpack.Decoder(
    TrySchema | ComparePayload
)


class Checking:
    public_key = b""

    def __init__(self, become: BecomeChecker) -> None:
        self._question_cpu_s = become.question_cpu_s
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    def answer(self, body: bytes) -> CheckerAnswer:
        request = _request.decode(body)
        with cpu_limit(self._question_cpu_s):
            if isinstance(request, ComparePayload):
                return PayloadErrors(errors(compiled(request.schema_json), request.payload))
            try:
                return _try(request)
            except Unfit as wrong:
                return Unfitting(str(wrong))


def _try(request: TrySchema) -> SchemaFit | Unfitting:
    started = time.process_time()
    validator = checked(request.schema_json)
    for probe in probes(msgspec.json.decode(request.schema_json)):
        validator.is_valid(probe)
    if time.process_time() - started > CPU_S:
        return Unfitting("it takes too long to compile or to compare with; simplify it")
    previous, how = request.previous, request.compatibility
    if previous is not None and not compatible(request.schema_json, previous, how):
        return Unfitting(
            f"it cannot be shown to be {how} compatible with version "
            f"{request.previous_version}; change it, or register it with compatibility none",
        )
    return SchemaFit()


def probes(schema: Any) -> Iterator[Any]:
    """Values that reach deep into it: each of its names nested in itself, and the usual suspects."""
    yield from (None, True, 0, 1e300, "", "a" * 10_000, [], [{}] * 1000, {})
    for name in sorted(_names(schema))[:NAMES_MAX]:
        nested: Any = {}
        for level in range(DEPTH):
            nested = {name: nested} if level % 2 else {name: [nested]}
        yield nested
    plain: Any = []
    for _ in range(DEPTH):
        plain = [plain]
    yield plain


def _names(schema: Any) -> set[str]:
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            properties = value.get("properties")
            found.update(properties if isinstance(properties, dict) else ())
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found
