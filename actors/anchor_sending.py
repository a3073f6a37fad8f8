"""Signs, writes down, sends: one transaction at a time, and the same bytes again for as long as it takes.

It alone uses the account's key. A signature exists in no other place than in a journal row until that row is
durable: whoever dies before has signed nothing that anybody saw, whoever dies after finds the bytes and sends
them again. It decides no state; what became of a transaction, ``actors.anchor_following`` finds out.
"""

from __future__ import annotations

import msgspec
import structlog

from actors.anchor_fees import (
    DAY_US,
    GAS_LIMIT_MAX,
    Offer,
    first_offer,
    gas_limit,
    higher_offer,
    is_affordable,
    worst_case,
)
from actors.anchor_lease import LeasedJournal
from actors.anchor_policy import AnchorPolicy
from actors.anchor_steps import Live, NotYet, calldata_of, is_stuck, refusal, submitted
from actors.anchor_vitals import AnchorVitals
from actors.chain import (
    Chain,
    ChainSigner,
    FeeQuote,
    Reverted,
    SendRefused,
    SignerRefused,
    Taken,
    TooPoor,
    Underpriced,
)
from actors.faults import checkpoint
from journal.anchor_port import AnchorTransaction, OpenAnchor, Purpose
from journal.port import AuditEntry
from ves.anchor_transactions import (
    UnsignedTransaction,
    decode_transaction,
    sender_of,
    signed_bytes,
    signing_digest,
    transaction_hash,
)

log = structlog.get_logger(__name__)


class Sender:
    def __init__(
        self,
        *,
        journal: LeasedJournal,
        chain: Chain,
        signer: ChainSigner,
        policy: AnchorPolicy,
        vitals: AnchorVitals,
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._signer = signer
        self._policy = policy
        self._vitals = vitals

    # What is signed already.

    async def keep_in_pool(self, live: list[Live], anchors: list[OpenAnchor], now_us: int) -> None:
        """Whatever no block has used yet waits in a pool, in order, and the first does not wait for ever.
        Raises NotYet."""
        by_number = {anchor.anchor.anchor_number: anchor for anchor in anchors}
        for place, one in enumerate(live):
            await self._journal.keep()
            last = one.attempts[-1]
            anchor = by_number.get(last.anchor_number or 0)
            waits = await self._chain.is_known(last.tx_hash) or await self._send(last)
            if waits and anchor is not None:
                await self._submitted(anchor, last)
            if place == 0 and is_stuck(one, now_us, self._policy.stuck_s):
                await self._replace(one.attempts, now_us)
            elif not waits:
                raise NotYet(
                    "pool refuses", "the pool wants more for gas: it is offered more when it is stuck"
                )

    async def _send(self, transaction: AnchorTransaction) -> bool:
        """False: it costs the pool too little. Raises NotYet for what more money does not heal."""
        answer = await self._chain.send(transaction.raw)
        checkpoint("anchor.sent")
        if isinstance(answer, TooPoor):
            address = transaction.address.hex()
            raise NotYet("account too poor", f"send ether to 0x{address}: it cannot pay for a transaction")
        if isinstance(answer, SendRefused):
            raise NotYet("pool refuses", f"the endpoint does not take our transaction: {answer.why}")
        self._vitals.sent += isinstance(answer, Taken)
        return not isinstance(answer, Underpriced)  # of a used nonce, the next look at receipts tells more

    async def _submitted(self, anchor: OpenAnchor, transaction: AnchorTransaction) -> None:
        if anchor.last.state == "pending":
            await self._journal.move(submitted(anchor.last, transaction.tx_hash))
            checkpoint("anchor.submitted")

    async def _replace(self, attempts: list[AnchorTransaction], now_us: int) -> None:
        """The same content for more money."""
        last = attempts[-1]
        before = Offer(last.max_fee_per_gas, last.max_priority_fee_per_gas)
        offer = higher_offer(before, await self._chain.fees(), self._policy.fee_cap)
        if offer is None:
            text = "no block takes our transaction, and ANCHOR_FEE_CAP_GWEI allows no higher offer"
            raise NotYet("fees above the cap", text)
        counted = max(
            worst_case(t.gas_limit, Offer(t.max_fee_per_gas, t.max_priority_fee_per_gas)) for t in attempts
        )
        await self._afford(worst_case(last.gas_limit, offer) - counted, now_us)
        checkpoint("anchor.replacing")
        unsigned = msgspec.structs.replace(
            decode_transaction(last.raw).unsigned,
            max_fee_per_gas=offer.max_fee_per_gas,
            max_priority_fee_per_gas=offer.max_priority_fee_per_gas,
        )
        replacement = await self._sign(unsigned, last.attempt + 1, last.anchor_number, last.purpose)
        self._vitals.replaced += 1
        await self._send(replacement)

    # What is new.

    async def quote(self) -> FeeQuote:
        """What gas costs now. Raises NotYet when that is above the cap."""
        quote = await self._chain.fees()
        if first_offer(quote, self._policy.fee_cap) is None:
            base = quote.base_fee_per_gas / 1e9
            text = f"gas costs {base:g} gwei, more than ANCHOR_FEE_CAP_GWEI allows"
            raise NotYet("fees above the cap", text)
        return quote

    async def send_new(self, anchor: OpenAnchor, nonce: int, now_us: int) -> None:
        """A transaction for ``anchor`` under a nonce that was never used. Raises NotYet."""
        data = calldata_of(anchor)
        limit = await self._dry_run(anchor.anchor.contract, data)
        offer = first_offer(await self.quote(), self._policy.fee_cap)
        assert offer is not None
        await self._afford(worst_case(limit, offer), now_us)
        unsigned = UnsignedTransaction(
            chain_id=self._chain.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas=offer.max_priority_fee_per_gas,
            max_fee_per_gas=offer.max_fee_per_gas,
            gas_limit=limit,
            to=anchor.anchor.contract,
            data=data,
        )
        await self._journal.keep()
        transaction = await self._sign(unsigned, 1, anchor.anchor.anchor_number, "anchor")
        if await self._send(transaction):
            await self._submitted(anchor, transaction)

    async def _dry_run(self, contract: bytes, data: bytes) -> int:
        """The gas limit for what the contract would take now."""
        answer = await self._chain.call(contract, data, sender=self._signer.address)
        if isinstance(answer, Reverted):
            raise NotYet("contract refuses", refusal(answer.reason, self._signer.address))
        estimate = await self._chain.estimate_gas(self._signer.address, contract, data)
        if isinstance(estimate, Reverted):
            raise NotYet("contract refuses", refusal(estimate.reason, self._signer.address))
        limit = gas_limit(estimate)
        if limit is None:
            text = f"the endpoint estimates {estimate} gas, with a margin more than {GAS_LIMIT_MAX}"
            raise NotYet("contract refuses", text)
        return limit

    async def _afford(self, more: int, now_us: int) -> None:
        spent = await self._journal.spent_since(self._chain.chain_id, self._signer.address, now_us - DAY_US)
        if not is_affordable(spent, more, self._policy.budget_per_day):
            text = (
                f"{spent / 1e18:g} ETH of the last 24 hours and at most {more / 1e18:g} more are beyond "
                "ANCHOR_BUDGET_PER_DAY_ETH"
            )
            raise NotYet("budget spent", text)

    async def _sign(
        self, unsigned: UnsignedTransaction, attempt: int, anchor_number: int | None, purpose: Purpose
    ) -> AnchorTransaction:
        signature = await self._signer.sign(signing_digest(unsigned))
        raw = signed_bytes(unsigned, signature.y_parity, signature.r, signature.s)
        if sender_of(decode_transaction(raw)) != self._signer.address:
            raise SignerRefused(
                "the key that signed is not the account's: look at ANCHOR_KEY and its settings"
            )
        checkpoint("anchor.signed")
        transaction = as_written(unsigned, raw, self._signer.address, attempt, anchor_number, purpose)
        # The write-ahead line: before it nobody has seen the signature, after it nothing forgets it.
        await self._journal.write_transaction(transaction, use_of_key(transaction, by="system"))
        checkpoint("anchor.written")
        return transaction


def as_written(
    unsigned: UnsignedTransaction,
    raw: bytes,
    address: bytes,
    attempt: int,
    anchor_number: int | None,
    purpose: Purpose,
) -> AnchorTransaction:
    """The row that stands before anybody is shown ``raw``, the signed bytes of ``unsigned``."""
    return AnchorTransaction(
        chain_id=unsigned.chain_id,
        address=address,
        nonce=unsigned.nonce,
        attempt=attempt,
        anchor_number=anchor_number,
        purpose=purpose,
        tx_hash=transaction_hash(raw),
        raw=raw,
        gas_limit=unsigned.gas_limit,
        max_fee_per_gas=unsigned.max_fee_per_gas,
        max_priority_fee_per_gas=unsigned.max_priority_fee_per_gas,
    )


def use_of_key(transaction: AnchorTransaction, *, by: str) -> AuditEntry:
    """For the audit log, ``by`` whom. The cost as text: it may be more than JSON's numbers carry exactly."""
    return AuditEntry(
        actor=by,
        action="anchor.sign",
        subject=f"0x{transaction.address.hex()}",
        tenant_id=None,
        details={
            "chain_id": transaction.chain_id,
            "nonce": transaction.nonce,
            "attempt": transaction.attempt,
            "tx_hash": f"0x{transaction.tx_hash.hex()}",
            "anchor_number": transaction.anchor_number,
            "max_cost_wei": str(transaction.gas_limit * transaction.max_fee_per_gas),
            "purpose": transaction.purpose,
        },
    )
