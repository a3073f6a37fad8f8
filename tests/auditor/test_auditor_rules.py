"""The auditor's second implementation against the published vectors and the Ed25519 edge cases."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.auditor import rules

VECTORS = Path(__file__).parents[1] / "vectors"
VES: dict[str, Any] = json.loads((VECTORS / "ves_vectors.json").read_bytes())


def test_every_event_vector_gives_the_same_hashes_and_a_signature_that_holds() -> None:
    assert len(VES["events"]) == 10
    for vector in VES["events"]:
        assert rules.event_signing_hash(vector["envelope"]).hex() == vector["event_signing_hash"]
        key, signature = bytes.fromhex(vector["public_key"]), bytes.fromhex(vector["agent_signature"])
        assert rules.signature_holds(key, bytes.fromhex(vector["event_signing_hash"]), signature)


def test_every_payload_of_the_event_vectors_hashes_the_same_or_is_refused_for_its_big_integer() -> None:
    for vector in VES["events"]:
        event = vector["envelope"]
        if event["payload_kind"] == 1:
            assert rules.payload_cipher_hash(event).hex() == vector["payload_cipher_hash"]
        elif "9007199254740993" in event["payload_json_text"]:
            with pytest.raises(rules.Malformed, match="beyond"):
                rules.canonical(rules.parse(event["payload_json_text"].encode()))
        else:
            payload = rules.parse(event["payload_json_text"].encode())
            assert rules.payload_plain_hash(payload).hex() == vector["payload_plain_hash"]


def test_both_encryption_vectors_give_the_same_cipher_hash() -> None:
    for name in ("two_recipients", "repo_full_encryption_context"):
        vector = VES["ves_enc_1"][name]
        context = {**vector["context"], "payload_plain_hash": vector["payload_plain_hash"]}
        event = {**context, "payload_encrypted": vector["payload_encrypted"]}
        assert rules.payload_aad(event).hex() == vector["payload_aad"]
        assert rules.payload_cipher_hash(event).hex() == vector["payload_cipher_hash"]


def test_canonical_json_agrees_with_every_vector_it_may_accept() -> None:
    refused = set()
    for vector in VES["payloads"]:
        try:
            value = rules.parse(vector["json_text"].encode())
            assert rules.canonical(value).decode() == vector["jcs"], vector["name"]
        except rules.Malformed:
            refused.add(vector["name"])
    assert refused == {"big_integers", "float_boundaries", "duplicate_keys_last_wins"}


def test_numbers_are_written_as_ecmascript_writes_them_or_refused_as_integers_beyond_2_to_53() -> None:
    for vector in VES["jcs_numbers"]:
        if "integer" in vector:
            with pytest.raises(rules.Malformed):
                rules.canonical(int(vector["integer"]))
            continue
        value = struct.unpack(">d", bytes.fromhex(vector["bits"]))[0]
        try:
            assert rules.canonical(value).decode() == vector["text"]
        except rules.Malformed:
            assert abs(value) > rules.SAFE_INTEGER_MAX


def test_receipts_trees_and_state_roots_agree_with_the_vectors() -> None:
    events = {v["sequence_number"]: v["envelope"] for v in VES["events"]}
    sequencer = bytes.fromhex(VES["keys"]["sequencer"]["public"])
    for receipt, number in zip(VES["receipts"], sorted(events), strict=True):
        found = rules.receipt_hash(events[number], receipt["sequence_number"])
        assert found.hex() == receipt["receipt_hash"]
        assert rules.signature_holds(sequencer, found, bytes.fromhex(receipt["sequencer_signature"]))
    leaves = [rules.leaf_hash(events[number], number) for number in sorted(events)]
    assert [leaf.hex() for leaf in leaves] == VES["merkle"]["leaf_hashes_seq_1_to_10"]
    for batch in VES["merkle"]["batches"]:
        covered = leaves[batch["sequence_start"] - 1 : batch["sequence_end"]]
        assert rules.merkle_root(covered).hex() == batch["merkle_root"]
        assert rules.padded(len(covered)) == batch["padded_leaf_count"]
        for index, proof in enumerate(batch["proofs"]):
            path = [bytes.fromhex(step) for step in proof["proof_path"]]
            assert rules.climb(covered[index], index, path).hex() == batch["merkle_root"]
    for commitment in VES["commitments"]:
        found = rules.state_root(
            commitment["tenant_id"],
            commitment["store_id"],
            bytes.fromhex(commitment["prev_state_root"]),
            bytes.fromhex(commitment["merkle_root"]),
            commitment["sequence_start"],
            commitment["sequence_end"],
        )
        assert found.hex() == commitment["new_state_root"]


def test_what_the_auditor_accepts_libsodium_accepts_too() -> None:
    for case in VES["ed25519_edge_cases"]["cases"]:
        held = rules.signature_holds(
            *(bytes.fromhex(case[m]) for m in ("public_key", "message", "signature"))
        )
        assert case["pynacl"] or not held, case["index"]


def test_keys_of_small_or_mixed_order_and_other_spellings_of_a_key_are_refused() -> None:
    honest = bytes.fromhex(VES["keys"]["agent_a"]["public"])
    assert rules.is_strict_public_key(honest)
    for torsion in rules._torsion_encodings():
        assert not rules.is_strict_public_key(torsion)
    assert not rules.is_strict_public_key((rules.P + 1).to_bytes(32, "little"))
    cctv = json.loads((VECTORS / "cctv_ed25519.json").read_bytes())
    mixed = [bytes.fromhex(c["key"]) for c in cctv if "low_order_component_A" in (c["flags"] or [])]
    assert mixed
    for key in set(mixed):
        assert not rules.is_strict_public_key(key)


@pytest.mark.parametrize("text", ["2026-01-02 03:04:05+00:00", "2026-01-02T03:04:05.1234+00:00", "now", ""])
def test_a_server_time_in_another_spelling_is_malformed(text: str) -> None:
    with pytest.raises(rules.Malformed):
        rules.instant_us(text)
