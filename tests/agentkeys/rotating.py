"""Rotating keys as a stranger does it: hashes by the documented text, signatures by another library."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import httpx

from tests.e2e.world import Agent, Tenant

ROTATE = "/api/v1/agents/keys/rotate"
REVOKE = "/api/v1/agents/keys/revoke"
REGISTER = "/api/v1/agents/keys"


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def names(agent: Agent) -> dict[str, str]:
    return {"tenantId": str(agent.tenant_id), "agentId": str(agent.agent_id)}


def successor(agent: Agent, key_id: int = 2) -> Agent:
    return Agent(agent.tenant_id, agent.store_id, agent.agent_id, key_id)


def proof(agent: Agent, version: int = 2) -> str:
    name = agent.tenant_id.bytes + agent.agent_id.bytes + u32(agent.key_id) if version == 2 else b""
    challenge = hashlib.sha256(f"VES_POP_V{version}".encode() + name + bytes.fromhex(agent.public_key))
    return agent.key.sign(challenge.digest()).hex()


def word(old: Agent, new: Agent) -> str:
    """The old key's signature for the new one."""
    message = (
        b"VES_KEY_ROTATION_V1"
        + old.tenant_id.bytes
        + old.agent_id.bytes
        + u32(old.key_id)
        + bytes.fromhex(old.public_key)
        + u32(new.key_id)
        + bytes.fromhex(new.public_key)
    )
    return old.key.sign(hashlib.sha256(message).digest()).hex()


def rotation(old: Agent, new: Agent, **more: Any) -> dict[str, Any]:
    """With both proofs."""
    return {
        **names(new),
        "keyId": new.key_id,
        "publicKey": new.public_key,
        "replaces": old.key_id,
        "proofOfPossession": proof(new),
        "previousSignature": word(old, new),
        **more,
    }


def rotate(tenant: Tenant, old: Agent, new: Agent, **more: Any) -> dict[str, Any]:
    answer = tenant.http.post(ROTATE, json=rotation(old, new, **more))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def listed(tenant: Tenant, agent: Agent) -> dict[int, dict[str, Any]]:
    answer = tenant.http.get(f"/api/v1/agents/{agent.agent_id}/keys")
    assert answer.status_code == 200, answer.text
    return {key["keyId"]: key for key in answer.json()["keys"]}


def operator(tenant: Tenant, method: str, path: str, **more: Any) -> httpx.Response:
    server = tenant.server
    key = {"authorization": f"ApiKey {server.bootstrap_key}"}
    return httpx.request(method, server.admin_url + path, headers=key, timeout=30, **more)
