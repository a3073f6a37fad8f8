"""Every link of an evidence file: it holds, it fails when anything it covers is changed, and a second
verifier that shares no line with the first says the same, link by link."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.auditor import evidence as auditor
from tests.auditor.rules import Malformed
from tests.evidence.making import ADDRESS, CHAIN_ID, CONTRACT, Made, make, trust_file
from tests.evidence.walking import changes
from transport.client.wire import TrustFile
from ves.commitments import state_root, stream_id
from ves.encoding import prefixed_hex, uuid_bytes
from ves.evidence import LINKS, ON_CHAIN, Trust, check, failed, missing
from ves.evidence_file import NotEvidence, read_evidence
from ves.merkle import node_hash

ROADS = pytest.mark.parametrize("road", ["aggregate", "single"])
VERDICTS = {"passed": True, "failed": False, "not checked": None}
UNCOVERED = {
    "said.sequenced_at",
    "said.committed_at",
    "said.anchor_state",
    "said.anchor_state_since",
}
"""What the server says and nothing can prove: the only members that may be changed unnoticed."""


def ours(raw: bytes, trust: Trust | None) -> dict[str, bool | None] | None:
    """By link; None: it is no evidence file."""
    try:
        evidence = read_evidence(raw)
    except NotEvidence:
        return None
    return {link.name: VERDICTS[link.verdict] for link in check(evidence, trust)}


def theirs(raw: bytes, trust: dict[str, Any] | None) -> dict[str, bool | None] | None:
    try:
        return auditor.audited(auditor.read(raw), trust)
    except Malformed:
        return None


def encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


@ROADS
def test_every_link_of_a_good_file_holds_and_the_chain_stays_to_be_asked(road: str) -> None:
    made = make(road=road)
    raw = msgspec.json.encode(made.evidence)
    found = check(read_evidence(raw), made.trust)
    assert [link.name for link in found] == list(LINKS)
    assert {link.name: link.verdict for link in found} == {
        name: "not checked" if name in ON_CHAIN else "passed" for name in LINKS
    }
    assert not failed(found)
    assert not missing(found)
    assert theirs(raw, trust_file(made.trust)) == ours(raw, made.trust)


@ROADS
def test_without_trust_nothing_fails_and_what_needs_it_is_missing(road: str) -> None:
    raw = msgspec.json.encode(make(road=road).evidence)
    found = check(read_evidence(raw), None)
    assert not failed(found)
    assert [link.name for link in missing(found)] == ["sequencer_key", "chain"]
    assert theirs(raw, None) == ours(raw, None)


@ROADS
def test_whatever_is_changed_is_noticed_by_both_verifiers_in_the_same_links(road: str) -> None:
    made = make(road=road)
    trust, listed = made.trust, trust_file(made.trust)
    whole = msgspec.json.decode(msgspec.json.encode(made.evidence))
    good, seen, unnoticed = ours(encoded(whole), trust), 0, set()
    for name, changed in changes(whole):
        raw = encoded(changed)
        found = ours(raw, trust)
        assert found == theirs(raw, listed), name
        assert found is None or found != good or name.split(" ")[0] in UNCOVERED, name
        if found is not None and False not in found.values():
            unnoticed.add(name)
        seen += 1
    assert seen > 130
    left_out = {f"{name} gone" for name in ("anchor", "commitment", "agent_key", "anchor.aggregate")}
    left_out |= {
        f"agent_key.{name} gone" for name in ("possession", "registration", "registration.committed")
    }
    assert {name for name in unnoticed if name.split(" ")[0] not in UNCOVERED} <= left_out
    assert unnoticed - left_out  # the walk does reach the members that nothing covers


@pytest.mark.parametrize("part", ["commitment", "anchor", "agent_key"])
def test_a_part_that_is_left_out_is_missing_and_no_failure(part: str) -> None:
    made = make()
    whole = msgspec.json.decode(msgspec.json.encode(made.evidence)) | {part: None}
    if part == "commitment":
        whole["anchor"] = None
    found = check(read_evidence(encoded(whole)), made.trust)
    assert not failed(found)
    assert missing(found)


def test_the_payload_may_be_left_out_and_is_then_not_judged() -> None:
    made = make(with_payload=False)
    raw = msgspec.json.encode(made.evidence)
    assert b'"payload":' not in raw
    found = check(read_evidence(raw), made.trust)
    assert [link.name for link in found if link.verdict != "passed"] == ["payload", *ON_CHAIN]
    assert not missing(found)


def _with(trust: Trust, **changed: Any) -> Trust:
    return msgspec.structs.replace(trust, **changed)


@pytest.mark.parametrize(
    ("link", "changed"),
    [
        ("chain", {"chain_id": CHAIN_ID + 1}),
        ("chain", {"contract": bytes(20)}),
        ("anchoring_account", {"anchoring_accounts": frozenset({CONTRACT})}),
        ("audit_root", {"audit_state_roots": frozenset({bytes(32)})}),
        ("agent_key", {"agent_keys": {(b"t" * 16, b"a" * 16, 1): bytes(32)}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_contradicts_the_trust_fails_in_its_link(link: str, changed: dict[str, Any]) -> None:
    made = make()
    found = check(made.evidence, _with(made.trust, **changed))
    assert [one.name for one in failed(found)] == [link]


def test_another_key_under_a_trusted_version_fails_and_an_unknown_sequencer_is_missing() -> None:
    made = make()
    ((name, _),) = made.trust.receipt_keys.items()
    found = check(made.evidence, _with(made.trust, receipt_keys={name: bytes(32)}))
    assert [link.name for link in failed(found)] == ["sequencer_key"]
    found = check(made.evidence, _with(made.trust, receipt_keys={(bytes(16), 1): bytes(32)}))
    assert [link.name for link in missing(found)] == ["sequencer_key"]


def test_evidence_for_another_contract_fails_even_if_its_log_is_there() -> None:
    """Whoever deploys the same code elsewhere can log whatever he likes; the leaf names the contract."""
    made = make()
    anchor = msgspec.structs.replace(made.evidence.anchor, contract="0x" + "22" * 20)  # type: ignore[type-var]
    found = check(msgspec.structs.replace(made.evidence, anchor=anchor), None)
    assert {"aggregate", "log", "transaction"} <= {link.name for link in failed(found)}


@pytest.mark.parametrize(
    ("link", "lie"),
    [
        ("agent_registration", {"action": "agent_key.revoke"}),
        ("log", {"status": 0}),
        ("transaction", {"value": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_liar_who_computes_every_hash_anew_fails_in_one_link(link: str, lie: dict[str, Any]) -> None:
    made = make(**lie)
    raw = msgspec.json.encode(made.evidence)
    assert [one.name for one in failed(check(read_evidence(raw), made.trust))] == [link]
    assert theirs(raw, trust_file(made.trust)) == ours(raw, made.trust)


def test_a_tree_deeper_than_its_leaves_need_is_no_tree() -> None:
    """Its maker can give every event two places in it."""
    made = make()
    whole = msgspec.json.decode(msgspec.json.encode(made.evidence)) | {"anchor": None}
    held, more = whole["commitment"], bytes(32)
    root = node_hash(bytes.fromhex(held["merkle_root"][2:]), more)
    held |= {"path": [*held["path"], prefixed_hex(more)], "merkle_root": prefixed_hex(root)}
    event = made.evidence.event
    stream = stream_id(uuid_bytes(event.tenant_id), uuid_bytes(event.store_id))
    held["new_state_root"] = prefixed_hex(state_root(stream, bytes(32), root, 1, 5, 5))
    assert [one.name for one in failed(check(read_evidence(encoded(whole)), made.trust))] == ["inclusion"]
    assert theirs(encoded(whole), trust_file(made.trust)) == ours(encoded(whole), made.trust)


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"details": 1}', "[" * 5000], ids=range(6))
def test_an_audit_entry_of_any_text_fails_in_its_link_and_breaks_nothing(text: str) -> None:
    made = make()
    whole = msgspec.json.decode(msgspec.json.encode(made.evidence))
    whole["agent_key"]["registration"]["text"] = text
    found = check(read_evidence(encoded(whole)), made.trust)
    assert [one.name for one in failed(found)] == ["agent_registration"]
    assert theirs(encoded(whole), trust_file(made.trust)) == ours(encoded(whole), made.trust)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "object"),
        (b'{"format":"VES-EVIDENCE-2"}', "VES-EVIDENCE-2"),
        (b'{"format":"VES-EVIDENCE-1","format":"VES-EVIDENCE-1"}', "format"),
        (b"[" * 100_000, "nested"),
        (b" " * (8 * 1024 * 1024 + 1), "bytes"),
        (b"\xff", "UTF-8"),
    ],
    ids=["empty", "list", "version", "doubled", "deep", "big", "encoding"],
)
def test_what_is_no_evidence_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(NotEvidence, match=why):
        read_evidence(raw)


def test_a_number_in_another_spelling_makes_it_no_evidence_file_for_both() -> None:
    made = make()
    raw = msgspec.json.encode(made.evidence)
    for spelled in (b'"version":2', b'"ves_version":1', b'"payload_kind":0', b'"leaf_count":5'):
        assert raw.count(spelled) == 1
        for other in (spelled + b".0", spelled + b"e0"):
            assert ours(raw.replace(spelled, other), made.trust) is None
            assert theirs(raw.replace(spelled, other), trust_file(made.trust)) is None


def test_a_trust_file_says_all_of_it_and_is_refused_where_it_is_misspelt() -> None:
    made = make()
    listed = trust_file(made.trust)
    read = msgspec.convert(listed, TrustFile).of_evidence()
    assert read == made.trust
    assert read.anchoring_accounts == {ADDRESS}
    for member, wrong in (
        ("contract", "0x12"),
        ("contract", None),
        ("anchoring_accounts", ["x"]),
        ("audit_state_roots", ["0x"]),
    ):
        with pytest.raises(ValueError, match=member):
            msgspec.convert(listed | {member: wrong}, TrustFile).of_evidence()


def test_making_is_deterministic() -> None:
    assert isinstance(make(), Made)
    assert make() == make()
