"""Making and ending API keys, for the routes of both listeners: the text, the record, the traces.

A key's text leaves once and is kept nowhere. Who may and what he may give is decided before
(``transport.http.minting``); every act leaves an audit entry in its own transaction and a security event.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import uuid4

from journal.port import ApiKey, AuditEntry
from transport.http import key_format
from transport.http.minting import Grant
from transport.http.permissions import named
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.timestamps import utc_text


def new_api_key(
    visit: Visit,
    tenant_id: Uuid,
    agent_id: Uuid | None,
    granted: Grant,
    *,
    flags: tuple[str, ...] | None = None,
    name: str | None,
) -> tuple[ApiKey, str]:
    """A record not stored yet and its text. ``flags``: kept as they were asked for, instead of a role."""
    text = key_format.new_key(visit.house.settings.api_key_mode)
    role, permissions = named(granted.permissions) if flags is None else (None, flags)
    key = ApiKey(
        id=uuid4().bytes,
        key_hash=sha256(text.encode()).digest(),
        prefix=key_format.shown(text),
        tenant_id=tenant_id,
        store_ids=granted.store_ids,
        agent_id=agent_id,
        permissions=permissions,
        name=name,
        role=role,
        expires_at_us=granted.expires_at_us,
        rate_limit_per_minute=granted.rate_limit_per_minute,
    )
    return key, text


def creation_entry(visit: Visit, key: ApiKey) -> AuditEntry:
    """All that the key gives; never the key."""
    return visit.act(
        "api_key.create",
        uuid_text(key.id),
        key.tenant_id,
        role=key.role,
        permissions=" ".join(key.permissions),
        stores=None if key.store_ids is None else " ".join(map(uuid_text, key.store_ids)),
        agent=None if key.agent_id is None else uuid_text(key.agent_id),
        expires_at=None if key.expires_at_us is None else utc_text(key.expires_at_us),
        rate_limit=key.rate_limit_per_minute,
        prefix=key.prefix,
        name=key.name,
    )


def announce_creation(visit: Visit, key: ApiKey) -> None:
    visit.house.security.happened(
        "credential_created",
        tenant=uuid_text(key.tenant_id),
        api_key_id=uuid_text(key.id),
        role=key.role,
        permissions=" ".join(key.permissions),
        by=visit.who.name,
        request_id=visit.request_id,
    )


async def revoke(visit: Visit, credential_id: Uuid, tenant_id: Uuid | None) -> ApiKey | None:
    """The revoked key, None if there is no such key in the tenant (None: in any)."""
    entry = visit.act("api_key.revoke", uuid_text(credential_id), tenant_id)
    try:
        revoked = await visit.house.journal.revoke_api_key(credential_id, tenant_id=tenant_id, audit=entry)
    finally:
        # Also when nobody knows whether it was revoked: forgetting costs one look into the database.
        visit.house.credentials.forget([credential_id])
    if revoked is not None:
        visit.house.security.happened(
            "credential_revoked",
            tenant=uuid_text(revoked.tenant_id),
            api_key_id=uuid_text(credential_id),
            by=visit.who.name,
            request_id=visit.request_id,
        )
    return revoked
