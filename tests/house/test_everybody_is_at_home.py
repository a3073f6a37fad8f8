"""The tree that is built is the one that the documents show."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any, cast

import trio
import trio.testing

import supervisor.tree
from actors.mailbox import Inbox
from config.settings import Settings
from supervisor.anchor_parts import AnchorParts
from supervisor.annex import Annex
from supervisor.supervisor import ChildSpec, Supervisor
from supervisor.tree import build
from tests.keyholder import first_receipt_key, secrets_of

ROOT = Path(__file__).resolve().parents[2]


def named_in(text: str) -> list[str]:
    """The inhabitants of the first tree drawn in it."""
    drawn = re.search(r"^    house .*\n((?:      +\S.*\n)+)", text, re.MULTILINE)
    assert drawn is not None
    return re.findall(r"^      (?=\S)(\S+)", drawn[1], re.MULTILINE)


def nobody_at_home(*_: object) -> Any:
    raise AssertionError("nobody is started")


async def test_who_is_built_is_who_is_drawn() -> None:
    secrets = secrets_of("ss_" + "x" * 30, bytes(32), uuid.uuid4().bytes, (bytes(32),))
    claimed = first_receipt_key(bytes(32), secrets.sequencer_id)
    settings = Settings(_env_file=None, data_dir=Path("/nonexistent"))
    nobody = cast(Any, None)
    anchor = AnchorParts(nobody, actor=nobody_at_home, keeper=nobody_at_home)
    built = build(settings, secrets, nobody, receipt_key=claimed, anchor=anchor)
    names = [child.name for child in built.root.view().children]
    assert len(names) == 21
    assert names == named_in(supervisor.tree.__doc__ or "")
    assert sorted(names) == sorted(named_in((ROOT / "ARCHITECTURE.md").read_text()))


async def test_who_does_not_anchor_has_no_anchor_at_home() -> None:
    secrets = secrets_of("ss_" + "x" * 30, bytes(32), uuid.uuid4().bytes, (bytes(32),))
    claimed = first_receipt_key(bytes(32), secrets.sequencer_id)
    settings = Settings(_env_file=None, data_dir=Path("/nonexistent"))
    built = build(settings, secrets, cast(Any, None), receipt_key=claimed)
    assert {child.name for child in built.root.view().children}.isdisjoint({"anchoring"})
    assert built.house.anchoring is None


async def test_an_anchor_that_dies_again_and_again_takes_nobody_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lives = 0

    class Hopeless:
        async def run(self, inbox: Inbox) -> None:
            nonlocal lives
            lives += 1
            raise RuntimeError("no luck")

    class Neighbour:
        async def run(self, inbox: Inbox) -> None:
            while True:
                await inbox.pause(1)

    annex = Annex("anchoring", [ChildSpec(name="anchor", factory=Hopeless)])
    root = Supervisor("house", [ChildSpec(name="neighbour", factory=Neighbour), annex])
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        await trio.sleep(3600)
        assert root.ready
        assert root.held_back() == []
        assert lives > 100
        [neighbour, _] = root.view().children
        assert neighbour.incarnation == 1
        root.stop()
