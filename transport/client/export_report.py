"""What the check of an export has found so far, and how it goes through a file. Judges nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from transport.client.errors import BadAnswer
from transport.client.export_form import lines_of

PROBLEMS_MAX = 100
"""Kept; all are counted."""


class ExportReport(msgspec.Struct):
    """What was found. ``problems``: each names its place."""

    tenant_id: str = ""
    streams: int = 0
    events: int = 0
    receipts: int = 0
    """Receipts that hold."""
    commitments: int = 0
    committed: int = 0
    """Events whose leaf stands in a commitment that holds."""
    uncommitted: int = 0
    state_roots: dict[str, str] = {}
    """By store, after its last commitment: equal for everybody who saw the same history."""
    void: int = 0
    """Numbers of signed events that are said to be nobody's."""
    legacy_events: int = 0
    legacy_commitments: int = 0
    legacy_committed: int = 0
    """Unsigned events from which the root of a commitment was recomputed."""
    legacy_uncommitted: int = 0
    validity_proofs: int = 0
    proofs_without_inputs: int = 0
    """Submitted without saying what they are proofs of."""
    trusted: bool = True
    """Every receipt was signed by a key that is believed, or follows from one."""
    verified: list[str] = []
    not_verified: list[str] = []
    problems: list[str] = []
    problems_found: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems_found

    def say(self, place: str, text: str) -> None:
        self.problems_found += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(f"{place}: {text}")


def lines_in(folder: Path, name: str, report: ExportReport) -> Iterator[tuple[str, bytes]]:
    """Each line with its place; a line that is cut off ends the file."""
    try:
        for number, line in lines_of(folder / name):
            yield f"{name}:{number}", line
    except BadAnswer as cut:
        report.say(name, str(cut).rpartition(": ")[2])
