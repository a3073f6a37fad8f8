"""What an auditor makes of the evidence for a final anchor, and of what a chain says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from actors.chain import Block, ChainAway, ChainNotOurs, Reverted, TransactionReceipt
from tests.evidence.making import CHAIN_ID, CONTRACT, SEQUENCER, STORE, TENANT, make, signer
from transport.client.errors import ClientError, Refused, Unanswered
from transport.client.follow_anchors import AnchorUnproven, NotFinalThere
from transport.client.follow_chain import OnChain
from transport.client.wire import ReceiptKeyName
from ves import anchor_calls
from ves.encoding import uuid_bytes
from ves.evidence import commitment_of
from ves.evidence_file import Evidence, raw_of
from ves.following import LastReceipt, Verified

MADE = make().evidence


@dataclass
class Paper:
    """A chain that holds exactly the evidence, and whatever a test changes."""

    evidence: Evidence = MADE
    block_hash: bytes | None = None
    included: Any = True
    finalized: int | None = 20
    away: bool = False
    foreign: bool = False
    chain_id: int = CHAIN_ID

    async def block(self, which: Any) -> Block | None:
        if self.away:
            raise ChainAway("nobody is there")
        if self.foreign:
            raise ChainNotOurs("chain 5")
        number = which if isinstance(which, int) else self.finalized if which == "finalized" else 20
        if number is None:
            return None
        raw = self.block_hash or raw_of(self.evidence.anchor.block.hash)  # type: ignore[union-attr]
        return made(Block, number=number, block_hash=raw)

    async def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        anchor = self.evidence.anchor
        assert anchor is not None
        return made(
            TransactionReceipt,
            tx_hash=tx_hash,
            block_hash=raw_of(anchor.block.hash),
            block_number=anchor.block.number,
            transaction_index=anchor.block.transaction_index,
        )

    async def code_at(self, address: bytes) -> bytes:
        return b"code"

    async def call(self, to: bytes, data: bytes, *, block: Any = "latest") -> bytes | Reverted:
        anchor = self.evidence.anchor
        assert anchor is not None
        assert anchor.aggregate is not None
        told = anchor.aggregate
        if data[:4] == anchor_calls.SELECTORS["verifyIncluded(bytes32,bytes32,bytes32[],uint32)"]:
            return anchor_calls.number_word(int(self.included))
        numbers = (told.first_index, told.count, 1)
        return b"".join(map(anchor_calls.number_word, numbers)) + bytes(32) + raw_of(told.head)


def made(kind: Any, **known: Any) -> Any:
    """With members that nobody looks at."""
    return kind(**{name: known.get(name, 0) for name in kind.__struct_fields__})


@dataclass
class Shows:
    """The server's side: this evidence for that event."""

    evidence: bytes = msgspec.json.encode(MADE)
    memory: Any = field(default_factory=lambda: Remembers())
    status: int = 200

    async def ask(self, path: str) -> bytes:
        assert path == f"/api/v1/ves/events/{MADE.event.event_id}/evidence"
        if self.status != 200:
            raise Refused(self.status, "EVENT_NOT_FOUND", "", "")
        return self.evidence


class Remembers:
    class state:
        @staticmethod
        def keys() -> dict[ReceiptKeyName, bytes]:
            return {ReceiptKeyName(SEQUENCER, 1): signer("first").public_key}


def verified(**changes: Any) -> Verified:
    commitment = msgspec.structs.replace(commitment_of(MADE), **changes)
    receipt = LastReceipt(uuid_bytes(MADE.event.event_id), bytes(32), SEQUENCER, 2, bytes(64))
    assert (commitment.tenant_id, commitment.store_id) == (TENANT, STORE)
    return Verified(commitment, receipt)


async def found(
    paper: Paper, shows: Shows, of: Verified, contract: bytes = CONTRACT, chain_id: int = CHAIN_ID
) -> str | None:
    view: Any = shows
    chain: Any = paper
    wrong = await OnChain(view, chain, chain_id, contract).contradiction(of)
    if wrong is None:
        return None
    assert wrong[1] == shows.evidence, "the evidence is kept as it came"
    return f"{wrong[0].kind}: {wrong[0].text}"


async def test_what_the_chain_holds_is_held_against_what_was_verified() -> None:
    assert await found(Paper(), Shows(), verified()) is None


async def test_what_the_chain_does_not_call_final_is_not_final_because_the_server_says_so() -> None:
    assert MADE.anchor is not None
    number = MADE.anchor.block.number
    with pytest.raises(NotFinalThere, match="the chain does not: not yet"):
        await found(Paper(finalized=number - 1), Shows(), verified())
    assert await found(Paper(finalized=number), Shows(), verified()) is None
    assert await found(Paper(finalized=None), Shows(), verified()) is None


def without_anchor() -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(MADE, anchor=None))


def with_other_root() -> bytes:
    assert MADE.commitment is not None
    lie = msgspec.structs.replace(MADE.commitment, merkle_root="0x" + "11" * 32)
    return msgspec.json.encode(msgspec.structs.replace(MADE, commitment=lie))


LIES: dict[str, tuple[str, Callable[[], tuple[Paper, Shows, Verified]]]] = {
    "another block is there": (
        "chain_differs: .*block_canonical",
        lambda: (Paper(block_hash=b"x" * 32), Shows(), verified()),
    ),
    "the contract does not know it": (
        "chain_differs: .*contract_state",
        lambda: (Paper(included=False), Shows(), verified()),
    ),
    "the evidence is of another commitment": (
        "anchor_false: .*another commitment",
        lambda: (Paper(), Shows(), verified(merkle_root=b"x" * 32)),
    ),
    "the evidence does not hold": (
        "anchor_false: .*state_root",
        lambda: (Paper(), Shows(with_other_root()), verified()),
    ),
    "the evidence names no block": (
        "anchor_false: .*names no block",
        lambda: (Paper(), Shows(without_anchor()), verified()),
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_each_lie_about_the_chain_is_named(lie: str) -> None:
    kind, told = LIES[lie]
    text = await found(*told())
    assert re.match(kind, text or ""), text


async def test_another_contract_or_chain_than_the_trusted_one_is_no_anchor() -> None:
    for more in ({"contract": bytes(20)}, {"chain_id": 5}):
        assert "anchor_false" in (await found(Paper(), Shows(), verified(), **more) or "")


async def test_what_cannot_be_asked_is_no_lie() -> None:
    with pytest.raises(Unanswered):
        await found(Paper(away=True), Shows(), verified())
    with pytest.raises(ClientError, match="no endpoint could be believed"):
        await found(Paper(foreign=True), Shows(), verified())
    for shows in (Shows(status=404), Shows(b"{}")):
        with pytest.raises(AnchorUnproven):
            await found(Paper(), shows, verified())
