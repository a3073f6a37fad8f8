"""``sequencer anchor run|resume|deploy|key``: the anchor in a process of its own, and its operator's acts.

Each opens what the anchor opens, its own login, its chain, its key's process, and takes the anchor's lease
for what it writes: exactly one works, whoever it is. What concerns a chain is imported when it is needed.
"""

from __future__ import annotations

from functools import partial

from supervisor.anchor_key_command import anchor_key_command
from supervisor.shell import readably
from transport.cli.anchor import Resumption

key_command = anchor_key_command


def run_command() -> int:
    """Anchor until SIGTERM or SIGINT."""
    from supervisor.anchor_run_command import run

    return readably(run)


def resume_command(wanted: Resumption) -> int:
    """Record that the anchor goes on where the chain stands."""
    from supervisor.anchor_repair_command import resume

    return readably(partial(resume, wanted))


def deploy_command(yes: bool) -> int:
    """Deploy the contract; without ``yes`` say what it would cost."""
    from supervisor.anchor_deploy_command import deploy

    return readably(partial(deploy, yes))
