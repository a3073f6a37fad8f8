"""The links of an evidence file that only the chain can judge: is the block its own, final, and what does the
contract say. Asks through ``actors.chain.Chain``, whichever endpoints stand behind it; ``ves.evidence`` has
judged everything else before, and nothing here makes up for a link that failed there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from actors.chain import Block, BlockTag, Chain, ChainLies, ChainNotOurs, Reverted
from ves import anchor_calls
from ves.encoding import prefixed_hex
from ves.evidence import ON_CHAIN, Link, Unchecked, commitment_of
from ves.evidence_file import Evidence, EvidenceAnchor, raw_of

_CANONICAL, _FINAL, _STATE = ON_CHAIN


async def ask_chain(evidence: Evidence, chain: Chain) -> list[Link]:
    """One link for each name in ``ON_CHAIN``. Raises ChainAway: nothing is known then."""
    if evidence.anchor is None:
        return [Link(name, "not checked", "the file names no block", needed=False) for name in ON_CHAIN]
    asking = _Asking(evidence, evidence.anchor, chain)
    return [
        await _judged(_CANONICAL, asking.canonical, needed=True),
        await _judged(_FINAL, asking.final, needed=False),
        await _judged(_STATE, asking.state, needed=True),
    ]


async def _judged(name: str, judge: Callable[[], Awaitable[str]], *, needed: bool) -> Link:
    try:
        return Link(name, "passed", await judge(), needed)
    except Unchecked as why:
        return Link(name, "not checked", str(why), needed)
    except (ChainNotOurs, ChainLies) as why:
        return Link(name, "failed", f"no endpoint could be believed: {why}", needed)
    except ValueError as wrong:
        return Link(name, "failed", str(wrong), needed)


class _Asking:
    def __init__(self, evidence: Evidence, anchor: EvidenceAnchor, chain: Chain) -> None:
        self._file = evidence
        self._anchor = anchor
        self._chain = chain
        self._finalized: Block | None = None
        self._latest: Block | None = None
        self._is_canonical = False

    async def canonical(self) -> str:
        block = self._anchor.block
        # Before the block itself: what is at this number now, and final by an earlier word, stays.
        self._finalized = await self._chain.block("finalized")
        self._latest = await self._chain.block("latest")
        found = await self._chain.block(block.number)
        if found is None:
            raise ValueError(f"the chain has no block {block.number}")
        if found.block_hash != raw_of(block.hash):
            raise ValueError(
                f"the chain's block {block.number} is {prefixed_hex(found.block_hash)}: a reorganisation "
                "took the one in the file; ask the sequencer for new evidence"
            )
        receipt = await self._chain.receipt(raw_of(self._anchor.transaction_hash))
        if receipt is None:
            raise ValueError("no block of the chain includes the transaction")
        there = receipt.block_hash, receipt.transaction_index
        if there != (raw_of(block.hash), block.transaction_index):
            raise ValueError("the transaction stands elsewhere in the chain")
        self._is_canonical = True
        return f"block {block.number} is the chain's and includes the transaction"

    async def final(self) -> str:
        number = self._anchor.block.number
        if not self._is_canonical or self._latest is None:
            raise Unchecked("the block is not the chain's")
        confirmations = max(0, self._latest.number - number + 1)
        if self._finalized is None:
            raise Unchecked(f"the chain names no finalized block; {confirmations} confirmations")
        if not self._is_final:
            text = f"not yet: the chain is finalized up to block {self._finalized.number}"
            raise Unchecked(f"{text}; {confirmations} confirmations")
        behind = self._finalized.number - number
        return f"the block is final, {behind} behind the finalized one; {confirmations} confirmations"

    @property
    def _is_final(self) -> bool:
        return self._finalized is not None and self._finalized.number >= self._anchor.block.number

    async def state(self) -> str:
        contract = raw_of(self._anchor.contract)
        if not await self._chain.code_at(contract):
            raise ValueError("the chain has no contract at this address")
        at: BlockTag = "finalized" if self._is_canonical and self._is_final else "latest"
        told = self._anchor.aggregate
        if told is None:
            await self._single(contract, at)
        else:
            path = [raw_of(step) for step in told.path]
            question = anchor_calls.verify_included(raw_of(told.root), raw_of(told.leaf), path, told.position)
            if not anchor_calls.read_bool(await self._call(contract, question, at)):
                raise ValueError("the contract says that the aggregate does not hold the commitment")
            known = anchor_calls.read_aggregate(
                await self._call(contract, anchor_calls.aggregates(raw_of(told.root)), at)
            )
            if known is None or (known.first_index, known.count, known.head) != (
                told.first_index,
                told.count,
                raw_of(told.head),
            ):
                raise ValueError("the contract knows the aggregate by other values")
        return f"the contract says the same, asked at its {at} block"

    async def _single(self, contract: bytes, at: BlockTag) -> None:
        commitment = commitment_of(self._file)
        question = anchor_calls.get_commitment(commitment.batch_id)
        known = anchor_calls.read_commitment(await self._call(contract, question, at))
        same = (
            (known.tenant_id, known.store_id) == (commitment.tenant_id, commitment.store_id)
            and (known.events_root, known.state_root) == (commitment.merkle_root, commitment.new_state_root)
            and (known.sequence_start, known.sequence_end, known.event_count)
            == (commitment.sequence_start, commitment.sequence_end, commitment.leaf_count)
        )
        if not same:
            raise ValueError("the contract knows the commitment by other values")

    async def _call(self, contract: bytes, data: bytes, at: BlockTag) -> bytes:
        answer = await self._chain.call(contract, data, block=at)
        if isinstance(answer, Reverted):
            raise ValueError(f"the contract refuses: {answer.reason}")  # noqa: TRY004  a value, not a type
        return answer
