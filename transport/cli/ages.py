"""How old: ``90d``, ``7y`` or a date, as an operator writes it. Pure; today is the database's business."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import NamedTuple

from ves.timestamps import parse_rfc3339

_UNITS_S = {"s": 1, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 31_557_600}
"""A year is 365.25 days: seven of them are never shorter than seven by the calendar."""
_AGE = re.compile(r"([0-9]{1,10})([shdwy])")
_SECONDS_MAX = 1000 * _UNITS_S["y"]


class OlderThan(NamedTuple):
    """Exactly one of the two is given."""

    seconds_ago: int | None
    before_us: int | None
    """Microseconds since the Unix epoch."""


def parse_older_than(text: str) -> OlderThan:
    """ValueError, for people, if it is neither."""
    match = _AGE.fullmatch(text)
    if match:
        seconds = int(match[1]) * _UNITS_S[match[2]]
        if seconds > _SECONDS_MAX:
            raise ValueError(f"{text} is more than a thousand years")
        return OlderThan(seconds, None)
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            midnight = datetime.combine(date.fromisoformat(text), time(), UTC)
            return OlderThan(None, int(midnight.timestamp()) * 1_000_000)
        return OlderThan(None, parse_rfc3339(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is no age (90d, 7y; s, h, d, w, y), date (2019-12-31, UTC) or time (RFC 3339)"
        ) from None
