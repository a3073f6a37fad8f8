"""A PostgreSQL cluster made once and copied: initdb takes as long as the rest of a server's first start.

That a first start makes one by itself, and what happens when it is killed meanwhile, is tested in
``tests/embedded`` and ``tests/e2e/test_crash_points.py``, where nobody lends anything.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from journal.embedded_cluster import Cluster


def lend(data_dir: Path) -> Path:
    """``data_dir`` has what the first start's initdb makes, unless it has a cluster already; returns it."""
    root = data_dir / "postgres"
    if not root.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.mkdir(mode=0o700)
        subprocess.run(["cp", "-a", _made(), root / "data"], check=True, timeout=60)
    return data_dir


@cache
def _made() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cluster = Cluster(folder, None)
    cluster.prepare()
    return cluster.data
