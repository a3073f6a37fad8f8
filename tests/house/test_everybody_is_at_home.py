"""The tree that is built is the one that the documents show."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any, cast

import supervisor.tree
from config.settings import Settings
from supervisor.anchor_parts import AnchorParts
from supervisor.tree import build
from tests.keyholder import first_receipt_key, secrets_of

ROOT = Path(__file__).resolve().parents[2]


def named_in(text: str) -> list[str]:
    """The inhabitants of the first tree drawn in it."""
    drawn = re.search(r"^    house .*\n((?:      \S.*\n)+)", text, re.MULTILINE)
    assert drawn is not None
    return re.findall(r"^      (\S+)", drawn[1], re.MULTILINE)


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
    assert {child.name for child in built.root.view().children}.isdisjoint({"anchor", "dev-chain"})
    assert built.house.anchoring is None
