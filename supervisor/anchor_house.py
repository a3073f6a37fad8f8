"""The anchor's household: its login, its chain and its key, put together for the tree, or for a process of
its own.

Alone knows which of them ANCHOR asks for. Whoever only looks (ANCHOR=apart) gets the chain and neither the
login nor the key. web3 is imported when there is a chain to look at, and not before.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from actors.anchor import Anchor
from actors.anchor_policy import AnchorPolicy
from actors.anchor_vitals import Anchoring, AnchorVitals
from actors.chain import Chain
from actors.chain_key_place import key_place
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import BecomeSigner
from actors.faults import checkpoint
from actors.mailbox import Actor
from actors.security_events import SecurityEvents
from config.anchoring import AnchorChoice, anchor_choice, refuse_without_login
from config.settings import Settings
from journal.anchor_port import AnchorJournal
from journal.anchors import open_anchor_journal
from supervisor.anchor_parts import AnchorParts
from supervisor.dev_chain import DevChain, DevChainKeeper
from supervisor.shell import StartRefused, limits_of, patiently
from ves.anchoring import anchor_node_id
from ves.records import Uuid

CONNECTIONS = 2
"""The anchor does one thing at a time, and renews its lease beside it."""
DEV_POLL_S = 1.0
"""Whoever tries it out does not want to wait, and its endpoint is ours."""
GWEI = 10**9
ETHER = 10**18

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class AnchorWish:
    """What is known of it before there is an event loop; holds no key, and the addresses of the endpoints."""

    choice: AnchorChoice
    dsn: str | None = field(repr=False)
    """The anchor's own login; None: it anchors elsewhere."""
    key: BecomeSigner | None
    dev: DevChain | None = None


def wish_of(settings: Settings, dsn: str | None, *, here: bool = False) -> AnchorWish | None:
    """``dsn``: of the anchor's own login; ``here``: this process is where ANCHOR=apart anchors. Raises
    SecretsError."""
    choice = anchor_choice(settings)
    if choice is None:
        return None
    if choice.who == "apart" and not here:
        return AnchorWish(choice, None, None)
    refuse_without_login(settings)
    return AnchorWish(choice, dsn, key_place(settings))


@contextmanager
def development_chain(settings: Settings, wish: AnchorWish | None) -> Iterator[AnchorWish | None]:
    """For ANCHOR=dev the chain, running as long as we are inside; else as it is."""
    if wish is None or wish.choice.who != "dev":
        yield wish
        return
    chain = DevChain(settings.data_dir, port=settings.anchor_dev_port)
    chain.start()
    try:
        choice = replace(wish.choice, chain_id=chain.chain_id, urls=(chain.url,))
        yield replace(wish, choice=choice, dev=chain)
    finally:
        chain.stop()


@contextmanager
def only_anchor_here(data_dir: Path) -> Iterator[None]:
    """One process at a time anchors with this DATA_DIR's identity: two would take the lease from each other
    for ever. The kernel lets go of it when the process ends, however it ends."""
    descriptor = os.open(data_dir / "anchor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartRefused(
            f"another process anchors on {data_dir}: stop it, or start the server with ANCHOR=apart"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


async def enter_anchoring(
    stack: AsyncExitStack, settings: Settings, node_id: Uuid, wish: AnchorWish
) -> AnchorParts:
    """Everything open as long as ``stack`` is. The chain need not answer yet, the database must."""
    contract = wish.choice.contract
    if wish.dev is not None:
        assert wish.key is not None
        contract = await _prepared(wish.dev, wish.key)
    assert contract is not None
    chain = await _chain(stack, settings, wish.choice)
    vitals = AnchorVitals(role="apart" if wish.dsn is None else "starting")
    anchoring = Anchoring(chain, contract, vitals, None if wish.dev is None else wish.dev.url)
    if wish.dsn is None:
        return AnchorParts(anchoring)
    assert wish.key is not None
    stack.enter_context(only_anchor_here(settings.data_dir))
    holder = anchor_node_id(node_id)
    opened = partial(
        open_anchor_journal,
        wish.dsn,
        holder=holder,
        limits=limits_of(settings, CONNECTIONS),
        checkpoint=checkpoint,
    )
    journal: AnchorJournal = await patiently(lambda: stack.enter_async_context(opened()))
    make = partial(
        _anchor,
        journal,
        await _chain(stack, settings, wish.choice),
        SigningKey(wish.key),
        policy_of(
            settings, contract, poll_s=DEV_POLL_S if wish.dev is not None else settings.anchor_poll_secs
        ),
        vitals,
        holder,
    )
    return AnchorParts(anchoring, make, None if wish.dev is None else partial(DevChainKeeper, wish.dev))


def _anchor(
    journal: AnchorJournal,
    chain: Chain,
    key: SigningKey,
    policy: AnchorPolicy,
    vitals: AnchorVitals,
    holder: Uuid,
    security: SecurityEvents,
    now_us: Callable[[], int],
    chance: random.Random,
) -> Actor:
    return Anchor(
        journal=journal,
        chain=chain,
        signer=key.open,
        policy=policy,
        vitals=vitals,
        security=security,
        holder=holder,
        now_us=now_us,
        chance=chance,
    )


async def _chain(stack: AsyncExitStack, settings: Settings, choice: AnchorChoice) -> Chain:
    from transport.chain.opening import open_chain  # brings web3

    return await stack.enter_async_context(
        open_chain(list(choice.urls), choice.chain_id, timeout_s=settings.anchor_rpc_timeout_secs)
    )


async def _prepared(dev: DevChain, key: BecomeSigner) -> bytes:
    """The development chain knows our account."""
    async with SigningKey(key).open() as signer:
        contract = dev.prepare(signer.address)
    log.warning(
        "anchoring on a development chain: it is on this machine, and nobody else witnesses it",
        chain_id=dev.chain_id,
        contract="0x" + contract.hex(),
        url=dev.url,
    )
    return contract


def policy_of(settings: Settings, contract: bytes, *, poll_s: float) -> AnchorPolicy:
    target = settings.anchor_fee_target_gwei
    return AnchorPolicy(
        contract=contract,
        road=settings.anchor_road,
        batch_threshold=settings.anchor_batch_threshold,
        interval_s=settings.anchor_interval_secs,
        fee_target=None if target is None else round(target * GWEI),
        age_max_s=settings.anchor_age_max_secs,
        fee_cap=round(settings.anchor_fee_cap_gwei * GWEI),
        budget_per_day=round(settings.anchor_budget_per_day_eth * ETHER),
        stuck_s=settings.anchor_stuck_secs,
        finality=settings.anchor_finality,
        confirmations=settings.anchor_finality_confirmations,
        poll_s=poll_s,
        lease_s=settings.anchor_lease_secs,
    )
