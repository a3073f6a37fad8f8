"""Time texts: what is accepted as ``created_at`` (VES 1.7) and how our own times are written.

It alone reads and writes RFC 3339. ``created_at`` stays an opaque text everywhere else: the bytes the agent
sent are what is hashed and stored; the number read from it here is only for windows and queries. No clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_SHAPE = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
    r"(?:\.([0-9]+))?"
    r"(?:[Zz]|[+\-\u2212](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_WANTED = "must be RFC 3339, for example 2026-01-31T12:00:00.000Z"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - all arithmetic here is on UTC without a zone
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
# What almost everybody sends; whether there is such a month, day or second is left to datetime.
_PLAIN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3}(?:[0-9]{3})?)?Z")
_MICROSECOND = timedelta(microseconds=1)
_400_YEARS_US = 146_097 * 86_400 * 1_000_000


def parse_rfc3339(text: str) -> int:
    """Microseconds since the Unix epoch; ValueError when the text is not RFC 3339 as VES 1.7 reads it.

    Date, ``T``, ``t`` or one space, time, an optional fraction of any length (cut after microseconds), then
    ``Z``, ``z`` or a signed offset (``+``, ``-`` or U+2212). Second 60 is the first of the next minute.
    """
    if _PLAIN.fullmatch(text):
        try:
            since = datetime.fromisoformat(text) - _EPOCH_UTC
        except ValueError:
            pass  # second 60, year 0, or no such day: told apart by its shape
        else:
            return since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
    return by_shape(text)


def by_shape(text: str) -> int:
    """``parse_rfc3339`` without the shortcut for plain texts."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise ValueError(_WANTED)
    year = int(text[:4])
    # Years repeat every 400, and year 0 is none of datetime's; the seconds are added apart because of :60.
    try:
        minute = datetime(year or 400, *(int(text[at : at + 2]) for at in (5, 8, 11, 14)))  # type: ignore[arg-type]  # noqa: DTZ001
    except ValueError:  # no such day
        raise ValueError(_WANTED) from None
    us = (minute - _EPOCH) // _MICROSECOND + int(text[17:19]) * 1_000_000
    if not year:
        us -= _400_YEARS_US
    if fraction := shape.group(1):
        us += int(fraction[:6].ljust(6, "0"))
    if text[-1] not in "Zz":
        offset_us = (int(text[-5:-3]) * 60 + int(text[-2:])) * 60_000_000
        us += -offset_us if text[-6] == "+" else offset_us
    return us


_LOOSE = re.compile(
    r"\s*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\s*[Tt]\s*|\s+)([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)\s*"
    r"(?:([Zz]|[Uu][Tt][Cc])|([+\-\u2212][0-9]{2})\s*:?\s*([0-9]{2}))\s*",
    re.ASCII,
)
_YEAR_1_US = (datetime(1, 1, 1) - _EPOCH) // _MICROSECOND  # noqa: DTZ001
_YEAR_10000_US = (datetime(9999, 12, 31) - _EPOCH + timedelta(days=1)) // _MICROSECOND  # noqa: DTZ001


def parse_loosely(text: str) -> int:
    """Like ``parse_rfc3339``, but as the original reads a legacy event's ``created_at`` (wire 1.8): blanks
    between the parts, ``UTC`` for ``Z``, no colon in the offset. Only times that can be written again, of the
    years 1 to 9999 in UTC."""
    parts = _LOOSE.fullmatch(text)
    if parts is None:
        raise ValueError(_WANTED)
    date, time, zulu, hours, minutes = parts.groups()
    us = parse_rfc3339(f"{date}T{time}" + ("Z" if zulu else f"{hours}:{minutes}"))
    if not _YEAR_1_US <= us < _YEAR_10000_US:
        raise ValueError(_WANTED)
    return us


@lru_cache(maxsize=256)
def utc_text(us: int) -> str:
    """``2026-01-31T12:00:00.123+00:00``: the spelling of ``sequenced_at``, fraction of 0, 3 or 6 digits.
    Remembered, because all events of a group have the same one."""
    return _naive_text(us) + "+00:00"


def zulu_text(us: int) -> str:
    """``2026-01-31T12:00:00.123Z``: the spelling of ``committed_at`` and its like, fraction as above."""
    return _naive_text(us) + "Z"


def _naive_text(us: int) -> str:
    seconds, fraction = divmod(us, 1_000_000)
    text = _whole_second(seconds)
    if not fraction:
        return text
    return f"{text}.{fraction:06}" if fraction % 1000 else f"{text}.{fraction // 1000:03}"


@lru_cache(maxsize=256)
def _whole_second(seconds: int) -> str:
    """Since the Unix epoch. Remembered, because much happens in the same one."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def microseconds(moment: datetime) -> int:
    """Whole microseconds since the Unix epoch of an aware datetime."""
    return (moment - _EPOCH_UTC) // _MICROSECOND
