"""``sequencer anchor deploy``: the contract, once, whatever happened to the command that began it.

Its transaction is written into the journal before anything is sent; so a command that died, or whose
transaction no block took, is gone on with by the next one, which sends the same bytes, or the same nonce with
a higher offer, and never a second contract.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from actors.anchor_fees import Offer, first_offer, higher_offer
from actors.anchor_sending import as_written, use_of_key
from actors.chain import FeeQuote, Reverted, SendRefused, TooPoor, Underpriced
from actors.faults import checkpoint
from config.anchoring import rpc_urls
from contracts.artefact import creation_code, runtime_code
from journal.anchor_port import AnchorTransaction
from supervisor.anchor_house import ETHER, GWEI
from supervisor.anchor_repair_command import Bench, bench_settings, must_be_stored, on_bench
from supervisor.shell import StartRefused
from ves.anchor_calls import deployment
from ves.anchor_transactions import (
    UnsignedTransaction,
    created_by,
    signed_bytes,
    signing_digest,
)
from ves.encoding import prefixed_hex

INCLUDED_LOOKS = 300
POLL_S = 1.0
NO_CONTRACT = bytes(20)
ATTEMPTS_MAX = 64
"""Of the newest nonces, more than anybody makes."""


def deploy(yes: bool) -> None:
    settings = bench_settings()
    if settings.l2_rpc_url is None:
        raise StartRefused("where to? Set L2_RPC_URL and L2_CHAIN_ID")
    trio.run(on_bench, settings, settings.l2_chain_id, rpc_urls(settings), _Deploy(yes).work)


@dataclass(frozen=True)
class _Deploy:
    yes: bool

    async def work(self, bench: Bench) -> None:
        nonce = await bench.chain.nonce_of(bench.signer.address)
        newest = await bench.journal.read_transactions(
            bench.chain.chain_id, bench.signer.address, from_nonce=max(0, nonce - 1), limit=ATTEMPTS_MAX
        )
        if await self._is_there(bench, [one for one in newest if one.nonce == nonce - 1]):
            return
        attempts = [one for one in newest if one.nonce == nonce]
        await self._must_be_next(bench, nonce, attempts)
        unsigned = await self._unsigned(bench, nonce, attempts)
        await self._tell_cost(bench, unsigned)
        if not self.yes:
            print("nothing was sent; --yes sends it")
            return
        attempts = await self._send(bench, unsigned, attempts)
        self._tell(bench, await self._included(bench, attempts))

    async def _is_there(self, bench: Bench, mined: list[AnchorTransaction]) -> bool:
        """The account's newest mined transaction made a contract that the settings do not name yet."""
        if not mined or mined[-1].purpose != "deploy":
            return False
        contract = created_by(bench.signer.address, mined[-1].nonce)
        if contract == bench.settings.contract or await bench.chain.code_at(contract) != runtime_code():
            return False
        print("it is there already, and nothing was sent; with this setting the next one is another contract")
        self._tell(bench, contract)
        return True

    async def _must_be_next(self, bench: Bench, nonce: int, attempts: list[AnchorTransaction]) -> None:
        chain, address = bench.chain, bench.signer.address
        known = (await bench.journal.standing(chain.chain_id, NO_CONTRACT, address)).next_nonce
        account = prefixed_hex(address)
        if known is not None and known < nonce:
            raise StartRefused(
                f"{account} has transactions that the journal does not know: its next nonce is {nonce} "
                f"on the chain and {known} here. Deploy with an account that nobody else uses: "
                "docs/anchor-keys.md"
            )
        if (known is not None and known > nonce + 1) or any(one.purpose != "deploy" for one in attempts):
            raise StartRefused(
                f"transactions of {account} from nonce {nonce} on are signed and in no block: start the "
                "server and let its anchor finish them first"
            )

    async def _unsigned(
        self, bench: Bench, nonce: int, attempts: list[AnchorTransaction]
    ) -> UnsignedTransaction:
        """What is to be in the block: the newest attempt while it is worth its price, else the next one."""
        chain = bench.chain
        code = deployment(creation_code(), permissionless=False)
        estimate = await chain.estimate_gas(bench.signer.address, None, code)
        if isinstance(estimate, Reverted):
            raise StartRefused(f"the chain would refuse it: {estimate.reason}")
        limit, offer = estimate * 6 // 5, self._offer(bench, await chain.fees(), attempts)
        return UnsignedTransaction(
            chain.chain_id, nonce, offer.max_priority_fee_per_gas, offer.max_fee_per_gas, limit, None, code
        )

    def _offer(self, bench: Bench, quote: FeeQuote, attempts: list[AnchorTransaction]) -> Offer:
        cap = round(bench.settings.anchor_fee_cap_gwei * GWEI)
        if not attempts:
            offer = first_offer(quote, cap)
        else:
            last = Offer(attempts[-1].max_fee_per_gas, attempts[-1].max_priority_fee_per_gas)
            offer = last if last.max_fee_per_gas >= quote.base_fee_per_gas else higher_offer(last, quote, cap)
        if offer is None:
            raise StartRefused("gas costs more than ANCHOR_FEE_CAP_GWEI now: try later, or raise it")
        return offer

    async def _tell_cost(self, bench: Bench, unsigned: UnsignedTransaction) -> None:
        cost, account = unsigned.gas_limit * unsigned.max_fee_per_gas, prefixed_hex(bench.signer.address)
        balance = await bench.chain.balance_of(bench.signer.address)
        print(
            f"deploying on chain {unsigned.chain_id} from {account} (nonce {unsigned.nonce}) costs at "
            f"most {cost / ETHER:.6f} of its {balance / ETHER:.6f} ether"
        )
        if balance < cost:
            raise StartRefused(
                f"{account} is too poor: send it at least {(cost - balance) / ETHER:.6f} ether"
            )

    async def _send(
        self, bench: Bench, unsigned: UnsignedTransaction, attempts: list[AnchorTransaction]
    ) -> list[AnchorTransaction]:
        """All attempts, the newest of which the chain has taken, or knew."""
        if not attempts or attempts[-1].max_fee_per_gas != unsigned.max_fee_per_gas:
            attempts = [*attempts, await self._written(bench, unsigned, len(attempts) + 1)]
            checkpoint("deploy.written")
        answer = await bench.chain.send(attempts[-1].raw)
        if isinstance(answer, TooPoor | Underpriced | SendRefused):
            why = {TooPoor: "the account is too poor", Underpriced: "its pool wants a higher offer"}
            said = answer.why if isinstance(answer, SendRefused) else why[type(answer)]
            raise StartRefused(f"the chain did not take it: {said}. The same command goes on with it")
        return attempts

    async def _written(self, bench: Bench, unsigned: UnsignedTransaction, attempt: int) -> AnchorTransaction:
        signature = await bench.signer.sign(signing_digest(unsigned))
        raw = signed_bytes(unsigned, signature.y_parity, signature.r, signature.s)
        transaction = as_written(unsigned, raw, bench.signer.address, attempt, None, "deploy")
        audit = use_of_key(transaction, by="cli")
        # Written before anybody sees it: whoever comes after us knows the nonce and sends it again.
        must_be_stored(await bench.journal.write_transaction(bench.lease, transaction, audit))
        return transaction

    async def _included(self, bench: Bench, attempts: list[AnchorTransaction]) -> bytes:
        newest = attempts[-1]
        contract = created_by(bench.signer.address, newest.nonce)
        for _ in range(INCLUDED_LOOKS):
            for attempt in attempts:
                receipt = await bench.chain.receipt(attempt.tx_hash)
                if receipt is None:
                    continue
                if receipt.succeeded and await bench.chain.code_at(contract) == runtime_code():
                    return contract
                raise StartRefused(
                    f"{prefixed_hex(attempt.tx_hash)} is in a block, but the contract is not there"
                )
            await trio.sleep(POLL_S)
        raise StartRefused(
            f"no block took {prefixed_hex(newest.tx_hash)} yet: the same command goes on with it, and offers "
            "more if gas costs more"
        )

    def _tell(self, bench: Bench, contract: bytes) -> None:
        account = prefixed_hex(bench.signer.address)
        print(f"SET_REGISTRY_ADDRESS={prefixed_hex(contract)}")
        print(f"its owner is {account}, which also anchors; docs/contract.md says how to hand it over")
