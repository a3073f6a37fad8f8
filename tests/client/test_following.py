"""An auditor who keeps looking: each lie is found and named, nothing honest is, a death costs nothing."""

from __future__ import annotations

import copy
import json
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.auditor import rules
from tests.client.watching import Auditor, Watched
from transport.client.errors import Unanswered
from transport.client.follow_anchors import NotFinalThere
from transport.client.follow_memory import Memory, StateRefused, history_path, read_state, records_of
from transport.client.follow_view import NotVouchedFor
from transport.client.wire import Stream, TrustedAgentKey, TrustFile, decode, encode
from ves.following import RECORD_BYTES, Verified
from ves.receipt_keys import rotation_statement

LIAR = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
EVENTS, COMMITMENTS = "/api/v1/ves/events", "/api/v1/ves/commitments"
WELL_KNOWN, HEAD = "/.well-known/ves-sequencer", "/api/v1/ves/head"
OTHER_HASH = "ab" * 32


def changed(place: int, **members: Any) -> Callable[[Watched], None]:
    """A commitment that was there before."""

    def lie(watched: Watched) -> None:
        commitments = watched.honest.commitments
        commitments[place] = commitments[place] | members

    return lie


def next_one(**members: Any) -> Callable[[Watched], None]:
    """A new commitment, with members that its events do not give it; consistent with itself otherwise."""

    def lie(watched: Watched) -> None:
        watched.grow(3)
        one = watched.honest.commitments[-1]
        leaves = watched.honest.leaves.pop(one["batch_id"])
        one |= {n: v(one) if callable(v) else v for n, v in members.items()}
        count = one["leaf_count"] = one["sequence_end"] - one["sequence_start"] + 1
        one |= {"tree_depth": (count - 1).bit_length(), "padded_leaf_count": rules.padded(count)}
        one["new_state_root"] = rules.state_root(
            one["tenant_id"],
            one["store_id"],
            bytes.fromhex(one["prev_state_root"]),
            bytes.fromhex(one["merkle_root"]),
            one["sequence_start"],
            one["sequence_end"],
        ).hex()
        watched.honest.leaves[one["batch_id"]] = leaves

    return lie


def shown(path: str, change: Callable[[Any], Any], grow: int = 3) -> Callable[[Watched], None]:
    """An answer is changed on its way."""

    def lie(watched: Watched) -> None:
        if grow:
            watched.grow(grow)
        watched.play.spoil[path] = lambda answer: change(copy.deepcopy(answer))

    return lie


def event(number: int, change: Callable[[Any], Any], grow: int = 3) -> Callable[[Watched], None]:
    """Wherever this event is shown; None: left out."""

    def page(answer: Any) -> Any:
        there = [change(e) if e["sequence_number"] == number else e for e in answer["events"]]
        return answer | {"events": [one for one in there if one is not None]}

    return shown(EVENTS, page, grow)


def resigned(one: Any, key: Ed25519PrivateKey) -> Any:
    signature = key.sign(bytes.fromhex(one["receipt"]["receiptHash"])).hex()
    return one | {"receipt": one["receipt"] | {"sequencerSignature": signature}}


def another(one: Any, watched_key: bytes = bytes([1]) * 32) -> Any:
    """Another event of the same agent at the same number, properly signed by it and by the sequencer."""
    honest = Watched().honest
    plain = honest.signed({**one, "entity_id": "another"})
    honest.head = one["sequence_number"] - 1
    return honest.accept({k: v for k, v in plain.items() if k not in ("receipt", "sequenced_at")})


def anchored(*states: str | None) -> Callable[[Any], Any]:
    def page(answer: Any) -> Any:
        for one, state in zip(answer["commitments"], states, strict=False):
            one["anchor"] = (
                None if state is None else {"state": state, "tx_hash": OTHER_HASH, "block_number": 7}
            )
        return answer

    return page


def ends_early(answer: Any) -> Any:
    """Only for whoever asks for the first ones again."""
    if answer["commitments"][0]["sequence_start"] > 1:
        return answer
    return answer | {"commitments": answer["commitments"][:1], "has_more": False}


def swapped(answer: Any) -> Any:
    keys = answer["receipt_keys"]
    keys[0]["public_key"] = "0x" + LIAR.public_key().public_bytes_raw().hex()
    return answer


def without_agents_key(watched: Watched) -> None:
    watched.agent_key = ""


def with_another_agents_key(watched: Watched) -> None:
    watched.agent_key = "0x" + LIAR.public_key().public_bytes_raw().hex()


def without_last_commitment(watched: Watched) -> None:
    watched.honest.commitments.pop()


def without_first_commitment(watched: Watched) -> None:
    watched.honest.commitments.pop(0)


def declares_void(watched: Watched) -> None:
    watched.honest.voided.append((7, 7))


def without_leaves(watched: Watched) -> None:
    watched.grow(2)
    watched.gone.add("/leaves")


def without_proofs(watched: Watched) -> None:
    watched.gone.add("/proofs/1")


def forks(watched: Watched) -> None:
    """A whole other continuation, signed and chained, from before the last commitment."""
    other = watched.forked_from(5)
    for n in range(4):
        other.honest.post({"other": n})
    other.honest.commit()
    watched.play.honest = watched.honest = other.honest


def forks_behind_what_was_seen(watched: Watched) -> None:
    """The verified commitments stay; the next one follows from another last one."""
    forks_at = watched.forked_from(5)
    forks_at.honest.post({"other": 1})
    for _ in range(2):
        forks_at.honest.post({"other": 2})
    forks_at.honest.commit()
    forks_at.grow(3)
    last = forks_at.honest.commitments[-1]
    kept = watched.honest.commitments[:3]
    watched.play.honest = watched.honest = forks_at.honest
    watched.honest.commitments = [*kept, last]


LIES: dict[str, tuple[str, Callable[[Watched], None]]] = {
    "an old commitment has another root": ("commitment_changed", changed(0, merkle_root=OTHER_HASH)),
    "an old commitment has another state": ("commitment_changed", changed(0, new_state_root=OTHER_HASH)),
    "an old commitment has another batch id": (
        "commitment_changed",
        changed(0, batch_id=str(uuid.UUID(int=5))),
    ),
    "an old commitment has another time": (
        "commitment_changed",
        changed(0, committed_at="2026-01-01T00:00:00Z"),
    ),
    "an old commitment ends earlier": ("commitment_changed", changed(0, sequence_end=3)),
    "the last commitment has another root": ("commitment_changed", changed(-1, merkle_root=OTHER_HASH)),
    "the last commitment is gone": ("commitment_gone", without_last_commitment),
    "an old commitment is gone": ("commitment_gone", without_first_commitment),
    "the list of old commitments ends early": ("commitment_gone", shown(COMMITMENTS, ends_early, 0)),
    "the stream is forked": ("commitment_changed", forks),
    "the stream goes on from another past": ("commitment_forked", forks_behind_what_was_seen),
    "the next commitment leaves a number out": ("commitment_gap", next_one(sequence_start=10)),
    "the next commitment holds numbers again": ("commitment_gap", next_one(sequence_start=8)),
    "the next commitment has a state of its own": (
        "commitment_false",
        lambda watched: (watched.grow(2), watched.honest.commitments[-1].update(new_state_root=OTHER_HASH))[
            0
        ],
    ),
    "the next commitment is another stream's": (
        "commitment_false",
        next_one(store_id=str(uuid.UUID(int=5))),
    ),
    "a batch id is used twice": ("batch_reused", next_one(batch_id=str(uuid.UUID(int=1001)))),
    "a commitment reaches beyond the head": ("head_behind", next_one(sequence_end=20)),
    "the leaves are others": ("leaves_false", next_one(merkle_root=OTHER_HASH)),
    "the leaves are withheld": ("leaves_false", without_leaves),
    "a new event is dropped": ("event_missing", event(10, lambda e: None)),
    "the last new event is dropped": ("event_missing", event(12, lambda e: None)),
    "a number is used twice": ("number_reused", event(10, lambda e: e | {"sequence_number": 9})),
    "another event stands at a committed number": ("event_changed", event(10, another)),
    "a payload is another one": ("event_false", event(10, lambda e: e | {"payload": {"n": 1000}})),
    "a receipt is signed by somebody else": ("event_false", event(10, lambda e: resigned(e, LIAR))),
    "an event is shown as another stream's": (
        "event_false",
        event(10, lambda e: e | {"store_id": str(uuid.UUID(int=5))}),
    ),
    "an old event is dropped": ("event_missing", event(1, lambda e: None, 0)),
    "an old event is another one": ("event_false", event(1, another, 0)),
    "an old proof is withheld": ("event_missing", without_proofs),
    "the receipt key is another one": ("receipt_keys", shown(WELL_KNOWN, swapped)),
    "the receipt key is gone": ("receipt_keys", shown(WELL_KNOWN, lambda a: a | {"receipt_keys": []})),
    "an agent's key is another one": ("agent_key_changed", with_another_agents_key),
    "an agent's key is gone": ("agent_key_changed", without_agents_key),
    "the head falls": ("head_fell", shown(HEAD, lambda a: a | {"head_sequence": 8}, 0)),
    "verified numbers are declared void": ("voided_changed", declares_void),
    "a final anchor is gone": ("anchor_unfinalized", shown(COMMITMENTS, anchored(None), 0)),
    "a final anchor is only safe": ("anchor_unfinalized", shown(COMMITMENTS, anchored("safe"), 0)),
}


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def auditor(tmp_path: Path, watched: Watched) -> Auditor:
    return Auditor(tmp_path, watched)


@pytest.mark.parametrize("lie", LIES)
async def test_each_lie_about_what_was_verified_is_found_and_named(
    auditor: Auditor, watched: Watched, lie: str
) -> None:
    watched.play.spoil[COMMITMENTS] = anchored("finalized")
    first = await auditor.looks()
    assert (first.commitments, first.events, first.signatures) == (3, 8, 8)
    assert auditor.remembers().state.finalized_through == 1
    kind, tell = LIES[lie]
    tell(watched)
    found = await auditor.finds()
    assert found.kind == kind, found.text
    assert found.text in auditor.path.read_text()
    # Nothing was verified beyond the lie, and what was verified before is what counts.
    again = auditor.remembers()
    assert next(records_of(auditor.path, again.seen)).commitment.sequence_end == 4
    assert again.seen.count in (3, 4)


@pytest.mark.parametrize(
    "lie", ["an old commitment has another root", "the head falls", "the stream is forked"]
)
async def test_both_versions_are_kept_as_evidence(auditor: Auditor, watched: Watched, lie: str) -> None:
    await auditor.looks()
    LIES[lie][1](watched)
    found = await auditor.finds()
    before, now = json.loads(bytes(found.verified)), json.loads(bytes(found.shown))
    member = "head_sequence" if "head" in lie else "merkle_root"
    assert before[member] != now[member]
    assert found.url == watched.origin
    assert found.first is not None


async def test_acknowledged_is_not_adopted(auditor: Auditor, watched: Watched) -> None:
    """Whoever goes on after a contradiction goes on from what he verified."""
    await auditor.looks()
    root = watched.honest.commitments[0]["merkle_root"]
    changed(0, merkle_root=OTHER_HASH)(watched)
    await auditor.finds()
    memory = Memory.open(auditor.path, watched.stream, watched.origin)
    assert memory is not None
    assert memory.acknowledge() == 1
    memory.close()
    assert (await auditor.finds()).kind == "commitment_changed"
    assert [f.acknowledged for f in read_state(auditor.path).findings] == [True, False]
    changed(0, merkle_root=root)(watched)
    assert (await auditor.looks()).commitments == 0


async def test_what_is_honest_is_never_called_a_lie(auditor: Auditor, watched: Watched) -> None:
    """Growth, void numbers, a new receipt key, anchors that a reorganisation takes back, and any chance."""
    for turn in range(6):
        auditor.chance = lambda below, turn=turn: (below - 1 + turn) % below
        found = await auditor.looks(anchor_within_s=36_000)
        assert found.alerts == []
        watched.play.spoil[COMMITMENTS] = anchored(*["finalized"] * turn, "included", "submitted")
        if turn == 2:
            watched.grow(1)  # what waited must be committed before numbers are void
            watched.honest.give_up(3)
        watched.grow(turn)
        watched.honest.post({"n": "waits"})
        if turn == 3:
            rotated(watched)
    assert (found.commitments, found.events) == (1, 5)
    state = auditor.remembers().state
    assert (state.voided, len(state.receipt_keys)) == ([(14, 16)], 2)
    assert state.finalized_through > 3


def rotated(watched: Watched) -> None:
    """A new key signs from now on, vouched for by the one before."""
    honest, old, new = watched.honest, watched.honest.sequencer_key, Ed25519PrivateKey.generate()
    public = new.public_key().public_bytes_raw()
    signature = old.sign(rotation_statement(uuid.UUID(honest.sequencer_id).bytes, 2, public)).hex()
    document = watched.play.well_known()
    entry = document["receipt_keys"][0] | {"key_version": 2, "public_key": "0x" + public.hex()}
    document["receipt_keys"].append(entry | {"previous_signature": "0x" + signature})
    watched.play.spoil[WELL_KNOWN] = lambda answer: document
    accept = honest.accept

    def accepted(event: Any) -> Any:
        stored = accept(event)
        if stored["receipt"]["sequencerKeyVersion"] == 1:
            stored["receipt"]["sequencerKeyVersion"] = 2
        return stored

    honest.sequencer_key, honest.accept = new, accepted


async def test_an_anchor_that_is_taken_back_before_it_is_final_is_told_and_no_lie(
    auditor: Auditor, watched: Watched
) -> None:
    watched.play.spoil[COMMITMENTS] = anchored("included")
    await auditor.looks()
    watched.play.spoil[COMMITMENTS] = anchored("pending")
    [told] = (await auditor.looks()).notices
    assert "was included and is pending now" in told


async def test_an_anchor_that_is_withheld_is_an_alert_once_it_is_late(
    auditor: Auditor, watched: Watched
) -> None:
    """Committed at 00:02, looked at from 01:00 on."""
    assert (await auditor.looks(anchor_within_s=3600)).alerts == []
    late = await auditor.looks(anchor_within_s=3000)
    assert len(late.alerts) == 3
    assert "3480 s" in late.alerts[0]
    assert "no anchor holds it" in late.alerts[0]
    watched.play.spoil[COMMITMENTS] = anchored("finalized", "finalized", "safe")
    assert len((await auditor.looks(anchor_within_s=3000)).alerts) == 1


class NotYet:
    """A chain that does not call final what the server does, until it does."""

    final = False

    async def contradiction(self, verified: Verified) -> None:
        if not self.final:
            raise NotFinalThere("the chain does not")


async def test_final_is_what_the_chain_calls_final_where_there_is_one_to_ask(
    auditor: Auditor, watched: Watched
) -> None:
    watched.play.spoil[COMMITMENTS] = anchored("finalized", "finalized", "finalized")
    chain: Any = NotYet()
    early = await auditor.looks(chain=chain)
    assert (early.on_chain, early.notices[0], early.alerts) == (0, "the chain does not", [])
    assert auditor.remembers().state.finalized_through == 0
    chain.final = True
    assert (await auditor.looks(chain=chain)).on_chain == 3
    assert auditor.remembers().state.finalized_through == 3


async def test_a_stranger_among_the_receipt_keys_is_no_lie_and_verified_no_further(
    auditor: Auditor, watched: Watched
) -> None:
    """A new node has a new key, and so has whoever pretends to be one."""
    await auditor.looks()
    watched.honest.sequencer_id, watched.honest.sequencer_key = str(uuid.UUID(int=11)), LIAR
    watched.grow(1)
    known = Watched().play.well_known()
    both = known | {"receipt_keys": known["receipt_keys"] + watched.play.well_known()["receipt_keys"]}
    watched.play.spoil[WELL_KNOWN] = lambda answer: both
    with pytest.raises(NotVouchedFor, match="name it with --trust"):
        await auditor.looks()
    assert auditor.remembers().seen.count == 3


async def test_agents_keys_of_a_trust_file_are_the_only_ones(auditor: Auditor, watched: Watched) -> None:
    honest = watched.honest
    listed = encode(watched.play.well_known())
    believed = decode(listed, TrustFile, "")
    stranger = TrustedAgentKey(honest.tenant_id, honest.agent_id, 1, "0x" + "11" * 32)
    with_stranger = decode(encode({**json.loads(listed), "agent_keys": [stranger]}), TrustFile, "")
    assert (await auditor.looks(believed)).commitments == 3
    other = Auditor(auditor.path.parent, watched, "other.json")
    found = await other.finds(trust=with_stranger)
    assert found.kind == "event_false"
    assert "the agent's key did not sign" in found.text or "agent" in found.text


async def test_a_sample_verifies_all_leaves_and_some_signatures(auditor: Auditor, watched: Watched) -> None:
    watched.grow(10)
    found = await auditor.looks(sample=2)
    assert (found.events, found.signatures) == (19, 2 + 1 + 2 + 2)
    assert auditor.remembers().state.events_sampled
    # A leaf that is wrong is found without its signature being looked at.
    watched.grow(10)
    event(25, another, 0)(watched)
    assert (await auditor.finds(sample=2)).kind == "event_changed"


# ---- another address, another auditor -------------------------------------------------------------------


async def test_a_second_address_with_another_history_is_a_split_view_with_two_receipts(
    auditor: Auditor, watched: Watched
) -> None:
    other: Any = watched.forked_from(5)
    other.honest.post({"other": 1})
    other.grow(2)
    found = await auditor.finds(also=[other])
    assert found.kind == "split_view"
    assert "two receipts give number 6 to two events" in found.text
    assert (found.first, found.url) == (6, "http://other")
    ours, theirs = json.loads(bytes(found.verified)), json.loads(bytes(found.shown))
    for one in (ours, theirs):  # both are signed by the same sequencer for the same number
        hashed = rules.receipt_hash(one, 6)
        signature = bytes.fromhex(one["receipt"]["sequencerSignature"])
        watched.honest.sequencer_key.public_key().verify(signature, hashed)
    assert ours["event_signing_hash"] != theirs["event_signing_hash"]


async def test_a_second_address_that_is_behind_is_told_and_no_lie(auditor: Auditor, watched: Watched) -> None:
    other: Any = watched.forked_from(5)
    [told] = (await auditor.looks(also=[other])).notices
    assert told == "http://other is behind: it shows 2 of 3 commitments"


# ---- the files ------------------------------------------------------------------------------------------


async def test_a_look_that_dies_at_any_question_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.client.following.SAVE_EVERY_S", 0.0)
    whole = Auditor(tmp_path, Watched(), "whole.json")
    await whole.looks()
    questions = 10**9 - whole.watched.answers_left
    ends = set()
    for answers in range(1, questions):
        auditor = Auditor(tmp_path, Watched(answers_left=answers), f"{answers}.json")
        with pytest.raises(Unanswered):
            await auditor.looks()
        ends.add(auditor.remembers().seen.count)
        auditor.watched.answers_left = 10**9
        await auditor.looks()
        assert history_path(auditor.path).read_bytes() == history_path(whole.path).read_bytes()
        assert auditor.remembers().seen == whole.remembers().seen
    assert ends == {0, 1, 2, 3}


async def test_records_of_a_dead_run_are_cut_off(auditor: Auditor, watched: Watched) -> None:
    """It died between the records and the file that counts them."""
    await auditor.looks()
    good, state = history_path(auditor.path).read_bytes(), auditor.path.read_bytes()
    watched.grow(2)
    await auditor.looks()
    longer = history_path(auditor.path).read_bytes()
    assert longer[: len(good)] == good
    auditor.path.write_bytes(state)
    history_path(auditor.path).write_bytes(longer[:-7])
    auditor.remembers()
    assert history_path(auditor.path).read_bytes() == good
    assert (await auditor.looks()).commitments == 1
    assert history_path(auditor.path).read_bytes() == longer


async def test_files_that_do_not_fit_are_refused_and_left(auditor: Auditor, watched: Watched) -> None:
    await auditor.looks()
    good, records = auditor.path.read_bytes(), history_path(auditor.path).read_bytes()
    assert stat.S_IMODE(auditor.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(history_path(auditor.path).stat().st_mode) == 0o600
    newer = good.replace(b"ves-audit-follow-1", b"ves-audit-follow-2")
    flipped = bytes([records[0] ^ 1]) + records[1:]
    for state, history, why in [
        (newer, records, "has the format 'ves-audit-follow-2', this program reads ves-audit-follow-1"),
        (b"{}", records, "has the format ''"),
        (good[:-20], records, "is damaged"),
        (good, flipped, "is not the one that"),
        (good, records[:-1], "is damaged: it ends"),
        (good, records[:RECORD_BYTES], "it ends after 1 commitments, 3 were verified"),
    ]:
        auditor.path.write_bytes(state)
        history_path(auditor.path).write_bytes(history)
        with pytest.raises(StateRefused, match=why):
            await auditor.looks()
        assert (auditor.path.read_bytes(), history_path(auditor.path).read_bytes()) == (state, history)
    auditor.path.unlink()
    with pytest.raises(StateRefused, match="bring it back"):
        await auditor.looks()


async def test_a_state_is_of_one_stream_one_address_and_one_follower(
    auditor: Auditor, watched: Watched
) -> None:
    await auditor.looks()
    stream, origin = watched.stream, watched.origin
    elsewhere = Stream(stream.tenant_id, uuid.UUID(int=77).bytes)
    with pytest.raises(StateRefused, match="is of the stream"):
        Memory.open(auditor.path, elsewhere, origin)
    with pytest.raises(StateRefused, match="say --moved"):
        Memory.open(auditor.path, stream, "http://moved")
    memory = Memory.open(auditor.path, stream, "http://moved", moved=True)
    assert memory is not None
    with pytest.raises(StateRefused, match="another audit follow works on"):
        Memory.open(auditor.path, stream, origin, moved=True)
    memory.save()
    memory.close()
    assert read_state(auditor.path).origin == "http://moved"


async def test_the_records_give_back_what_was_verified(auditor: Auditor, watched: Watched) -> None:
    await auditor.looks()
    memory = auditor.remembers()
    kept = [verified.commitment for verified in records_of(auditor.path, memory.seen)]
    assert [c.merkle_root.hex() for c in kept] == [c["merkle_root"] for c in watched.honest.commitments]
    assert [c.prev_state_root.hex() for c in kept] == [
        c["prev_state_root"] for c in watched.honest.commitments
    ]
    assert len(history_path(auditor.path).read_bytes()) == 3 * RECORD_BYTES
