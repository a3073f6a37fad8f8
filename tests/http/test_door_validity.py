"""Validity proofs at the door: what is asked of one, what is stored, and what is never claimed of it."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import httpx
import msgspec
import pytest

from actors.errors import Unavailable
from actors.messages import OpenAtRest, SealAtRest
from journal.port import StoredProof
from tests.http.doubles import BOOTSTRAP, OTHER_STORE, OTHER_TENANT, STORE, TENANT, Cardboard, serving
from ves.at_rest import validity_proof_aad
from ves.kdf import Purpose
from ves.records import Commitment

ALL = "/api/v1/ves/validity"
PROOF = bytes(range(256)) * 3 + b"\xff\xfe?>"
"""Its base64 has ``+``, ``/`` and padding."""
B64 = base64.b64encode(PROOF).decode()
DOMAIN = b"STATESET_VES_VALIDITY_PROOF_HASH_V1"


@asynccontextmanager
async def a_batch(**settings: Any) -> AsyncIterator[tuple[Cardboard, httpx.AsyncClient, str]]:
    """A house with a commitment, its admin at the door, and where the commitment's proofs are."""
    async with serving(**settings) as house, house.client(house.api_key("admin")) as client:
        commitment = house.journal.commit([sha256(b"%d" % n).digest() for n in range(3)], 1)
        yield house, client, f"{ALL}/{uuid.UUID(bytes=commitment.batch_id)}"


def body(**more: Any) -> dict[str, Any]:
    return {"proofType": "groth16", "proofB64": B64, **more}


async def test_a_proof_about_the_canonical_inputs_is_stored_listed_and_read_back() -> None:
    async with a_batch() as (house, client, path):
        told = (await client.get(f"{path}/inputs")).json()
        inputs = told["public_inputs"]
        assert (inputs["leafCount"], inputs["allCompliant"], inputs["policyLimit"]) == (3, True, 0)
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        assert told["public_inputs_hash"] == sha256(text.encode()).hexdigest()

        sent = body(proofType=" groth16\n", proofVersion=7, publicInputs=dict(reversed(inputs.items())))
        answer = await client.post(f"{path}/proofs", json=sent)
        assert answer.status_code == 200, answer.text
        stored = answer.json()
        assert (stored["proof_type"], stored["proof_version"]) == ("groth16", 7)
        assert stored["proof_hash"] == sha256(DOMAIN + PROOF).hexdigest()
        assert stored["public_inputs"] == inputs
        assert (stored["tenant_id"], stored["store_id"]) == (str(TENANT), str(STORE))
        assert stored["submitted_at"].endswith("Z")

        listed = (await client.get(f"{path}/proofs")).json()
        assert listed == {
            "batch_id": path.rpartition("/")[2],
            "proofs": [stored],
            "count": 1,
            "has_more": False,
            "next_after": None,
        }
        one = (await client.get(f"{ALL}/proofs/{stored['proof_id']}")).json()
        assert one == {**stored, "proof_b64": B64}
        [act] = house.journal.audits
        assert (act.action, act.subject, act.tenant_id) == (
            "validity_proof.submit",
            stored["proof_id"],
            TENANT.bytes,
        )
        assert act.details["proof_hash"] == stored["proof_hash"]
        assert B64 not in json.dumps(act.details)


async def test_the_proof_is_sealed_for_its_row_and_opened_for_it() -> None:
    async with a_batch() as (house, client, path):
        stored = (await client.post(f"{path}/proofs", json=body())).json()
        await client.get(f"{ALL}/proofs/{stored['proof_id']}")
        seal, opening = house.encryptors.asked
        assert isinstance(seal, SealAtRest)
        assert isinstance(opening, OpenAtRest)
        assert (seal.purpose, seal.tenant_id) == (Purpose.VALIDITY_PROOFS, TENANT.bytes)
        assert seal.values == opening.values
        [value] = seal.values
        batch_id, proof_id = (uuid.UUID(stored[name]).bytes for name in ("batch_id", "proof_id"))
        digest = bytes.fromhex(stored["proof_hash"])
        assert value.row_hash == validity_proof_aad(
            TENANT.bytes, STORE.bytes, batch_id, proof_id, 1, "groth16", digest
        )
        assert stored["proof_id"] in value.name
        assert stored["batch_id"] in value.name


async def test_a_proof_that_does_not_open_is_503_and_the_log_names_the_row() -> None:
    async with a_batch() as (house, client, path):
        stored = (await client.post(f"{path}/proofs", json=body())).json()

        async def refuses(message: Any) -> Any:
            raise Unavailable(f"{message.values[0].name} does not open", retry_after_s=60.0)

        house.encryptors.reply = refuses
        for tail in ("", "/verify"):
            answer = await client.get(f"{ALL}/proofs/{stored['proof_id']}{tail}")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "60"
        assert (await client.post(f"{path}/proofs", json=body(proofVersion=2))).status_code == 503
        assert len(house.journal.proofs.proofs) == 1


@pytest.mark.parametrize(
    "spelled",
    [
        B64,
        B64.rstrip("="),
        B64.translate(str.maketrans("+/", "-_")),
        B64.translate(str.maketrans("+/", "-_")).rstrip("="),
        f"\n {B64}\t",
    ],
    ids=["standard", "standard, bare", "url-safe", "url-safe, bare", "blanks"],
)
async def test_every_spelling_of_base64_is_the_same_proof(spelled: str) -> None:
    assert {"+", "/", "="} <= set(B64)
    async with a_batch() as (house, client, path):
        first = (await client.post(f"{path}/proofs", json=body())).json()
        again = await client.post(f"{path}/proofs", json=body(proofB64=spelled))
        assert (again.status_code, again.json()) == (200, first)
        assert len(house.journal.audits) == 1


async def test_other_bytes_of_the_same_type_and_version_are_409() -> None:
    async with a_batch() as (_, client, path):
        first = (await client.post(f"{path}/proofs", json=body())).json()
        other = await client.post(f"{path}/proofs", json=body(proofB64="AAAA"))
        assert (other.status_code, other.json()["error"]["code"]) == (409, "CONFLICT")
        assert first["proof_id"] in other.json()["message"]
        assert (await client.post(f"{path}/proofs", json=body(proofB64="AAAA", proofVersion=2))).is_success


LARGEST = 2 * 1024 * 1024
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # The texts in the wire's order: each body has the faults that come after its own as well.
    "empty type": (
        {"proofType": " ", "proofVersion": 0, "proofB64": "!"},
        "proofType must not be empty",
    ),
    "long type": (
        {"proofType": "é" * 17, "proofVersion": 0, "proofB64": "!"},
        "proofType must be <= 32 characters",
    ),
    "type with a control": ({"proofType": "a\x00b"}, "proofType must not hold control characters"),
    "version": ({"proofVersion": 0, "proofB64": "!"}, "proofVersion must be >= 1"),
    "base64": ({"proofType": "stark", "proofB64": "!"}, "Invalid base64: "),
    "base64 of two alphabets": ({"proofB64": "+_AA"}, "Invalid base64: "),
    "base64 with blanks inside": ({"proofB64": "AA AA"}, "Invalid base64: "),
    "empty": ({"proofType": "stark", "proofB64": " "}, "proofB64 must not be empty"),
    "too large": (
        {"proofType": "stark", "proofB64": base64.b64encode(bytes(LARGEST + 1)).decode()},
        f"proofB64 decoded bytes must be <= {LARGEST} (got {LARGEST + 1})",
    ),
    "stark version": (
        {"proofType": "StarkWare", "publicInputs": {}},
        "Unsupported proofVersion 1 (expected 2) for STARK proofs",
    ),
    "inputs": (
        {"proofType": "stark", "proofVersion": 2, "publicInputs": {}},
        "publicInputs must match the sequencer's canonical inputs for this batch",
    ),
    "inputs that are no object": ({"publicInputs": [1]}, "publicInputs must match"),
    "stark": ({"proofType": "STARK", "proofVersion": 2}, "proofType: this server has no STARK verifier"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_wrong_with_a_proof_is_said_in_the_wires_order(name: str) -> None:
    wrong, text = REFUSED[name]
    async with a_batch() as (house, client, path):
        answer = await client.post(f"{path}/proofs", json=body(**wrong))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_FIELD_VALUE")
        assert answer.json()["message"].startswith(text)
        assert not house.journal.proofs.proofs
        assert not house.journal.audits


async def test_the_largest_proof_is_stored_and_a_body_beyond_all_measure_is_413() -> None:
    async with a_batch() as (_, client, path):
        largest = base64.b64encode(os.urandom(LARGEST)).decode()
        stored = await client.post(f"{path}/proofs", json=body(proofB64=largest))
        assert stored.status_code == 200, stored.text[:200]
        one = await client.get(f"{ALL}/proofs/{stored.json()['proof_id']}")
        assert one.json()["proof_b64"] == largest
        beyond = await client.post(f"{path}/proofs", json=body(proofB64="A" * 3 * 1024 * 1024))
        assert beyond.status_code == 413


@pytest.mark.parametrize("name", ["allCompliant", "policyLimit", "merkleRoot", "sequenceEnd", "more"])
async def test_public_inputs_that_differ_in_one_member_are_refused(name: str) -> None:
    async with a_batch() as (_, client, path):
        inputs = (await client.get(f"{path}/inputs")).json()["public_inputs"]
        assert (await client.post(f"{path}/proofs", json=body(publicInputs=inputs))).is_success
        # 1 for true and false for 0 are equal to Python, and to nobody else.
        wrong = {"allCompliant": 1, "policyLimit": False, "sequenceEnd": "3"}.get(name, "00" * 32)
        answer = await client.post(
            f"{path}/proofs", json=body(proofVersion=2, publicInputs={**inputs, name: wrong})
        )
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("publicInputs must match")


async def test_a_member_given_twice_is_refused_also_within_the_public_inputs() -> None:
    async with a_batch() as (_, client, path):
        inputs = json.dumps((await client.get(f"{path}/inputs")).json()["public_inputs"])
        doubled = inputs[:-1] + ', "policyLimit": 0}'
        text = f'{{"proofType": "x", "proofB64": "AAAA", "publicInputs": {doubled}}}'
        answer = await client.post(
            f"{path}/proofs", content=text, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422
        assert "given twice" in answer.json()["message"]


async def verified(client: httpx.AsyncClient, proof_id: str) -> dict[str, Any]:
    answer = await client.get(f"{ALL}/proofs/{proof_id}/verify")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_valid_means_stored_intact_and_about_this_batch() -> None:
    async with a_batch() as (house, client, path):
        told = (await client.get(f"{path}/inputs")).json()
        with_inputs = body(publicInputs=told["public_inputs"])
        proof_id = (await client.post(f"{path}/proofs", json=with_inputs)).json()["proof_id"]
        verdict = await verified(client, proof_id)
        assert (verdict["valid"], verdict["reason"]) == (True, None)
        assert verdict["proof_hash_match"] is verdict["public_inputs_match"] is True
        assert verdict["public_inputs_hash"] == told["public_inputs_hash"]
        assert verdict["canonical_public_inputs_hash"] == told["public_inputs_hash"]
        assert verdict["stark_valid"] is verdict["stark_error"] is None
        assert verdict["stark_verification_time_ms"] is None

        without = (await client.post(f"{path}/proofs", json=body(proofVersion=2))).json()
        assert without["public_inputs"] is None
        verdict = await verified(client, without["proof_id"])
        assert (verdict["valid"], verdict["reason"]) == (False, "missing_public_inputs")
        assert (verdict["public_inputs_hash"], verdict["public_inputs_match"]) == (None, False)

        # The commitment's row is changed behind our back …
        commitment = house.journal.commitments[-1]
        house.journal.commitments[-1] = msgspec.structs.replace(commitment, merkle_root=b"x" * 32)
        verdict = await verified(client, proof_id)
        assert (verdict["valid"], verdict["reason"]) == (False, "public_inputs_mismatch")
        # … and then the proof's, on a node that reads what is not encrypted.
        kept = house.journal.proofs.proofs[uuid.UUID(proof_id).bytes]
        house.journal.proofs.proofs[kept.record.proof_id] = StoredProof(kept.record, b"other bytes")
        verdict = await verified(client, proof_id)
        assert (verdict["valid"], verdict["reason"]) == (False, "proof_hash_mismatch")
        assert verdict["proof_hash_match"] is False


@pytest.mark.parametrize("proof_type", ["stark", "STARK-winterfell"])
async def test_a_stark_proof_is_stored_only_when_asked_for_and_is_never_called_valid(proof_type: str) -> None:
    async with a_batch(ves_stark_verify_on_submit=False) as (_, client, path):
        inputs = (await client.get(f"{path}/inputs")).json()["public_inputs"]
        stark = body(proofType=proof_type, proofVersion=2, publicInputs=inputs)
        stored = await client.post(f"{path}/proofs", json=stark)
        assert stored.status_code == 200, stored.text
        verdict = await verified(client, stored.json()["proof_id"])
        assert verdict["proof_hash_match"] is verdict["public_inputs_match"] is True
        assert (verdict["valid"], verdict["reason"]) == (False, "stark_not_verified")
        assert verdict["stark_valid"] is None
        assert verdict["stark_error"] == "not verified: this server has no STARK verifier"


async def test_only_administrators_submit_and_only_within_their_stores() -> None:
    async with a_batch() as (house, client, path):
        proof_id = (await client.post(f"{path}/proofs", json=body())).json()["proof_id"]
        by_id = [f"{path}/inputs", f"{path}/proofs", f"{ALL}/proofs/{proof_id}"]
        by_id.append(f"{ALL}/proofs/{proof_id}/verify")
        async with house.client(house.api_key("read", "write")) as writer:
            assert [(await writer.get(one)).status_code for one in by_id] == [200] * 4
            refused = await writer.post(f"{path}/proofs", json=body())
            assert refused.status_code == 403
            assert "validity_proofs:write" in refused.json()["message"]
        async with house.client(house.api_key("validity_proofs:write")) as prover:
            assert (await prover.post(f"{path}/proofs", json=body(proofVersion=2))).status_code == 200
            assert (await prover.get(by_id[2])).status_code == 403
        for stranger in (
            house.api_key("admin", tenant=OTHER_TENANT),
            house.api_key("admin", stores=[OTHER_STORE]),
        ):
            async with house.client(stranger) as other:
                for one in by_id:
                    absent = one.replace(proof_id, str(uuid.uuid4())).replace(path, f"{ALL}/{uuid.uuid4()}")
                    theirs, nobodys = await other.get(one), await other.get(absent)
                    assert theirs.status_code == nobodys.status_code == 404
                    assert theirs.json()["message"] == nobodys.json()["message"]
                assert (await other.post(f"{path}/proofs", json=body())).status_code == 404
        async with house.client(BOOTSTRAP) as bootstrap:
            assert (await bootstrap.get(by_id[2])).status_code == 400
            named = await bootstrap.get(by_id[2], params={"tenant_id": str(TENANT)})
            assert named.status_code == 200


async def test_proofs_are_listed_in_pages() -> None:
    async with a_batch() as (_, client, path):
        stored = [
            (await client.post(f"{path}/proofs", json=body(proofVersion=n))).json() for n in range(1, 6)
        ]
        told: list[Any] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await client.get(f"{path}/proofs", params=query)).json()
            told += page["proofs"]
            assert page["count"] == len(page["proofs"]) <= 2
            if not page["has_more"]:
                break
            query["after"] = page["next_after"]
        assert page["next_after"] is None
        assert sorted(told, key=lambda one: one["proof_version"]) == stored
        for limit in (0, 101):
            assert (await client.get(f"{path}/proofs", params={"limit": limit})).status_code == 400


def test_a_commitment_of_the_largest_numbers_has_public_inputs() -> None:
    from ves.validity import canonical_inputs, public_inputs

    largest = Commitment(
        *(bytes(16),) * 3, 1, 16, 65536, 65536, *(bytes(32),) * 3, 2**53 - 65537, 2**53 - 1, 0
    )
    assert f'"sequenceEnd":{2**53 - 1}' in canonical_inputs(public_inputs(largest))
