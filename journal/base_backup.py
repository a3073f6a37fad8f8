"""Physical backups of the embedded PostgreSQL, and the WAL that leads on from them.

Alone knows pg_basebackup, pg_verifybackup, and which settings archive WAL or replay it. A copy is verified
against PostgreSQL's own manifest before anybody relies on it. Never encrypts, packs or names a backup:
``journal.backup_file`` does.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from journal import wal_copy
from journal.embedded_cluster import OWNER, Cluster, EmbeddedPostgresError

MANIFEST = "backup_manifest"
RECOVERY_DEADLINE_S = 24 * 3600.0
"""Replaying a week's WAL takes hours, and it cannot be hurried."""
_COPY_DEADLINE_S = 6 * 3600.0
_START_WAL = re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+)", re.M)
_TIMELINE = re.compile(r"^START TIMELINE: (\d+)", re.M)


@dataclass(frozen=True)
class BaseBackup:
    """A verified copy of the cluster, with the WAL that makes it consistent."""

    folder: Path
    start_lsn: str
    timeline: int


def take(cluster: Cluster) -> BaseBackup:
    """A copy of the running cluster, beside it. What a backup that was killed has left there is removed."""
    folder = cluster.root / "backup.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    words = ["-D", str(folder), "-F", "plain", "-X", "stream", "--checkpoint=fast", "--no-sync"]
    words += ["--manifest-checksums=SHA256", "--label=sequencer", "--no-password"]
    words += ["-h", str(cluster.socket_dir), "-p", "5432", "-U", OWNER]
    _run(cluster, "pg_basebackup", words)
    verify(cluster, folder)
    label = (folder / "backup_label").read_text("utf-8")
    start, timeline = _START_WAL.search(label), _TIMELINE.search(label)
    if start is None or timeline is None:
        raise EmbeddedPostgresError(f"{folder}/backup_label does not say where the backup starts")
    return BaseBackup(folder, start[1], int(timeline[1]))


def verify(cluster: Cluster, folder: Path) -> None:
    """Every file is what the manifest says, and the WAL needed is there and readable. Raises
    EmbeddedPostgresError with what PostgreSQL says."""
    _run(cluster, "pg_verifybackup", ["--quiet", "--exit-on-error", str(folder)])


def _run(cluster: Cluster, program: str, arguments: list[str]) -> None:
    output = cluster.root / f"{program}.log"
    with output.open("wb") as log:
        child = cluster.spawn(program, arguments, death_signal=signal.SIGKILL, output=log)
        try:
            code = child.wait(_COPY_DEADLINE_S)
        except BaseException as error:
            child.kill()
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise EmbeddedPostgresError(f"{program} took longer than {_COPY_DEADLINE_S:.0f} s") from None
    said = output.read_text("utf-8", "replace").strip()
    output.unlink(missing_ok=True)
    if code != 0:
        raise EmbeddedPostgresError(f"{program} failed with {code}: {said or 'it said nothing'}")


def archiving(folder: Path, timeout_s: int) -> dict[str, str]:
    """Settings under which every finished WAL file is kept in ``folder``, at least every ``timeout_s``."""
    words = [*_script(), "keep", "%p", _literally(folder), "%f"]
    return {
        "archive_mode": "on",
        "archive_command": _command(words),
        "archive_timeout": f"{timeout_s}s",
    }


def recovering(wal: Path | None, until: str | None, *, latest: bool) -> dict[str, str]:
    """Settings that replay a base backup as a new timeline: up to its own end, to a time, or all there is."""
    # Without an archive too: only such a recovery begins a timeline of its own, and two servers that went on
    # from one backup would else write different WAL under the same names.
    words = [*_script(), "fetch", _literally(wal), "%f", "%p"] if wal is not None else ["/bin/false"]
    settings = {
        "restore_command": _command(words),
        "recovery_target_action": "promote",
        "hot_standby": "off",  # ready means that all of it is replayed
        "archive_mode": "off",
    }
    if until is not None:
        settings["recovery_target_time"] = until
    elif not latest:
        settings["recovery_target"] = "immediate"
    return settings


def _script() -> list[str]:
    return [sys.executable.replace("%", "%%"), "-I", "-S", wal_copy.__file__.replace("%", "%%")]


def _literally(folder: Path) -> str:
    return str(folder.resolve()).replace("%", "%%")


def _command(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
