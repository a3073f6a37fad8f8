"""Which answers are asked again, and after what pause. Pure: time and chance come in as arguments.

| what came back                      | what it says                           | again, with the same bytes |
|-------------------------------------|----------------------------------------|----------------------------|
| connection refused, lost, timed out | nobody knows whether it was done       | yes                        |
| 408, 429                            | not taken: too slow, or over our limit | yes                        |
| 502, 503, 504                       | the server's trouble, or it cannot say | yes                        |
| any other status                    | final                                  | no                         |
| certificate not trusted             | this may not be our server             | no                         |

"Again" always means the identical request: the body is made once, before the first attempt. A request that
is not ``repeatable`` (creating an API key twice makes two keys) is asked again only after 408 and 429, which
say for certain that nothing was done.

Pauses grow from ``first_pause_s`` by a factor of two up to ``pause_max_s``, each shortened by chance to at
least half, so that clients that failed together do not come back together. ``Retry-After`` is a lower bound.
When the next attempt would start after ``deadline_s`` since the first, there is none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

CERTAINLY_NOT_DONE = frozenset({408, 429})
AGAIN = CERTAINLY_NOT_DONE | {502, 503, 504}

LOST = 0
"""Stands for a status where there was no answer at all."""


class RetryPolicy(NamedTuple):
    """How long to insist. All times in seconds."""

    deadline_s: float = 120.0
    """From the first attempt to the last one's end."""
    attempt_s: float = 45.0
    """For one attempt: above the server's own request timeout (30 s), so that its 504 is heard."""
    first_pause_s: float = 0.2
    pause_max_s: float = 10.0

    def asks_again(self, status: int, *, repeatable: bool) -> bool:
        if repeatable:
            return status == LOST or status in AGAIN
        return status in CERTAINLY_NOT_DONE

    def pause_s(self, attempt: int, chance: float, retry_after_s: float | None) -> float:
        """Before attempt number ``attempt + 1`` (the first is 1); ``chance`` is uniform in [0, 1)."""
        grown = min(self.first_pause_s * 2.0 ** min(attempt - 1, 30), self.pause_max_s)
        return max(grown * (0.5 + chance / 2), retry_after_s or 0.0)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """The header's seconds, or seconds until its HTTP date (RFC 9110 10.2.3); None if absent or nonsense."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
