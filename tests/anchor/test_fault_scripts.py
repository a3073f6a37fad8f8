"""Whatever happens in whatever order: once it is quiet, every commitment is on the chain exactly once."""

from __future__ import annotations

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.anchor.scripts import SCRIPTS, Play, Script


def played(script: Script, road: str, nodes: int) -> Play:
    play = Play(road, nodes)
    trio.run(play.play, script, clock=MockClock(autojump_threshold=0))
    return play


def law(script: Script, road: str, nodes: int) -> None:
    played(script, road, nodes).check()


STRATEGIES = (SCRIPTS, st.sampled_from(["aggregate", "single"]), st.integers(1, 2))
CALM = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


@given(*STRATEGIES)
@settings(CALM, max_examples=50)
def test_every_commitment_is_anchored_exactly_once_whatever_happens(
    script: Script, road: str, nodes: int
) -> None:
    law(script, road, nodes)


@pytest.mark.slow
@pytest.mark.thorough
@given(*STRATEGIES)
@settings(CALM, max_examples=1000)
def test_every_commitment_is_anchored_exactly_once_whatever_happens_for_long(
    script: Script, road: str, nodes: int
) -> None:
    law(script, road, nodes)
