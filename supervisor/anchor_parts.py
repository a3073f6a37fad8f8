"""What the tree is handed of the anchor's household; ``supervisor.anchor_house`` puts it together.

A module of its own, so that a house which anchors nothing imports nothing of a chain.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from actors.anchor_vitals import Anchoring
from actors.mailbox import Actor
from actors.security_events import SecurityEvents

MakeAnchor = Callable[[SecurityEvents, Callable[[], int], random.Random], Actor]
"""Given what counts events, the clock, and chance for pauses."""


@dataclass(frozen=True)
class AnchorParts:
    anchoring: Anchoring
    actor: MakeAnchor | None = None
    """A life of the anchor; None: it anchors elsewhere."""
    keeper: Callable[[], Actor] | None = None
    """Of the development chain."""
