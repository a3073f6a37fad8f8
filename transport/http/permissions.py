"""Which permission each route needs. Written by hand, and the only place where it is decided.

A route without a row here keeps the node from starting. Several permissions in a row are alternatives. The
names are the security guide's; a credential holds those of its role in ``ROLES``, or, an API key with the
flags read, write and admin, the sets of ``FLAGS``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

Permissions = frozenset[str]

PUBLIC: Final[tuple[str, ...]] = ()
"""Answered without a credential."""

EVERYTHING: Final = "*"
"""Everything within the holder's tenant."""

OPERATOR: Final = "operator"
"""What concerns the node and all tenants; not within ``*``, only the bootstrap key holds it."""

METRICS: Final = "metrics:read"
"""The node's numbers, all tenants' together; not within a tenant's ``*``."""

OF_THE_NODE: Final[Permissions] = frozenset({OPERATOR, METRICS})
"""Within no wildcard: held only by name."""

SELF: Final = "self"
"""Held by a credential that is bound to an agent, for what concerns this agent: the handler checks which."""

FLAGS: Final[dict[str, Permissions]] = {
    "read": frozenset({"events:read", "commitments:read"}),
    "write": frozenset({"events:write", "commitments:write"}),
    "admin": frozenset({EVERYTHING}),
}

ROLES: Final[dict[str, Permissions]] = {
    "agent": frozenset({"events:write", "events:read"}),
    "reader": frozenset({"events:read", "commitments:read"}),
    "admin": frozenset({EVERYTHING}),
    "anchor": frozenset({"commitments:*", "anchor:*"}),
    "monitor": frozenset({METRICS}),
}
"""The security guide's, and one for whoever scrapes ``/metrics``: only an operator can give it away."""

BOOTSTRAP: Final[Permissions] = OF_THE_NODE | {EVERYTHING}

NEEDED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    # The public listener.
    ("POST", "/api/v1/ves/events/ingest"): ("events:write",),
    ("GET", "/api/v1/ves/events"): ("events:read",),
    ("GET", "/api/v1/ves/events/{event_id}"): ("events:read",),
    ("GET", "/api/v1/ves/events/{event_id}/evidence"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/head"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/streams"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/entities/{entity_type}/{entity_id}"): ("events:read",),
    ("POST", "/api/v1/events/ingest"): ("events:write",),
    ("GET", "/api/v1/events"): ("events:read",),
    ("GET", "/api/v1/head"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/entities/{entity_type}/{entity_id}"): ("events:read",),
    ("POST", "/api/v1/ves/commitments"): ("commitments:write",),
    ("GET", "/api/v1/ves/commitments"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/commitments/{batch_id}"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/commitments/{batch_id}/leaves"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/proofs/{sequence_number}"): ("events:read", "commitments:read"),
    ("POST", "/api/v1/ves/proofs/verify"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/ves/validity/{batch_id}/inputs"): ("commitments:read",),
    ("POST", "/api/v1/ves/validity/{batch_id}/proofs"): ("validity_proofs:write",),
    ("GET", "/api/v1/ves/validity/{batch_id}/proofs"): ("commitments:read",),
    ("GET", "/api/v1/ves/validity/proofs/{proof_id}"): ("commitments:read",),
    ("GET", "/api/v1/ves/validity/proofs/{proof_id}/verify"): ("commitments:read",),
    ("GET", "/api/v1/anchor/status"): ("events:read", "commitments:read", "anchor:read"),
    ("POST", "/api/v1/ves/anchor"): ("anchor:write",),
    ("POST", "/api/v1/ves/commitments/anchor"): ("anchor:write",),
    ("GET", "/api/v1/ves/anchor/{batch_id}/verify"): ("events:read", "commitments:read"),
    ("POST", "/api/v1/anchor"): ("anchor:write",),
    ("GET", "/api/v1/anchor/{batch_id}/verify"): ("events:read", "commitments:read"),
    # What anchorers outside ask and tell, of all tenants.
    ("GET", "/v1/commitments/pending"): (OPERATOR,),
    ("POST", "/v1/commitments/{batch_id}/anchored"): (OPERATOR,),
    ("POST", "/api/v1/commitments"): ("commitments:write",),
    ("GET", "/api/v1/commitments"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/commitments/{batch_id}"): ("events:read", "commitments:read"),
    ("GET", "/api/v1/proofs/{sequence_number}"): ("events:read", "commitments:read"),
    ("POST", "/api/v1/proofs/verify"): ("events:read", "commitments:read"),
    ("POST", "/api/v1/agents/keys"): ("agent_keys:write",),
    ("POST", "/api/v1/agents/keys/revoke"): ("agent_keys:write",),
    # An agent's own credential rotates its own key: the handler asks for the old key's signature then.
    ("POST", "/api/v1/agents/keys/rotate"): ("agent_keys:write", "events:write"),
    ("GET", "/api/v1/agents/{agent_id}/keys"): ("events:read", "commitments:read"),
    ("POST", "/api/v1/schemas"): ("schemas:write",),
    ("GET", "/api/v1/schemas"): ("schemas:read", "events:read"),
    ("POST", "/api/v1/schemas/validate"): ("schemas:read", "events:read"),
    ("GET", "/api/v1/schemas/event-type/{event_type}"): ("schemas:read", "events:read"),
    ("GET", "/api/v1/schemas/event-type/{event_type}/latest"): ("schemas:read", "events:read"),
    ("GET", "/api/v1/schemas/{schema_id}"): ("schemas:read", "events:read"),
    ("PUT", "/api/v1/schemas/{schema_id}/status"): ("schemas:write",),
    ("DELETE", "/api/v1/schemas/{schema_id}"): ("schemas:write",),
    ("GET", "/api/v1/agents/{agent_id}"): (SELF, "api_keys:read"),
    ("POST", "/api/v1/agents/{agent_id}/api-keys"): (SELF, "api_keys:write"),
    ("GET", "/api/v1/agents/{agent_id}/api-keys"): (SELF, "api_keys:read"),
    ("DELETE", "/api/v1/agents/{agent_id}/api-keys/{key_prefix}"): (SELF, "api_keys:write"),
    ("GET", "/.well-known/ves-sequencer"): PUBLIC,
    ("GET", "/health"): PUBLIC,
    ("GET", "/ready"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    # The admin listener, beside /health, /ready and /openapi.json.
    ("POST", "/api/v1/admin/api-keys"): ("api_keys:write",),
    ("GET", "/api/v1/admin/api-keys"): ("api_keys:read",),
    ("DELETE", "/api/v1/admin/api-keys/{id}"): ("api_keys:write",),
    ("GET", "/api/v1/admin/agent-keys"): ("agent_keys:read",),
    ("GET", "/api/v1/admin/agent-keys/{agent_id}/{key_id}/events"): ("agent_keys:read",),
    ("GET", "/api/v1/admin/tenants/{tenant_id}/policy"): ("policies:read",),
    ("PUT", "/api/v1/admin/tenants/{tenant_id}/policy"): ("policies:write",),
    ("GET", "/api/v1/admin/tenants/{tenant_id}/regions"): (OPERATOR,),
    ("PUT", "/api/v1/admin/tenants/{tenant_id}/regions"): (OPERATOR,),
    ("GET", "/api/v1/admin/tenant-regions"): (OPERATOR,),
    ("POST", "/api/v1/admin/tokens/revoke"): ("tokens:write",),
    ("GET", "/api/v1/admin/tokens/revocations"): ("tokens:read",),
    ("GET", "/api/v1/admin/actors"): (OPERATOR,),
    ("GET", "/api/v1/admin/actors/tenants"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/kill"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/restart"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/drain"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/suspend"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/resume"): (OPERATOR,),
    ("GET", "/api/v1/admin/actors/dead-letters"): (OPERATOR,),
    ("GET", "/api/v1/admin/actors/dead-letters/{id}"): (OPERATOR,),
    ("DELETE", "/api/v1/admin/actors/dead-letters/{id}"): (OPERATOR,),
    ("POST", "/api/v1/admin/actors/dead-letters/{id}/resend"): (OPERATOR,),
    ("GET", "/api/v1/admin/audit"): ("audit:read",),
    ("GET", "/api/v1/admin/audit/proofs/{node_id}/{entry_number}"): ("audit:read",),
    ("GET", "/api/v1/admin/audit/heads"): (OPERATOR,),
    ("GET", "/api/v1/admin/audit/chains/{node_id}"): (OPERATOR,),
    ("GET", "/api/v1/admin/audit/commitments/{node_id}"): (OPERATOR,),
    ("GET", "/metrics"): (METRICS,),
    ("GET", "/health/detailed"): (OPERATOR,),
}


def of_flags(flags: tuple[str, ...]) -> Permissions:
    """What an API key with these flags may do; unknown flags give nothing, a permission gives itself."""
    return frozenset().union(*(FLAGS.get(flag, frozenset({flag} if ":" in flag else ())) for flag in flags))


@lru_cache(maxsize=1024)
def of_key(role: str | None, flags: tuple[str, ...]) -> Permissions:
    """What an API key may do; an unknown role (of a newer node) gives nothing."""
    return of_flags(flags) if role is None else ROLES.get(role, frozenset())


def named(permissions: Permissions) -> tuple[str | None, tuple[str, ...]]:
    """The role and the flags of a key that may do exactly this: a role's name if one fits, else flags or, if
    none fit, the permissions themselves. OPERATOR has no name: no key can be given it."""
    for role, its in ROLES.items():
        if its == permissions:
            return role, ()
    flags = tuple(flag for flag, its in FLAGS.items() if its <= permissions)
    if of_flags(flags) == permissions:
        return None, flags
    return None, tuple(sorted(one for one in permissions if ":" in one))


def holds(held: Permissions, needed: tuple[str, ...]) -> bool:
    """Whether one of the alternatives is held, itself or by a wildcard (``commitments:*``, ``*``)."""
    return any(_has(held, one) for one in needed)


def covers(held: Permissions, wanted: Permissions) -> bool:
    """Whether whoever holds ``held`` gives nothing away that he does not hold with ``wanted``."""
    return all(_has(held, one) for one in wanted)


def _has(held: Permissions, one: str) -> bool:
    if one in held:
        return True
    return one not in OF_THE_NODE and (EVERYTHING in held or f"{one.partition(':')[0]}:*" in held)
