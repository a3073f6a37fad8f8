"""The legacy stream's commitments at the door: what is answered, to whom, and what is refused."""

from __future__ import annotations

import uuid
from hashlib import sha256
from typing import Any

import pytest

from actors.messages import CommitLegacy, NothingToCommit, RangeRefused
from tests.http.doubles import OTHER_STORE, OTHER_TENANT, STORE, STREAM, TENANT, serving

ALL = "/api/v1/commitments"
PROOFS = "/api/v1/proofs"


def leaves(count: int) -> list[bytes]:
    return [sha256(b"%d" % n).digest() for n in range(count)]


async def test_a_range_goes_to_the_committer_and_comes_back_with_roots_in_hex() -> None:
    async with serving() as house, house.client(house.api_key("write")) as client:
        answer = await client.post(ALL, json={**STREAM, "sequence_start": 1, "sequence_end": 3})
        assert answer.status_code == 200, answer.text
        assert house.committer.asked == [CommitLegacy(TENANT.bytes, STORE.bytes, 1, 3)]
        told = answer.json()
        assert (told["event_count"], told["sequence_start"], told["sequence_end"]) == (3, 1, 3)
        assert (told["prev_state_root"], told["new_state_root"]) == ("00" * 32, bytes(range(32)).hex())
        assert (told["remaining"], told["committed_at"]) == (4, "2023-11-14T22:13:20.123Z")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (NothingToCommit(), 409),
        (RangeRefused(True, "sequence_start: the next commitment of this stream starts at 4"), 409),
        (RangeRefused(False, "sequence_end: 3 is before the start 4"), 400),
    ],
    ids=["nothing", "clash", "no range"],
)
async def test_what_the_committer_refuses_is_never_a_500(said: Any, status: int) -> None:
    async with serving() as house, house.client(house.api_key("write")) as client:

        async def refuse(message: Any) -> Any:
            return said

        house.committer.reply = refuse
        answer = await client.post(ALL, json=STREAM)
        assert answer.status_code == status
        if isinstance(said, RangeRefused):
            assert answer.json()["message"] == said.message


@pytest.mark.parametrize("missing", ["sequence_start", "sequence_end"])
async def test_half_a_range_is_refused(missing: str) -> None:
    async with serving() as house, house.client(house.api_key("write")) as client:
        span = {"sequence_start": 1, "sequence_end": 3}
        del span[missing]
        answer = await client.post(ALL, json={**STREAM, **span})
        assert answer.status_code == 400
        assert "or neither" in answer.json()["message"]
        assert not house.committer.asked


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
async def test_every_served_proof_verifies_with_its_leaf_count(count: int) -> None:
    async with serving() as house:
        commitment = house.journal.commit_legacy(leaves(count), 5)
        async with house.client(house.api_key("read")) as client:
            for index in range(count):
                proof = (await client.get(f"{PROOFS}/{5 + index}", params=STREAM)).json()
                assert (proof["leaf_index"], proof["leaf_count"]) == (index, count)
                assert proof["events_root"] == commitment.events_root.hex()
                running = leaves(count)[index]
                for is_left, node in zip(proof["directions"], proof["proof_path"], strict=True):
                    sibling = bytes.fromhex(node)
                    running = sha256(running + sibling if is_left else sibling + running).digest()
                assert running == commitment.events_root
                body = {k: proof[k] for k in ("leaf_hash", "events_root", "proof_path", "leaf_index")}
                asked = await client.post(f"{PROOFS}/verify", json={**body, "leaf_count": count})
                assert asked.json() == {
                    "events_root": proof["events_root"],
                    "leaf_hash": proof["leaf_hash"],
                    "valid": True,
                }
                # What the original says of it, which knows no leaf count.
                by_bits = await client.post(f"{PROOFS}/verify", json=body)
                assert by_bits.json()["valid"] is ((count, index) not in {(3, 2), (5, 4), (13, 12)})


async def test_a_tampered_tree_is_never_served_as_a_proof() -> None:
    async with serving() as house:
        commitment = house.journal.commit_legacy(leaves(4), 1)
        table = house.journal.legacy.commitments
        kept, levels = table[commitment.batch_id]
        table[commitment.batch_id] = (kept, levels[:32] + bytes(32) + levels[64:])
        async with house.client(house.api_key("read")) as client:
            answer = await client.get(f"{PROOFS}/1", params=STREAM)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "INTERNAL_ERROR"


async def test_a_proof_is_asked_of_the_right_batch_or_refused() -> None:
    async with serving() as house, house.client(house.api_key("read")) as client:
        first, second = (house.journal.commit_legacy(leaves(3), start) for start in (1, 4))
        ids = [str(uuid.UUID(bytes=c.batch_id)) for c in (first, second)]
        named = {**STREAM, "batch_id": ids[1]}
        assert (await client.get(f"{PROOFS}/5", params=named)).json()["leaf_index"] == 1
        wrong = await client.get(f"{PROOFS}/5", params={**STREAM, "batch_id": ids[0]})
        assert (wrong.status_code, wrong.json()["message"]) == (
            400,
            "sequence_number: the commitment holds 1 to 3",
        )
        for params in ({**STREAM, "batch_id": str(uuid.uuid4())}, {**STREAM, "store_id": str(OTHER_STORE)}):
            assert (await client.get(f"{PROOFS}/5", params=params)).status_code == 404
        assert (await client.get(f"{PROOFS}/7", params=STREAM)).status_code == 404
        foreign = await client.get(f"{PROOFS}/5", params={**STREAM, "tenant_id": str(OTHER_TENANT)})
        assert foreign.status_code == 403


async def test_a_commitment_of_somebody_else_is_as_absent_as_none_at_all() -> None:
    async with serving() as house:
        commitment = house.journal.commit_legacy(leaves(3), 1)
        path = f"{ALL}/{uuid.UUID(bytes=commitment.batch_id)}"
        async with house.client(house.api_key("read")) as client:
            raw = (await client.get(path)).json()
            assert raw["events_root"] == list(commitment.events_root)
            assert raw["new_state_root"] == list(range(32))
            assert (raw["sequence_range"], raw["event_count"], raw["chain_tx_hash"]) == ([1, 3], 3, None)
        for stranger in (
            house.api_key("read", tenant=OTHER_TENANT),
            house.api_key("read", stores=[OTHER_STORE]),
        ):
            async with house.client(stranger) as other:
                theirs, nobodys = await other.get(path), await other.get(f"{ALL}/{uuid.uuid4()}")
                assert theirs.status_code == nobodys.status_code == 404
                assert theirs.json()["message"] == nobodys.json()["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"leaf_hash": "0x" + "00" * 32},
        {"events_root": "00"},
        {"proof_path": ["00" * 32] * 65},
        {"proof_path": ["zz" * 32]},
        {"leaf_index": -1},
        {"leaf_count": 0},
        {"leaf_count": "3"},
    ],
    ids=str,
)
async def test_what_is_no_proof_is_refused_by_name(wrong: dict[str, Any]) -> None:
    async with serving() as house, house.client(house.api_key("read")) as client:
        body = {"leaf_hash": "00" * 32, "events_root": "00" * 32, "proof_path": [], "leaf_index": 0, **wrong}
        answer = await client.post(f"{PROOFS}/verify", json=body)
        assert answer.status_code in (400, 422)
        assert next(iter(wrong)) in answer.json()["message"]


async def test_an_index_beyond_the_leaves_is_no_proof() -> None:
    async with serving() as house, house.client(house.api_key("read")) as client:
        body = {"leaf_hash": "00" * 32, "events_root": "00" * 32, "proof_path": [], "leaf_index": 1}
        assert (await client.post(f"{PROOFS}/verify", json=body)).json()["valid"] is True  # wire 10.5
        answer = await client.post(f"{PROOFS}/verify", json={**body, "leaf_count": 1})
        assert answer.json()["valid"] is False
