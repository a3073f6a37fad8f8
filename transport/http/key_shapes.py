"""The JSON of rotating agent keys and of looking through them: camelCase, as for agent keys. No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import (
    PAGE_DEFAULT,
    U32,
    AgentKeyReply,
    Count,
    Hex64In,
    Limit,
    PrefixedHex32,
    RegisterKeyBody,
    Sequence,
    Time,
    UuidText,
)
from ves.key_life import Life

GRACE_DAYS_DEFAULT = 7
GRACE_DAYS_MAX = 90
_DAY_S = 86_400
_HEX = "[0-9a-fA-F]"
_UUID = f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"


class RotateKeyBody(RegisterKeyBody, rename="camel", kw_only=True):
    """A new signing key of an agent, and the keyId it replaces. ``previousSignature``: the replaced key's
    signature over H("VES_KEY_ROTATION_V1" || tenant || agent || U32(replaces) || replaced key || U32(keyId)
    || publicKey). snake_case is read too."""

    replaces: U32
    grace_period_secs: Annotated[
        int,
        Meta(ge=0, le=GRACE_DAYS_MAX * _DAY_S, description="So long the replaced key may still sign."),
    ] = GRACE_DAYS_DEFAULT * _DAY_S
    previous_signature: Hex64In | None = None


class KeyRotatedReply(msgspec.Struct, rename="camel"):
    """``retiresAt``: the replaced key's last moment. ``continuityProven``: the replaced key signed for this.
    ``alreadyRotated``: this was done before, nothing changed."""

    success: bool
    message: str
    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32
    public_key: PrefixedHex32
    registered_at: Time
    proof_of_possession: int | None
    replaces: U32
    retires_at: Time
    continuity_proven: bool
    already_rotated: bool


class KeysQuery(msgspec.Struct):
    """Without a tenant: the caller's, or all for the bootstrap key."""

    tenant_id: UuidText | None = None
    status: Annotated[Life, Meta(description="Only keys in this stage.")] | None = None
    after: (
        Annotated[
            str,
            Meta(
                pattern=f"^{_UUID}/{_UUID}/[0-9]{{1,10}}$",
                max_length=84,
                description="``next_after`` of the page before.",
            ),
        ]
        | None
    ) = None
    limit: Limit = PAGE_DEFAULT


class KeyStateReply(AgentKeyReply, rename="camel", kw_only=True):
    """``ageDays`` counts from when the key could first be used here: registered and valid."""

    status: Life
    age_days: Count


class KeysReply(msgspec.Struct):
    """With ``status`` a page may be short, even empty, although ``has_more``: it looks at ``limit`` keys."""

    keys: list[KeyStateReply]
    count: Count
    has_more: bool
    next_after: str | None


class KeyPath(msgspec.Struct):
    agent_id: UuidText
    key_id: U32


class SignedQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    after: (
        Annotated[
            str,
            Meta(
                pattern=f"^{_UUID}/[0-9]{{1,16}}$",
                max_length=53,
                description="``next_after`` of the page before.",
            ),
        ]
        | None
    ) = None
    limit: Limit = PAGE_DEFAULT


class SignedEventReply(msgspec.Struct):
    store_id: UuidText
    sequence_number: Sequence
    event_id: UuidText
    sequenced_at: Time


class SignedReply(msgspec.Struct):
    """By store and number. A page may be short, even empty, although ``has_more``: it looks at a bounded
    number of the tenant's events."""

    events: list[SignedEventReply]
    count: Count
    has_more: bool
    next_after: str | None
