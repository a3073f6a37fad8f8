"""The JSON of API keys, on both listeners: what is asked and what is answered. No behaviour.

camelCase as in the original, ``has_more`` and ``next_after`` as in all our pages. snake_case is read too.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from transport.http.shapes import PAGE_DEFAULT, Count, Limit, ShortText, Time, TimeIn, UuidText

STORES_MAX = 1000
RATE_LIMIT_MAX = 1_000_000
HASH_PREFIX_DIGITS = 16
"""Of the key's SHA-256, as lists show them."""

Flag = Literal["read", "write", "admin"]
Role = Literal["agent", "reader", "admin", "anchor"]
After = Annotated[UuidText, Meta(description="``next_after`` of the page before.")]
RateLimit = Annotated[
    int, Meta(ge=1, le=RATE_LIMIT_MAX, description="Requests per minute, in place of the classes' limits.")
]
Expires = Annotated[TimeIn, Meta(description="RFC 3339; the key is refused from then on.")]
ShownPrefix = Annotated[
    # Shorter than any key, so that nobody puts one into an address.
    str,
    Meta(max_length=15, pattern="^[0-9A-Za-z_-]*$", description="The key's beginning, as lists show it."),
]
KeyPrefix = Annotated[
    str, Meta(pattern="^[0-9a-fA-F]{8,64}$", description="The beginning of the key's SHA-256 in hex.")
]


# The admin listener.


class ApiKeysQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    prefix: ShownPrefix | None = None
    after: After | None = None
    limit: Limit = PAGE_DEFAULT


class ApiKeyPath(msgspec.Struct):
    id: UuidText


class CreateApiKeyBody(msgspec.Struct, rename="camel"):
    """Exactly one of role and permissions. Without storeIds: all stores of the tenant; without agentId: any
    agent; without expiresAt and rateLimit: as the credential that asks. snake_case is read too."""

    tenant_id: UuidText
    role: Role | None = None
    permissions: Annotated[list[Flag], Meta(min_length=1, max_length=8)] | None = None
    store_ids: Annotated[list[UuidText], Meta(min_length=1, max_length=STORES_MAX)] | None = None
    agent_id: UuidText | None = None
    expires_at: Expires | None = None
    rate_limit: RateLimit | None = None
    name: ShortText | None = None


class ApiKeyReply(msgspec.Struct, rename="camel", kw_only=True):
    """``permissions``: the flags, or what the role permits."""

    id: UuidText
    prefix: str
    tenant_id: UuidText
    role: str | None
    permissions: list[str]
    store_ids: list[UuidText] | None
    agent_id: UuidText | None
    name: str | None
    created_at: Time
    expires_at: Time | None
    expired: bool
    rate_limit: int | None
    revoked_at: Time | None


class ApiKeyCreatedReply(ApiKeyReply, rename="camel", kw_only=True):
    """``apiKey`` is shown this once and stored nowhere."""

    api_key: str


class ApiKeysReply(msgspec.Struct):
    api_keys: list[ApiKeyReply] = msgspec.field(name="apiKeys")
    count: Count
    has_more: bool
    next_after: UuidText | None


# An agent's own, on the public listener.


class AgentQuery(msgspec.Struct):
    """The tenant must be named by a caller who is not bound to one."""

    tenant_id: UuidText | None = None


class AgentApiKeysQuery(AgentQuery):
    after: After | None = None
    limit: Limit = PAGE_DEFAULT


class AgentApiKeyPath(msgspec.Struct):
    agent_id: UuidText
    key_prefix: KeyPrefix


class CreateAgentApiKeyBody(msgspec.Struct, rename="camel"):
    """What is left out is as with the credential that asks; storeIds [] means all stores. Either role, or
    readOnly and admin (which wins)."""

    store_ids: Annotated[list[UuidText], Meta(max_length=STORES_MAX)] | None = None
    read_only: bool | None = None
    admin: bool | None = None
    role: Role | None = None
    rate_limit: RateLimit | None = None
    expires_at: Expires | None = None
    name: ShortText | None = None


class AgentReply(msgspec.Struct, rename="camel"):
    """Taken from the agent's newest API key that is in force; without one, from its newest."""

    agent_id: UuidText
    tenant_id: UuidText
    active: bool
    permissions: str
    """admin, read_write, read, write, anchor or none."""
    role: str | None
    store_ids: list[UuidText]
    """Empty: all stores of the tenant."""
    rate_limit: int | None
    expires_at: Time | None


class AgentApiKeyCreatedReply(msgspec.Struct, rename="camel"):
    """``apiKey`` is shown this once and stored nowhere."""

    success: bool
    id: UuidText
    api_key: str
    key_hash_prefix: str
    permissions: str
    role: str | None
    store_ids: list[UuidText]
    rate_limit: int | None
    expires_at: Time | None
    message: str


class AgentApiKeyReply(msgspec.Struct, rename="camel"):
    id: UuidText
    key_hash_prefix: str
    active: bool
    permissions: str
    role: str | None
    rate_limit: int | None
    expires_at: Time | None
    created_at: Time


class AgentApiKeysReply(msgspec.Struct):
    keys: list[AgentApiKeyReply]
    count: Count
    has_more: bool
    next_after: UuidText | None


class AgentApiKeyRevokedReply(msgspec.Struct):
    success: bool
    message: str
