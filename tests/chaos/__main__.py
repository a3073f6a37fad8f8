"""``python -m tests.chaos``: attack a real server for a while, then have its promises audited.

Prints the seed, where the history is, what was hit, every broken promise, and one last line; exit 0 only if
no promise was broken, nothing surprising was answered, and (in a run of the standard length) no kind of
attack was left untried.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

import trio

from tests.chaos.run import STANDARD_S, Plan, attack
from tests.chaos.schedule import KINDS, NEEDS_PROXY


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--duration", type=float, default=STANDARD_S, help="seconds of attack")
    parser.add_argument("--seed", type=int, help="the schedule of acts; random and printed if not given")
    parser.add_argument("--dir", type=Path, help="where the history and the logs go; a new temporary one")
    parser.add_argument("--without", action="append", default=[], help="leave out kinds that start so")
    parser.add_argument("--embedded", action="store_true", help="the server's own PostgreSQL, and no proxy")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    folder = asked.dir or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    left_out = (*asked.without, *(NEEDS_PROXY if asked.embedded else ()))
    without = frozenset(kind for kind in KINDS if kind.startswith(left_out))
    print(f"seed {seed}, {asked.duration:g} s, history {folder / 'chaos-history.jsonl'}", flush=True)
    if without:
        print(f"left out on request: {', '.join(sorted(without))}", flush=True)
    report = trio.run(attack, Plan(folder, seed, asked.duration, without, asked.embedded))
    print("\n".join(report.lines()))
    if report.exit_code == 0:  # of a good run the history and the server's log are left
        for data in ("database", "server"):
            shutil.rmtree(folder / data, ignore_errors=True)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
