"""The PostgreSQL under attack: one of our own with a door on loopback TCP, or the one the server keeps.

``Postgres`` alone owns its process and folder; it uses the project's own way to make a cluster, and the
server under test sees only the address it is given. ``Embedded`` is only looked at and signalled: the server
brings it back. ``psql`` runs as the superuser over the unix socket, past any proxy.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journal.embedded_cluster import APP_LOGIN, OWNER, Cluster
from tests.e2e.world import ROOT

READY_DEADLINE_S = 60.0
PSQL_DEADLINE_S = 20.0

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "64MB",
    "max_connections": "40",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}


class PsqlFailed(Exception):
    """What psql said."""


class Asked:
    """A cluster that can be asked, whoever keeps it alive. Blocking."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.cluster = cluster
        self.port = port

    def psql(self, *statements: str) -> list[str]:
        """Each in a transaction of its own; the lines of the answers. Raises PsqlFailed."""
        words = [word for statement in statements for word in ("-c", statement)]
        done = subprocess.run(
            [self.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *words],
            env={
                "PATH": os.environ["PATH"],
                "PGHOST": str(self.cluster.socket_dir),
                "PGPORT": str(self.port),
                "PGUSER": OWNER,
                "PGDATABASE": "postgres",
            },
            capture_output=True,
            timeout=PSQL_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise PsqlFailed(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode().splitlines()

    def program(self, name: str) -> str:
        return str(self.cluster._bin / name)


class Embedded(Asked):
    """The server's own, under its DATA_DIR."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(Cluster(data_dir, None), 5432)

    def postmaster(self) -> int | None:
        """Its pid, once it is ready."""
        lines = self.cluster.pid_file()
        return int(lines[0]) if lines[7].strip() == "ready" else None


class Postgres(Asked):
    """``start`` it from a thread that outlives it: the kernel ends it with that thread."""

    def __init__(self, home: Path, **settings: str) -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        super().__init__(Cluster(home, None), free_port())
        self._settings = SETTINGS | settings
        self._child: subprocess.Popen[bytes] | None = None
        self.log = home / "postgres.log"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def dsn(self, port: int | None = None, *, user: str = APP_LOGIN) -> str:
        """``port``: the proxy's. Without it, straight to the server."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres"

    def spawn(self) -> None:
        """Started; ``ready`` tells when it answers."""
        settings = self._settings | {
            "port": str(self.port),
            "unix_socket_directories": str(self.cluster.socket_dir),
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._child = self.cluster.spawn(
                "postgres", ["-D", str(self.cluster.data), *words], death_signal=signal.SIGINT, output=log
            )

    def ready(self) -> bool:
        """Raises AssertionError if it has ended."""
        assert self._child is not None
        assert self._child.poll() is None, f"PostgreSQL ended while starting:\n{self.tail()}"
        lines = self.cluster.pid_file()
        return lines[0].strip() == str(self._child.pid) and lines[7].strip() == "ready"

    def start(self) -> Postgres:
        """Made at the first start; returns when it answers."""
        self.vacate()
        self.cluster.prepare()
        self.spawn()
        wait_until(self.ready, READY_DEADLINE_S, "PostgreSQL is not ready")
        return self

    def vacate(self) -> None:
        """Returns when no process of an earlier life works in the folder."""
        self.cluster.wait_until_vacant(deadline_s=READY_DEADLINE_S, give_up=lambda: False)

    def end(self, kind: signal.Signals) -> None:
        """SIGINT: fast shutdown. SIGQUIT: immediate. SIGKILL: of the postmaster alone."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(kind)
            self._child.wait(READY_DEADLINE_S)

    def migrate(self) -> None:
        """The schema by the project's own command, and the server's own login."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE_"))}
        env["DATABASE_ADMIN_URL"] = self.dsn(user=OWNER)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.main", "migrate"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        self.psql(f"CREATE ROLE {APP_LOGIN} LOGIN", f"GRANT sequencer_app TO {APP_LOGIN}")

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @contextmanager
    def running(self) -> Iterator[Postgres]:
        try:
            yield self.start()
        finally:
            self.end(signal.SIGQUIT)
            self.vacate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: object, deadline_s: float, otherwise: str, *, every_s: float = 0.02) -> None:
    """Asks ``true()`` until it is; AssertionError with ``otherwise`` after the deadline."""
    assert callable(true)
    give_up = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < give_up, f"{otherwise} after {deadline_s:g} s"
        time.sleep(every_s)
