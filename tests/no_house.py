"""The commands that are the house itself, for tests of all the others: each answers 7 and does nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from transport.cli.anchor import AnchorCommands
from transport.cli.app import HouseCommands


def seven(*words: Any) -> int:
    return 7


NO_ANCHOR = AnchorCommands(**{command.name: seven for command in fields(AnchorCommands)})
NO_HOUSE = HouseCommands(
    **{command.name: seven for command in fields(HouseCommands)} | {"anchor": NO_ANCHOR}  # type: ignore[arg-type]
)
