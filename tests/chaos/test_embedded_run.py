"""A short run against the server as ``make run`` starts it: its PostgreSQL is its own and dies with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Plan, attack
from tests.chaos.schedule import KINDS, NEEDS_PROXY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    # httpx leaves the generator of a request's body to the collector when the server dies while it sends.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream"),
]


async def test_a_server_with_its_own_database_keeps_its_promises_under_attack(tmp_path: Path) -> None:
    without = frozenset(kind for kind in KINDS if kind.startswith(NEEDS_PROXY))
    report = await attack(Plan(tmp_path, seed=5, duration_s=15, without=without, embedded=True))
    assert report.exit_code == 0, "\n".join(report.lines())
    ended = {kind.partition(":")[0] for kind in report.hits}
    assert ended >= {"crash-at", "kill-actor"}, report.hits
