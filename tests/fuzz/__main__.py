"""``python -m tests.fuzz [TARGET …] --duration SECONDS``: the targets, as many at once as there are cores,
guided by coverage (atheris). What each says is in its corpus's log.

    --corpus DIR   where inputs that reached something new are kept, per target (default .fuzz/)
    --planted      with its mistake planted: has to fail

A finding ends the run with the input in a file ``crash-…`` and its traceback; give that file's content to the
target's seeds, or to a test of its own, before it is fixed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    words.add_argument("targets", nargs="*")
    words.add_argument("--duration", type=int, default=60, help="seconds, of all targets together")
    words.add_argument("--corpus", type=Path, default=Path(".fuzz"))
    words.add_argument("--planted", action="store_true")
    said = words.parse_args()
    unknown = set(said.targets) - set(TARGETS)
    if unknown:
        words.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = said.targets or list(TARGETS)
    share = max(1, said.duration * (os.cpu_count() or 1) // len(names))
    planted = "planted" if said.planted else "as it is"
    code = "import sys; from tests.fuzz.guided import run; sys.exit(run())"
    command = [sys.executable, "-c", code, planted, str(said.corpus), str(share), *names]
    return 0 if subprocess.run(command, check=False).returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
