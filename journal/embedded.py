"""The embedded PostgreSQL: keeps one server process alive for as long as the sequencer runs.

Alone owns that process: a thread of its own starts it, waits for it, and starts it again with growing pauses
when it ends by itself. The thread lives as long as our process does, because the kernel's parent-death
signal, which ends PostgreSQL when we are killed, follows the *thread* that started it. Never speaks SQL and
never touches an event loop: call ``start()`` before ``trio.run`` and ``stop()`` after it.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from config.machine import usable_memory
from journal.embedded_cluster import (
    ADMIN_LOGIN,
    ANCHOR_LOGIN,
    APP_LOGIN,
    OWNER,
    Cluster,
    DataDirLock,
    EmbeddedPostgresError,
)

if TYPE_CHECKING:
    from journal.units import Checkpoint

_PREDECESSOR_DEADLINE_S = 60.0
"""For a PostgreSQL of the last run that is still shutting down."""
_READY_DEADLINE_S = 600.0
"""Generous: crash recovery replays up to ``max_wal_size``, and killing it would only start it anew."""
_PAUSE_S = (0.1, 10.0)
"""First and longest pause between lives."""
_STEADY_S = 60.0
"""A life this long starts the pauses from the beginning again."""
_QUIT_DEADLINE_S = 5.0

_SETTINGS = {
    # Enough in the WAL for a base backup and for replaying it: journal.base_backup.
    "wal_level": "replica",
    "max_wal_senders": "4",
    # Durability first: an acknowledged COMMIT is on disk.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Two cores, one writer with many rows a group, short reads.
    "max_connections": "40",
    "wal_buffers": "16MB",
    "min_wal_size": "512MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    # What it does on the side must not hold up the writer (ADR 45); no plan of ours needs more of a sample.
    "autovacuum_vacuum_cost_limit": "50",
    "default_statistics_target": "10",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    # Its log: a file per weekday, overwritten a week later. No statement, no parameter, no row of a failed
    # COPY (they come as CONTEXT, which terse leaves out) ever gets into it.
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

_BUFFERS_MIB = (128, 2048)
"""Least and most of ``shared_buffers``, PostgreSQL's own cache; between them a quarter of our memory."""

_log = structlog.get_logger("journal.embedded")


class EmbeddedPostgres:
    """One server on one DATA_DIR. Blocking; all methods may be called from any thread but ``start`` and
    ``stop`` not from within an event loop. ``with EmbeddedPostgres(…)`` starts and stops it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        pg_bin: Path | None = None,
        more_settings: Mapping[str, str] | None = None,
        ready_deadline_s: float = _READY_DEADLINE_S,
        checkpoint: Checkpoint = lambda name: None,
    ) -> None:
        """``data_dir`` exists and is ours; ``pg_bin`` is a folder with initdb and postgres; ``more_settings``
        are PostgreSQL's, for archiving or replaying WAL."""
        self._data_dir = data_dir
        self._pg_bin = pg_bin
        self._more_settings = dict(more_settings or {})
        self._ready_deadline_s = ready_deadline_s
        self._checkpoint = checkpoint
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._gate = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._lock: DataDirLock | None = None
        self._cluster: Cluster | None = None

    def start(self) -> None:
        """Returns when PostgreSQL is ready. Makes the cluster at the first start; waits for a PostgreSQL
        of the last run that is still shutting down. Raises EmbeddedPostgresError; nothing runs then."""
        try:
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            raise _plainly(error) from error

    def _start(self) -> None:
        with ExitStack() as undo:
            lock = DataDirLock(self._data_dir)
            undo.callback(lock.release)
            self._cluster = Cluster(self._data_dir, self._pg_bin, self._checkpoint)
            self._stopping.clear()
            first: Future[None] = Future()
            self._thread = threading.Thread(
                target=self._keep, args=(self._cluster, first), name="postgres-keeper", daemon=True
            )
            self._thread.start()
            undo.callback(self._end, 0.0)
            first.result()
            undo.pop_all()
        self._lock = lock

    def stop(self, *, deadline_s: float = 30.0) -> None:
        """Ends PostgreSQL: fast shutdown (a checkpoint, clients are disconnected); after the deadline an
        immediate one, whose recovery the next start does. Harmless when it does not run."""
        self._end(deadline_s)
        if self._lock is not None:
            if self._cluster is not None:
                self._cluster.tidy()
            self._lock.release()
            self._lock = None

    def alive(self) -> bool:
        """Whether the present server process has become ready and has not ended. Cheap."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The present server process, None between two lives."""
        child = self._child
        return child.pid if child is not None and child.returncode is None else None

    @property
    def owner_dsn(self) -> str:
        """The superuser's, for migrations."""
        return self._dsn(OWNER)

    @property
    def app_dsn(self) -> str:
        """The server's own login; the migrations create the role."""
        return self._dsn(APP_LOGIN)

    @property
    def admin_dsn(self) -> str:
        """The login of commands that seal anew, archive and the like; the migrations create the role."""
        return self._dsn(ADMIN_LOGIN)

    @property
    def anchor_dsn(self) -> str:
        """The anchor's own login; the migrations create the role."""
        return self._dsn(ANCHOR_LOGIN)

    def _dsn(self, user: str) -> str:
        if self._cluster is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL has not been started")
        return _dsn(self._cluster, user)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # The keeper's thread.

    def _keep(self, cluster: Cluster, first: Future[None]) -> None:
        pause_s = _PAUSE_S[0]
        while not self._stopping.is_set():
            born = time.monotonic()
            try:
                reason = self._live(cluster, first)
            except (EmbeddedPostgresError, OSError, subprocess.SubprocessError) as error:
                if not first.done():
                    first.set_exception(_plainly(error))
                    return
                reason = str(error)
            if self._stopping.is_set():
                break
            if time.monotonic() - born > _STEADY_S:
                pause_s = _PAUSE_S[0]
            _log.error("postgres_ended", reason=reason, said=cluster.last_words(), restart_in_s=pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S[1])
        if not first.done():
            first.set_exception(EmbeddedPostgresError("stopped before PostgreSQL was ready"))

    def _live(self, cluster: Cluster, first: Future[None]) -> str:
        """One life of the server, from vacant folder to exit; answers how it ended."""
        cluster.wait_until_vacant(deadline_s=_PREDECESSOR_DEADLINE_S, give_up=self._stopping.is_set)
        cluster.prepare()
        child = self._spawn(cluster)
        if child is None:
            return "stopped"
        self._checkpoint("embedded.spawned")
        try:
            self._await_ready(cluster, child)
            self._checkpoint("embedded.ready")
            _log.info("postgres_ready", pid=child.pid)
            self._ready.set()
            if not first.done():
                first.set_result(None)
            return f"it ended with {child.wait()}"
        finally:
            self._ready.clear()

    def _spawn(self, cluster: Cluster) -> subprocess.Popen[bytes] | None:
        with self._gate, cluster.startup_log.open("wb") as output:
            if self._stopping.is_set():
                return None
            settings = (
                _SETTINGS
                | _by_memory(usable_memory())
                | self._more_settings
                | {
                    "listen_addresses": "",
                    "port": "5432",  # only the socket file's name
                    "unix_socket_directories": str(cluster.socket_dir),
                    "unix_socket_permissions": "0700",
                    "log_directory": str(cluster.log),
                }
            )
            words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            self._child = cluster.spawn(
                "postgres", ["-D", str(cluster.data), *words], death_signal=signal.SIGINT, output=output
            )
            return self._child

    def _await_ready(self, cluster: Cluster, child: subprocess.Popen[bytes]) -> None:
        """Ready when the pid file is our child's and says so. Asking over the socket would believe any
        stranger that listens there."""
        until = time.monotonic() + self._ready_deadline_s
        while True:
            if child.poll() is not None:
                raise EmbeddedPostgresError(
                    f"PostgreSQL ended while starting with {child.returncode}: {cluster.last_words()}"
                )
            lines = cluster.pid_file()
            if lines[0].strip() == str(child.pid) and lines[7].strip() == "ready":
                return
            if time.monotonic() > until:
                child.kill()
                child.wait()
                raise EmbeddedPostgresError(
                    f"PostgreSQL was not ready after {self._ready_deadline_s:.0f} s: {cluster.last_words()}"
                )
            time.sleep(0.01)

    def _end(self, deadline_s: float) -> None:
        thread = self._thread
        if thread is None:
            return
        with self._gate:
            self._stopping.set()
        for kind, patience_s in (
            (signal.SIGINT, deadline_s),
            (signal.SIGQUIT, _QUIT_DEADLINE_S),
            (signal.SIGKILL, _QUIT_DEADLINE_S),
        ):
            child = self._child
            if child is not None:
                child.send_signal(kind)
            thread.join(patience_s)
            if not thread.is_alive():
                break
        self._thread = None


def embedded_dsn(
    data_dir: Path, pg_bin: Path | None = None, *, admin: bool = False, anchor: bool = False
) -> str:
    """Where the embedded PostgreSQL of another process on this DATA_DIR can be reached, as the server
    does, or as ``admin`` commands do, or as the ``anchor`` does."""
    login = ADMIN_LOGIN if admin else ANCHOR_LOGIN if anchor else APP_LOGIN
    return _dsn(Cluster(data_dir, pg_bin), login)


def _by_memory(memory: int) -> dict[str, str]:
    """Of so many bytes a quarter is for PostgreSQL's cache, within bounds, and as much for the system's."""
    least, most = _BUFFERS_MIB
    buffers_mib = max(least, min(most, memory // 4 // 1024**2))
    return {"shared_buffers": f"{buffers_mib}MB", "effective_cache_size": f"{2 * buffers_mib}MB"}


def _dsn(cluster: Cluster, user: str) -> str:
    return f"postgresql://{user}@/postgres?host={quote(str(cluster.socket_dir), safe='')}&port=5432"


def _plainly(error: Exception) -> EmbeddedPostgresError:
    if isinstance(error, EmbeddedPostgresError):
        return error
    return EmbeddedPostgresError(f"PostgreSQL cannot be started: {error}")
