"""Everybody who stores what a caller must not find on the disk: one line of ``WRITERS`` each.

A writer plants a canary where a payload goes, in every spelling, and reads it back as its owner may. What it
plants must then be in no file; and with encryption off the search must find it, or it searches in vain.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.e2e import unsigned
from tests.e2e.world import Tenant
from tests.kept.make import encrypted

Writer = Callable[[Tenant, bytes], bytes]
"""Plants the canary for this tenant, or what it makes of it; answers what must not be found."""


def spelled(canary: bytes) -> dict[str, str]:
    """A payload that holds the canary in every spelling."""
    return {
        "raw": canary.decode(),
        "hex": canary.hex(),
        "0x": "0x" + canary.hex(),
        "base64": base64.b64encode(canary).decode(),
        "base64url": base64.urlsafe_b64encode(canary).decode().rstrip("="),
    }


def ves_event(tenant: Tenant, canary: bytes) -> bytes:
    assert _posted(tenant, tenant.agent.event(spelled(canary)))["payload"] == spelled(canary)
    return canary


def ves_event_encrypted_by_its_agent(tenant: Tenant, canary: bytes) -> bytes:
    """The canary is the ciphertext: to us it is a payload like any other."""
    event = encrypted(tenant.agent)
    assert _posted(tenant, event)["payload_encrypted"] == event["payload_encrypted"]
    ciphertext = event["payload_encrypted"]["ciphertext_b64u"]
    return base64.urlsafe_b64decode(ciphertext + "=" * (-len(ciphertext) % 4))


def unsigned_event(tenant: Tenant, canary: bytes) -> bytes:
    event = unsigned.unsigned(tenant, spelled(canary))
    assert unsigned.post(tenant, event)["events_accepted"] == 1
    assert unsigned.read(tenant)["events"][-1]["envelope"]["payload"] == spelled(canary)
    return canary


def validity_proof(tenant: Tenant, canary: bytes) -> bytes:
    """The canary is inside of the proof's bytes."""
    assert tenant.post(tenant.agent.event({})).json()["eventsAccepted"] == 1
    batch = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream).json()["batch_id"]
    body = {"proofType": "groth16", "proofB64": base64.b64encode(b"x" + canary).decode()}
    stored = tenant.http.post(f"/api/v1/ves/validity/{batch}/proofs", json=body).json()
    shown = tenant.http.get(f"/api/v1/ves/validity/proofs/{stored['proof_id']}").json()
    assert base64.b64decode(shown["proof_b64"]) == b"x" + canary
    return canary


def _posted(tenant: Tenant, event: dict[str, Any]) -> dict[str, Any]:
    assert tenant.post(event).json()["eventsAccepted"] == 1
    return dict(tenant.events()["events"][-1])


WRITERS: dict[str, Writer] = {
    "VES event": ves_event,
    "VES event, encrypted by its agent": ves_event_encrypted_by_its_agent,
    "unsigned event": unsigned_event,
    "validity proof": validity_proof,
}
