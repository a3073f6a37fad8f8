"""The lines of the customer's security guide: an id of ours, its section, a few words of our own.

Written by hand: a line of the guide that is not here is not looked at, and a line that is here needs a row in
SECURITY.md. ``LATER`` are those whose row may say ``open`` until their issue is done.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Line(NamedTuple):
    section: str
    text: str


LINES: Final[dict[str, Line]] = {
    # Threat model.
    "asset-events": Line("threat model: assets", "event payloads"),
    "asset-agent-keys": Line("threat model: assets", "agents' private keys"),
    "asset-sequencer-key": Line("threat model: assets", "the sequencer's private key for the chain"),
    "asset-database": Line("threat model: assets", "database credentials"),
    "asset-roots": Line("threat model: assets", "Merkle roots"),
    "actor-external": Line("threat model: actors", "an attacker on the network"),
    "actor-agent": Line("threat model: actors", "an agent with valid credentials that forges or corrupts"),
    "actor-insider": Line("threat model: actors", "somebody with access to the systems"),
    "actor-dependency": Line("threat model: actors", "a compromised dependency"),
    "vector-network": Line("threat model: vectors", "man in the middle, eavesdropping, replay"),
    "vector-application": Line("threat model: vectors", "injection, authentication bypass"),
    "vector-crypto": Line("threat model: vectors", "key compromise, weak algorithms"),
    "vector-infrastructure": Line("threat model: vectors", "container escape, privilege escalation"),
    # Cryptography.
    "algorithm-signing": Line("algorithms", "Ed25519 for agents"),
    "algorithm-hashing": Line("algorithms", "SHA-256, domain-separated"),
    "algorithm-payload": Line("algorithms", "AES-256-GCM for payloads"),
    "algorithm-exchange": Line("algorithms", "X25519 for HPKE"),
    "at-rest-mode": Line("encryption at rest", "required, optional or disabled for the legacy table"),
    "at-rest-ring": Line("encryption at rest", "key ring, single key, keys by tenant"),
    "at-rest-manager": Line("encryption at rest", "keys from a secrets manager, not from source control"),
    "at-rest-rotation": Line("encryption at rest", "rotation and backfill, dry run first"),
    "at-rest-proofs": Line("encryption at rest", "validity proofs under the same ring"),
    "domain-separation": Line("domain separation", "event, leaf, node and receipt hashes"),
    "key-derivation": Line("key derivation", "never a raw key: purpose-specific by HKDF"),
    # Agent keys.
    "key-generation": Line("agent keys", "from a secure random source"),
    "key-storage-do": Line("agent keys", "hardware, encrypted storage, access logging, secrets managers"),
    "key-storage-dont": Line("agent keys", "no keys in source, plain files, logs, or two environments"),
    "key-rotation": Line("agent keys", "rotation with a grace period"),
    "key-schedule": Line("agent keys", "90 days, 180 days, at once on suspicion"),
    "key-revocation": Line("agent keys", "events of a revoked key are rejected"),
    "key-revocation-audit": Line("agent keys", "a revocation leaves an audit entry"),
    "key-revocation-alert": Line("agent keys", "a revocation alerts the security team"),
    # Who may do what.
    "api-keys": Line("authentication", "Bearer sk_live_… API keys"),
    "jwt": Line("authentication", "Bearer JWTs signed with EdDSA"),
    "jwt-claims": Line("authentication", "sub, tenant, iat, exp, scope"),
    "roles": Line("authorization", "agent, reader, admin, anchor"),
    "rate-limits": Line("rate limiting", "ingest 100/500, read 1000/2000, commitments 10/50"),
    # Network.
    "tls": Line("TLS", "1.3 only, strong suites, also at the proxy"),
    "hsts": Line("TLS", "Strict-Transport-Security"),
    "certificates": Line("certificates", "issued and renewed automatically"),
    "network-policies": Line("network policies", "ingress from the proxy, egress to database and RPC"),
    "firewall": Line("firewall", "443 open, 22 restricted, 5432 closed"),
    # Database.
    "database-tls": Line("database", "sslmode=verify-full"),
    "database-grants": Line("database", "a restricted login: no DELETE, no TRUNCATE"),
    "database-at-rest": Line("database", "payloads encrypted before storage, file system encryption"),
    "database-logging": Line("database", "pgaudit for writes"),
    # The anchor's key.
    "anchor-storage": Line("sequencer key", "HSM, Kubernetes secret or Vault"),
    "anchor-access": Line("sequencer key", "only the anchor reads it"),
    "anchor-account": Line("sequencer key", "a service account of its own"),
    "anchor-usage": Line("sequencer key", "each use is logged"),
    # Input.
    "input-version": Line("input validation", "ves_version"),
    "input-uuids": Line("input validation", "UUIDs"),
    "input-entity-types": Line("input validation", "entity types from an allow-list"),
    "input-size": Line("input validation", "payload size"),
    "input-time": Line("input validation", "not more than an hour ahead"),
    "input-sql": Line("SQL injection", "parameters only"),
    # Incidents.
    "detect-authentication": Line("detection", "failed authentication attempts"),
    "detect-volume": Line("detection", "unusual event volumes"),
    "detect-signatures": Line("detection", "signature verification failures"),
    "detect-database": Line("detection", "database connection anomalies"),
    "detect-anchor": Line("detection", "anchor transaction failures"),
    "respond-compromise": Line("response", "key compromise: revoke, rotate, audit, notify"),
    "respond-breach": Line("response", "data breach: isolate, preserve, assess, notify, engage"),
    "respond-disruption": Line("response", "service disruption: runbook, scale, communicate"),
    "contacts": Line("response", "security contacts and escalation"),
    # Compliance.
    "residency": Line("compliance", "data stays in its region"),
    "append-only": Line("compliance", "events are append-only"),
    "tamper-evidence": Line("compliance", "Merkle commitments show tampering"),
    "non-repudiation": Line("compliance", "anchoring on a chain"),
    "retention": Line("compliance", "archive of old events"),
    # The checklist.
    "check-dependencies": Line("checklist: development", "dependency scanning"),
    "check-static": Line("checklist: development", "static analysis"),
    "check-secrets": Line("checklist: development", "secret scanning in CI"),
    "check-review": Line("checklist: development", "code review for security"),
    "check-certificates": Line("checklist: deployment", "certificates valid and renewed"),
    "check-database-credentials": Line("checklist: deployment", "database credentials in a secrets manager"),
    "check-network": Line("checklist: deployment", "network policies configured"),
    "check-rate-limits": Line("checklist: deployment", "rate limiting enabled"),
    "check-health": Line("checklist: deployment", "health checks configured"),
    "check-monitoring": Line("checklist: operations", "log aggregation and monitoring"),
    "check-alerts": Line("checklist: operations", "alerts for security events"),
    "check-rotation": Line("checklist: operations", "regular key rotation scheduled"),
    "check-backups": Line("checklist: operations", "backup encryption"),
    "check-incidents": Line("checklist: operations", "incident response plan tested"),
    "check-residency": Line("checklist: compliance", "data residency met"),
    "check-audit": Line("checklist: compliance", "audit logging enabled"),
    "check-access": Line("checklist: compliance", "access controls documented"),
    "check-training": Line("checklist: compliance", "security training completed"),
}

LATER: Final[dict[str, str]] = {}
"""Lines whose row may say ``open``, and what they wait for."""
