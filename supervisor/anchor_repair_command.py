"""``sequencer anchor resume`` and ``deploy``: an operator's acts on chain and journal, one at a time.

Both take the anchor's lease first, so no anchor works meanwhile, and write what they do into the journal and
its audit chain before anything is sent.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from actors.anchor_fees import first_offer
from actors.chain import Chain, ChainAway, ChainLies, ChainNotOurs, Reverted, SignerAway, SignerRefused, Taken
from actors.chain_key_place import key_place
from actors.chain_signer import ProcessSigner, SigningKey
from actors.faults import arm_from_environment, checkpoint
from config.anchoring import anchor_choice, refuse_without_login, rpc_urls
from config.secrets import prepare_data_dir
from config.settings import Settings
from contracts.artefact import creation_code, runtime_code
from journal.aio import open_loop
from journal.anchor_port import AnchorJournal, AnchorTransaction, Lease, LeaseHeld, Standing
from journal.anchors import open_anchor_journal
from journal.port import AuditEntry, Stored
from supervisor.anchor_house import ETHER, GWEI
from supervisor.shell import StartRefused, anchor_address, limits_of, own_sequencer_id, read_settings
from transport.chain.opening import open_chain
from transport.cli.anchor import Resumption
from ves.anchor_calls import calldata, deployment, read_hash, read_number
from ves.anchor_transactions import (
    UnsignedTransaction,
    created_by,
    signed_bytes,
    signing_digest,
    transaction_hash,
)
from ves.anchoring import anchor_node_id
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid

LEASE_S = 60.0
INCLUDED_LOOKS = 300
POLL_S = 1.0
NO_CONTRACT = bytes(20)


Work = Callable[["Bench"], Awaitable[None]]


@dataclass(frozen=True)
class Bench:
    """All that both commands work with."""

    settings: Settings
    chain: Chain
    journal: AnchorJournal
    signer: ProcessSigner
    lease: Lease


def resume(wanted: Resumption) -> None:
    settings = _settings()
    choice = anchor_choice(settings)
    if choice is None or choice.contract is None:
        raise StartRefused("there is nothing to resume: ANCHOR is off, or dev, whose chain nobody else uses")
    trio.run(_on_bench, settings, choice.chain_id, choice.urls, _Resume(wanted, choice.contract).work)


def deploy(yes: bool) -> None:
    settings = _settings()
    if settings.l2_rpc_url is None:
        raise StartRefused("where to? Set L2_RPC_URL and L2_CHAIN_ID")
    trio.run(_on_bench, settings, settings.l2_chain_id, rpc_urls(settings), _Deploy(yes).work)


def _settings() -> Settings:
    settings = read_settings()
    arm_from_environment(os.environ)
    prepare_data_dir(settings.data_dir)
    refuse_without_login(settings)
    return settings


async def _on_bench(settings: Settings, chain_id: int, urls: tuple[str, ...], work: Work) -> None:
    try:
        async with open_loop(), AsyncExitStack() as stack:
            await work(await stack.enter_async_context(_bench(settings, chain_id, urls)))
    except (ChainAway, ChainLies, ChainNotOurs, SignerAway, SignerRefused) as error:
        raise StartRefused(str(error)) from None


@asynccontextmanager
async def _bench(settings: Settings, chain_id: int, urls: tuple[str, ...]) -> AsyncIterator[Bench]:
    holder = anchor_node_id(own_sequencer_id(settings))
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(
            open_chain(list(urls), chain_id, timeout_s=settings.anchor_rpc_timeout_secs)
        )
        signer = await stack.enter_async_context(SigningKey(key_place(settings)).open())
        journal = await stack.enter_async_context(
            open_anchor_journal(
                anchor_address(settings),
                holder=holder,
                limits=limits_of(settings, 2),
                checkpoint=checkpoint,
            )
        )
        lease = await _claim(journal, holder)
        try:
            yield Bench(settings, chain, journal, signer, lease)
        finally:
            await journal.release_lease(lease)


async def _claim(journal: AnchorJournal, holder: Uuid) -> Lease:
    lease = await journal.claim_lease(holder, lease_s=LEASE_S)
    if isinstance(lease, LeaseHeld):
        left_s = max(0, lease.held_until_us - lease.now_us) / 1e6
        raise StartRefused(
            f"the anchor {uuid_text(lease.holder)} is at work: stop it (or its server), or wait "
            f"{left_s:.0f} s if it is gone"
        )
    return lease


@dataclass(frozen=True)
class _Resume:
    wanted: Resumption
    contract: bytes

    async def work(self, bench: Bench) -> None:
        chain, address = bench.chain, bench.signer.address
        nonce = await chain.nonce_of(address)
        if nonce != self.wanted.next_nonce:
            raise StartRefused(
                f"the next nonce of {prefixed_hex(address)} is {nonce} on the chain, not "
                f"{self.wanted.next_nonce}: look what its transactions did, then name it"
            )
        index = read_number(await self._view(chain, "aggregatedCount()"))
        head = read_hash(await self._view(chain, "aggregateHead()"))
        stored = await bench.journal.resume(
            bench.lease,
            chain_id=chain.chain_id,
            contract=self.contract,
            address=address,
            standing=Standing(nonce, index, head, 1),
            reason=self.wanted.reason,
            audit=AuditEntry(
                "cli",
                "anchor.resume",
                prefixed_hex(self.contract),
                None,
                {"next_nonce": nonce, "next_index": index, "reason": self.wanted.reason},
            ),
        )
        _must_be_stored(stored)
        print(f"the anchor goes on from nonce {nonce} and index {index} of {prefixed_hex(self.contract)}")

    async def _view(self, chain: Chain, signature: str) -> bytes:
        answer = await chain.call(self.contract, calldata(signature))
        if isinstance(answer, Reverted) or len(answer) != 32:
            raise StartRefused(f"there is no contract of ours at {prefixed_hex(self.contract)}")
        return answer


@dataclass(frozen=True)
class _Deploy:
    yes: bool

    async def work(self, bench: Bench) -> None:
        transaction = await self._unsigned(bench)
        cost = transaction.gas_limit * transaction.max_fee_per_gas
        account = prefixed_hex(bench.signer.address)
        balance = await bench.chain.balance_of(bench.signer.address)
        print(
            f"deploying on chain {transaction.chain_id} from {account} (nonce {transaction.nonce}) costs at "
            f"most {cost / ETHER:.6f} of its {balance / ETHER:.6f} ether"
        )
        if not self.yes:
            print("nothing was sent; --yes sends it")
            return
        tx_hash = await self._send(bench, transaction)
        contract = await self._included(bench, tx_hash, transaction.nonce)
        print(f"SET_REGISTRY_ADDRESS={prefixed_hex(contract)}")
        print(f"its owner is {account}, which also anchors; docs/contract.md says how to hand it over")

    async def _unsigned(self, bench: Bench) -> UnsignedTransaction:
        chain, address = bench.chain, bench.signer.address
        nonce = await chain.nonce_of(address)
        known = (await bench.journal.standing(chain.chain_id, NO_CONTRACT, address)).next_nonce
        if known is not None and known != nonce:
            raise StartRefused(f"the chain's next nonce is {nonce}, ours {known}: first see to what is open")
        code = deployment(creation_code(), permissionless=False)
        estimate = await chain.estimate_gas(address, None, code)
        if isinstance(estimate, Reverted):
            raise StartRefused(f"the chain would refuse it: {estimate.reason}")
        offer = first_offer(await chain.fees(), round(bench.settings.anchor_fee_cap_gwei * GWEI))
        if offer is None:
            raise StartRefused("gas costs more than ANCHOR_FEE_CAP_GWEI now: try later")
        limit = estimate * 6 // 5
        return UnsignedTransaction(
            chain.chain_id, nonce, offer.max_priority_fee_per_gas, offer.max_fee_per_gas, limit, None, code
        )

    async def _send(self, bench: Bench, unsigned: UnsignedTransaction) -> bytes:
        signature = await bench.signer.sign(signing_digest(unsigned))
        raw = signed_bytes(unsigned, signature.y_parity, signature.r, signature.s)
        transaction = AnchorTransaction(
            unsigned.chain_id,
            bench.signer.address,
            unsigned.nonce,
            1,
            None,
            "deploy",
            transaction_hash(raw),
            raw,
            unsigned.gas_limit,
            unsigned.max_fee_per_gas,
            unsigned.max_priority_fee_per_gas,
        )
        audit = AuditEntry(
            "cli",
            "anchor.sign",
            prefixed_hex(transaction.address),
            None,
            {
                "chain_id": transaction.chain_id,
                "nonce": transaction.nonce,
                "attempt": 1,
                "tx_hash": prefixed_hex(transaction.tx_hash),
                "max_cost_wei": str(unsigned.gas_limit * unsigned.max_fee_per_gas),
                "purpose": "deploy",
            },
        )
        # Written before anybody sees it: an anchor that comes after us knows the nonce and sends it again.
        _must_be_stored(await bench.journal.write_transaction(bench.lease, transaction, audit))
        answer = await bench.chain.send(raw)
        if not isinstance(answer, Taken):
            raise StartRefused(f"the chain did not take it: {answer}; the anchor sends it again")
        return transaction.tx_hash

    async def _included(self, bench: Bench, tx_hash: bytes, nonce: int) -> bytes:
        contract = created_by(bench.signer.address, nonce)
        for _ in range(INCLUDED_LOOKS):
            receipt = await bench.chain.receipt(tx_hash)
            if receipt is None:
                await trio.sleep(POLL_S)
            elif receipt.succeeded and await bench.chain.code_at(contract) == runtime_code():
                return contract
            else:
                raise StartRefused(f"{prefixed_hex(tx_hash)} is in a block, but the contract is not there")
        raise StartRefused(
            f"no block took {prefixed_hex(tx_hash)} yet: look for it; an anchor sends it again"
        )


def _must_be_stored(outcome: object) -> None:
    if not isinstance(outcome, Stored):
        raise StartRefused(f"nothing was written: {outcome}")
