"""``sequencer doctor``: how the command looks to the operator; the examination is the house's."""

from __future__ import annotations

from collections.abc import Callable

from transport.cli.console import Json


def doctor_of(examine: Callable[[bool], int]) -> Callable[..., int]:
    def doctor(*, as_json: Json = False) -> int:
        """Hold this deployment against the security guide's checklists: settings, files, database, server.

        Run it where the server runs, as its user and in its environment, while the server runs or not. It
        changes nothing and shows no secret. Exit code 1 when an item failed; "cannot tell" and "yours" are
        for people to look at.
        """
        return examine(as_json)

    return doctor
