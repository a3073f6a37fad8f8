"""Who may do what on every route: the expectations of the matrix test, written by hand, one line a route.

Read nothing of the program here and derive nothing from it: this table is the second opinion. A new route
needs a row; until it has one the test fails and says so.

    "METHOD /path?query": may(who, names, body="…"),

``who``: whose request goes through, of the kinds in ``CREDENTIALS``; PUBLIC for a route without credential.
``names``: what the request names, and what becomes of it when that is not the caller's: STREAM, TENANT, …

In path, query and body ``{tenant}``, ``{store}``, ``{agent_id}``, ``{batch_id}``, ``{id}``, ``{key_prefix}``,
``{schema_id}``, ``{proof_id}``, ``{legacy_batch_id}`` stand for what the request is aimed at: the caller's
own, another store or agent, another tenant. Everything else in braces has one value (``OTHERS`` in the test).
"""

from __future__ import annotations

from typing import NamedTuple

GOES = 0
"""Through authentication and authorisation: anything but 401 and 403, and no 5xx."""
FOUND = 200

# The credentials that are tried. Those of the first line reach their whole tenant.
CREDENTIALS = (
    *("none", "bootstrap", "agent", "reader", "admin", "anchor", "monitor", "read", "write", "legacy-admin"),
    "admin-of-a-store",  # role admin, bound to one store
    "agent-itself",  # role agent, bound to one agent
    "admin-of-an-agent",  # role admin, bound to one agent
)

PUBLIC = "everybody"
OPERATOR = "bootstrap"
ADMINS = "bootstrap admin legacy-admin admin-of-a-store admin-of-an-agent"
EVENTS_WRITE = f"{ADMINS} agent write agent-itself"
EVENTS_READ = f"{ADMINS} agent reader read agent-itself"
COMMITMENTS_READ = f"{EVENTS_READ} anchor"
COMMITMENTS_WRITE = f"{ADMINS} write anchor"
COMMITMENTS_ONLY_READ = f"{ADMINS} reader read anchor"
ANCHORS = f"{ADMINS} anchor"
ITSELF = f"{ADMINS} agent-itself"


class Names(NamedTuple):
    """What becomes of a request of somebody who may, aimed at what is not his."""

    own: int = GOES
    foreign_tenant: int = GOES
    other_store: int = GOES
    """For a credential bound to a store."""
    other_agent: int = GOES
    """For a credential bound to an agent."""
    bound_to_store: int = GOES
    """For a credential bound to a store, whatever it names: it concerns the whole tenant."""
    bound_to_agent: int = GOES
    """For a credential bound to an agent, whatever it names."""


NOTHING = Names()
STREAM = Names(foreign_tenant=403, other_store=403)
STREAM_AND_AGENT = Names(foreign_tenant=403, other_store=403, other_agent=403)
TENANT = Names(foreign_tenant=403)
WHOLE_TENANT = Names(foreign_tenant=403, bound_to_store=403, bound_to_agent=403)
AGENT = Names(foreign_tenant=403, bound_to_store=403, other_agent=403)
COMMITMENT = Names(own=FOUND, foreign_tenant=404, other_store=404)
VALIDITY_PROOF = COMMITMENT
TO_ANCHOR = COMMITMENT._replace(own=202)
NOT_FOR_LEGACY = Names(own=501, foreign_tenant=404, other_store=404, other_agent=501)
API_KEY = Names(own=FOUND, foreign_tenant=404, bound_to_store=403, bound_to_agent=403)

SCHEMA = Names(own=FOUND, foreign_tenant=404)
SCHEMA_CHANGE = Names(own=FOUND, foreign_tenant=404, bound_to_store=403, bound_to_agent=403)


class Row(NamedTuple):
    who: frozenset[str]
    names: Names
    body: str | None
    bootstrap: int
    """The bootstrap credential belongs to no tenant: 400 where it would have to name one."""


def may(who: str, names: Names, *, body: str | None = None, bootstrap: int = GOES) -> Row:
    return Row(frozenset(who.split()), names, body, bootstrap)


AIMED = "tenant_id={tenant}&store_id={store}"
THE_TENANT = "tenant_id={tenant}"
BOTH = '"tenantId": "{tenant}", "agentId": "{agent_id}"'
HASH = "00" * 32
ZERO = "0x" + HASH
EVENT = (
    '{"ves_version": 1, "event_id": "77777777-7777-4777-8777-777777777777", "tenant_id": "{tenant}", '
    '"store_id": "{store}", "source_agent_id": "{agent_id}", "agent_key_id": 1, "entity_type": "order", '
    '"entity_id": "o-1", "event_type": "order.created", "created_at": "2026-01-31T12:00:00Z", '
    f'"payload_kind": 0, "payload": {{}}, "payload_plain_hash": "{ZERO}", "payload_cipher_hash": "{ZERO}", '
    f'"agent_signature": "{ZERO}{HASH}"}}'
)
LEGACY_PROOF = f'{{"leaf_hash": "{HASH}", "events_root": "{HASH}", "leaf_index": 0, "proof_path": []}}'
LEGACY_EVENT = (
    '{"event_id": "77777777-7777-4777-8777-777777777778", "tenant_id": "{tenant}", "store_id": "{store}", '
    '"source_agent": "{agent_id}", "entity_type": "order", "entity_id": "o-1", "event_type": "x", '
    f'"created_at": "2026-01-31T12:00:00Z", "payload": {{}}, "payload_hash": "{HASH}"}}'
)
PROOF = f'{{"leaf_hash": "{HASH}", "merkle_root": "{HASH}", "leaf_index": 0, "proof_path": []}}'

PUBLIC_LISTENER = {
    "POST /api/v1/ves/events/ingest": may(
        EVENTS_WRITE, STREAM_AND_AGENT, body='{"agentId": "{agent_id}", "events": [' + EVENT + "]}"
    ),
    f"GET /api/v1/ves/events?{AIMED}": may(EVENTS_READ, STREAM),
    f"GET /api/v1/ves/events/{{event_id}}?{AIMED}": may(EVENTS_READ, STREAM),
    f"GET /api/v1/ves/events/{{event_id}}/evidence?{AIMED}": may(COMMITMENTS_READ, STREAM),
    f"GET /api/v1/ves/head?{AIMED}": may(COMMITMENTS_READ, STREAM),
    f"GET /api/v1/ves/streams?{THE_TENANT}": may(COMMITMENTS_READ, TENANT),
    f"GET /api/v1/ves/entities/{{entity_type}}/{{entity_id}}?{AIMED}": may(EVENTS_READ, STREAM),
    "POST /api/v1/events/ingest": may(
        EVENTS_WRITE, STREAM_AND_AGENT, body='{"agent_id": "{agent_id}", "events": [' + LEGACY_EVENT + "]}"
    ),
    f"GET /api/v1/events?{AIMED}": may(EVENTS_READ, STREAM),
    f"GET /api/v1/head?{AIMED}": may(COMMITMENTS_READ, STREAM),
    f"GET /api/v1/entities/{{entity_type}}/{{entity_id}}?{AIMED}": may(EVENTS_READ, STREAM),
    "POST /api/v1/ves/commitments": may(
        COMMITMENTS_WRITE, STREAM, body='{"tenant_id": "{tenant}", "store_id": "{store}"}'
    ),
    f"GET /api/v1/ves/commitments?{AIMED}": may(COMMITMENTS_READ, STREAM),
    "GET /api/v1/ves/commitments/{batch_id}": may(COMMITMENTS_READ, COMMITMENT, bootstrap=400),
    "GET /api/v1/ves/commitments/{batch_id}/leaves": may(COMMITMENTS_READ, COMMITMENT, bootstrap=400),
    f"GET /api/v1/ves/proofs/{{sequence_number}}?{AIMED}": may(COMMITMENTS_READ, STREAM),
    "POST /api/v1/ves/proofs/verify": may(COMMITMENTS_READ, NOTHING, body=PROOF),
    "GET /api/v1/ves/validity/{batch_id}/inputs": may(COMMITMENTS_ONLY_READ, COMMITMENT, bootstrap=400),
    "POST /api/v1/ves/validity/{batch_id}/proofs": may(
        ADMINS, COMMITMENT, body='{"proofType": "groth16", "proofB64": "cHJvb2Y"}', bootstrap=400
    ),
    "GET /api/v1/ves/validity/{batch_id}/proofs": may(COMMITMENTS_ONLY_READ, COMMITMENT, bootstrap=400),
    "GET /api/v1/ves/validity/proofs/{proof_id}": may(COMMITMENTS_ONLY_READ, VALIDITY_PROOF, bootstrap=400),
    "GET /api/v1/ves/validity/proofs/{proof_id}/verify": may(
        COMMITMENTS_ONLY_READ, VALIDITY_PROOF, bootstrap=400
    ),
    "GET /api/v1/anchor/status": may(COMMITMENTS_READ, NOTHING),
    "POST /api/v1/ves/anchor": may(ANCHORS, TO_ANCHOR, body='{"batch_id": "{batch_id}"}'),
    "POST /api/v1/ves/commitments/anchor": may(
        ANCHORS, STREAM, body='{"tenant_id": "{tenant}", "store_id": "{store}"}'
    ),
    "GET /api/v1/ves/anchor/{batch_id}/verify": may(COMMITMENTS_READ, COMMITMENT),
    "POST /api/v1/anchor": may(
        ANCHORS, NOT_FOR_LEGACY, body='{"batch_id": "{legacy_batch_id}"}', bootstrap=501
    ),
    "GET /api/v1/anchor/{legacy_batch_id}/verify": may(COMMITMENTS_READ, NOT_FOR_LEGACY, bootstrap=501),
    "GET /v1/commitments/pending": may(OPERATOR, NOTHING),
    # The body is refused only after the caller and the commitment are.
    "POST /v1/commitments/{batch_id}/anchored": may(
        OPERATOR, NOTHING, body='{"chain_tx_hash": "", "chain_id": 1}'
    ),
    "POST /api/v1/commitments": may(
        COMMITMENTS_WRITE, STREAM, body='{"tenant_id": "{tenant}", "store_id": "{store}"}'
    ),
    f"GET /api/v1/commitments?{AIMED}": may(COMMITMENTS_READ, STREAM),
    "GET /api/v1/commitments/{legacy_batch_id}": may(COMMITMENTS_READ, COMMITMENT, bootstrap=400),
    f"GET /api/v1/proofs/{{sequence_number}}?{AIMED}": may(COMMITMENTS_READ, STREAM),
    "POST /api/v1/proofs/verify": may(COMMITMENTS_READ, NOTHING, body=LEGACY_PROOF),
    "POST /api/v1/agents/keys": may(ADMINS, AGENT, body=f'{{{BOTH}, "keyId": 1, "publicKey": "{HASH}"}}'),
    # An agent itself too, but only with its old key's signature, which is missing here.
    "POST /api/v1/agents/keys/rotate": may(
        ADMINS, AGENT, body=f'{{{BOTH}, "keyId": 2, "publicKey": "{HASH}", "replaces": 1}}'
    ),
    "POST /api/v1/agents/keys/revoke": may(ADMINS, AGENT, body=f'{{{BOTH}, "keyId": 1}}'),
    f"GET /api/v1/agents/{{agent_id}}/keys?{THE_TENANT}": may(COMMITMENTS_READ, TENANT),
    f"GET /api/v1/agents/{{agent_id}}?{THE_TENANT}": may(ITSELF, AGENT),
    f"POST /api/v1/agents/{{agent_id}}/api-keys?{THE_TENANT}": may(ITSELF, AGENT, body='{"role": "agent"}'),
    f"GET /api/v1/agents/{{agent_id}}/api-keys?{THE_TENANT}": may(ITSELF, AGENT),
    f"DELETE /api/v1/agents/{{agent_id}}/api-keys/{{key_prefix}}?{THE_TENANT}": may(ITSELF, AGENT),
    "POST /api/v1/schemas": may(
        ADMINS, WHOLE_TENANT, body='{"tenantId": "{tenant}", "eventType": "x", "schemaJson": true}'
    ),
    f"GET /api/v1/schemas?{THE_TENANT}": may(EVENTS_READ, TENANT),
    "POST /api/v1/schemas/validate": may(
        EVENTS_READ, TENANT, body='{"tenantId": "{tenant}", "eventType": "x", "payload": 1}'
    ),
    f"GET /api/v1/schemas/event-type/{{event_type}}?{THE_TENANT}": may(EVENTS_READ, TENANT),
    f"GET /api/v1/schemas/event-type/{{event_type}}/latest?{THE_TENANT}": may(EVENTS_READ, TENANT),
    "GET /api/v1/schemas/{schema_id}": may(EVENTS_READ, SCHEMA),
    "PUT /api/v1/schemas/{schema_id}/status": may(ADMINS, SCHEMA_CHANGE, body='{"status": "deprecated"}'),
    "DELETE /api/v1/schemas/{schema_id}": may(ADMINS, SCHEMA_CHANGE),
    "GET /.well-known/ves-sequencer": may(PUBLIC, NOTHING),
    "GET /health": may(PUBLIC, NOTHING),
    "GET /ready": may(PUBLIC, NOTHING),
    "GET /openapi.json": may(PUBLIC, NOTHING),
}

ADMIN_LISTENER = {
    "POST /api/v1/admin/api-keys": may(
        ADMINS, WHOLE_TENANT, body='{"tenantId": "{tenant}", "role": "reader"}'
    ),
    f"GET /api/v1/admin/api-keys?{THE_TENANT}": may(ADMINS, WHOLE_TENANT),
    "DELETE /api/v1/admin/api-keys/{id}": may(ADMINS, API_KEY),
    f"GET /api/v1/admin/agent-keys?{THE_TENANT}": may(ADMINS, WHOLE_TENANT._replace(bound_to_agent=403)),
    f"GET /api/v1/admin/agent-keys/{{agent_id}}/{{key_id}}/events?{THE_TENANT}": may(ADMINS, AGENT),
    "GET /api/v1/admin/tenants/{tenant}/policy": may(ADMINS, WHOLE_TENANT),
    "PUT /api/v1/admin/tenants/{tenant}/policy": may(ADMINS, WHOLE_TENANT, body="{}"),
    "POST /api/v1/admin/tokens/revoke": may(ADMINS, WHOLE_TENANT, body=f"{{{BOTH}}}"),
    f"GET /api/v1/admin/tokens/revocations?{THE_TENANT}": may(ADMINS, WHOLE_TENANT),
    "GET /api/v1/admin/tenants/{tenant}/regions": may(OPERATOR, NOTHING),
    "PUT /api/v1/admin/tenants/{tenant}/regions": may(OPERATOR, NOTHING, body='{"regions":[]}'),
    "GET /api/v1/admin/tenant-regions": may(OPERATOR, NOTHING),
    "GET /api/v1/admin/actors": may(OPERATOR, NOTHING),
    "GET /api/v1/admin/actors/tenants": may(OPERATOR, NOTHING),
    "POST /api/v1/admin/actors/kill": may(OPERATOR, NOTHING, body="{}"),
    "POST /api/v1/admin/actors/restart": may(OPERATOR, NOTHING, body="{}"),
    "POST /api/v1/admin/actors/drain": may(OPERATOR, NOTHING, body="{}"),
    "POST /api/v1/admin/actors/suspend": may(OPERATOR, NOTHING, body="{}"),
    "POST /api/v1/admin/actors/resume": may(OPERATOR, NOTHING, body="{}"),
    "GET /api/v1/admin/actors/dead-letters": may(OPERATOR, NOTHING),
    "GET /api/v1/admin/actors/dead-letters/{number}": may(OPERATOR, NOTHING),
    "DELETE /api/v1/admin/actors/dead-letters/{number}": may(OPERATOR, NOTHING),
    "POST /api/v1/admin/actors/dead-letters/{number}/resend": may(OPERATOR, NOTHING),
    f"GET /api/v1/admin/audit?{THE_TENANT}": may(ADMINS, WHOLE_TENANT),
    "GET /api/v1/admin/audit/proofs/{node_id}/{entry_number}": may(
        ADMINS, Names(bound_to_store=403, bound_to_agent=403)
    ),
    "GET /api/v1/admin/audit/heads": may(OPERATOR, NOTHING),
    "GET /api/v1/admin/audit/chains/{node_id}": may(OPERATOR, NOTHING),
    "GET /api/v1/admin/audit/commitments/{node_id}": may(OPERATOR, NOTHING),
    "GET /metrics": may(f"{OPERATOR} monitor", NOTHING),
    "GET /health/detailed": may(OPERATOR, NOTHING),
    "GET /health": may(PUBLIC, NOTHING),
    "GET /ready": may(PUBLIC, NOTHING),
    "GET /openapi.json": may(PUBLIC, NOTHING),
}
