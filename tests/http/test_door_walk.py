"""One request through the whole door, each route once: what comes in, what is asked, what goes out."""

from __future__ import annotations

import json
import re
import uuid
from hashlib import sha256

import pytest
from nacl.signing import SigningKey

from actors.messages import Appended, Commit, Verify
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_STORE,
    SEQUENCER,
    STORE,
    STREAM,
    TENANT,
    batch,
    receipt,
    serving,
    stored,
    verified,
)
from tests.http.test_door_refusals import check_shape
from transport.http import committing
from transport.http.key_format import SCANNER
from ves.merkle import directions
from ves.proofs import path_leads_to_root
from ves.records import BodyRefused, Refusal, Scope


async def test_ingest_hands_the_raw_body_on_and_answers_in_request_order() -> None:
    async with serving() as house:
        new, old = receipt(8), receipt(3)
        refused = Refusal(uuid.uuid4().bytes, "schema_validation: entity_type", "too long")

        async def verify(message: Verify):
            return batch(verified(new.event_id), refused, verified(old.event_id))

        async def append(message):
            return Appended([new, refused, old], 1, 1, 8, 8, 8)

        house.verifiers.reply, house.sequencer.reply = verify, append
        async with house.client(house.api_key("write", stores=[STORE], agent=AGENT)) as client:
            answer = await client.post(INGEST, content=b'{"agentId": 1e1 }', headers=JSON)
        assert answer.status_code == 200, answer.text
        asked = house.verifiers.asked[0]
        assert asked.body == b'{"agentId": 1e1 }'
        assert asked.scope == Scope(TENANT.bytes, (STORE.bytes,), AGENT.bytes)
        reply = answer.json()
        assert [r["sequenceNumber"] for r in reply["receipts"]] == [8, 3]
        assert (reply["eventsAccepted"], reply["eventsReplayed"], reply["eventsRejected"]) == (1, 1, 1)
        assert (reply["sequenceStart"], reply["sequenceEnd"], reply["headSequence"]) == (8, 8, 8)
        assert reply["rejections"] == [
            {
                "event_id": str(uuid.UUID(bytes=refused.event_id)),
                "reason": refused.reason,
                "message": "too long",
            }
        ]
        assert reply["receipts"][0] == {
            "sequencerId": str(SEQUENCER),
            "eventId": str(uuid.UUID(bytes=new.event_id)),
            "sequenceNumber": 8,
            "sequencedAt": "2023-11-14T22:13:20.000008+00:00",
            "receiptHash": sha256(b"8").hexdigest(),
            "signatureAlg": "ed25519",
            "sequencerSignature": "09" * 64,
            "sequencerKeyVersion": 1,
            "receiptSignatureScheme": 1,
        }


async def test_when_the_verifier_leaves_nothing_the_head_is_read_and_the_sequencer_not_asked() -> None:
    async with serving() as house:
        house.journal.events = [stored(1), stored(2)]

        async def verify(message: Verify):
            return batch(Refusal(uuid.uuid4().bytes, "invalid_signature", "no"))

        house.verifiers.reply = verify
        async with house.client(house.api_key("write")) as client:
            reply = (await client.post(INGEST, content=b"{}", headers=JSON)).json()
        assert not house.sequencer.asked
        assert reply["headSequence"] == 2
        assert reply["sequenceStart"] is None
        assert "receipts" not in reply


async def test_a_refused_body_keeps_its_status_and_code() -> None:
    async with serving() as house:

        async def verify(message: Verify):
            return BodyRefused(422, "MISSING_REQUIRED_FIELD", "events[3].created_at is missing")

        house.verifiers.reply = verify
        async with house.client(house.api_key("write")) as client:
            answer = await client.post(INGEST, content=b"{}", headers=JSON)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "MISSING_REQUIRED_FIELD"
        assert "events[3].created_at" in answer.json()["message"]


async def test_events_come_back_as_they_were_signed_byte_for_byte() -> None:
    async with serving() as house:
        payload = b'{"a":[1,0.5,"\\u0000"],"\xc3\xa9":"\xe2\x82\xac"}'
        sealed = b'{"enc_version":1}'
        command = uuid.uuid4()
        house.journal.events = [
            stored(1, payload, command_id=command.bytes, base_version=0),
            stored(2, sealed, payload_kind=1),
        ]
        async with house.client(house.api_key("read")) as client:
            answer = await client.get("/api/v1/ves/events", params={**STREAM, "from": 0, "limit": 1})
            page = answer.json()
            assert payload in answer.content
            assert (page["count"], page["head_sequence"], page["has_more"], page["next_from"]) == (
                1,
                2,
                True,
                2,
            )
            event = page["events"][0]
            assert event["created_at"] == "2026-01-01T00:00:00.10Z"
            assert event["payload_plain_hash"] == "0x" + "01" * 32
            assert event["agent_signature"] == "0x" + "02" * 64
            assert event["event_signing_hash"] == "0x" + "03" * 32
            assert event["command_id"] == str(command)
            assert event["base_version"] == 0
            assert event["receipt"]["sequenceNumber"] == event["sequence_number"] == 1
            assert "payload_encrypted" not in event
            second = await client.get("/api/v1/ves/events", params={**STREAM, "from": 2})
            assert second.json()["events"][0]["payload_encrypted"] == {"enc_version": 1}
            assert "payload" not in second.json()["events"][0]
            one = await client.get(f"/api/v1/ves/events/{event['event_id']}", params=STREAM)
            assert one.json() == event
            head = await client.get("/api/v1/ves/head", params=STREAM)
            assert head.json() == {"head_sequence": 2}
            listed = (await client.get("/api/v1/ves/streams")).json()
            stream = {"store_id": STREAM["store_id"], "head_sequence": 2, "committed_through": 0}
            stream["legacy_head_sequence"] = 0
            assert listed == {"streams": [stream], "count": 1, "has_more": False, "next_after": None}
            after = await client.get("/api/v1/ves/streams", params={"after": STREAM["store_id"]})
            assert after.json()["streams"] == []
        async with house.client(house.api_key("read", stores=[OTHER_STORE])) as client:
            assert (await client.get("/api/v1/ves/streams")).json()["streams"] == []


async def test_a_large_page_is_opened_in_parts_and_served_as_one() -> None:
    async with serving() as house:
        house.journal.events = [stored(n, b'{"n":%d}' % n) for n in range(1, 503)]
        async with house.client(house.api_key("read")) as client:
            page = (await client.get("/api/v1/ves/events", params={**STREAM, "limit": 501})).json()
            assert [event["payload"]["n"] for event in page["events"]] == list(range(1, 502))
            assert sorted(asked.count for asked in house.encryptors.asked) == [250, 251]
            house.encryptors.asked.clear()
            await client.get("/api/v1/ves/events", params={**STREAM, "limit": 200})
            assert [asked.count for asked in house.encryptors.asked] == [200], "not worth a second way"


async def test_an_entity_with_slashes_and_letters_from_everywhere_is_found() -> None:
    async with serving() as house:
        house.journal.events = [stored(1, entity_type="ord/er", entity_id="№ 7%2F?")]
        async with house.client(house.api_key("read")) as client:
            path = "/api/v1/ves/entities/ord%2Fer/%E2%84%96%207%252F%3F"
            history = (await client.get(path, params=STREAM)).json()
        assert (history["entity_id"], history["version"], history["count"]) == ("№ 7%2F?", 1, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
async def test_every_served_proof_leads_to_the_root(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LEAVES_AT_ONCE", 4)
    async with serving() as house:
        leaves = [sha256(b"%d" % n).digest() for n in range(count)]
        commitment = house.journal.commit(leaves, 5)
        async with house.client(house.api_key("read")) as client:
            for index in range(count):
                answer = await client.get(f"/api/v1/ves/proofs/{5 + index}", params=STREAM)
                proof = answer.json()
                path = [bytes.fromhex(node) for node in proof["proof_path"]]
                assert path_leads_to_root(leaves[index], index, path, commitment.merkle_root)
                assert proof["directions"] == directions(index, len(path))
                assert (proof["tree_depth"], proof["leaf_count"], proof["sequence_start"]) == (
                    len(path),
                    count,
                    5,
                )
                body = {k: proof[k] for k in ("leaf_hash", "merkle_root", "proof_path", "leaf_index")}
                checked = await client.post("/api/v1/ves/proofs/verify", json=body)
                assert checked.json()["valid"] is True
            batch_id = str(uuid.UUID(bytes=commitment.batch_id))
            named = {**STREAM, "batch_id": batch_id}
            assert (await client.get(f"/api/v1/ves/proofs/{4 + count}", params=named)).json() == proof
            for number in (4, 5 + count):
                answer = await client.get(f"/api/v1/ves/proofs/{number}", params=named)
                check_shape(answer, 400, "INVALID_FIELD_VALUE")
                answer = await client.get(f"/api/v1/ves/proofs/{number}", params=STREAM)
                check_shape(answer, 404, "BATCH_NOT_FOUND")
            answer = await client.get(f"/api/v1/ves/commitments/{batch_id}/leaves")
            assert answer.json()["leaf_hashes"] == [leaf.hex() for leaf in leaves]


async def test_a_tampered_tree_is_never_served_as_a_proof() -> None:
    async with serving() as house:
        commitment = house.journal.commit([sha256(b"%d" % n).digest() for n in range(4)], 1)
        house.journal.nodes[commitment.batch_id][1] = bytes(32)
        async with house.client(house.api_key("read")) as client:
            answer = await client.get("/api/v1/ves/proofs/1", params=STREAM)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
        assert "leaf" not in answer.text


async def test_commitments_are_made_listed_and_read() -> None:
    async with serving() as house, house.client(house.api_key("read", "write")) as client:
        body = {"tenantId": str(TENANT), "storeId": str(STORE), "sequenceStart": 1, "sequenceEnd": 3}
        made = (await client.post("/api/v1/ves/commitments", json=body)).json()
        assert house.committer.asked == [Commit(TENANT.bytes, STORE.bytes, 1, 3)]
        assert made["remaining"] == 4
        assert made["is_anchored"] is False
        assert made["committed_at"] == "2023-11-14T22:13:20.123Z"
        one = (await client.get(f"/api/v1/ves/commitments/{made['batch_id']}")).json()
        assert {**one, "remaining": 4} == made
        page = (await client.get("/api/v1/ves/commitments", params=STREAM)).json()
        assert page["count"] == 1
        assert page["commitments"][0]["batch_id"] == made["batch_id"]
        none = await client.get("/api/v1/ves/commitments", params={**STREAM, "anchored": "true"})
        assert none.json()["count"] == 0


async def test_a_key_is_registered_repeated_listed_and_revoked() -> None:
    async with serving() as house:
        signer = SigningKey.generate()
        public = signer.verify_key.encode().hex()
        proof = signer.sign(sha256(b"VES_POP_V1" + bytes.fromhex(public)).digest()).signature.hex()
        body = {"tenantId": str(TENANT), "agentId": str(AGENT), "keyId": 7, "publicKey": "0x" + public}
        async with house.client(house.api_key("admin")) as client:
            first = await client.post(
                "/api/v1/agents/keys",
                json={
                    **body,
                    "proofOfPossessionBundle": {"ed25519Pop": proof},
                    "validTo": "2030-01-01T00:00:00Z",
                },
            )
            assert first.status_code == 200, first.text
            assert first.json()["alreadyRegistered"] is False
            snake = {"tenant_id": str(TENANT), "agent_id": str(AGENT), "key_id": 7, "public_key": public}
            again = await client.post("/api/v1/agents/keys", json=snake)
            assert again.json()["alreadyRegistered"] is True
            other = {**body, "publicKey": SigningKey.generate().verify_key.encode().hex()}
            assert (await client.post("/api/v1/agents/keys", json=other)).status_code == 409
            taken = {**body, "agentId": str(uuid.uuid4())}
            assert (await client.post("/api/v1/agents/keys", json=taken)).status_code == 409
            listed = (await client.get(f"/api/v1/agents/{AGENT}/keys")).json()
            assert listed["keys"][0]["publicKey"] == "0x" + public
            assert listed["keys"][0]["proofOfPossession"] == 1
            assert listed["keys"][0]["validTo"] == "2030-01-01T00:00:00+00:00"
            name = {"tenantId": str(TENANT), "agentId": str(AGENT), "keyId": 7}
            gone = await client.post("/api/v1/agents/keys/revoke", json={**name, "reason": "lost"})
            assert gone.json()["reason"] == "lost"
            unknown = await client.post("/api/v1/agents/keys/revoke", json={**name, "keyId": 8})
            assert unknown.status_code == 404
        assert [entry.action for entry in house.journal.audits] == ["agent_key.register", "agent_key.revoke"]
        assert house.journal.audits[0].actor.startswith("api_key:")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"publicKey": "00" * 32}, 400, "INVALID_PUBLIC_KEY"),
        ({"publicKey": "01" + "00" * 31}, 400, "INVALID_PUBLIC_KEY"),
        ({"publicKey": "0X" + "11" * 32}, 422, "INVALID_FIELD_VALUE"),
        ({"publicKey": "11" * 31}, 422, "INVALID_FIELD_VALUE"),
        ({"keyAlgorithm": 3}, 400, "INVALID_FIELD_VALUE"),
        ({"keyId": -1}, 422, "INVALID_FIELD_VALUE"),
        ({"keyId": 2**32}, 422, "INVALID_FIELD_VALUE"),
        ({"keyId": "7"}, 422, "INVALID_FIELD_VALUE"),
        ({"key_id": 7}, 422, "INVALID_REQUEST_BODY"),
        ({"validFrom": "yesterday"}, 400, "INVALID_FIELD_VALUE"),
        (
            {"validFrom": "2030-01-01T00:00:01Z", "validTo": "2030-01-01T00:00:00Z"},
            400,
            "INVALID_FIELD_VALUE",
        ),
        ({"proofOfPossession": "11" * 64}, 400, "SIGNATURE_VERIFICATION_FAILED"),
        ({"tenantId": "nobody"}, 422, "INVALID_FIELD_VALUE"),
        ({"agentId": None}, 422, "INVALID_FIELD_VALUE"),
    ],
)
async def test_a_bad_registration_is_refused_by_name(change: dict, status: int, code: str) -> None:
    async with serving() as house:
        public = SigningKey.generate().verify_key.encode().hex()
        body = {"tenantId": str(TENANT), "agentId": str(AGENT), "keyId": 7, "publicKey": public, **change}
        async with house.client(house.api_key("admin")) as client:
            answer = await client.post("/api/v1/agents/keys", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert not house.journal.agent_keys


async def test_api_keys_are_made_used_listed_and_revoked_at_once() -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin=True) as admin:
        body = {
            "tenantId": str(TENANT),
            "permissions": ["read", "read"],
            "storeIds": [str(STORE)],
            "name": "tills",
        }
        made = await admin.post("/api/v1/admin/api-keys", json=body)
        assert made.status_code == 201, made.text
        key = made.json()["apiKey"]
        assert re.fullmatch(SCANNER, key)
        assert made.json()["prefix"] == key[:12]
        assert made.json()["permissions"] == ["read"]
        listed = await admin.get("/api/v1/admin/api-keys")
        assert listed.json()["apiKeys"][0]["id"] == made.json()["id"]
        assert key not in listed.text
        async with house.client(key) as client:
            assert (await client.get("/api/v1/ves/head", params=STREAM)).status_code == 200
            elsewhere = {**STREAM, "store_id": str(OTHER_STORE)}
            assert (await client.get("/api/v1/ves/head", params=elsewhere)).status_code == 403
            gone = await admin.delete(f"/api/v1/admin/api-keys/{made.json()['id']}")
            assert gone.json()["revokedAt"] == "2023-11-14T22:13:20.000003+00:00"
            refused = await client.get("/api/v1/ves/head", params=STREAM)
            assert refused.status_code == 401
        assert (await admin.delete(f"/api/v1/admin/api-keys/{uuid.uuid4()}")).status_code == 404
        actions = [entry.action for entry in house.journal.audits]
        used = "credential.use"  # before each act, whatever comes of it
        assert actions == [used, "api_key.create", used, used, "api_key.revoke", used]
        assert all(entry.actor == "bootstrap" for entry in house.journal.audits)


async def test_what_the_node_says_about_itself() -> None:
    async with serving() as house:
        async with house.client() as client:
            keys = (await client.get("/.well-known/ves-sequencer")).json()
            assert keys == {
                "sequencer_id": str(SEQUENCER),
                "receipt_keys": [
                    {
                        "sequencer_id": str(SEQUENCER),
                        "key_version": 1,
                        "alg": "ed25519",
                        "public_key": "0x" + "07" * 32,
                        "active": True,
                        "created_at": "1970-01-01T00:00:00+00:00",
                        "previous_signature": None,
                    }
                ],
            }
            assert (await client.get("/ready")).json()["status"] == "ready"
            house.journal.away = True
            assert (await client.get("/health")).json()["status"] == "healthy"
            house.readiness.wait_for("tree", "at 10.0.0.7")
            unready = await client.get("/ready")
            assert unready.status_code == 503
            assert unready.json()["error"]["details"] == {"waiting_for": ["tree"]}
            assert "10.0.0.7" not in unready.text
            house.readiness.done("tree")
            with_database = await client.get("/ready")
            assert with_database.status_code in (200, 503)  # the last ping is good for a moment
            house.journal.away = False
        async with house.client(BOOTSTRAP, admin=True) as admin:
            house.house.tally.moved = 3
            house.house.right_of_way.waited_s = 0.25
            detailed = (await admin.get("/health/detailed")).json()
            assert detailed["tree"]["tree"]["name"] == "root"
            metrics = (await admin.get("/metrics")).text
            assert 'sequencer_mailbox_depth{address="sequencers"} 6.0' in metrics
            assert 'path="/ready",status="503"' in metrics
            assert "sequencer_appends_moved_total 3.0" in metrics
            assert "sequencer_gave_way_seconds_total 0.25" in metrics
            assert str(TENANT) not in metrics


async def test_the_document_describes_every_route_it_is_served_beside() -> None:
    async with serving() as house:
        async with house.client() as client:
            public = (await client.get("/openapi.json")).json()
        async with house.client(admin=True) as client:
            admin = (await client.get("/openapi.json")).json()
        assert public["openapi"].startswith("3.1")
        assert "/api/v1/ves/events/ingest" in public["paths"]
        assert "/metrics" not in public["paths"]
        assert "/api/v1/admin/api-keys" in admin["paths"]
        text = json.dumps(public)
        for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
            assert name in public["components"]["schemas"]
