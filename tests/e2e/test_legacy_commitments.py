"""Commitments of the legacy stream on a running server, recomputed here from the events alone."""

from __future__ import annotations

import struct
import uuid
from hashlib import sha256
from typing import Any

import httpx

from tests.e2e import unsigned
from tests.e2e.world import Server, Tenant, length_prefixed


def commit_legacy(tenant: Tenant, **span: int) -> httpx.Response:
    return tenant.http.post("/api/v1/commitments", json={**tenant.stream, **span})


def leaf(event: dict[str, Any], number: int) -> bytes:
    return sha256(
        b"STATESET_COMMITMENT_LEAF_V1"
        + uuid.UUID(event["tenant_id"]).bytes
        + uuid.UUID(event["store_id"]).bytes
        + struct.pack(">Q", number)
        + bytes.fromhex(event["payload_hash"])
        + length_prefixed(event["entity_type"])
        + length_prefixed(event["entity_id"])
    ).digest()


def root_over(leaves: list[bytes]) -> bytes:
    while len(leaves) > 1:
        pairs = [sha256(a + b).digest() for a, b in zip(leaves[::2], leaves[1::2], strict=False)]
        leaves = pairs + leaves[len(pairs) * 2 :]
    return leaves[0]


def state_root(tenant: Tenant, versions: dict[tuple[str, str], int]) -> str:
    text = tenant.tenant_id.bytes + tenant.store_id.bytes
    for (entity_type, entity_id), version in sorted(versions.items()):
        text += entity_type.encode() + entity_id.encode() + struct.pack("<q", version)
    return sha256(text).hexdigest()


def test_a_legacy_stream_is_committed_and_every_event_proven(server: Server, tenant: Tenant) -> None:
    events = [unsigned.unsigned(tenant, {"n": n}, entity_id=f"o-{n % 3}") for n in range(5)]
    assert unsigned.post(tenant, *events)["assigned_sequence_end"] == 5
    assert tenant.post(tenant.agent.event({"n": 1}, entity_id="o-1")).json()["eventsAccepted"] == 1

    told = commit_legacy(tenant, sequence_start=1, sequence_end=5).json()
    leaves = [leaf(event, number) for number, event in enumerate(events, 1)]
    assert told["events_root"] == root_over(leaves).hex()
    assert (told["prev_state_root"], told["event_count"], told["remaining"]) == ("00" * 32, 5, 0)
    # One of the three entities has an event in the other stream too.
    versions = {("order", "o-0"): 2, ("order", "o-1"): 3, ("order", "o-2"): 1}
    assert told["new_state_root"] == state_root(tenant, versions)

    for number, expected in enumerate(leaves, 1):
        proof = tenant.http.get(f"/api/v1/proofs/{number}", params=tenant.stream).json()
        assert (proof["leaf_hash"], proof["batch_id"]) == (expected.hex(), told["batch_id"])
        running = expected
        for left, node in zip(proof["directions"], proof["proof_path"], strict=True):
            sibling = bytes.fromhex(node)
            running = sha256(running + sibling if left else sibling + running).digest()
        assert running.hex() == told["events_root"]
        names = ("leaf_hash", "events_root", "proof_path", "leaf_index", "leaf_count")
        asked = {name: proof[name] for name in names}
        assert tenant.http.post("/api/v1/proofs/verify", json=asked).json()["valid"] is True
        wrong = {**asked, "leaf_index": (proof["leaf_index"] + 1) % 5}
        assert tenant.http.post("/api/v1/proofs/verify", json=wrong).json()["valid"] is False


def test_ranges_follow_each_other_and_asking_again_is_harmless(server: Server, tenant: Tenant) -> None:
    assert commit_legacy(tenant).status_code == 409, "no event, nothing to commit"
    unsigned.post(tenant, *(unsigned.unsigned(tenant, {"n": n}) for n in range(6)))
    late = commit_legacy(tenant, sequence_start=2, sequence_end=3)
    assert (late.status_code, "starts at 1" in late.json()["message"]) == (409, True)
    first = commit_legacy(tenant, sequence_start=1, sequence_end=3).json()
    assert first["remaining"] == 3
    again = commit_legacy(tenant, sequence_start=1, sequence_end=3)
    assert (again.status_code, again.json()) == (200, first)
    for span in ((1, 2), (1, 6), (3, 4), (5, 6)):
        overlapping = commit_legacy(tenant, sequence_start=span[0], sequence_end=span[1])
        assert overlapping.status_code == 409, span
        assert "starts at 4" in overlapping.json()["message"]
    for span in ((4, 7), (4, 3)):
        assert commit_legacy(tenant, sequence_start=span[0], sequence_end=span[1]).status_code == 400, span
    rest = commit_legacy(tenant).json()
    assert (rest["sequence_start"], rest["sequence_end"], rest["remaining"]) == (4, 6, 0)
    assert rest["prev_state_root"] == first["new_state_root"]

    raw = tenant.http.get(f"/api/v1/commitments/{first['batch_id']}").json()
    assert bytes(raw["events_root"]).hex() == first["events_root"]
    assert bytes(raw["new_state_root"]).hex() == first["new_state_root"]
    assert (raw["sequence_range"], raw["chain_tx_hash"]) == ([1, 3], None)
    listed = tenant.http.get("/api/v1/commitments", params={**tenant.stream, "limit": 1}).json()
    assert [one["batch_id"] for one in listed["commitments"]] == [first["batch_id"]]
    assert (listed["has_more"], listed["next_from"]) == (True, 4)
    # The VES stream of the same store knows nothing of all this.
    ves = tenant.http.get("/api/v1/ves/commitments", params=tenant.stream).json()
    assert ves["count"] == 0
