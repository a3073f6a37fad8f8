"""A second PostgreSQL that copies the first, as an operator makes one; waited for at COMMIT if told so."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.database import Postgres, free_port, wait_until


@contextmanager
def a_standby_of(primary: Postgres, folder: Path, **settings: str) -> Iterator[Postgres]:
    """Streaming, and named so that the primary can wait for it."""
    standby = Postgres(folder, **settings)
    standby.cluster.root.mkdir(mode=0o700)
    standby.cluster.socket_dir.mkdir(mode=0o700)
    address = f"host={primary.cluster.socket_dir} port={primary.port} user=sequencer_owner"
    done = subprocess.run(
        [
            primary.program("pg_basebackup"),
            "-D",
            str(standby.cluster.data),
            "-d",
            f"{address} application_name=standby",
            "-R",
            "--checkpoint=fast",
        ],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    standby.port = free_port()
    standby.spawn()
    try:
        wait_until(lambda: _standby_state(primary) == ["streaming"], 30, "the standby does not stream")
        yield standby
    finally:
        standby.end(signal.SIGQUIT)


def _standby_state(primary: Postgres) -> list[str]:
    return primary.psql("SELECT state FROM pg_stat_replication WHERE application_name = 'standby'")


def wait_for_standbys(primary: Postgres, names: str) -> None:
    primary.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
    wait_until(lambda: primary.psql("SHOW synchronous_standby_names") == [names], 10, "not reloaded")
