"""Laws of following a stream: honest growth is never called a lie, no change to what was verified passes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.constants import ZERO_HASH
from ves.following import (
    ANCHOR_STATES,
    RECORD_BYTES,
    AnchorSeen,
    LastReceipt,
    Seen,
    Verified,
    advance,
    anchor_fell,
    beyond_voided,
    head_line,
    history_after,
    judge_again,
    judge_anchor,
    judge_head,
    judge_next,
    look,
    read_head_line,
    receipts_conflict,
    record_of,
    verified_of,
)
from ves.merkle import padded_leaf_count, tree_depth
from ves.proofs import state_root, stream_id
from ves.records import Commitment

TENANT, STORE = bytes([1]) * 16, bytes([2]) * 16
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


class Server:
    """Commits batches of these sizes; before each as many numbers are void as ``voids`` says."""

    def __init__(self) -> None:
        self.head = 0
        self.voided: list[tuple[int, int]] = []
        self.commitments: list[Commitment] = []

    def commit(self, size: int, voids: int = 0) -> Commitment:
        if voids:
            self.voided.append((self.head + 1, self.head + voids))
            self.head += voids
        start, end = self.head + 1, self.head + size
        before = self.commitments[-1].new_state_root if self.commitments else ZERO_HASH
        root = bytes([len(self.commitments) % 251 + 1]) * 32
        one = Commitment(
            batch_id=len(self.commitments).to_bytes(16, "big"),
            tenant_id=TENANT,
            store_id=STORE,
            ves_version=1,
            tree_depth=tree_depth(size),
            leaf_count=size,
            padded_leaf_count=padded_leaf_count(size),
            merkle_root=root,
            prev_state_root=before,
            new_state_root=state_root(stream_id(TENANT, STORE), before, root, start, end, size),
            sequence_start=start,
            sequence_end=end,
            committed_at_us=1_000_000 + len(self.commitments),
        )
        self.head = end
        self.commitments.append(one)
        return one


def verified(commitment: Commitment) -> Verified:
    number = commitment.sequence_end.to_bytes(16, "big")
    return Verified(commitment, LastReceipt(number, number * 2, bytes(16), 1, number * 4))


def followed(server: Server) -> tuple[Seen, list[Verified]]:
    """An auditor who sees each commitment as it comes; asserts that he has nothing against any."""
    seen, kept = Seen(TENANT, STORE), []
    assert judge_head(seen, server.head, server.voided) == []
    seen = look(seen, server.head, server.voided)
    for one in server.commitments:
        assert judge_next(seen, one, batch_is_new=True) == []
        kept.append(verified(one))
        seen = advance(seen, kept[-1])
    return seen, kept


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=12))
def test_honest_growth_is_never_called_a_lie(steps: list[tuple[int, int]]) -> None:
    server, seen, kept = Server(), Seen(TENANT, STORE), []
    for size, voids in steps:
        one = server.commit(size, voids)
        assert judge_head(seen, server.head, server.voided) == []
        seen = look(seen, server.head, server.voided)
        assert judge_next(seen, one, batch_is_new=True) == []
        kept.append(verified(one))
        seen = advance(seen, kept[-1])
        assert all(judge_again(old, old.commitment) == [] for old in kept)
    assert (seen.count, seen.sequence_end) == (len(steps), server.head)


CHANGES: dict[str, Any] = {
    "batch_id": bytes([9]) * 16,
    "tenant_id": bytes([9]) * 16,
    "store_id": bytes([9]) * 16,
    "ves_version": 2,
    "tree_depth": 40,
    "leaf_count": 77,
    "padded_leaf_count": 128,
    "merkle_root": bytes([255]) * 32,
    "prev_state_root": bytes([255]) * 32,
    "new_state_root": bytes([255]) * 32,
    "sequence_start": 10_000,
    "sequence_end": 10_000,
    "committed_at_us": 5,
}


@given(sizes=SIZES, place=st.integers(0, 11), member=st.sampled_from(sorted(CHANGES)))
def test_any_single_change_is_noticed_when_its_commitment_is_looked_at_again(
    sizes: list[int], place: int, member: str
) -> None:
    server = Server()
    for size in sizes:
        server.commit(size)
    _, kept = followed(server)
    one = kept[place % len(kept)]
    lie = msgspec.structs.replace(one.commitment, **{member: CHANGES[member]})
    [wrong] = judge_again(one, lie)
    assert wrong.kind == "commitment_changed"
    assert wrong.text.endswith(f"otherwise now: {member}")
    [gone] = judge_again(one, None)
    assert gone.kind == "commitment_gone"


def test_every_member_of_a_commitment_has_a_change() -> None:
    assert set(CHANGES) == set(Commitment.__struct_fields__)


@given(sizes=SIZES, place=st.integers(0, 10), root=st.binary(min_size=32, max_size=32))
def test_a_rewritten_past_cannot_be_gone_on_from(sizes: list[int], place: int, root: bytes) -> None:
    """Everything from ``place`` on recomputed honestly under another root: what follows is of that past."""
    server = Server()
    for size in [*sizes, 1]:
        server.commit(size)
    seen, kept = followed(server)
    place %= len(kept)
    if root == kept[place].commitment.merkle_root:
        return
    forged, before = [], kept[place].commitment.prev_state_root
    for old in (k.commitment for k in kept[place:]):
        new_root = root if not forged else old.merkle_root
        state = state_root(
            stream_id(TENANT, STORE), before, new_root, old.sequence_start, old.sequence_end, old.leaf_count
        )
        forged.append(
            msgspec.structs.replace(old, merkle_root=new_root, prev_state_root=before, new_state_root=state)
        )
        before = state
    for old, new in zip(kept[place:], forged, strict=True):
        assert judge_again(old, new) != []
    server.commitments[place:] = forged
    after = server.commit(3)
    kinds = [wrong.kind for wrong in judge_next(look(seen, server.head, []), after, batch_is_new=True)]
    assert kinds == ["commitment_forked"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"sequence_start": 5}, "commitment_gap"),
        ({"sequence_start": 3}, "commitment_gap"),
        ({"prev_state_root": bytes([7]) * 32}, "commitment_forked"),
        ({"merkle_root": bytes([7]) * 32}, "commitment_false"),
        ({"store_id": bytes([7]) * 16}, "commitment_false"),
        ({"leaf_count": 4}, "commitment_false"),
    ],
    ids=["gap", "twice", "forked", "root", "stream", "count"],
)
def test_what_does_not_go_on_from_what_was_verified_is_named(change: dict[str, Any], kind: str) -> None:
    server = Server()
    server.commit(3)
    seen, _ = followed(server)
    one = msgspec.structs.replace(server.commit(3), **change)
    kinds = [wrong.kind for wrong in judge_next(look(seen, server.head, []), one, batch_is_new=True)]
    assert kind in kinds
    assert judge_next(look(seen, server.head, []), server.commitments[-1], batch_is_new=False)[0].kind == (
        "batch_reused"
    )
    assert judge_next(seen, server.commitments[-1], batch_is_new=True)[0].kind == "head_behind"


@given(sizes=SIZES, fall=st.integers(1, 5))
def test_a_head_that_falls_and_voids_that_move_are_noticed(sizes: list[int], fall: int) -> None:
    server = Server()
    for size in sizes:
        server.commit(size, voids=2)
    seen, _ = followed(server)
    assert [w.kind for w in judge_head(seen, server.head - fall, server.voided)] == ["head_fell"]
    assert [w.kind for w in judge_head(seen, server.head, server.voided[1:])] == ["voided_changed"]
    over = [*server.voided, (server.head, server.head)]
    assert [w.kind for w in judge_head(seen, server.head, over)] == ["voided_changed"]
    assert judge_head(seen, server.head + 9, [*server.voided, (server.head + 1, server.head + 9)]) == []


@given(st.lists(st.sampled_from(["", *ANCHOR_STATES, "reported"]), min_size=2, max_size=8))
def test_only_what_was_final_must_stay(states: list[str]) -> None:
    server = Server()
    of = server.commit(1)
    for before, now in pairwise(states):
        was, is_now = (AnchorSeen(state, "tx", 1, "block") for state in (before, now))
        contradicted = judge_anchor(of, was, is_now) is not None
        assert contradicted == (before == "finalized" and now != "finalized")
        assert not (contradicted and anchor_fell(was, is_now))
    moved = AnchorSeen("finalized", "tx", 2, "other block")
    assert judge_anchor(of, AnchorSeen("finalized", "tx", 1, "block"), moved) is not None
    assert judge_anchor(of, AnchorSeen("finalized"), moved) is None
    assert anchor_fell(AnchorSeen("included", "tx", 1, "block"), moved)


@given(sizes=SIZES)
def test_records_and_lines_give_back_what_they_were_made_of(sizes: list[int]) -> None:
    server = Server()
    for size in sizes:
        server.commit(size)
    seen, kept = followed(server)
    history, before = ZERO_HASH, ZERO_HASH
    for one in kept:
        record = record_of(one)
        assert len(record) == RECORD_BYTES
        assert verified_of(record, TENANT, STORE, before) == one
        history, before = history_after(history, record), one.commitment.new_state_root
    assert history == seen.history
    line = read_head_line(head_line(seen))
    assert (line.count, line.history, line.sequence_end, line.state_root) == (
        seen.count,
        seen.history,
        seen.sequence_end,
        seen.state_root,
    )


@pytest.mark.parametrize(
    "line", ["", "ves-audit-head-2 x", "ves-audit-head-1 " + "a" * 36], ids=["none", "newer", "cut"]
)
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no line of audit head"):
        read_head_line(line)


@given(st.binary(min_size=RECORD_BYTES - 1, max_size=RECORD_BYTES + 1))
def test_bytes_that_are_no_record_are_refused_or_read(raw: bytes) -> None:
    try:
        one = verified_of(raw, TENANT, STORE, ZERO_HASH)
    except ValueError:
        return
    assert record_of(one) == raw


def test_two_receipts_convict_only_for_one_number_and_two_events() -> None:
    server = Server()
    one, two = verified(server.commit(2)), verified(server.commit(2))
    assert not receipts_conflict(one, one)
    assert not receipts_conflict(one, two)
    receipt = msgspec.structs.replace(one.last_receipt, event_id=bytes([9]) * 16)
    assert receipts_conflict(one, msgspec.structs.replace(one, last_receipt=receipt))


def test_void_numbers_are_stepped_over_in_any_order() -> None:
    assert beyond_voided(3, [(5, 6), (3, 4)]) == 7
    assert beyond_voided(1, [(3, 4)]) == 1
