"""Anchors for the door's tests: a contract that answers what the real one would, and rows of the journal.

The contract here is exercised by ``eth_call``'s bytes alone; that the real one answers the same is shown on a
real chain.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import trio
from prometheus_client import CollectorRegistry, generate_latest

from actors.anchor_vitals import Anchoring, AnchorVitals
from actors.chain import Reverted, TransactionReceipt
from config.settings import Settings
from journal.anchor_port import Anchor, AnchorState, AnchorTransaction, AnchorTransition, PlannedBatch, Road
from journal.memory_anchor_tables import AnchorTables
from journal.port import AnchorSummary
from transport.house import Readiness
from transport.http.anchor_metrics import AnchorNumbers
from ves import anchor_calls
from ves.anchoring import aggregate_root, anchor_leaf, uuid_word, verify_in_aggregate
from ves.records import Commitment

CHAIN_ID = 84_532_001
CONTRACT = b"\xc0" * 20
TX_HASH = b"\x7a" * 32
BLOCK_HASH = b"\xb1" * 32
BLOCK = 100
GAS_USED = 90_001
GAS_PRICE = 3_000_000_000


class PaperChain:
    """A chain with our contract on it, or ``failing`` with what an endpoint can do."""

    def __init__(self) -> None:
        self.chain_id = CHAIN_ID
        self.roots: dict[bytes, bytes] = {}
        self.aggregates: dict[bytes, int] = {}
        self.receipts: dict[bytes, TransactionReceipt] = {}
        self.calls: list[tuple[bytes, bytes]] = []
        self.failing: Exception | None = None
        self.reverting: str | None = None

    async def call(self, to: bytes, data: bytes, **_: Any) -> bytes | Reverted:
        self.calls.append((to, data))
        if self.failing is not None:
            raise self.failing
        if self.reverting is not None:
            return Reverted(self.reverting)
        words = [data[at : at + 32] for at in range(4, len(data), 32)]
        if data[:4] == anchor_calls.SELECTORS["verifyEventsRoot(bytes32,bytes32)"]:
            return anchor_calls.number_word(self.roots.get(words[0]) == words[1])
        assert data[:4] == anchor_calls.SELECTORS["verifyIncluded(bytes32,bytes32,bytes32[],uint32)"]
        root, leaf, _offset, position, _length, *path = words
        count, at = self.aggregates.get(root, 0), int.from_bytes(position, "big")
        included = count > 0 and verify_in_aggregate(leaf, path, at, count, root)
        return anchor_calls.number_word(included)

    async def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        if self.failing is not None:
            raise self.failing
        return self.receipts.get(tx_hash)


def anchoring(**more: Any) -> Anchoring:
    vitals = AnchorVitals(role="active", latest_block=BLOCK + 4, address=b"\xa0" * 20, balance_wei=10**18)
    return Anchoring(**{"chain": PaperChain(), "contract": CONTRACT, "vitals": vitals} | more)


def paper(anchoring: Anchoring) -> PaperChain:
    assert isinstance(anchoring.chain, PaperChain)
    return anchoring.chain


def planned(tables: AnchorTables, *commitments: Commitment, road: Road = "aggregate") -> int:
    """The journal's rows of a new anchor over them."""
    number = len(tables.anchors) + 1
    leaves = [anchor_leaf(CHAIN_ID, CONTRACT, one) for one in commitments]
    whole = road == "aggregate"
    root = aggregate_root(leaves) if whole else commitments[0].merkle_root
    head = bytes(32) if whole else None
    tables.anchors[number] = Anchor(
        number, CHAIN_ID, CONTRACT, road, len(leaves), root, 0 if whole else None, head
    )
    tables.batches[number] = [
        PlannedBatch(one.batch_id, leaf if whole else bytes(32))
        for one, leaf in zip(commitments, leaves, strict=True)
    ]
    for position, one in enumerate(commitments):
        tables.places[one.batch_id] = (number, position)
    moved(tables, number, "pending")
    return number


def moved(tables: AnchorTables, number: int, state: AnchorState, **more: Any) -> None:
    known: dict[str, Any] = {"cause": "planned"} if state == "pending" else {"tx_hash": TX_HASH}
    if state not in ("pending", "submitted"):
        known |= {"block_number": BLOCK, "block_hash": BLOCK_HASH}
        known |= {"gas_used": GAS_USED, "effective_gas_price": GAS_PRICE}
    rows = tables.transitions[number]
    at_us = 1_700_000_000_000_000 + len(rows) * 1_000_000
    rows.append(AnchorTransition(number, len(rows) + 1, state, at_us=at_us, **(known | more)))


def mined(chain: PaperChain, tables: AnchorTables, number: int, *commitments: Commitment) -> None:
    """The chain has it, and the journal knows."""
    anchor = tables.anchors[number]
    if anchor.road == "aggregate":
        chain.aggregates[anchor.root] = anchor.batch_count
    else:
        [one] = commitments
        chain.roots[uuid_word(one.batch_id)] = one.merkle_root
    signed = AnchorTransaction(CHAIN_ID, bytes(20), 0, 1, number, "anchor", TX_HASH, b"raw", 1, 1, 1)
    tables.transactions.append(signed)
    moved(tables, number, "included")


def samples(text: str) -> dict[str, float]:
    """Of /metrics, by name with labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def exported() -> dict[str, float]:
    """What a server that anchors has in /metrics beside others, all of it."""
    found = anchoring()
    found.vitals.looked_at_s = 1.0
    tables = AnchorTables()
    house = SimpleNamespace(
        anchoring=found,
        settings=Settings(_env_file=None),
        readiness=Readiness(),
        journal=SimpleNamespace(anchor_summary=partial(_summary, tables)),
    )
    registry = CollectorRegistry()

    async def scrape() -> None:
        numbers = AnchorNumbers(house)  # type: ignore[arg-type]
        await numbers.refresh()
        registry.register(numbers)

    trio.run(scrape)
    return samples(generate_latest(registry).decode())


async def _summary(tables: AnchorTables) -> AnchorSummary:
    return msgspec.structs.replace(tables.summary(1), anchored_events=1)
