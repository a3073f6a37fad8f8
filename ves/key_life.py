"""How long an agent key may be used, and why no longer: judged from its facts and a moment given.

The one place that says what makes a key unfit to sign, and what stage of its life it is in. Pure: the moment
and the operator's rotation policy are arguments. Knows nothing of who asks.
"""

from __future__ import annotations

from typing import Literal, get_args

from ves.records import KeyStatus

Life = Literal["pending", "active", "expiring", "overdue", "retiring", "retired", "expired", "revoked"]
"""Each key is in exactly one. ``retiring``: its successor is there, and it may still sign for a while."""
LIVES: tuple[Life, ...] = get_args(Life)


def unfit(key: KeyStatus | None, at_us: int, *, age_max_us: int | None = None) -> str | None:
    """Why this key may not sign an event sequenced at this moment (VES 6.4), or None.

    Both ends of its window are inclusive, and so is the moment of its retirement. ``age_max_us`` is the
    enforced rotation policy; None: a key may be of any age.
    """
    if key is None:
        return "Agent key not found"
    if key.revoked:
        return "Agent key has been revoked"
    if key.valid_from_us is not None and at_us < key.valid_from_us:
        return "Agent key is not yet valid"
    if key.valid_to_us is not None and at_us > key.valid_to_us:
        return "Agent key has expired"
    if key.retires_at_us is not None and at_us > key.retires_at_us:
        return "Agent key has been retired"
    if age_max_us is not None and at_us - usable_since_us(key) > age_max_us:
        return "Agent key is older than the rotation policy allows"
    return None


def usable_since_us(key: KeyStatus) -> int:
    """From when its age counts: it signs nothing here before it is both registered and valid."""
    return max(key.registered_at_us, key.valid_from_us or 0)


def life_of(key: KeyStatus, now_us: int, *, age_max_us: int | None, soon_us: int) -> Life:
    """The stage the key is in. ``expiring``: within ``soon_us`` it will have ended or be overdue, and nothing
    was done about it."""
    if key.revoked:
        return "revoked"
    if key.retires_at_us is not None:
        return "retired" if now_us > key.retires_at_us else "retiring"
    if key.valid_to_us is not None and now_us > key.valid_to_us:
        return "expired"
    if key.valid_from_us is not None and now_us < key.valid_from_us:
        return "pending"
    overdue_at_us = None if age_max_us is None else usable_since_us(key) + age_max_us
    if overdue_at_us is not None and now_us > overdue_at_us:
        return "overdue"
    ends = [end for end in (key.valid_to_us, overdue_at_us) if end is not None]
    return "expiring" if ends and min(ends) - now_us <= soon_us else "active"
