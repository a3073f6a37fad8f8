"""The auditor on an honest stream says nothing; on each planted lie it says which, and where."""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.auditor import rules
from tests.auditor.audit import AgentKey, Evidence, ReceiptKeys, audit, audit_tenant
from tests.auditor.honest import Honest

LIAR = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


@pytest.fixture(scope="module")
def honest() -> Honest:
    """Nine events under two commitments (five and three), one open; one of them encrypted."""
    world = Honest()
    world.post({"total": 29.33, "items": 1})
    world.post({"total": 1e-7, "text": "déchet 😀"}, entity_id="cart", base_version=0)
    world.post([], entity_id="cart", base_version=1, command_id=str(uuid.UUID(int=5)))
    world.post("just text")
    sealed = {
        "enc_version": 1,
        "aead": "AES-256-GCM",
        "nonce_b64u": "oKGio6Slpqeoqaqr",
        "ciphertext_b64u": "x54ULPb-ijphdlvllaEu6Q",
        "tag_b64u": "-Jk79MjNiXL2W79AEJhehQ",
        "hpke": {"mode": "base", "kem": "X25519-HKDF-SHA256", "kdf": "HKDF-SHA256", "aead": "AES-256-GCM"},
        "recipients": [{"recipient_kid": 1, "enc_b64u": "A" * 43, "ct_b64u": "B" * 64}],
    }
    event = {
        **{k: v for k, v in world.events[0].items() if k not in ("payload", "receipt", "sequence_number")},
        "event_id": str(uuid.UUID(int=55)),
        "payload_kind": 1,
        "payload_encrypted": sealed,
        "payload_plain_hash": "0x" + "11" * 32,
    }
    event["payload_cipher_hash"] = "0x" + rules.payload_cipher_hash(event).hex()
    world.accept(world.signed(event))
    world.commit()
    for total in range(3):
        world.post({"total": total})
    world.commit()
    world.post({"total": 9})
    return world


def test_an_honest_stream_is_without_problems(honest: Honest) -> None:
    assert audit(honest.evidence()) == []
    assert len(honest.evidence().proofs) == 8


def document(honest: Honest, *signatures: str | None) -> dict[str, object]:
    """As published: the stream's key, then LIAR's, vouched for as given."""
    keys = [honest.sequencer_key, LIAR]
    entries = [
        {
            "key_version": version,
            "alg": "ed25519",
            "public_key": "0x" + key.public_key().public_bytes_raw().hex(),
            "previous_signature": signature,
        }
        for version, (key, signature) in enumerate(zip(keys, [None, *signatures], strict=False), 1)
    ]
    return {"sequencer_id": honest.sequencer_id, "receipt_keys": entries}


def test_a_receipt_key_that_its_predecessor_did_not_sign_is_found_and_not_followed(honest: Honest) -> None:
    new = LIAR.public_key().public_bytes_raw()
    statement = rules.receipt_key_statement(honest.sequencer_id, 2, new)
    good = ReceiptKeys.of(document(honest, "0x" + honest.sequencer_key.sign(statement).hex()))
    pinned = ReceiptKeys.of(document(honest))
    assert good.faults == []
    assert pinned.followed_by(good).by_name[honest.sequencer_id, 2] == new
    for signature in (None, "0x" + LIAR.sign(statement).hex()):
        evidence = honest.evidence()
        evidence.receipt_keys = ReceiptKeys.of(document(honest, signature))
        (problem,) = audit(evidence)
        assert re.search("version 2 of sequencer .* is not signed by the version before", problem)
        assert (honest.sequencer_id, 2) not in pinned.followed_by(evidence.receipt_keys).by_name
    other = ReceiptKeys({(honest.sequencer_id, 1): new})
    assert "not shown as pinned" in other.followed_by(good).faults[0]


Lie = Callable[[Evidence], None]


def gap(e: Evidence) -> None:
    del e.events[3]


def cut_tail(e: Evidence) -> None:
    e.events.pop()


def cut_tail_and_head(e: Evidence) -> None:
    e.events.pop()
    e.head -= 1


def swapped_numbers(e: Evidence) -> None:
    e.events[6]["sequence_number"], e.events[7]["sequence_number"] = 8, 7
    e.events[6], e.events[7] = e.events[7], e.events[6]


def doubled_event(e: Evidence) -> None:
    e.events.append(e.events[2] | {"sequence_number": 10})
    e.head = 10


def doubled_number(e: Evidence) -> None:
    e.events.insert(4, e.events[3])


def doubled_command(e: Evidence) -> None:
    e.events[8]["command_id"] = e.events[2]["command_id"]


def altered_payload(e: Evidence) -> None:
    e.events[0]["payload"]["total"] = 1.0


def altered_payload_and_hash(e: Evidence) -> None:
    e.events[0]["payload"] = {"total": 0}
    e.events[0]["payload_plain_hash"] = "0x" + rules.payload_plain_hash({"total": 0}).hex()


def altered_ciphertext(e: Evidence) -> None:
    e.events[4]["payload_encrypted"]["ciphertext_b64u"] = "AAAA"


def smuggled_cipher_hash(e: Evidence) -> None:
    e.events[0]["payload_cipher_hash"] = "22" * 32


def altered_name(e: Evidence) -> None:
    e.events[5]["entity_id"] = "somebody-elses"


def wrong_signing_hash(e: Evidence) -> None:
    e.events[5]["event_signing_hash"] = "33" * 32


def forged_agent_signature(e: Evidence) -> None:
    e.events[5]["agent_signature"] = LIAR.sign(rules.event_signing_hash(e.events[5])).hex()


def unlisted_agent_key(e: Evidence) -> None:
    e.agent_keys = {}


def expired_key(e: Evidence) -> None:
    e.agent_keys = {name: AgentKey(k.public_key, None, 1) for name, k in e.agent_keys.items()}


def retired_key(e: Evidence) -> None:
    e.agent_keys = {name: AgentKey(k.public_key, retires_at_us=1) for name, k in e.agent_keys.items()}


def smuggled_successor(e: Evidence) -> None:
    (name, old), *_ = e.agent_keys.items()
    new = LIAR.public_key().public_bytes_raw()
    message = rules.rotation_hash(e.tenant_id, *name, 2, old.public_key, new)
    e.agent_keys = {
        name: AgentKey(old.public_key, replaced_by=2, rotation_signature=LIAR.sign(message)),
        (name[0], 2): AgentKey(new),
    }


def key_of_the_future(e: Evidence) -> None:
    e.agent_keys = {name: AgentKey(k.public_key, 2**62, None) for name, k in e.agent_keys.items()}


def weak_agent_key(e: Evidence) -> None:
    e.agent_keys = {name: AgentKey(bytes([1]) + bytes(31)) for name in e.agent_keys}


def other_tenant(e: Evidence) -> None:
    e.events[5]["tenant_id"] = str(uuid.UUID(int=1))


def wrong_receipt_key(e: Evidence) -> None:
    for name in e.receipt_keys.by_name:
        e.receipt_keys.by_name[name] = LIAR.public_key().public_bytes_raw()


def unknown_receipt_key_version(e: Evidence) -> None:
    e.events[1]["receipt"]["sequencerKeyVersion"] = 2


def receipt_of_another_sequencer(e: Evidence) -> None:
    e.events[1]["receipt"]["sequencerId"] = str(uuid.UUID(int=4))


def unsigned_receipt(e: Evidence) -> None:
    e.events[1]["receipt"] |= {"signatureAlg": "none", "sequencerSignature": ""}


def receipt_of_another_number(e: Evidence) -> None:
    e.events[1]["receipt"]["sequenceNumber"] = 3


def receipt_of_another_event(e: Evidence) -> None:
    e.events[1]["receipt"] = e.events[2]["receipt"]


def receipt_hash_altered(e: Evidence) -> None:
    e.events[1]["receipt"]["receiptHash"] = "44" * 32


def receipt_time_altered(e: Evidence) -> None:
    e.events[1]["receipt"]["sequencedAt"] = e.events[2]["sequenced_at"]


def time_fell(e: Evidence) -> None:
    e.events[8]["sequenced_at"] = e.events[8]["receipt"]["sequencedAt"] = "2025-12-31T00:00:00+00:00"


def time_misspelt(e: Evidence) -> None:
    e.events[8]["sequenced_at"] = e.events[8]["receipt"]["sequencedAt"] = "2026-01-01 00:00:09"


def version_ignored(e: Evidence) -> None:
    e.events[2]["base_version"] = 0


def version_ahead(e: Evidence) -> None:
    e.events[2]["base_version"] = 2


def version_further_ahead_than_unsigned_events_can_move_it(e: Evidence) -> None:
    e.unsigned = 1
    e.events[2]["base_version"] = 3


def wrong_root(e: Evidence) -> None:
    e.commitments[0]["merkle_root"] = "55" * 32


def wrong_root_well_chained(e: Evidence) -> None:
    """The whole history of roots rewritten consistently: only the leaves can tell."""
    state = rules.ZEROS
    for c in e.commitments:
        c["prev_state_root"], c["merkle_root"] = state.hex(), "66" * 32
        root = bytes.fromhex(c["merkle_root"])
        state = rules.state_root(e.tenant_id, e.store_id, state, root, c["sequence_start"], c["sequence_end"])
        c["new_state_root"] = state.hex()


def broken_chain(e: Evidence) -> None:
    e.commitments[1]["prev_state_root"] = rules.ZEROS.hex()


def wrong_state_root(e: Evidence) -> None:
    e.commitments[1]["new_state_root"] = "77" * 32


def commitment_hole(e: Evidence) -> None:
    del e.commitments[0]


def commitment_beyond_head(e: Evidence) -> None:
    e.commitments[1] |= {"sequence_end": 20, "leaf_count": 15}


def wrong_leaf_count(e: Evidence) -> None:
    e.commitments[0]["leaf_count"] = 4


def wrong_padding(e: Evidence) -> None:
    e.commitments[0]["padded_leaf_count"] = 16


def wrong_depth(e: Evidence) -> None:
    e.commitments[0]["tree_depth"] = 4


def wrong_leaves(e: Evidence) -> None:
    e.leaves[e.commitments[0]["batch_id"]].reverse()


def proof_of_another_index(e: Evidence) -> None:
    e.proofs[1]["leaf_index"] = 9


def proof_cut_short(e: Evidence) -> None:
    e.proofs[0]["proof_path"].pop()


def proof_of_the_root_itself(e: Evidence) -> None:
    """(root, [], 0) satisfies any check that only walks the path."""
    e.proofs[0] |= {"leaf_hash": e.proofs[0]["merkle_root"], "proof_path": [], "directions": []}


def proof_of_another_leaf(e: Evidence) -> None:
    e.proofs[2] = e.proofs[3] | {"sequence_number": 3}


def proof_with_wrong_sides(e: Evidence) -> None:
    e.proofs[2]["directions"][0] = not e.proofs[2]["directions"][0]


def acknowledged_but_lost(e: Evidence) -> None:
    e.acknowledged.append(
        {"receipt": e.acknowledged[0]["receipt"] | {"eventId": str(uuid.UUID(int=77)), "sequenceNumber": 10}}
    )


def acknowledged_at_another_number(e: Evidence) -> None:
    e.acknowledged[0]["receipt"]["sequenceNumber"] = 2


def acknowledged_with_another_receipt(e: Evidence) -> None:
    e.acknowledged[0]["receipt"]["sequencedAt"] = "2026-01-01T00:00:01.5+00:00"


def acknowledged_with_other_content(e: Evidence) -> None:
    e.acknowledged[0]["event"]["payload"] = {"total": 29.34, "items": 1}


def acknowledged_with_another_command(e: Evidence) -> None:
    e.acknowledged[2]["event"]["command_id"] = str(uuid.UUID(int=6))


def row_differs(e: Evidence) -> None:
    e.rows = [event | {"agent_signature": bytes(64)} if n == 3 else event for n, event in enumerate(e.events)]


def row_missing(e: Evidence) -> None:
    e.rows = [dict(event) for event in e.events][:-1]


def row_gap(e: Evidence) -> None:
    e.rows = [dict(event) for event in e.events if event["sequence_number"] != 4]


def member_missing(e: Evidence) -> None:
    del e.events[5]["entity_type"]


LIES: dict[Lie, str] = {
    gap: "number 4 is missing before 5",
    cut_tail: "the head says 9, the events end at 8",
    cut_tail_and_head: "acknowledged event .* is lost",
    swapped_numbers: "hash does not bind this event to this number",
    doubled_event: "event_id .* has two places, numbers 3 and 10",
    doubled_number: "number 4 comes again",
    doubled_command: "command_id .* has two places, numbers 3 and 9",
    altered_payload: r"\(number 1\): the payload is not the one that payload_plain_hash names",
    altered_payload_and_hash: r"\(number 1\): the agent's signature does not hold",
    altered_ciphertext: "payload_encrypted is not the one that payload_cipher_hash names",
    smuggled_cipher_hash: "a plaintext event has a payload_cipher_hash",
    altered_name: r"\(number 6\): event_signing_hash is not the hash of its members",
    wrong_signing_hash: "event_signing_hash is not the hash of its members",
    forged_agent_signature: r"\(number 6\): the agent's signature does not hold",
    unlisted_agent_key: "has no key 1 in the list",
    expired_key: "had expired when it was sequenced",
    retired_key: "had been retired when it was sequenced",
    smuggled_successor: "did not sign for key 2",
    key_of_the_future: "not yet valid when it was sequenced",
    weak_agent_key: "the agent's signature does not hold",
    other_tenant: "it belongs to another stream",
    wrong_receipt_key: "its receipt's signature does not hold",
    unknown_receipt_key_version: "names key version 2 of sequencer .*, which is not published",
    receipt_of_another_sequencer: "names key version 1 of sequencer .*, which is not published",
    unsigned_receipt: "signed with 'none', not ed25519",
    receipt_of_another_number: r"\(number 2\): its receipt says number 3",
    receipt_of_another_event: r"\(number 2\): its receipt is for event",
    receipt_hash_altered: "hash does not bind this event to this number",
    receipt_time_altered: "its receipt gives another sequenced_at",
    time_fell: r"\(number 9\) was sequenced before its predecessor",
    time_misspelt: "is no time in the server's spelling",
    version_ignored: "was accepted on base_version 0, the entity was at 1",
    version_ahead: "was accepted on base_version 2, the entity was at 1",
    version_further_ahead_than_unsigned_events_can_move_it: "on base_version 3, the entity was at 1",
    wrong_root: "merkle_root is not the root of the events it covers",
    wrong_root_well_chained: "merkle_root is not the root of the events it covers",
    broken_chain: "prev_state_root is not the state root of the commitment before it",
    wrong_state_root: "new_state_root does not chain",
    commitment_hole: "it starts at 6, the next one to commit was 1",
    commitment_beyond_head: "it covers 6 to 20, the head is 9",
    wrong_leaf_count: "leaf_count is 4, its range has 5",
    wrong_padding: "padded_leaf_count is 16, not 8",
    wrong_depth: "tree_depth is 4, not 3",
    wrong_leaves: "the leaf hashes shown for it are not those of its events",
    proof_of_another_index: "leaf_index is 9, not 1",
    proof_cut_short: "its path has 2 steps, the tree 3",
    proof_of_the_root_itself: "leaf_hash is not the leaf of this event",
    proof_of_another_leaf: "its path does not lead from this event",
    proof_with_wrong_sides: "its directions are not those of its index",
    acknowledged_but_lost: r"acknowledged event .*77.* is lost|acknowledged event .*4d \(number 10\) is lost",
    acknowledged_at_another_number: "it is now at number 1",
    acknowledged_with_another_receipt: "the stored receipt's sequencedAt differs",
    acknowledged_with_other_content: "its payload changed",
    acknowledged_with_another_command: "its command_id changed",
    row_differs: r"\(number 4\): the table's agent_signature is not the one shown",
    row_missing: "the table holds 8 numbers, the answers showed 9",
    row_gap: "the table's numbers are not 1 to their count",
    member_missing: "is not formed as the protocol says",
}


@pytest.mark.parametrize(("lie", "sentence"), LIES.items(), ids=[lie.__name__ for lie in LIES])
def test_a_planted_lie_is_found_and_named(honest: Honest, lie: Lie, sentence: str) -> None:
    evidence = copy.deepcopy(honest.evidence())
    lie(evidence)
    problems = audit(evidence)
    assert any(re.search(sentence, problem) for problem in problems), problems
    assert all(problem.startswith(f"stream {honest.tenant_id}/{honest.store_id}: ") for problem in problems)


def test_one_event_in_two_stores_of_a_tenant_is_found(honest: Honest) -> None:
    other = Honest(2)
    other.post({}, event_id=honest.events[0]["event_id"])
    other.commit()
    problems = audit_tenant([honest.evidence(), other.evidence()])
    assert [p for p in problems if "is in store" in p and honest.events[0]["event_id"] in p] == problems


def test_rows_as_the_database_gives_them_agree_with_the_answers(honest: Honest) -> None:
    evidence = copy.deepcopy(honest.evidence())
    evidence.rows = [
        event
        | {
            "event_id": uuid.UUID(event["event_id"]),
            "agent_signature": bytes.fromhex(event["agent_signature"].removeprefix("0x")),
            "payload_sealed": b"SSE1",
        }
        for event in evidence.events
    ]
    assert audit(evidence) == []
