"""The simulation itself: it replays exactly, finds what is planted, and nothing in the house as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.simulation.kinds import ENOUGH_SEEDS, KINDS, never_hit
from tests.simulation.mutants import simulate_with
from tests.simulation.run import simulate
from tests.simulation.script import Post, script_of
from tests.simulation.shrink import ddmin, shown, shrunk

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(1, 61)
REPLAYED = range(1, 9)
DIGESTS = f"""
from tests.simulation.run import simulate
from tests.simulation.script import Post, script_of
print(*(simulate(script_of(seed)).digest() for seed in range({REPLAYED.start}, {REPLAYED.stop})))
"""


def test_the_house_keeps_its_promises_under_sixty_seeds() -> None:
    hits: Counter[str] = Counter()
    acknowledged = 0
    for seed in SEEDS:
        history = simulate(script_of(seed))
        assert not history.violations, f"make simulate SEEDS=1 FIRST={seed}: {history.violations}"
        hits += history.hits
        acknowledged += len(history.receipts)
    assert acknowledged > 10 * len(SEEDS), "hardly anything was asked of the house"
    assert len([kind for kind in KINDS if hits[kind]]) > len(KINDS) / 2, f"hardly anything went wrong: {hits}"


def test_a_seed_replays_exactly_in_any_process_whatever_its_hash_seed() -> None:
    """The canary for Trio's private hooks too: without them the digests of one seed would differ."""
    here = [simulate(script_of(seed)).digest() for seed in REPLAYED]
    assert [simulate(script_of(seed)).digest() for seed in REPLAYED] == here
    assert len({*here}) == len(here), "different seeds, one history"
    elsewhere = [
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "12345")
    ]
    for process in elsewhere:
        told, _ = process.communicate(timeout=60)
        assert told.split() == here


@pytest.mark.parametrize(
    ("mutant", "seeds"),
    [("answered_before_durable", 20), ("counter_kept_in_memory", 60), ("letter_forgotten_at_a_death", 20)],
)
def test_a_planted_bug_is_found(mutant: str, seeds: int) -> None:
    assert any(simulate_with(mutant, script_of(seed)).violations for seed in range(1, seeds + 1))


def test_a_failing_seed_is_shrunk_to_what_it_takes_and_told_readably() -> None:
    bug = partial(simulate_with, "counter_kept_in_memory")
    # The first seed that meets this bug by nothing but two appends.
    script = next(script for script in map(script_of, range(75, 120)) if bug(script).violations)
    small = shrunk(script, fails=lambda candidate: bool(bug(candidate).violations))
    posts = [step for step in small.steps if isinstance(step, Post)]
    assert len(small.steps) == 2, "one append that fails, and another"
    assert [len(post.events) for post in posts] == [1] * len(posts)
    text = shown(small, bug(small))
    assert f"Post(node={posts[0].node}, agent={posts[0].agent}" in text
    assert "VIOLATION" in text
    assert not simulate(small).violations, "it is the planted bug that fails, not the script"


def test_what_is_shrunk_fails_and_nothing_of_it_can_be_left_out() -> None:
    def fails(items: object) -> bool:
        return {3, 11, 12} <= {*items}  # type: ignore[misc]

    assert ddmin(range(20), fails) == (3, 11, 12)
    assert ddmin([11, 3, 12], fails) == (11, 3, 12)
    assert ddmin(range(5), lambda items: True) == ()


def test_a_kind_of_fault_that_was_never_hit_is_named() -> None:
    hits = Counter(dict.fromkeys(KINDS, 1))
    assert never_hit(hits, seeds=ENOUGH_SEEDS) == []
    del hits["journal unheard"]
    assert never_hit(hits, seeds=ENOUGH_SEEDS) == ["journal unheard"]
    assert never_hit(hits, seeds=ENOUGH_SEEDS - 1) == [], "too few seeds to expect everything"


@pytest.mark.parametrize("seed", [22, 41])
def test_every_step_stands_alone(seed: int) -> None:
    """What shrinking rests on: a script with all steps but one left out still runs, and breaks nothing."""
    script = script_of(seed)
    for steps in [(), *((step,) for step in script.steps)]:
        assert not simulate(msgspec.structs.replace(script, steps=steps)).violations
