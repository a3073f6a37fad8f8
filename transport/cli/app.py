"""The ``sequencer`` command: one door for operators, agents and auditors.

Alone names the commands. Those of ``HouseCommands`` are handed in, because they are the house itself and the
door does not know the house; everything else speaks HTTP like anybody, or works offline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cyclopts import App

from transport.cli.actors import app as actors
from transport.cli.admin import Reencryption, admin_app
from transport.cli.agent import app as agent
from transport.cli.agent_keys import app as agent_key
from transport.cli.anchor import AnchorCommands, anchor_app
from transport.cli.api_keys import app as api_key
from transport.cli.archive import ArchiveWish
from transport.cli.audit import app as audit
from transport.cli.backup import Confirmation, Restore, backup_app, restore_app
from transport.cli.doctor import doctor_of
from transport.cli.export import export
from transport.cli.incident import KeyCompromise, Window, incident_app
from transport.cli.receipt_key import receipt_key_app
from transport.cli.schemas import app as schema
from transport.cli.status import status
from transport.cli.tenant_policies import app as tenant_policy
from transport.cli.tenant_regions import app as tenant_region
from transport.cli.tokens import app as token
from transport.cli.verify import app as verify

HELP = """Verifiable event sequencer: signed events in, durable receipts and verifiable proofs out.

Exit codes: 0 fine, 1 refused or something does not hold, 2 usage or local files, 3 consistent but not
trusted, 4 no answer in time (try again)."""


@dataclass(frozen=True)
class HouseCommands:
    """What each does is said where it is named to the user; the answer is the exit code."""

    serve: Callable[[], int]
    migrate: Callable[[], int]
    rotate: Callable[[bool, str], int]
    reencrypt: Callable[[Reencryption], int]
    retire_at_rest_key: Callable[[bytes, bool], int]
    doctor: Callable[[bool], int]
    archive: Callable[[ArchiveWish], int]
    backup: Callable[[Path, bool], int]
    verify_backup: Callable[[Path], int]
    restore: Restore
    confirm_restoration: Callable[[Confirmation], int]
    key_compromise: Callable[[KeyCompromise], int]
    incident_report: Callable[[Window], int]
    anchor: AnchorCommands


def build_app(house: HouseCommands) -> App:
    """The command line; calling it parses ``sys.argv`` and ends the process with the command's exit code."""
    app = App(name="sequencer", help=HELP, version=version("ves-sequencer"))
    app.command(house.serve, name="serve")
    app.command(house.migrate, name="migrate")
    app.command(doctor_of(house.doctor), name="doctor")
    app.command(status)
    app.command(agent)
    app.command(agent_key)
    app.command(verify)
    app.command(export)
    app.command(api_key)
    app.command(schema)
    app.command(tenant_policy)
    app.command(tenant_region)
    app.command(token)
    app.command(receipt_key_app(house.rotate))
    app.command(admin_app(house.reencrypt, house.retire_at_rest_key, house.archive))
    app.command(backup_app(house.backup, house.verify_backup))
    app.command(restore_app(house.restore, house.confirm_restoration))
    app.command(actors)
    app.command(audit)
    app.command(anchor_app(house.anchor))
    app.command(incident_app(house.key_compromise, house.incident_report))
    return app
