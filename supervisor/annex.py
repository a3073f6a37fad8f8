"""A part of the house that the rest can do without: its troubles are its own.

Its children are restarted like all others, after pauses that grow; when they die too often it gives up and is
born again, which takes so long that the house above never counts it as more than one death in a while. The
house is ready without it, and whoever is held back in it holds back nobody else.
"""

from __future__ import annotations

from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Supervisor

DEATHS = 5
PERIOD_S = 60.0
PAUSES = Pauses(first_s=1.0, max_s=30.0)
"""Five deaths in a row take 31 seconds, beyond the period in which the house counts."""


class Annex(Supervisor):
    def __init__(self, name: str, children: list[ChildSpec]) -> None:
        super().__init__(name, children, intensity=DEATHS, period_s=PERIOD_S, pauses=PAUSES)

    @property
    def ready(self) -> bool:
        return True

    def held_back(self) -> list[str]:
        return []
