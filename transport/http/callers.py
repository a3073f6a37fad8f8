"""Who is calling: the credential in the headers, and what its holder may name.

It alone reads credentials and compares the bootstrap key. It never logs or keeps a key, and it checks the
tenant and store *named in a request* before anything is looked up, so that 403 tells nothing about what
exists.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from actors.credentials import Credential
from transport.http import key_format
from transport.http.asked import Asked
from transport.http.errors import ApiError, Code
from transport.http.permissions import BOOTSTRAP, SELF, Permissions, holds, of_key
from transport.http.tokens import believed, permissions_of
from ves.encoding import uuid_text
from ves.records import CredentialId, IssuedToken, Scope, Uuid
from ves.timestamps import utc_text

if TYPE_CHECKING:
    from actors.failed_attempts import FailedAttempts
    from actors.token_rules import Token
    from transport.house import House

KEY_PREFIXES = ("ss_", key_format.PREFIX)
KEY_LENGTHS = range(16, 257)


class Caller(msgspec.Struct, frozen=True):
    """An authenticated caller. ``credential_id`` None means the bootstrap key."""

    credential_id: CredentialId | None
    tenant_id: Uuid | None
    """None: whatever tenant the request names."""
    store_ids: tuple[Uuid, ...] | None
    agent_id: Uuid | None
    permissions: Permissions
    rate_limit_per_minute: int | None = None
    """The credential's own limit, in place of the classes'."""
    expires_at_us: int | None = None
    """What it makes ends no later."""

    @property
    def is_bootstrap(self) -> bool:
        return self.credential_id is None

    @property
    def name(self) -> str:
        """As in audit entries and logs."""
        if self.credential_id is None:
            return "bootstrap"
        if isinstance(self.credential_id, IssuedToken):
            return f"token:{uuid_text(self.credential_id.subject)}"
        return f"api_key:{uuid_text(self.credential_id)}"

    @property
    def api_key_id(self) -> Uuid | None:
        """Which API key asks; None for the bootstrap key. 403 for a token: what it would make outlives it."""
        if isinstance(self.credential_id, IssuedToken):
            raise denied("Tokens do not make API keys")
        return self.credential_id

    @property
    def scope(self) -> Scope:
        return Scope(self.tenant_id, self.store_ids, self.agent_id)

    def must_hold(self, needed: tuple[str, ...]) -> None:
        # What a token may do is in its scope, nothing beside it.
        itself = self.agent_id is not None and not isinstance(self.credential_id, IssuedToken)
        held = self.permissions | {SELF} if itself else self.permissions
        if not holds(held, needed):
            raise denied(f"{' or '.join(needed)} permission required")

    def must_reach(self, tenant_id: Uuid, store_id: Uuid) -> None:
        """403 unless the credential reaches this store of this tenant."""
        self.must_reach_tenant(tenant_id)
        if self.store_ids is not None and store_id not in self.store_ids:
            raise denied("Store access denied")

    def must_reach_tenant(self, tenant_id: Uuid) -> None:
        if self.tenant_id is not None and tenant_id != self.tenant_id:
            raise denied("Tenant access denied")

    def must_reach_whole_tenant(self, tenant_id: Uuid) -> None:
        """403 also for credentials bound to some stores: what is asked for belongs to all of them."""
        self.must_reach_tenant(tenant_id)
        if self.store_ids is not None:
            raise denied("Store access denied: this concerns the whole tenant")

    def must_administer(self, tenant_id: Uuid, act: str) -> None:
        """403 for a credential bound to some stores or one agent: it must not make, see or end what is the
        whole tenant's. ``act``: what it would do, for the refusal."""
        self.must_reach_whole_tenant(tenant_id)
        if self.agent_id is not None:
            raise denied(f"Agent-scoped credentials do not {act}")

    def must_be(self, agent_id: Uuid) -> None:
        """403 for a credential bound to another agent."""
        if self.agent_id is not None and agent_id != self.agent_id:
            raise denied("Agent mismatch")

    def must_be_or_administer(self, agent_id: Uuid, needed: tuple[str, ...]) -> None:
        """403 unless the credential is bound to this agent, or holds what is needed in the whole tenant."""
        self.must_be(agent_id)
        if self.agent_id is None:
            self.must_hold(tuple(one for one in needed if one != SELF))
            if self.store_ids is not None:
                raise denied("Store access denied: an agent belongs to the whole tenant")

    def tenant_named(self, named: Uuid | None) -> Uuid:
        """The tenant a request is about. 403 when it is not the caller's, 400 when nobody names one."""
        if named is None:
            if self.tenant_id is None:
                raise ApiError(Code.MISSING_REQUIRED_FIELD, "tenant_id is required with this credential")
            return self.tenant_id
        self.must_reach_tenant(named)
        return named


def denied(text: str) -> ApiError:
    return ApiError(Code.INSUFFICIENT_PERMISSIONS, text)


class Presented(NamedTuple):
    """A credential as it stands in the request, not yet believed."""

    kind: Literal["api_key", "token"]
    text: str


def presented(asked: Asked) -> Presented:
    """The credential of a request: ``Authorization: Bearer …`` (an API key or a token),
    ``Authorization: ApiKey …``, a raw key there, or ``x-api-key``.

    Only one of the headers is used, Authorization first. 401 without one.
    """
    value = asked.get("authorization")
    if value is None:
        value = asked.get("x-api-key", "") or ""
    value = value.strip()
    scheme, blank, rest = value.partition(" ")
    rest = rest.strip()
    if blank and scheme.lower() == "apikey":
        if not rest.startswith(KEY_PREFIXES):
            raise ApiError(Code.INVALID_API_KEY, "Invalid API key")
        return Presented("api_key", rest)
    if blank and scheme.lower() == "bearer":
        return Presented("api_key" if rest.startswith(KEY_PREFIXES) else "token", rest)
    if not value.startswith(KEY_PREFIXES):
        raise ApiError(Code.AUTH_REQUIRED, "Missing authentication: send Authorization: Bearer sk_…")
    return Presented("api_key", value)


async def authenticate(asked: Asked, house: House, address: str) -> Caller:
    """The caller, or 401; 429 for an address whose attempts failed too often. Raises what the books raise
    when the database is away.

    An address has to wait only with what is not known here: behind it may be many, and one of them must not
    lock the others out. A bootstrap key, a key that was found before and a token that verifies pass as ever.
    """
    try:
        return await _believed(asked, house, address)
    except ApiError as refusal:
        if refusal.status != 401 or refusal.code is Code.AUTH_REQUIRED:  # nothing was tried
            raise
        guess = not isinstance(refusal, _KeyExpired) and refusal.code is not Code.TOKEN_EXPIRED
        if guess:
            _must_not_wait(house.failed_attempts, address)
        house.failed_attempts.failed(address, guess=guess)
        raise


async def _believed(asked: Asked, house: House, address: str) -> Caller:
    kind, text = presented(asked)
    if kind == "token":
        return _of_token(await believed(text, house.tokens))
    return await _of_api_key(text, house, address)


def _refuse_no_key(key: str, kind: key_format.Kind) -> None:
    """401 for what cannot be a key of this node, whoever asks: nothing is looked up."""
    if key.startswith(key_format.PREFIX) and (trouble := key_format.trouble(key, kind)) is not None:
        raise ApiError(Code.INVALID_API_KEY, f"Invalid API key: {trouble}")
    if len(key) not in KEY_LENGTHS or not key.isascii():
        raise ApiError(Code.INVALID_API_KEY, "Invalid API key")


def _of_token(token: Token) -> Caller:
    return Caller(
        IssuedToken(token.subject, token.issued_at_s),
        token.tenant_id,
        token.store_ids,
        token.agent_id,
        permissions_of(token),
        expires_at_us=token.expires_at_s * 1_000_000,
    )


def _must_not_wait(attempts: FailedAttempts, address: str) -> None:
    """429 before anything is looked up."""
    wait_s = attempts.wait_s(address)
    if wait_s is not None:
        attempts.throttled(address)
        text = "too many failed attempts from your address; nothing was looked at"
        raise ApiError(Code.RATE_LIMIT_EXCEEDED, text, retry_after_s=wait_s)


async def _of_api_key(key: str, house: House, address: str) -> Caller:
    key_hash = sha256(key.encode()).digest()
    known = house.credentials.knows(key_hash)
    if not known:  # what is known has passed this before
        _refuse_no_key(key, house.settings.api_key_mode)
    if hmac.compare_digest(key_hash, house.bootstrap_key_sha256):
        return Caller(None, None, None, None, BOOTSTRAP)
    if not known:
        _must_not_wait(house.failed_attempts, address)
    credential = await house.credentials.find(key_hash)
    if credential is None:
        raise ApiError(Code.INVALID_API_KEY, "Invalid API key")
    return _caller(credential, house.credentials.now_us())


class _KeyExpired(ApiError):
    """It was good once, so it is no guess."""


def _caller(credential: Credential, now_us: int) -> Caller:
    """401 for a key that has expired by this node's clock; an append asks the database's too."""
    end_us = credential.expires_at_us
    if end_us is not None and now_us >= end_us:
        raise _KeyExpired(
            Code.INVALID_API_KEY, f"the API key has expired at {utc_text(end_us)}; get a new one"
        )
    return Caller(
        credential.id,
        credential.tenant_id,
        credential.store_ids,
        credential.agent_id,
        of_key(credential.role, credential.flags),
        credential.rate_limit_per_minute,
        end_us,
    )
