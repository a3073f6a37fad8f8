"""Revoking tokens, on the admin listener. Nobody keeps tokens, so what is revoked is a subject, until now."""

from __future__ import annotations

from journal.port import TokenRevocation
from transport.http.errors import ApiError, Code
from transport.http.routing import Route
from transport.http.token_shapes import (
    RevokeTokensBody,
    TokenRevocationReply,
    TokenRevocationsQuery,
    TokenRevocationsReply,
)
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.timestamps import utc_text


async def revoke_tokens(visit: Visit) -> TokenRevocationReply:
    body = await visit.json(RevokeTokensBody)
    tenant_id, subject = visit.uuid(body, "tenant_id"), _subject(visit, body)
    visit.who.must_administer(tenant_id, "manage tokens")
    house = visit.house
    entry = visit.act("token.revoke", uuid_text(subject), tenant_id, reason=body.reason)
    try:
        revoked = await house.journal.revoke_tokens(
            tenant_id, subject, ahead_s=house.settings.jwt_leeway_secs, reason=body.reason, audit=entry
        )
    finally:
        # Also when nobody knows whether it was revoked: forgetting costs one look into the database.
        house.tokens.forget(tenant_id, subject)
    house.security.happened(
        "credential_revoked",
        credential=f"token:{uuid_text(subject)}",
        tenant=uuid_text(tenant_id),
        by=visit.who.name,
        request_id=visit.request_id,
    )
    return _reply(revoked)


async def list_token_revocations(visit: Visit) -> TokenRevocationsReply:
    query = visit.query(TokenRevocationsQuery)
    named = visit.optional_uuid(query, "tenant_id")
    tenant_id = visit.who.tenant_id if named is None else named
    if tenant_id is not None:
        visit.who.must_administer(tenant_id, "manage tokens")
    found = await visit.house.journal.list_token_revocations(
        tenant_id, after=query.after, limit=query.limit + 1
    )
    page = [_reply(one) for one in found[: query.limit]]
    more = len(found) > query.limit
    return TokenRevocationsReply(page, len(page), more, page[-1].number if more else None)


def _subject(visit: Visit, body: RevokeTokensBody) -> Uuid:
    if (body.subject is None) == (body.agent_id is None):
        raise ApiError(Code.MISSING_REQUIRED_FIELD, "name either agentId or subject")
    return visit.uuid(body, "agent_id" if body.subject is None else "subject")


def _reply(revoked: TokenRevocation) -> TokenRevocationReply:
    return TokenRevocationReply(
        revoked.number,
        uuid_text(revoked.tenant_id),
        uuid_text(revoked.subject),
        utc_text(revoked.revoked_until_s * 1_000_000),
        utc_text(revoked.revoked_at_us),
        revoked.reason,
    )


ROUTES = [
    Route(
        "POST",
        "/api/v1/admin/tokens/revoke",
        revoke_tokens,
        "Revoke a subject's tokens: nothing is appended with those issued until now",
        TokenRevocationReply,
        body_shape=RevokeTokensBody,
    ),
    Route(
        "GET",
        "/api/v1/admin/tokens/revocations",
        list_token_revocations,
        "Revocations of tokens",
        TokenRevocationsReply,
        query_shape=TokenRevocationsQuery,
    ),
]
