"""``python -m tests.drill``: lose a server under load and bring it back, once from a backup, once to the end.

Prints each step with its time and what must hold, and one last line; exit 0 only if all of it held.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

import trio

from tests.drill.run import drill


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument(
        "--load", type=float, default=10.0, help="seconds of load before and after the backup"
    )
    parser.add_argument("--seed", type=int, help="of the load; random and printed if not given")
    parser.add_argument("--dir", type=Path, help="where everything goes; a new temporary one")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    folder = asked.dir or Path(tempfile.mkdtemp(prefix="drill-"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    print(f"seed {seed}, load {asked.load:g} s twice, in {folder}", flush=True)
    report = trio.run(drill, folder, seed, asked.load)
    for problem in report.problems:
        print(f"BROKEN: {problem}")
    checks = sum("ok: " in line or "NOT OK: " in line for line in report.lines)
    verdict = "the drill holds" if report.exit_code == 0 else "THE DRILL DOES NOT HOLD"
    print(f"{verdict}: {checks} checks, {len(report.problems)} broken")
    if report.exit_code == 0 and asked.dir is None:
        shutil.rmtree(folder, ignore_errors=True)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
