"""``python -m tests.simulation SEEDS --first K``: runs the seeds, a process per core, and says what it found.

Exit code 1 when a seed failed (the first one is shrunk and shown, with the command that replays it), or when
a kind of fault was never hit although there were seeds enough: what breaks nothing proves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.chunks import CHUNK, Result, run_chunk
from tests.simulation.kinds import never_hit
from tests.simulation.run import simulate
from tests.simulation.script import script_of
from tests.simulation.shrink import shown, shrunk

FAILURES_MAX = 20
"""More are not looked for."""
TELL_EVERY_S = 30.0


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    arguments.add_argument("seeds", type=int)
    arguments.add_argument("--first", type=int, default=1)
    arguments.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    chosen = arguments.parse_args()
    started = time.monotonic()
    failed: list[int] = []
    hits: Counter[str] = Counter()
    done = acknowledged = 0
    told_at = started
    for seeds, acked, chunk_hits, chunk_failed in _results(chosen.first, chosen.seeds, chosen.jobs):
        done += seeds
        acknowledged += acked
        hits += chunk_hits
        failed += chunk_failed
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            print(f"… {done} of {chosen.seeds} seeds, {len(failed)} failed", flush=True)
        if len(failed) >= FAILURES_MAX:
            break
    for seed in sorted(failed)[:1]:
        _explain(seed)
    for seed in sorted(failed):
        print(f"failed: make simulate SEEDS=1 FIRST={seed}")
    missing = never_hit(hits, seeds=done)
    for kind in missing:
        print(f"never hit: {kind}")
    print("faults hit: " + ", ".join(f"{kind} {count}" for kind, count in sorted(hits.items()) if count))
    seconds = time.monotonic() - started
    print(
        f"seeds={done} failures={len(failed)} seconds={seconds:.1f} "
        f"acked={acknowledged} faults={hits.total()}"
    )
    return 1 if failed or missing else 0


def _results(first: int, seeds: int, jobs: int) -> Iterator[Result]:
    chunks = [(start, min(CHUNK, first + seeds - start)) for start in range(first, first + seeds, CHUNK)]
    if jobs == 1 or len(chunks) == 1:
        yield from map(run_chunk, chunks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(run_chunk, chunks)
        finally:
            pool.shutdown(cancel_futures=True)


def _explain(seed: int) -> None:
    script = script_of(seed)
    small = shrunk(script)
    print(f"\nSeed {seed} fails; of its {len(script.steps)} steps these {len(small.steps)} are enough:\n")
    print(shown(small, simulate(small)))
    if small.seed != seed:
        print(f"(The short way is under the schedule of seed {small.seed}.)")
    print(f"\nAgain, the whole script: make simulate SEEDS=1 FIRST={seed}\n")


if __name__ == "__main__":
    sys.exit(main())
