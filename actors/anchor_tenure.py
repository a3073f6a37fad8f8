"""What the anchor does while it holds the lease: one look at chain and journal, and what follows from it.

The order is the argument: the account's nonce is read before the journal, the journal before the receipts,
so that whatever the first one knows of, the next one explains. First what was sent is followed, then what no
block took is kept in the pool, then what is planned gets its transaction, and only when nothing of ours is
outside the chain is anything planned. What does not fit together is looked at for a while before it stops
the anchor: endpoints lag behind each other.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.anchor_fees import DAY_US
from actors.anchor_following import Follower
from actors.anchor_lease import LeasedJournal
from actors.anchor_policy import AnchorPolicy, choose, is_due, plan
from actors.anchor_sending import Sender
from actors.anchor_steps import (
    NOT_AUTHORISED,
    ON_CHAIN,
    Horizon,
    Live,
    NeedsOperator,
    NotYet,
    TroubleKind,
    expected_on_contract,
    horizon_of,
    is_taken_by_others,
    live_nonces,
    next_unsent,
    refusal,
    succeeded,
)
from actors.anchor_vitals import AnchorVitals
from actors.chain import Chain, ChainAway, ChainLies, ChainSigner, Reverted
from actors.faults import checkpoint
from journal.anchor_port import AnchorJournal, AnchorTransition, Backlog, OpenAnchor, Standing
from ves import anchor_calls
from ves.anchoring import AGGREGATE_LEAVES_MAX

OPEN_MAX = 100
"""Anchors that are not final: as many transactions may wait for finality, one for a block."""
LIVE_MAX = 1000
LOOK_BACK_S = 600.0
"""So often the newest finalized anchor and the contract are looked at again."""


class Suspicions:
    """What did not fit at the last looks, and since when. It outlives a tenure, so that who was stopped by it
    stays so."""

    def __init__(self, patience_s: float) -> None:
        """Endpoints lag behind each other, and their answers are of different moments: what does not fit for
        less than ``patience_s`` is nobody's fault."""
        self._patience_s = patience_s
        self._since: dict[TroubleKind, float] = {}
        self.now: dict[TroubleKind, float] = {}

    def next_look(self) -> None:
        self._since, self.now = self.now, {}

    def suspect(self, kind: TroubleKind, text: str) -> NotYet:
        """To raise: NotYet at first, NeedsOperator when it was so at every look for long enough."""
        since = self._since.get(kind)
        self.now[kind] = trio.current_time() if since is None else since
        is_old = since is not None and trio.current_time() - since >= self._patience_s
        return NeedsOperator(kind, text) if is_old else NotYet(kind, text)


class Tenure:
    """One per claimed lease."""

    def __init__(
        self,
        *,
        journal: AnchorJournal,
        leased: LeasedJournal,
        chain: Chain,
        signer: ChainSigner,
        policy: AnchorPolicy,
        vitals: AnchorVitals,
        suspicions: Suspicions,
        alarm: Callable[[str], None],
        pauses: Callable[[int], float],
        now_us: Callable[[], int],
    ) -> None:
        self.leased = leased
        self._journal = journal
        self._chain = chain
        self._policy = policy
        self._vitals = vitals
        self._suspicions = suspicions
        self._address = signer.address
        self._pauses = pauses
        self._now_us = now_us
        self._follower = Follower(journal=leased, chain=chain, vitals=vitals, alarm=alarm)
        self._sender = Sender(journal=leased, chain=chain, signer=signer, policy=policy, vitals=vitals)
        self._look_back_at = -1.0
        self._refusals = 0
        self._refusal: NotYet | None = None
        self._sends_from = 0.0

    async def tick(self) -> None:
        """Raises NotYet when something keeps it from sending, Deposed, and what chain, signer and journal
        raise; each of them leaves everything as the rows say."""
        self._suspicions.next_look()
        await self.leased.keep()
        horizon = await self._see_chain()
        next_nonce = await self._chain.nonce_of(self._address)
        standing = await self._journal.standing(self._chain.chain_id, self._policy.contract, self._address)
        if standing.next_nonce is not None and next_nonce > standing.next_nonce:
            raise self._suspicions.suspect("account used elsewhere", _strange(next_nonce))
        backlog = await self._journal.read_backlog(limit=1)
        anchors = await self._follow(horizon, backlog.now_us)
        unmined = [anchor for anchor in anchors if anchor.last.state not in ON_CHAIN]
        if any(is_taken_by_others(a, next_nonce, self._follower.mined, standing) for a in unmined):
            raise self._suspicions.suspect("account used elsewhere", _strange(next_nonce))
        await self._send(anchors, standing, next_nonce, backlog)

    async def _see_chain(self) -> Horizon:
        latest = await self._chain.block("latest")
        if latest is None:
            raise ChainAway("the endpoint knows no block")
        safe, finalized = await self._chain.block("safe"), await self._chain.block("finalized")
        horizon = horizon_of(self._policy, latest.number, safe, finalized)
        vitals = self._vitals
        vitals.latest_block, vitals.safe_block, vitals.finalized_block = (
            horizon.latest,
            horizon.safe,
            horizon.finalized,
        )
        vitals.base_fee_per_gas = latest.base_fee_per_gas
        vitals.balance_wei = await self._chain.balance_of(self._address)
        vitals.looked_at_s = self._now_us() / 1e6
        return horizon

    async def _follow(self, horizon: Horizon, now_us: int) -> list[OpenAnchor]:
        chain_id, contract = self._chain.chain_id, self._policy.contract
        self._vitals.spent_today_wei = await self._journal.spent_since(
            chain_id, self._address, now_us - DAY_US
        )
        anchors = await self._journal.read_open(chain_id, contract, limit=OPEN_MAX)
        reverted = self._vitals.reverted
        anchors = await self._follower.look(anchors, horizon, now_us)
        if self._vitals.reverted > reverted:
            self._rest(NotYet("contract refuses", "the contract refused our transaction"))
        return anchors

    async def _send(
        self, anchors: list[OpenAnchor], standing: Standing, next_nonce: int, backlog: Backlog
    ) -> None:
        transactions = await self._journal.read_transactions(
            self._chain.chain_id, self._address, from_nonce=next_nonce, limit=LIVE_MAX
        )
        live = live_nonces(transactions, anchors, self._follower.mined)
        numbers = {anchor.anchor.anchor_number for anchor in anchors}
        done = [one for one in live if one.attempts[-1].anchor_number not in numbers]
        if done:
            await self._check_newest_finalized()  # what was final is outside the chain?
        for one in done:
            if await self._is_mined(one):
                raise _nonce_behind(next_nonce)
        if live:
            await self._sender.keep_in_pool(live, anchors, backlog.now_us)
            return
        unwritten = [anchor for anchor in anchors if anchor.last.state not in ON_CHAIN]
        if any(succeeded(anchor, self._follower.mined) for anchor in unwritten):
            return  # its block is not proven yet: the contract knows more than our rows, and rightly
        if trio.current_time() >= self._look_back_at:
            await self._look_back(anchors, standing)
        if standing.next_nonce is not None and next_nonce < standing.next_nonce:
            self._wait_for_nonce(next_nonce)
            return
        anchor = await self._next_anchor(anchors, standing, backlog)
        if anchor is not None:
            await self._send_new(anchor, next_nonce, backlog.now_us)

    async def _is_mined(self, one: Live) -> bool:
        """Then the nonce that the chain named lags, and whatever else it says may: nothing is sent by it."""
        for attempt in one.attempts:
            if await self._chain.receipt(attempt.tx_hash) is not None:
                return True
        return False

    def _wait_for_nonce(self, next_nonce: int) -> None:
        """A block took our transaction since the nonce was read, or the endpoints lag behind each other."""
        if not self._follower.mined:
            raise _nonce_behind(next_nonce)

    # What is next.

    async def _next_anchor(
        self, anchors: list[OpenAnchor], standing: Standing, backlog: Backlog
    ) -> OpenAnchor | None:
        """The first that is planned and in no block; else a new one if it is time for that."""
        unsent = next_unsent(anchors)
        if unsent is None:
            self._refusals, self._refusal, self._sends_from = 0, None, 0.0
            vitals = self._vitals
            if len(anchors) >= OPEN_MAX or not is_due(
                self._policy, backlog, vitals.base_fee_per_gas or 0, vitals.spent_today_wei
            ):
                return None
        await self._compare_contract(anchors, standing)
        return unsent or await self._plan(standing)

    async def _plan(self, standing: Standing) -> OpenAnchor | None:
        await self._sender.quote()  # while gas costs more than the cap, let more of them gather
        backlog = await self._journal.read_backlog(limit=AGGREGATE_LEAVES_MAX)
        chosen = choose(self._policy.road, backlog.batches, self._chain.chain_id, self._policy.contract)
        if chosen is None:
            return None
        anchor, batches = plan(chosen, standing, self._chain.chain_id, self._policy.contract)
        await self.leased.plan(anchor, batches)
        checkpoint("anchor.planned")
        commitment = chosen.batches[0].commitment if chosen.road == "single" else None
        return OpenAnchor(anchor, AnchorTransition(anchor.anchor_number, 1, "pending"), [], commitment)

    async def _send_new(self, anchor: OpenAnchor, nonce: int, now_us: int) -> None:
        """Refused again and again, it rests longer and longer: each try may cost gas."""
        if self._refusal is not None and trio.current_time() < self._sends_from:
            raise self._refusal
        try:
            await self._sender.send_new(anchor, nonce, now_us)
        except NotYet as why:
            if why.trouble.kind == "contract refuses":
                self._rest(why)
            raise

    def _rest(self, why: NotYet) -> None:
        self._refusals += 1
        self._refusal = why
        self._sends_from = trio.current_time() + self._pauses(self._refusals)

    # Whether the chain is still the one we know.

    async def _look_back(self, anchors: list[OpenAnchor], standing: Standing) -> None:
        await self._check_newest_finalized()
        if not await self._chain.code_at(self._policy.contract):
            text = "there is no contract at SET_REGISTRY_ADDRESS: deploy it, or correct the address"
            raise NeedsOperator("no contract", text)
        await self._check_authorised()
        await self._compare_contract(anchors, standing)
        self._look_back_at = trio.current_time() + LOOK_BACK_S

    async def _check_newest_finalized(self) -> None:
        newest = await self._journal.read_newest_finalized(self._chain.chain_id, self._policy.contract)
        if newest is None or newest.block_number is None:
            return
        block = await self._chain.block(newest.block_number)
        if block is None or block.block_hash != newest.block_hash:
            text = (
                f"the block of anchor {newest.anchor_number} was final and is gone: the chain broke its "
                "word, or the endpoint is not what it was. Compare with others, and see docs/anchoring.md"
            )
            raise self._suspicions.suspect("finalized anchor gone", text)

    async def _check_authorised(self) -> None:
        if anchor_calls.read_bool(await self._ask(anchor_calls.is_sequencer(self._address))):
            return
        if self._policy.road == "single" and anchor_calls.read_bool(
            await self._ask(anchor_calls.PERMISSIONLESS)
        ):
            return
        raise NotYet("contract refuses", refusal(NOT_AUTHORISED, self._address))

    async def _compare_contract(self, anchors: list[OpenAnchor], standing: Standing) -> None:
        """Nothing of ours is under way, so it must stand where our rows say."""
        count = anchor_calls.read_number(await self._ask(anchor_calls.AGGREGATED_COUNT), bits=64)
        head = anchor_calls.read_hash(await self._ask(anchor_calls.AGGREGATE_HEAD))
        expected = expected_on_contract(anchors, standing)
        if (count, head) != expected:
            text = (
                f"the contract has {count} commitments in aggregates, our journal says {expected[0]}: "
                "somebody else anchors there, or the database was restored. See sequencer anchor resume"
            )
            raise self._suspicions.suspect("contract stands elsewhere", text)

    async def _ask(self, data: bytes) -> bytes:
        answer = await self._chain.call(self._policy.contract, data)
        if isinstance(answer, Reverted):
            raise ChainLies(f"the contract refuses a question that every one answers: {answer.reason}")
        return answer


def _strange(next_nonce: int) -> str:
    return (
        "the chain knows a transaction of our account that our journal does not: the account is used "
        "elsewhere, its key is somebody else's, too, or the database was restored. When you know which: "
        f"sequencer anchor resume --next-nonce {next_nonce}"
    )


def _nonce_behind(next_nonce: int) -> NotYet:
    text = f"the chain says that nonce {next_nonce} of our account comes next; we are beyond it"
    return NotYet("nonce behind", text)
