"""The product against a second implementation: written from RFC 8452 and the documented bytes alone."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sse2 import book, gcm_siv, make
from ves.at_rest import (
    FrameNotOpened,
    Ring,
    RingKey,
    Row,
    legacy_payload_aad,
    validity_proof_aad,
    ves_payload_aad,
)
from ves.kdf import Purpose, derive_key

VECTORS = Path(__file__).parents[1] / "vectors"
RFC = json.loads((VECTORS / "rfc8452.json").read_text())
PAGE = json.loads(make.FILE.read_text())
RING = {entry["key_id"]: bytes.fromhex(entry["key"]) for entry in PAGE["ring"]}
OURS = {name: RingKey(raw) for name, raw in RING.items()}
SMALL = [entry for entry in PAGE["frames"] if "frame" in entry]


def ids(row: dict[str, Any], *names: str) -> list[bytes]:
    return [uuid.UUID(row[name]).bytes for name in names]


def our_row(entry: dict[str, Any]) -> Row:
    """By the product's own functions."""
    purpose, row = Purpose(entry["purpose"]), entry["row"]
    [tenant_id, store_id] = ids(row, "tenant_id", "store_id")
    if purpose is Purpose.VES_EVENTS:
        signing_hash = bytes.fromhex(row["event_signing_hash"])
        [event_id] = ids(row, "event_id")
        hashed = ves_payload_aad(tenant_id, store_id, event_id, row["sequence_number"], signing_hash)
    elif purpose is Purpose.EVENTS:
        [event_id] = ids(row, "event_id")
        names = (row["entity_type"], row["entity_id"], row["event_type"])
        hashed = legacy_payload_aad(tenant_id, store_id, event_id, row["sequence_number"], *names)
    else:
        [batch_id, proof_id] = ids(row, "batch_id", "proof_id")
        proof = (row["proof_version"], row["proof_type"], bytes.fromhex(row["proof_hash"]))
        hashed = validity_proof_aad(tenant_id, store_id, batch_id, proof_id, *proof)
    return Row(purpose, tenant_id, hashed)


def test_the_second_implementation_is_the_rfcs() -> None:
    one = RFC["polyval"]
    assert (
        gcm_siv.polyval(bytes.fromhex(one["H"]), bytes.fromhex(one["X_1"] + one["X_2"])).hex()
        == one["result"]
    )
    assert len(RFC["aes_256_gcm_siv"]) == 26, "24 of appendix C.2, 2 of C.3"
    for case in RFC["aes_256_gcm_siv"]:
        key, nonce, aad, plaintext, result = (
            bytes.fromhex(case[name]) for name in ("key", "nonce", "aad", "plaintext", "result")
        )
        assert gcm_siv.seal(key, nonce, plaintext, aad) == result
        assert gcm_siv.open_(key, nonce, result, aad) == plaintext
        with pytest.raises(gcm_siv.Forged):
            gcm_siv.open_(key, nonce, result[:-1] + bytes([result[-1] ^ 1]), aad)


def test_the_product_seals_and_opens_every_vector() -> None:
    used: Counter[str] = Counter()
    for entry in PAGE["frames"]:
        key, nonce, row = OURS[entry["key_id"]], bytes.fromhex(entry["nonce"]), our_row(entry)
        assert row.row_hash.hex() == entry["row_hash"]
        if "frame" in entry:
            plaintext, frame = bytes.fromhex(entry["plaintext"]), bytes.fromhex(entry["frame"])
            assert key.seal(row, nonce, plaintext) == frame
        else:
            plaintext = hashlib.shake_256(nonce).digest(entry["plaintext_shake256_of_nonce"])
            frame = key.seal(row, nonce, plaintext)
            assert hashlib.sha256(frame).hexdigest() == entry["frame_sha256"]
        assert Ring(list(OURS.values())).open_and_tell(row, frame) == (plaintext, key)
        used[f"{entry['purpose']} {entry['kind']}"] += 1
        used["tenant " + entry["row"]["tenant_id"]] += 1
        used["key " + entry["key_id"]] += 1
    assert sum(used.values()) == 3 * 99
    assert {name: used[name] for name in used if name[0] in "ev"} == {
        "ves_events plaintext": 14,
        "ves_events payload_encrypted": 13,
        "ves_events bytes": 6,
        "events plaintext": 13,
        "events payload_encrypted": 14,
        "events bytes": 6,
        "validity_proofs bytes": 33,
    }
    assert sorted(count for name, count in used.items() if name[0] in "tk") == [33] * 6


def test_every_derived_key_and_key_id_is_the_second_implementations() -> None:
    assert len(PAGE["ring"]) == 3
    for entry in PAGE["ring"]:
        assert (
            OURS[entry["key_id"]].key_id.hex() == book.key_id(RING[entry["key_id"]]).hex() == entry["key_id"]
        )
    assert len(PAGE["derived"]) == 27
    derived = {
        derive_key(
            RING[entry["key_id"]], Purpose(entry["purpose"]), uuid.UUID(entry["tenant_id"]).bytes
        ).hex(): entry["derived_key"]
        for entry in PAGE["derived"]
    }
    assert len(derived) == 27, "no two are equal"
    assert all(ours == theirs for ours, theirs in derived.items())


@pytest.mark.slow
def test_the_file_is_what_its_script_writes() -> None:
    assert make.text() == make.FILE.read_text(encoding="utf-8")


def exchanged(frame: bytes) -> dict[str, bytes]:
    """The frame with its header changed in ways that leave every byte of ciphertext as it is."""
    others = [name for name in RING if name != frame[4:12].hex()]
    return {
        "key_id of another key of the ring": frame[:4] + bytes.fromhex(others[0]) + frame[12:],
        "key_id of nobody": frame[:4] + bytes(8) + frame[12:],
        "key_id and nonce swapped": frame[:4] + frame[12:24] + frame[4:12] + frame[24:],
        "first bytes of key_id swapped": frame[:4] + frame[5:6] + frame[4:5] + frame[6:],
        "last bytes of nonce swapped": frame[:22] + frame[23:24] + frame[22:23] + frame[24:],
        "tag before the ciphertext": frame[:24] + frame[-16:] + frame[24:-16],
        "the older frame's name": b"SSE1" + frame[4:],
        "the older frame, without key_id": b"SSE1" + frame[12:],
    }


def test_a_frame_whose_header_was_exchanged_does_not_open() -> None:
    ring, tried = Ring(list(OURS.values())), 0
    for entry in SMALL:
        frame, row = bytes.fromhex(entry["frame"]), our_row(entry)
        for what, changed in exchanged(frame).items():
            if changed == frame:  # two equal bytes were swapped
                continue
            with pytest.raises(FrameNotOpened):
                pytest.fail(f"{what}: opened as {ring.open(row, changed)!r}")
            tried += 1
    assert tried >= 600, "81 frames, 8 ways"


def test_a_frame_at_another_row_does_not_open() -> None:
    """Also at the row of another vector, of each purpose and tenant."""
    ring, tried = Ring(list(OURS.values())), 0
    rows = [our_row(entry) for entry in SMALL]
    for at, entry in enumerate(SMALL):
        frame = bytes.fromhex(entry["frame"])
        mine = rows[at]
        others = [
            *(rows[(at + step) % len(rows)] for step in (1, 9, 27, 54)),
            *(mine._replace(purpose=purpose) for purpose in Purpose if purpose is not mine.purpose),
            mine._replace(tenant_id=bytes(16)),
            mine._replace(row_hash=bytes(32)),
        ]
        for row in others:
            with pytest.raises(FrameNotOpened):
                ring.open(row, frame)
            tried += 1
        for name, value in entry["row"].items():
            changed = value + 1 if isinstance(value, int) else ("0" if value[0] != "0" else "1") + value[1:]
            with pytest.raises(FrameNotOpened):
                ring.open(our_row({**entry, "row": {**entry["row"], name: changed}}), frame)
            tried += 1
    assert tried == 81 * 8 + 27 * (5 + 7 + 7)


@settings(max_examples=30)
@given(
    st.binary(min_size=1, max_size=100),
    st.binary(min_size=12, max_size=12),
    st.sampled_from(SMALL),
)
def test_each_implementation_opens_what_the_other_sealed(
    plaintext: bytes, nonce: bytes, entry: dict[str, Any]
) -> None:
    raw, purpose = RING[entry["key_id"]], entry["purpose"]
    ours = OURS[entry["key_id"]].seal(our_row(entry), nonce, plaintext)
    assert book.open_(raw, purpose, entry["row"], ours) == plaintext
    assert ours == book.seal(raw, purpose, entry["row"], nonce, plaintext)
