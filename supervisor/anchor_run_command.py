"""``sequencer anchor run``: a house in which only the anchor lives, for ANCHOR=apart.

It holds the anchor's key and login and serves nobody, so whoever breaks into a server finds neither. What it
does is in the journal for all servers to tell; what only it sees is in its log.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import AsyncExitStack

import structlog
import trio

from actors.faults import arm_from_environment
from actors.security_events import SecurityEvents
from config.secrets import prepare_data_dir
from config.settings import Settings
from journal.aio import open_loop
from supervisor.anchor_house import AnchorWish, enter_anchoring, wish_of
from supervisor.shell import StartRefused, anchor_address, own_sequencer_id, read_settings
from supervisor.supervisor import Supervisor
from supervisor.tree import Ports, annex_for
from ves.records import Uuid

START_PATIENCE_S = 60.0

log = structlog.get_logger(__name__)


def run() -> None:
    settings = read_settings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    arm_from_environment(os.environ)
    prepare_data_dir(settings.data_dir)
    if settings.anchoring != "apart":
        raise StartRefused(
            f"ANCHOR is {settings.anchoring}: it is for ANCHOR=apart, here and at the servers, that the "
            "anchor runs in a process of its own"
        )
    wish = wish_of(settings, anchor_address(settings), here=True)
    assert wish is not None
    node_id = own_sequencer_id(settings)
    trio.run(live, settings.without_secrets(), node_id, wish)


async def live(settings: Settings, node_id: Uuid, wish: AnchorWish) -> None:
    async with open_loop(), AsyncExitStack() as stack:
        parts = await enter_anchoring(stack, settings, node_id, wish)
        root = Supervisor("anchor-house", annex_for(parts, SecurityEvents(), Ports()))
        async with trio.open_nursery() as nursery:
            with trio.fail_after(START_PATIENCE_S):
                await nursery.start(root.run)
            contract = "0x" + parts.anchoring.contract.hex()
            print(f"anchoring on chain {wish.choice.chain_id}, contract {contract}", flush=True)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for received in signals:
                    log.info("stopping", signal=signal.Signals(received).name)
                    break
            root.stop()
