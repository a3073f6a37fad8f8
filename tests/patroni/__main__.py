"""``python -m tests.patroni``: lose the machines of a real Patroni cluster under load, then audit it.

Needs etcd and PostgreSQL of the system (Debian: etcd-server, postgresql) and a Patroni (``--patroni``; `make
failover` installs one). Everything is in a temporary folder, of the user who runs it, also root. Exit 0 only
if nothing acknowledged was lost or doubled, nothing surprising was answered, and the node lived through it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from tests.patroni.cluster import Cluster
from tests.patroni.run import STRIKES, fail_over


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.patroni", description=__doc__)
    parser.add_argument("--patroni", type=Path, default=Path(".venv-patroni/bin/patroni"))
    parser.add_argument("--loss", action="append", choices=list(STRIKES), help="in this order; all of them")
    parser.add_argument(
        "--mode", choices=("true", "quorum"), default="true", help="Patroni's synchronous_mode"
    )
    parser.add_argument("--seed", type=int, help="of the clients; random and printed if not given")
    asked = parser.parse_args()
    if lacking := _lacking(asked.patroni):
        print(f"cannot run: {lacking}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="failover-"))
    print(f"seed {seed}, synchronous_mode {asked.mode}, in {folder}", flush=True)
    cluster = Cluster(folder, asked.patroni.absolute(), _binaries(), synchronous_mode=asked.mode)
    losses = asked.loss or list(STRIKES)
    report = trio.run(partial(fail_over, folder, cluster, losses, seed))
    print("\n".join(report.lines()))
    if report.exit_code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return report.exit_code


def _lacking(patroni: Path) -> str:
    if not patroni.is_file():
        return f"there is no Patroni at {patroni}: run make failover, or name it with --patroni"
    if shutil.which("etcd") is None:
        return "there is no etcd: apt-get install etcd-server"
    return "" if _binaries().is_dir() else "there is no PostgreSQL: apt-get install postgresql"


def _binaries() -> Path:
    """Debian's newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else Path("/nonexistent")


if __name__ == "__main__":
    sys.exit(main())
