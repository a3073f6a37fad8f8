"""Each classic bug, planted alone, is found by the simulation; without it the same seed finds nothing."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, simulate_with
from tests.simulation.run import simulate
from tests.simulation.script import script_of

pytestmark = pytest.mark.slow

SEEDS_MAX = 400
"""Far more than each needs (docs/simulation.md has the numbers), so that a change of the scripts need not be
paid with new numbers; far fewer than one run in CI."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_found_and_it_is_the_bug_that_is_found(mutant: str) -> None:
    seeds = range(1, SEEDS_MAX + 1)
    found = next((seed for seed in seeds if simulate_with(mutant, script_of(seed)).violations), None)
    assert found is not None, f"{mutant} survived {SEEDS_MAX} seeds"
    assert not simulate(script_of(found)).violations
    print(f"{mutant}: seed {found}")
