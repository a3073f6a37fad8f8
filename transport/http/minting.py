"""What an API key may be: never more than the credential that makes it holds, in any direction.

Decides only; one place for both listeners. Permissions, stores, end and rate limit are bounded here, tenant
and agent by ``Caller``. What is left out is inherited, so that silence widens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from transport.http.callers import Caller, denied
from transport.http.errors import ApiError, Code
from transport.http.permissions import (
    EVERYTHING,
    FLAGS,
    OPERATOR,
    ROLES,
    Permissions,
    covers,
    holds,
    of_flags,
)
from ves.encoding import uuid_bytes
from ves.records import Uuid
from ves.timestamps import parse_rfc3339, utc_text

TENANT_RATE_LIMIT_MAX = 6_000
"""Requests per minute: as much as the ingest class gives. More is for the operator to give."""
AGENT_RATE_LIMIT_MAX = 600
"""As much as the narrowest class gives: a limit of its own must not be a way round it."""
WRITE = "events:write"


class Grant(msgspec.Struct, frozen=True):
    """What a key gives, within what its maker holds."""

    permissions: Permissions
    store_ids: tuple[Uuid, ...] | None
    expires_at_us: int | None
    rate_limit_per_minute: int | None


def grant(
    caller: Caller,
    *,
    permissions: Permissions,
    store_ids: list[str] | None,
    expires_at: str | None,
    rate_limit: int | None,
    now_us: int,
) -> Grant:
    """403 where more is asked for than the caller holds, 400 for what is nonsense."""
    _must_cover(caller, permissions)
    return Grant(
        permissions,
        _stores(caller, store_ids),
        _end(caller, expires_at, now_us),
        _rate_limit(caller, rate_limit),
    )


def of_role_or_flags(role: str | None, flags: Sequence[str] | None) -> Permissions:
    """422 unless exactly one is given."""
    if role is not None and flags is None:
        return ROLES[role]
    if flags is not None and role is None:
        return of_flags(tuple(flags))
    if role is None:
        raise ApiError(Code.MISSING_REQUIRED_FIELD, "role: give role or permissions", status=422)
    raise ApiError(Code.INVALID_FIELD_VALUE, "role: give role or permissions, not both", status=422)


def of_wishes(caller: Caller, *, role: str | None, read_only: bool | None, admin: bool | None) -> Permissions:
    """The original's readOnly and admin, or a role. Silence: what the caller holds, but nobody becomes an
    administrator by silence."""
    if role is not None:
        if read_only is not None or admin is not None:
            text = "role: give role, or readOnly and admin, not both"
            raise ApiError(Code.INVALID_FIELD_VALUE, text, status=422)
        return ROLES[role]
    if admin:
        return ROLES["admin"]
    if read_only:
        return _shared(caller, FLAGS["read"], "Cannot mint a key that reads: the authenticating key does not")
    if EVERYTHING in caller.permissions:
        return ROLES["agent"]
    if read_only is not None and not holds(caller.permissions, (WRITE,)):
        raise denied("Cannot mint a key with broader write permissions")
    return caller.permissions


def _shared(caller: Caller, wanted: Permissions, otherwise: str) -> Permissions:
    shared = frozenset(one for one in wanted if holds(caller.permissions, (one,)))
    if not shared:
        raise denied(otherwise)
    return shared


def may_end(caller: Caller, permissions: Permissions, store_ids: tuple[Uuid, ...] | None) -> bool:
    """Whether a key is within what the caller holds: he may end what he could have made."""
    within = caller.store_ids is None or (store_ids is not None and set(store_ids) <= set(caller.store_ids))
    return within and covers(caller.permissions, permissions)


def _must_cover(caller: Caller, wanted: Permissions) -> None:
    if covers(caller.permissions, wanted):
        return
    if EVERYTHING in wanted:
        raise denied("Only admins can mint admin keys")
    if WRITE in wanted and not holds(caller.permissions, (WRITE,)):
        raise denied("Cannot mint a key with broader write permissions")
    beyond = sorted(one for one in wanted if not covers(caller.permissions, frozenset({one})))
    raise denied(f"Cannot mint a key with broader permissions than the authenticating key: {beyond[0]}")


def _stores(caller: Caller, wanted: list[str] | None) -> tuple[Uuid, ...] | None:
    if wanted is None:
        return caller.store_ids
    if not wanted and caller.store_ids is not None:
        raise denied("Cannot widen store scope beyond the authenticating key")
    try:
        stores = tuple(dict.fromkeys(uuid_bytes(one) for one in wanted)) or None
    except ValueError:
        raise ApiError(Code.INVALID_FIELD_VALUE, "storeIds: not a UUID", status=422) from None
    if caller.store_ids is not None and stores is not None and not set(stores) <= set(caller.store_ids):
        raise denied("Cannot mint a key for stores outside the authenticating key scope")
    return stores


def _end(caller: Caller, wanted: str | None, now_us: int) -> int | None:
    if wanted is None:
        return caller.expires_at_us
    try:
        end_us = parse_rfc3339(wanted)
        utc_text(end_us)  # what cannot be written could never be listed again
    except (ValueError, OverflowError) as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"expiresAt: {wrong}") from None
    if end_us <= now_us:
        raise ApiError(Code.INVALID_FIELD_VALUE, "expiresAt: is past already")
    if caller.expires_at_us is not None and end_us > caller.expires_at_us:
        raise denied("Cannot mint a key that outlives the authenticating key")
    return end_us


def _rate_limit(caller: Caller, wanted: int | None) -> int | None:
    if holds(caller.permissions, (OPERATOR,)):
        return wanted
    own, most = caller.rate_limit_per_minute, _rate_limit_max(caller)
    if wanted is None:
        return None if own is None else most
    if own is not None and wanted > own:
        raise denied("Cannot mint a key with a higher rate limit than the authenticating key")
    if wanted > most:
        raise denied(
            f"rateLimit: at most {most} a minute with this credential; more is for the operator to give"
        )
    return wanted


def _rate_limit_max(caller: Caller) -> int:
    if caller.rate_limit_per_minute is not None:
        return min(caller.rate_limit_per_minute, TENANT_RATE_LIMIT_MAX)
    administers = holds(caller.permissions, ("api_keys:write",))
    return TENANT_RATE_LIMIT_MAX if administers else AGENT_RATE_LIMIT_MAX


def in_a_word(permissions: Permissions) -> str:
    """As the original calls it, and for what it did not know: write, anchor, none."""
    if EVERYTHING in permissions:
        return "admin"
    writes, reads = holds(permissions, (WRITE,)), holds(permissions, ("events:read", "commitments:read"))
    if permissions == ROLES["anchor"]:
        return "anchor"
    if writes:
        return "read_write" if reads else "write"
    return "read" if reads else "none"
