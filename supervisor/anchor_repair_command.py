"""``sequencer anchor resume``, and the bench it shares with ``deploy``: acts on chain and journal.

Both take the anchor's lease first, so no anchor works meanwhile, and write what they do into the journal and
its audit chain before anything is sent.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from actors.anchor_steps import expected_on_contract
from actors.anchor_tenure import OPEN_MAX
from actors.chain import Chain, ChainAway, ChainLies, ChainNotOurs, Reverted, SignerAway, SignerRefused
from actors.chain_key_place import key_place
from actors.chain_signer import ProcessSigner, SigningKey
from actors.faults import arm_from_environment, checkpoint
from config.anchoring import anchor_choice, refuse_without_login
from config.secrets import prepare_data_dir
from config.settings import Settings
from journal.aio import open_loop
from journal.anchor_port import AnchorJournal, Lease, LeaseHeld, Standing
from journal.anchors import open_anchor_journal
from journal.port import AuditEntry, Stored
from supervisor.shell import StartRefused, anchor_address, limits_of, own_sequencer_id, read_settings
from transport.chain.opening import open_chain
from transport.cli.anchor import Resumption
from ves.anchor_calls import calldata, read_hash, read_number
from ves.anchoring import anchor_node_id
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid

LEASE_S = 60.0


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
    settings = bench_settings()
    choice = anchor_choice(settings)
    if choice is None or choice.contract is None:
        raise StartRefused("there is nothing to resume: ANCHOR is off, or dev, whose chain nobody else uses")
    trio.run(on_bench, settings, choice.chain_id, choice.urls, _Resume(wanted, choice.contract).work)


def bench_settings() -> Settings:
    settings = read_settings()
    arm_from_environment(os.environ)
    prepare_data_dir(settings.data_dir)
    refuse_without_login(settings)
    return settings


async def on_bench(settings: Settings, chain_id: int, urls: tuple[str, ...], work: Work) -> None:
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
        index, head = await self._with_planned(bench, index, head)
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
        must_be_stored(stored)
        print(f"the anchor goes on from nonce {nonce} and index {index} of {prefixed_hex(self.contract)}")
        print("one that has stopped begins again with sequencer anchor retry, or with its process")

    async def _with_planned(self, bench: Bench, index: int, head: bytes) -> tuple[int, bytes]:
        """Where aggregates lead that are planned and on no block yet, when the contract stands right before
        them: they are still sent, as they are."""
        known = await bench.journal.standing(bench.chain.chain_id, self.contract, bench.signer.address)
        if index > known.next_index:
            return index, head
        anchors = await bench.journal.read_open(bench.chain.chain_id, self.contract, limit=OPEN_MAX)
        expected, expected_head = expected_on_contract(anchors, known)
        if (index, head) == (expected, expected_head):
            return known.next_index, known.head
        raise StartRefused(
            f"the contract has {index} commitments in aggregates, the journal says {expected}, and it does "
            "not go back: the endpoint lags or lies, or the chain was made anew. See docs/anchoring.md"
        )

    async def _view(self, chain: Chain, signature: str) -> bytes:
        answer = await chain.call(self.contract, calldata(signature))
        if isinstance(answer, Reverted) or len(answer) != 32:
            raise StartRefused(f"there is no contract of ours at {prefixed_hex(self.contract)}")
        return answer


def must_be_stored(outcome: object) -> None:
    if not isinstance(outcome, Stored):
        raise StartRefused(f"nothing was written: {outcome}")
