"""Whatever is sent in whatever order, each stream on the chain is one unbroken history."""

from __future__ import annotations

from collections import defaultdict

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.on_chain import OnChain, history
from ves import anchor_calls as calls
from ves.commitments import state_root, stream_id
from ves.records import Commitment, Uuid

STREAMS = {name: history(name, 1, 4, 2, 3) for name in ("a", "b", "c")}
FIELDS = ("batch_id", "merkle_root", "new_state_root", "sequence_start", "sequence_end", "leaf_count")


class Model:
    """The rules again, as a reader of docs/contract.md would write them."""

    def __init__(self) -> None:
        self.batches: dict[Uuid, Commitment] = {}
        self.last: defaultdict[tuple[Uuid, Uuid], tuple[int, bytes]] = defaultdict(lambda: (0, bytes(32)))

    def next_root(self, one: Commitment) -> bytes:
        stream, (_, root) = (one.tenant_id, one.store_id), self.last[one.tenant_id, one.store_id]
        span = (one.sequence_start, one.sequence_end, one.leaf_count)
        return state_root(stream_id(*stream), root, one.merkle_root, *span)

    def takes(self, one: Commitment) -> bool:
        latest, _ = self.last[one.tenant_id, one.store_id]
        span = (one.sequence_start, one.sequence_end, one.leaf_count)
        follows = one.sequence_start == latest + 1 and span[2] == span[1] - span[0] + 1 > 0
        right = one.new_state_root == self.next_root(one)
        if one.batch_id in self.batches or not follows or not right:
            return False
        self.batches[one.batch_id] = one
        self.last[one.tenant_id, one.store_id] = (one.sequence_end, one.new_state_root)
        return True


@st.composite
def sent(draw: st.DrawFn) -> tuple[Commitment, bool]:
    """A true commitment, often; else one with a member of another, maybe of another stream. And whether its
    state root is computed anew when it is sent, as a sequencer would that tells another history."""
    one = draw(st.sampled_from(STREAMS[draw(st.sampled_from(sorted(STREAMS)))]))
    if draw(st.booleans()):
        return one, False
    other = draw(st.sampled_from([c for stream in STREAMS.values() for c in stream]))
    field = draw(st.sampled_from(FIELDS))
    return msgspec.structs.replace(one, **{field: getattr(other, field)}), draw(st.booleans())


def test_every_stream_on_the_chain_is_one_unbroken_history(contract: OnChain) -> None:
    @settings(max_examples=12, deadline=None, database=None)
    @given(st.lists(sent(), min_size=8, max_size=25))
    def law(all_sent: list[tuple[Commitment, bool]]) -> None:
        before, model = contract.chain.rpc("evm_snapshot"), Model()
        for told, forged in all_sent:
            root = model.next_root(told) if forged else told.new_state_root
            one = msgspec.structs.replace(told, new_state_root=root)
            reason = contract.refusal(calls.anchor(one))
            assert (reason == "") == model.takes(one), reason
            if not reason:
                contract.send(calls.anchor(one))
        for (tenant, store), (latest, last_root) in model.last.items():
            there = contract.ask(calls.get_latest_sequence(tenant, store))
            assert calls.read_number(there, bits=64) == latest
            assert calls.read_hash(contract.ask(calls.get_latest_state_root(tenant, store))) == last_root
        for batch_id, one in model.batches.items():
            assert calls.read_commitment(contract.ask(calls.get_commitment(batch_id))).state_root == (
                one.new_state_root
            )
        assert calls.read_number(contract.ask(calls.ANCHORED_COUNT)) == len(model.batches)
        assert contract.chain.rpc("evm_revert", before)

    law()
