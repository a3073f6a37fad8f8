"""The whole command line: every command of the house by its name, for whoever asked for more than to serve.

Apart from ``supervisor.main`` because importing it takes longer than a start has time for.
"""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App

from supervisor import anchor_commands
from supervisor.archive_command import archive_command
from supervisor.backup_command import backup_command, verify_backup_command
from supervisor.doctor_command import doctor_command
from supervisor.incident_command import incident_report_command, key_compromise_command
from supervisor.reencrypt_command import reencrypt_command
from supervisor.restore_command import confirm_command, restore_command
from supervisor.retire_command import retire_command
from supervisor.rotate_command import rotate_command
from transport.cli.anchor import AnchorCommands
from transport.cli.app import HouseCommands, build_app


def command_line(*, serve: Callable[[], int], migrate: Callable[[], int]) -> App:
    """Calling it parses ``sys.argv`` and ends the process with the command's exit code."""
    return build_app(
        HouseCommands(
            serve=serve,
            migrate=migrate,
            rotate=rotate_command,
            reencrypt=reencrypt_command,
            retire_at_rest_key=retire_command,
            doctor=doctor_command,
            archive=archive_command,
            backup=backup_command,
            verify_backup=verify_backup_command,
            restore=restore_command,
            confirm_restoration=confirm_command,
            key_compromise=key_compromise_command,
            incident_report=incident_report_command,
            anchor=AnchorCommands(
                run=anchor_commands.run_command,
                resume=anchor_commands.resume_command,
                deploy=anchor_commands.deploy_command,
                key=anchor_commands.key_command,
            ),
        )
    )
