"""What the tree is handed of the anchor's household; ``supervisor.anchor_house`` puts it together.

A module of its own, so that a house which anchors nothing imports nothing of a chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.anchor_vitals import Anchoring
from actors.mailbox import Actor
from actors.security_events import SecurityEvents


@dataclass(frozen=True)
class AnchorParts:
    anchoring: Anchoring
    actor: Callable[[SecurityEvents, Callable[[], int]], Actor] | None = None
    """A life of the anchor, given what counts events and the clock; None: it anchors elsewhere."""
    keeper: Callable[[], Actor] | None = None
    """Of the development chain."""
