"""Which rate class each route is in. Written by hand, and the only place where it is decided.

A route without a row here keeps the node from starting. Routes without a credential are ``public`` and count
by address; all others count by credential. Proofs are reads like events: whoever verifies asks for one for
each event; the class ``commitments`` is for what costs as many leaves as a commitment has.
"""

from __future__ import annotations

from typing import Final

from actors.rate_limits import RateClass

FAILED: Final[RateClass] = "failed"
"""Of whatever is refused before it gets to its route's class."""

CLASS_OF: Final[dict[tuple[str, str], RateClass]] = {
    # The public listener.
    ("POST", "/api/v1/ves/events/ingest"): "events_ingest",
    ("GET", "/api/v1/ves/events"): "events_read",
    ("GET", "/api/v1/ves/events/{event_id}"): "events_read",
    ("GET", "/api/v1/ves/head"): "events_read",
    ("GET", "/api/v1/ves/streams"): "events_read",
    ("GET", "/api/v1/ves/entities/{entity_type}/{entity_id}"): "events_read",
    ("POST", "/api/v1/events/ingest"): "events_ingest",
    ("GET", "/api/v1/events"): "events_read",
    ("GET", "/api/v1/head"): "events_read",
    ("GET", "/api/v1/entities/{entity_type}/{entity_id}"): "events_read",
    ("POST", "/api/v1/ves/commitments"): "commitments",
    ("GET", "/api/v1/ves/commitments"): "commitments",
    ("GET", "/api/v1/ves/commitments/{batch_id}"): "commitments",
    ("GET", "/api/v1/ves/commitments/{batch_id}/leaves"): "commitments",
    ("GET", "/api/v1/ves/proofs/{sequence_number}"): "events_read",
    ("POST", "/api/v1/ves/proofs/verify"): "events_read",
    ("GET", "/api/v1/ves/validity/{batch_id}/inputs"): "commitments",
    ("POST", "/api/v1/ves/validity/{batch_id}/proofs"): "admin",
    ("GET", "/api/v1/ves/validity/{batch_id}/proofs"): "commitments",
    ("GET", "/api/v1/ves/validity/proofs/{proof_id}"): "commitments",
    ("GET", "/api/v1/ves/validity/proofs/{proof_id}/verify"): "commitments",
    ("GET", "/api/v1/anchor/status"): "events_read",
    ("POST", "/api/v1/ves/anchor"): "commitments",
    ("POST", "/api/v1/ves/commitments/anchor"): "commitments",
    ("GET", "/api/v1/ves/anchor/{batch_id}/verify"): "commitments",
    ("POST", "/api/v1/anchor"): "commitments",
    ("GET", "/api/v1/anchor/{batch_id}/verify"): "commitments",
    ("GET", "/v1/commitments/pending"): "admin",
    ("POST", "/v1/commitments/{batch_id}/anchored"): "admin",
    ("POST", "/api/v1/commitments"): "commitments",
    ("GET", "/api/v1/commitments"): "commitments",
    ("GET", "/api/v1/commitments/{batch_id}"): "commitments",
    ("GET", "/api/v1/proofs/{sequence_number}"): "events_read",
    ("POST", "/api/v1/proofs/verify"): "events_read",
    ("POST", "/api/v1/agents/keys"): "agent_keys",
    ("POST", "/api/v1/agents/keys/revoke"): "agent_keys",
    ("POST", "/api/v1/agents/keys/rotate"): "agent_keys",
    ("GET", "/api/v1/agents/{agent_id}/keys"): "events_read",
    ("GET", "/api/v1/agents/{agent_id}"): "events_read",
    ("POST", "/api/v1/agents/{agent_id}/api-keys"): "agent_keys",
    ("GET", "/api/v1/agents/{agent_id}/api-keys"): "events_read",
    ("DELETE", "/api/v1/agents/{agent_id}/api-keys/{key_prefix}"): "agent_keys",
    ("POST", "/api/v1/schemas"): "admin",
    ("GET", "/api/v1/schemas"): "events_read",
    ("POST", "/api/v1/schemas/validate"): "admin",
    ("GET", "/api/v1/schemas/event-type/{event_type}"): "events_read",
    ("GET", "/api/v1/schemas/event-type/{event_type}/latest"): "events_read",
    ("GET", "/api/v1/schemas/{schema_id}"): "events_read",
    ("PUT", "/api/v1/schemas/{schema_id}/status"): "admin",
    ("DELETE", "/api/v1/schemas/{schema_id}"): "admin",
    ("GET", "/.well-known/ves-sequencer"): "public",
    ("GET", "/health"): "public",
    ("GET", "/ready"): "public",
    ("GET", "/openapi.json"): "public",
    # The admin listener, beside /health, /ready and /openapi.json.
    ("POST", "/api/v1/admin/api-keys"): "admin",
    ("GET", "/api/v1/admin/api-keys"): "admin",
    ("DELETE", "/api/v1/admin/api-keys/{id}"): "admin",
    ("GET", "/api/v1/admin/tenants/{tenant_id}/regions"): "admin",
    ("PUT", "/api/v1/admin/tenants/{tenant_id}/regions"): "admin",
    ("GET", "/api/v1/admin/tenant-regions"): "admin",
    ("POST", "/api/v1/admin/tokens/revoke"): "admin",
    ("GET", "/api/v1/admin/tokens/revocations"): "admin",
    ("GET", "/api/v1/admin/audit"): "admin",
    ("GET", "/api/v1/admin/audit/proofs/{node_id}/{entry_number}"): "admin",
    ("GET", "/api/v1/admin/audit/heads"): "admin",
    ("GET", "/api/v1/admin/audit/chains/{node_id}"): "admin",
    ("GET", "/api/v1/admin/audit/commitments/{node_id}"): "admin",
    ("GET", "/api/v1/admin/agent-keys"): "admin",
    ("GET", "/api/v1/admin/agent-keys/{agent_id}/{key_id}/events"): "admin",
    ("GET", "/api/v1/admin/tenants/{tenant_id}/policy"): "admin",
    ("PUT", "/api/v1/admin/tenants/{tenant_id}/policy"): "admin",
    ("GET", "/api/v1/admin/actors"): "admin",
    ("GET", "/api/v1/admin/actors/tenants"): "admin",
    ("POST", "/api/v1/admin/actors/kill"): "admin",
    ("POST", "/api/v1/admin/actors/restart"): "admin",
    ("POST", "/api/v1/admin/actors/drain"): "admin",
    ("POST", "/api/v1/admin/actors/suspend"): "admin",
    ("POST", "/api/v1/admin/actors/resume"): "admin",
    ("GET", "/api/v1/admin/actors/dead-letters"): "admin",
    ("GET", "/api/v1/admin/actors/dead-letters/{id}"): "admin",
    ("DELETE", "/api/v1/admin/actors/dead-letters/{id}"): "admin",
    ("POST", "/api/v1/admin/actors/dead-letters/{id}/resend"): "admin",
    ("GET", "/metrics"): "admin",
    ("GET", "/health/detailed"): "admin",
}
