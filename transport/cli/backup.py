"""``sequencer backup`` and ``sequencer restore``: the words of both commands.

What they do is handed in, because it is the house's own business: files, keys and the database. The
passphrase is never a word of a command: it comes from BACKUP_PASSPHRASE_FILE or BACKUP_PASSPHRASE_COMMAND.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from transport.cli.console import Exit, notice

REASON_CHARACTERS_MAX = 500
MARGIN_MAX = 1_000_000_000

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())]
Flag = Annotated[bool, Parameter(negative=())]


@dataclass(frozen=True)
class Confirmation:
    """What an operator says about a restored database."""

    receipts: list[Path]
    commitments: list[Path]
    heads: Path | None
    void_missing: bool
    margin: int
    without_evidence: bool
    reason: str


Restore = Callable[[Path, Path | None, Path | None, bool, str | None], int]


def backup_app(backup: Callable[[Path, bool], int], verify: Callable[[Path], int]) -> App:
    """The command with its one word."""
    app = App(name="backup", help="Back up the embedded database and the keys, encrypted, into one file.")

    @app.default
    def make(*, to: Path, unencrypted: Flag = False) -> int:
        """Copy the embedded database and the keys, beside the running server or without one.

        Encrypted with the passphrase of BACKUP_PASSPHRASE_FILE or BACKUP_PASSPHRASE_COMMAND (age format).

        Parameters
        ----------
        to
            A file that does not exist yet, or a folder for one with the time in its name.
        unencrypted
            Do not encrypt: only for a place that is encrypted by other means. The file holds keys.
        """
        return backup(to, unencrypted)

    @app.command(name="verify")
    def look(file: Path) -> int:
        """Read a backup to its last byte: is it whole, and what is in it?"""
        return verify(file)

    return app


def restore_app(restore: Restore, confirm: Callable[[Confirmation], int]) -> App:
    """The command with its one word."""
    app = App(name="restore", help="Restore a backup; compare and confirm before the server writes again.")

    @app.default
    def bring_back(
        file: Path,
        *,
        data_dir: Path | None = None,
        wal: Path | None = None,
        to_latest: Flag = False,
        to_time: str | None = None,
    ) -> int:
        """Restore a backup into an empty DATA_DIR. The server that starts on it is read-only until confirmed.

        Parameters
        ----------
        file
            The backup.
        data_dir
            A new or empty folder; default DATA_DIR.
        wal
            The folder that BACKUP_WAL_DIR named; default BACKUP_WAL_DIR.
        to_latest
            Replay all the WAL that was kept.
        to_time
            Replay the WAL up to this time (RFC 3339).
        """
        if to_latest and to_time is not None:
            notice("--to-latest and --to-time: one of them")
            return Exit.USAGE
        return restore(file, data_dir, wal, to_latest, to_time)

    @app.command(name="confirm")
    def say_yes(
        *,
        reason: str,
        receipts: Files = None,
        commitments: Files = None,
        heads: Path | None = None,
        void_missing: Flag = False,
        margin: int = 0,
        without_evidence: Flag = False,
    ) -> int:
        """Compare a restored database with what others kept; if nothing is missing, let it write again.

        Lists every number that was given and is not there. Exit code 1 when something is missing.

        Parameters
        ----------
        reason
            For the record and the audit trail, at most 500 characters.
        receipts
            Files of receipts as agents keep them, or folders of such files.
        commitments
            Files of commitments that somebody kept.
        heads
            Audit heads kept earlier (`audit heads --out`).
        void_missing
            Give up what is missing: its numbers are declared void, publicly, and never given again.
        margin
            With --void-missing: so many numbers more in every stream, for those that nobody can show.
        without_evidence
            Confirm although nothing was given to compare with.
        """
        if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
            notice(f"--reason: 1 to {REASON_CHARACTERS_MAX} characters")
            return Exit.USAGE
        if not 0 <= margin <= MARGIN_MAX or (margin and not void_missing):
            notice(f"--margin: 0 to {MARGIN_MAX}, and only with --void-missing")
            return Exit.USAGE
        return confirm(
            Confirmation(
                receipts or [], commitments or [], heads, void_missing, margin, without_evidence, reason
            )
        )

    return app
