"""``sequencer admin``: what is done with the database itself, beside running servers or without any.

Alone says what these commands are called and take. The work is handed in, because it needs the house's keys
and the login of a member of sequencer_admin; never sees either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from transport.cli.archive import ArchiveWish, add_archive
from transport.cli.console import Exit, Json, notice
from ves.records import Uuid

BATCH_ROWS_MAX = 10_000
KEY_ID_CHARACTERS = 16

DryRun = Annotated[bool, Parameter(negative=())]


@dataclass(frozen=True)
class Reencryption:
    """What is wanted of a re-encryption."""

    table: str
    """Its archive is part of it."""
    tenant_id: Uuid | None
    store_id: Uuid | None
    limit: int | None
    """Rows sealed anew at most."""
    batch_rows: int | None
    """Rows per transaction; None: what suits the table."""
    dry_run: bool
    as_json: bool


@Parameter(name="*")
@dataclass(frozen=True)
class Choice:
    """Which rows, and how."""

    tenant: UUID | None = None
    """Only this tenant's rows."""
    store: UUID | None = None
    """Only this store's; --tenant says of which tenant."""
    limit: PositiveInt | None = None
    """Seal at most so many rows anew, then stop. They are durable; the next run goes on."""
    batch_size: PositiveInt | None = None
    """Rows per transaction, at most 10000; default 500 events, 200 proofs."""
    dry_run: DryRun = False
    """Look at everything, say what would be done, write nothing."""


ALL = Choice()


def admin_app(
    reencrypt: Callable[[Reencryption], int],
    retire_at_rest_key: Callable[[bytes, bool], int],
    archive: Callable[[ArchiveWish], int],
) -> App:
    """The command with its words."""
    app = App(
        name="admin",
        help="Work on the database itself: seal stored values anew, end an at-rest key, archive old events. "
        "Run it where the server runs, with its DATA_DIR, its keys, and for a database of your own "
        "DATABASE_URL and DATABASE_ADMIN_URL (a member of sequencer_admin).",
    )

    def begin(table: str, choice: Choice, as_json: bool) -> int:
        if choice.store is not None and choice.tenant is None:
            notice("--store: say with --tenant whose store it is")
            return Exit.USAGE
        if choice.batch_size is not None and choice.batch_size > BATCH_ROWS_MAX:
            notice(f"--batch-size: at most {BATCH_ROWS_MAX}")
            return Exit.USAGE
        return reencrypt(
            Reencryption(
                table=table,
                tenant_id=None if choice.tenant is None else choice.tenant.bytes,
                store_id=None if choice.store is None else choice.store.bytes,
                limit=choice.limit,
                batch_rows=choice.batch_size,
                dry_run=choice.dry_run,
                as_json=as_json,
            )
        )

    @app.command(name="reencrypt-ves-events")
    def reencrypt_ves_events(*, choice: Choice = ALL, as_json: Json = False) -> int:
        """Seal payloads of VES events, archived ones too, with the current at-rest key.

        Exit code 0 when everything is sealed with it, 1 while something is not: the text says what.
        """
        return begin("ves_events", choice, as_json)

    @app.command(name="reencrypt-events")
    def reencrypt_events(*, choice: Choice = ALL, as_json: Json = False) -> int:
        """Seal payloads of the legacy stream, archived ones too, with the current at-rest key.

        Exit code 0 when everything is sealed with it, 1 while something is not: the text says what.
        """
        return begin("events", choice, as_json)

    @app.command(name="reencrypt-ves-validity-proofs")
    def reencrypt_ves_validity_proofs(*, choice: Choice = ALL, as_json: Json = False) -> int:
        """Seal validity proofs with the current at-rest key.

        Exit code 0 when everything is sealed with it, 1 while something is not: the text says what.
        """
        return begin("ves_validity_proofs", choice, as_json)

    @app.command(name="retire-at-rest-key")
    def retire(fingerprint: str, *, as_json: Json = False) -> int:
        """End an old at-rest key: refused while anything is sealed under it, demanded by no start afterwards.

        Restart all nodes with the new key first: a node that still seals with the old one can store nothing
        from this moment on.

        Parameters
        ----------
        fingerprint
            The key's 16 hex digits, as the re-encryption and the audit trail show them.
        """
        try:
            key_id = bytes.fromhex(fingerprint)
        except ValueError:
            key_id = b""
        if len(key_id) * 2 != KEY_ID_CHARACTERS:
            notice(f"FINGERPRINT: the {KEY_ID_CHARACTERS} hex digits that name the key, never the key itself")
            return Exit.USAGE
        return retire_at_rest_key(key_id, as_json)

    add_archive(app, archive)
    return app
