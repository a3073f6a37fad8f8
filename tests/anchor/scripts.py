"""Fault scripts: what may happen to anchors, their chain and their journal, in any order; and what must be so
once it has been quiet for a while.

A step is a plain value, so that a failing script is printed as what happened. ``play`` does the steps,
``rest`` takes every fault away and lets time pass, ``check`` judges by the chain and the rows alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from hypothesis import strategies as st

from actors.faults import Fault, arm, disarm_all
from tests.anchor.memory_chain import CONTRACT, ETHER, GWEI
from tests.anchor.worlds import ADDRESS, Node, World, living, policy
from ves.anchor_calls import anchor, anchor_many
from ves.anchor_transactions import decode_transaction
from ves.anchoring import aggregate_head, aggregate_root, anchor_leaf
from ves.constants import ZERO_HASH

POINTS = [
    *(f"anchor.{name}" for name in ("claimed", "planned", "signed", "written", "sent", "submitted")),
    *(f"anchor.{name}" for name in ("included", "safe", "finalized", "replacing")),
    *(
        f"anchor_{unit}.{where}"
        for unit in ("plan", "transaction", "move", "lease")
        for where in ("commit_sent_before", "committed")
    ),
]
UNITS = ["anchor_plan", "anchor_transaction", "anchor_move", "anchor_lease", "read_open", "standing"]
MEANT = ("InjectedFault", "JournalOutcomeUnknown")
"""How a life may end; whatever else ends one is a mistake of ours."""
QUIET_BLOCKS = 120

ENDINGS = ["away", "lost", "unheard"]
NODES = st.integers(1, 2)
FOR_STEPS = st.integers(1, 3)
COMMIT = st.tuples(st.just("commit"), st.integers(1, 4), st.integers(1, 3), st.booleans())
CHAIN = st.one_of(
    st.tuples(st.just("reorg"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("drop")),
    st.tuples(st.just("reorg"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("base fee"), st.sampled_from([1, 5, 40, 90, 150])),
    st.tuples(st.just("pause"), FOR_STEPS),
    st.tuples(st.just("refuse next")),
    st.tuples(st.just("poor"), FOR_STEPS),
)
ENDPOINT = st.one_of(
    st.tuples(st.just("rpc"), NODES, st.integers(0, 12), st.sampled_from(["away", "away after", "lies"])),
    st.tuples(st.just("rpc"), NODES, st.integers(0, 12), st.sampled_from(["away after", "another chain"])),
    st.tuples(st.just("rpc away"), FOR_STEPS, NODES),
    st.tuples(st.just("lag"), NODES, st.integers(0, 3)),
    st.tuples(st.just("slow"), NODES, st.sampled_from([0.0, 0.5, 3.0, 8.0])),
)
LIFE = st.one_of(
    st.tuples(st.just("crash"), st.sampled_from(POINTS), st.integers(1, 2)),
    st.tuples(st.just("kill"), NODES),
    st.tuples(st.just("signer away"), FOR_STEPS, NODES),
)
JOURNAL = st.one_of(
    st.tuples(st.just("journal"), NODES, st.sampled_from(UNITS), st.sampled_from(ENDINGS)),
    st.tuples(st.just("journal"), NODES, st.sampled_from(UNITS), st.sampled_from(ENDINGS)),
    st.tuples(st.just("journal away"), FOR_STEPS),
)
AFTERWARDS = st.sampled_from([(0, 0), (1, 0), (5, 0), (5, 1), (12, 1), (12, 1), (24, 2), (70, 0), (70, 5)])
"""So many seconds, in which so many blocks are mined."""
SCRIPTS = st.lists(
    st.tuples(st.one_of(COMMIT, CHAIN, LIFE, COMMIT, ENDPOINT, JOURNAL), AFTERWARDS), min_size=12, max_size=40
)


Script = list[tuple[tuple[Any, ...], tuple[int, int]]]


class Play:
    def __init__(self, road: str, nodes: int) -> None:
        from actors.faults import checkpoint

        self.world = World(checkpoint=checkpoint)
        self.budget = ETHER // 2
        self.nodes = [
            self.world.node(number, policy=policy(road=road, budget_per_day=self.budget))
            for number in range(1, nodes + 1)
        ]
        self.world.chain.on_take = self._taken
        self.unwritten: list[bytes] = []
        self.deepest_pool = 0
        self.reorganised = False
        self.hits: Counter[str] = Counter()
        self._step = 0
        self._outages: list[tuple[int, Callable[[], None]]] = []

    def _taken(self, raw: bytes) -> None:
        """At the very moment that an endpoint is shown a transaction."""
        if raw not in [one.raw for one in self.world.database.anchors.transactions]:
            self.unwritten.append(raw)

    async def play(self, script: Script) -> None:
        disarm_all()
        try:
            async with living(*self.nodes):
                self.world.commit(ask=True)
                for step, (seconds, blocks) in script:
                    self._end_outages()
                    self._do(*step)
                    self.hits[step[0]] += 1
                    for _ in range(blocks):
                        await self._wait(seconds / (blocks + 1))
                        self.world.chain.mine()
                    await self._wait(seconds / (blocks + 1))
                await self._rest()
        finally:
            disarm_all()

    async def _wait(self, seconds: float) -> None:
        await trio.sleep(seconds)
        nonces = {decode_transaction(raw).unsigned.nonce for raw in self.world.chain.pool.values()}
        self.deepest_pool = max(self.deepest_pool, len(nonces))

    def _node(self, number: int) -> Node:
        return self.nodes[min(number, len(self.nodes)) - 1]

    def _do(self, what: str, *how: Any) -> None:
        chain = self.world.chain
        match what, *how:
            case "commit", store, events, ask:
                self.world.commit(store, events=events, ask=ask)
            case "reorg", depth, back:
                self.reorganised = True
                chain.reorg(depth, back_to_pool=back)
            case ("drop",):
                chain.drop_pool()
            case "base fee", gwei:
                chain.base_fee = gwei * GWEI
            case "pause", steps:
                chain.set_paused(True)
                self._until(steps, lambda: chain.set_paused(False))
            case ("refuse next",):
                chain.refuse_next = "Paused"
            case "rpc", node, after, fault:
                self._node(node).endpoint.faults.extend([*[None] * after, fault])
            case "rpc away", steps, node:
                endpoint = self._node(node).endpoint
                endpoint.away = True
                self._until(steps, lambda: setattr(endpoint, "away", False))
            case "lag", node, blocks:
                self._node(node).endpoint.lag = blocks
            case "slow", node, seconds:
                self._node(node).endpoint.latency_s = seconds
            case "crash", point, nth:
                arm(point, Fault("crash", nth=nth))
            case "kill", node:
                self._node(node).kill()
            case "journal", node, unit, fault:
                self._node(node).journal.fail_next(unit, fault)
            case "journal away", steps:
                database = self.world.database
                database.reachable = False
                self._until(steps, lambda: setattr(database, "reachable", True))
            case "signer away", steps, node:
                signer = self._node(node).signer
                signer.away = True
                self._until(steps, lambda: setattr(signer, "away", False))
            case "poor", steps:
                chain.latest.balances[ADDRESS] = 0
                self._until(steps, lambda: chain.fund(ADDRESS, 1000 * ETHER))
            case _:
                raise AssertionError(what)

    def _until(self, steps: int, end: Callable[[], None]) -> None:
        self._outages.append((self._step + steps, end))

    def _end_outages(self) -> None:
        self._step += 1
        for until, end in self._outages:
            if until <= self._step:
                end()
        self._outages = [outage for outage in self._outages if outage[0] > self._step]

    async def _rest(self) -> None:
        disarm_all()
        chain = self.world.chain
        chain.base_fee, chain.refuse_next = GWEI, None
        chain.set_paused(False)
        chain.latest.balances[ADDRESS] = 1000 * ETHER
        self.world.database.reachable = True
        for node in self.nodes:
            endpoint = node.endpoint
            endpoint.faults.clear()
            endpoint.away, endpoint.lag, endpoint.latency_s = False, 0, 0.0
            node.signer.away = False
            node.journal.heal()
        for _ in range(QUIET_BLOCKS):
            await trio.sleep(12)
            chain.mine()
            if self.world.all_final():
                return

    # What must be so.

    def check(self) -> None:
        told = [(node.vitals.role, node.vitals.trouble) for node in self.nodes]
        assert self.world.all_final(), told
        self._lives_ended_as_meant()
        self._every_commitment_is_in_one_anchor()
        self._every_anchor_is_on_the_chain_once()
        self._the_contract_agrees()
        self._nonces_have_no_gap()
        assert not self.unwritten, "a transaction was sent before it was written"
        if not self.reorganised:
            assert self.deepest_pool <= 1, "more than one transaction was outside the chain"
            assert self._cost() <= self.budget

    def _lives_ended_as_meant(self) -> None:
        for node in self.nodes:
            assert [death for death in node.deaths if not death.startswith(MEANT)] == []

    def _every_commitment_is_in_one_anchor(self) -> None:
        held = [b.batch_id for batches in self.world.database.anchors.batches.values() for b in batches]
        assert sorted(held) == sorted(one.batch_id for one in self.world.commitments)

    def _every_anchor_is_on_the_chain_once(self) -> None:
        tables = self.world.database.anchors
        succeeded = [one.raw for one in self.world.chain.mined() if one.receipt.succeeded]
        contents = [decode_transaction(raw).unsigned.data for raw in succeeded]
        by_id = {one.batch_id: one for one in self.world.commitments}
        wanted = []
        for number, planned in tables.anchors.items():
            commitments = [by_id[batch.batch_id] for batch in tables.batches[number]]
            if planned.road == "single":
                wanted.append(anchor(commitments[0]))
            else:
                leaves = [anchor_leaf(planned.chain_id, CONTRACT, one) for one in commitments]
                assert planned.first_index is not None
                wanted.append(anchor_many(aggregate_root(leaves), len(leaves), planned.first_index))
            self._row_agrees(number)
        assert sorted(contents) == sorted(wanted)

    def _row_agrees(self, number: int) -> None:
        tables, last = self.world.database.anchors, self.world.history(number)[-1]
        assert last.tx_hash is not None
        receipt = self.world.chain.receipt(last.tx_hash)
        assert receipt is not None
        assert receipt.succeeded
        assert (receipt.block_number, receipt.block_hash) == (last.block_number, last.block_hash)
        assert (number, receipt.block_hash) in tables.inclusions

    def _the_contract_agrees(self) -> None:
        contract = self.world.chain.latest.contract
        head, index = ZERO_HASH, 0
        for planned in self.world.database.anchors.anchors.values():
            if planned.road == "aggregate":
                head = aggregate_head(head, planned.root, index, planned.batch_count)
                index += planned.batch_count
        assert (contract.count, contract.head) == (index, head)

    def _nonces_have_no_gap(self) -> None:
        nonces = {one.nonce for one in self.world.database.anchors.transactions}
        assert nonces == set(range(len(nonces)))
        assert self.world.chain.latest.nonces.get(ADDRESS, 0) == len(nonces)

    def _cost(self) -> int:
        return sum(m.receipt.gas_used * m.receipt.effective_gas_price for m in self.world.chain.mined())
