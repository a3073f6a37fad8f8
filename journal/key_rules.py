"""What registering and rotating agent keys come to, given the keys as they stand. Carried out elsewhere.

Pure: the same rules for the journal on PostgreSQL and for the one in memory.
"""

from __future__ import annotations

from typing import NamedTuple

from journal.port import AgentKey, KeyConflict, KeyEnded, KeyRotated, KeyRotation
from ves.key_life import life_of


class Retire(NamedTuple):
    """Go on: register the new key unless it is there, and let the old one end then."""

    retires_at_us: int
    rotation_signature: bytes | None


def binding(key: AgentKey) -> tuple[bytes, int, int | None, int | None]:
    """What registering promises for ever; whether possession was proven is no part of it."""
    return key.public_key, key.key_algorithm, key.valid_from_us, key.valid_to_us


def adds_proof(present: AgentKey, key: AgentKey) -> bool:
    """Whether the key, registered before, comes with a better proof of possession than is on record."""
    return key.proof is not None and (key.proof_of_possession or 0) > (present.proof_of_possession or 0)


def judge(
    rotation: KeyRotation,
    old: AgentKey | None,
    new: AgentKey | None,
    *,
    done: bool,
    now_us: int,
    ends_us: int,
) -> Retire | KeyRotated | KeyConflict | KeyEnded | None:
    """``done``: the journal has a retirement of ``old`` in favour of ``new``. ``ends_us``: when the old key
    would end if nothing ended it earlier."""
    if old is None:
        return None
    if new is not None and binding(new) != binding(rotation.key):
        return KeyConflict(same_name=True)
    stands_us = old.retires_at_us
    if new is not None and done and stands_us is not None and stands_us <= ends_us:
        return KeyRotated(new, old, already=True)
    superseded = rotation.by_holder and stands_us is not None and not done
    # Its successor would sign before it may sign itself.
    too_early = rotation.by_holder and old.valid_from_us is not None and now_us < old.valid_from_us
    if superseded or too_early or _is_over(old, now_us):
        return KeyEnded(old.name)
    if new is not None and (new.retires_at_us is not None or _is_over(new, now_us)):
        return KeyEnded(new.name)
    return Retire(ends_us if stands_us is None else min(ends_us, stands_us), _word(rotation, old))


def _word(rotation: KeyRotation, old: AgentKey) -> bytes | None:
    """What the old key signed for this successor, now or when its end was first recorded."""
    given = old.rotation_signature if old.replaced_by == rotation.key.name.key_id else None
    return rotation.rotation_signature or given


def _is_over(key: AgentKey, now_us: int) -> bool:
    return life_of(key.status, now_us, age_max_us=None, soon_us=0) in ("revoked", "retired", "expired")
