"""Seeds in portions, for processes that share the work; what a portion comes to is small and can be added."""

from __future__ import annotations

from collections import Counter

from tests.simulation.run import simulate
from tests.simulation.script import script_of

CHUNK = 25

Result = tuple[int, int, Counter[str], list[int]]
"""Seeds run, events acknowledged, faults hit by kind, seeds that failed."""


def run_chunk(chunk: tuple[int, int]) -> Result:
    """``chunk``: first seed and how many."""
    start, count = chunk
    acknowledged, hits, failed = 0, Counter[str](), []
    for seed in range(start, start + count):
        history = simulate(script_of(seed))
        acknowledged += len(history.receipts)
        hits += history.hits
        if history.violations:
            failed.append(seed)
    return count, acknowledged, hits, failed
