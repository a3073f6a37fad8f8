"""How the house logs: structlog, one event a line on stderr, JSON for machines or text for people.

Alone configures logging. The last processor before the line is written blanks values whose name says secret:
a last defence, not a licence to log them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from opentelemetry import trace
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"secret|password|passwd|token|authori[sz]ation|cookie|credential$|seed|dsn|database_(admin_)?url"
    r"|api[_-]?key$|private_?key|signing_?key|encryption_?key|(^|_)ring$|payload",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(?:sk_(?:live|test)_[A-Za-z0-9]{8,}|s[sk]_[A-Za-z0-9_-]{16,})|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)
"""API keys and the password part of a URL, wherever in a text they are. Of new keys also what a slip of the
hand left of them, but not the beginnings that lists show."""
_DEPTH_MAX = 4
_NUMBERS = frozenset({int, float, bool, type(None)})
"""No secrets, whatever their name."""
_encoder = msgspec.json.Encoder(enc_hook=repr)


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Blanks values of names that say secret, at any depth, and API keys inside texts."""
    for name, value in event.items():
        if type(value) not in _NUMBERS:
            event[name] = _redacted(name, value, _DEPTH_MAX)
    return event


def stamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The time in UTC, as ISO 8601 to the microsecond."""
    seconds, us = divmod(time.time_ns() // 1000, 1_000_000)
    event["timestamp"] = f"{_second(seconds)}.{us:06}Z"
    return event


def name_the_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The trace that the line was written for, if there is one."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = format(span.trace_id, "032x")
        event["span_id"] = format(span.span_id, "016x")
    return event


def configure_logs(level: str, form: str) -> None:
    """``level``: debug, info, warning, error; ``form``: json or text. Raises ValueError for others."""
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"LOG_LEVEL {level!r} is none of debug, info, warning, error")
    if form not in ("json", "text"):
        raise ValueError(f"LOG_FORMAT {form!r} is none of json, text")
    before = _processors()
    # Tracebacks without local variables: those are where the secrets are.
    last: list[Any] = (
        [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), redact, JSONRenderer(_json)]
        if form == "json"
        else [
            ExceptionRenderer(),
            redact,
            ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback),
        ]
    )
    structlog.configure(
        processors=[*before, *last],
        wrapper_class=structlog.make_filtering_bound_logger(levels[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _adopt_standard_logging(level.upper(), before, last)


def _processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        name_the_trace,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.StackInfoRenderer(),
    ]


def _adopt_standard_logging(level: str, before: list[Any], last: list[Any]) -> None:
    """Libraries (Hypercorn, asyncpg) log through ``logging``: the same line for them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Else several lines per request of ours, with whatever a server puts into its answer's headers.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    """Of the Unix epoch; all lines of a second share it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=1024)
def _says_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _json(event: EventDict, **_: Any) -> str:
    """One line. What msgspec does not take (half a surrogate pair) is left to the slower encoder."""
    try:
        return _encoder.encode(event).decode()
    except (UnicodeEncodeError, TypeError, OverflowError):
        return json.dumps(event, default=repr)


def _redacted(name: str, value: Any, depth: int) -> Any:
    if _says_secret(name) and value is not None and not isinstance(value, bool | int | float):
        return REDACTED
    if isinstance(value, str):
        # Nearly no text has any of these; looking for them is cheaper than the expression.
        if "sk_" in value or "ss_" in value or "://" in value:
            return _SECRET_VALUE.sub(REDACTED, value)
        return value
    if depth == 0:
        return value
    if isinstance(value, dict):
        return {key: _redacted(str(key), inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", inner, depth - 1) for inner in value]
    return value
