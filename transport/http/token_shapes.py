"""The wire's JSON about revoked tokens (admin listener). No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import PAGE_DEFAULT, Count, Limit, ShortText, Time, UuidText
from ves.constants import INTEGER_MAX

RevocationNumber = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]


class RevokeTokensBody(msgspec.Struct, rename="camel"):
    """Whose tokens: ``agentId``, or ``subject``, the token's sub. The tenant's own id as the subject means
    every token of the tenant. snake_case is read too."""

    tenant_id: UuidText
    subject: UuidText | None = None
    agent_id: UuidText | None = None
    reason: ShortText | None = None


class TokenRevocationReply(msgspec.Struct, rename="camel"):
    """Tokens with an ``iat`` up to ``revokedUntil``, inclusive, are dead; it lies as far ahead as issuers'
    clocks may be."""

    number: RevocationNumber
    tenant_id: UuidText
    subject: UuidText
    revoked_until: Time
    revoked_at: Time
    reason: str | None


class TokenRevocationsQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    after: Annotated[RevocationNumber, Meta(description="``next_after`` of the page before.")] = 0
    limit: Limit = PAGE_DEFAULT


class TokenRevocationsReply(msgspec.Struct):
    """Oldest first."""

    revocations: list[TokenRevocationReply]
    count: Count
    has_more: bool
    next_after: RevocationNumber | None
