"""What happened in a run: every request with its outcome, every fault that hit, every actor that ended.

Alone knows what has been promised to callers so far. It never judges the house as a whole (the oracle does),
only whether one answer contradicts another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import structlog
import trio
from structlog.typing import EventDict, WrappedLogger

from tests.simulation.agents import Event, Stream

Outcome = Literal["ok", "refused", "nothing", "unknown"]
"""Of one event in one request: a receipt; a refusal; the answer that nothing was done; nobody knows."""


class Entry(NamedTuple):
    at_s: float
    who: str
    what: str
    outcome: str


class History:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.outcomes: defaultdict[Event, list[Outcome]] = defaultdict(list)
        self.unsigned: defaultdict[Event, list[Outcome]] = defaultdict(list)
        """The same of unsigned events; ok: accepted."""
        self.told_to_be_there: set[Event] = set()
        """Unsigned events that were called duplicates."""
        self.receipts: dict[Event, dict[str, Any]] = {}
        self.hits: Counter[str] = Counter()
        self.violations: list[str] = []
        self.heads: Counter[Stream] = Counter()
        """The highest number acknowledged so far."""
        self.troubled = False
        """Something went wrong that callers may notice."""
        self.slowed = 0
        """How much went wrong that may make an answer late: a slow thing, or a row of deaths."""
        self.no_more_of: list[tuple[str, dict[Stream, int]]] = []

    def note(self, who: str, what: str, outcome: str = "") -> None:
        self.entries.append(Entry(trio.current_time(), who, what, outcome))

    def hit(self, kind: str, who: str, what: str = "") -> None:
        self.hits[kind] += 1
        self.troubled = True
        self.slowed += ENOUGH_TO_BE_LATE if kind in _SLOW else 0
        self.note(who, f"FAULT {kind}", what)

    def violation(self, text: str) -> None:
        self.violations.append(text)
        self.note("oracle", "VIOLATION", text)

    def acknowledge(self, event: Event, receipt: dict[str, Any]) -> None:
        earlier = self.receipts.setdefault(event, receipt)
        if earlier != receipt:
            self.violation(f"two receipts for event {event} of {event.agent}: {earlier} and {receipt}")
        self.heads[event.stream] = max(self.heads[event.stream], receipt["sequenceNumber"])

    def digest(self) -> str:
        """Of everything: who did what when, and each receipt with its time and signature."""
        text = "\n".join(map(repr, [*self.entries, *self.violations, *sorted(self.receipts.items())]))
        return sha256(text.encode()).hexdigest()[:16]

    # What the house logs: only who ended and why.

    def listen(self, _logger: WrappedLogger, _method: str, said: EventDict) -> EventDict:
        """A structlog processor; nothing is printed."""
        event = said["event"]
        if event in _ENDS:
            why = str(said.get("why", said.get("reason", "")))
            if event == "actor finished":
                if said["actor"].startswith("sequencers/") and "between letters" in why:
                    self.hits["retired or stopped"] += 1
            else:
                self.troubled = True
                self.slowed += ENOUGH_TO_BE_LATE if event == "actor rests" else 1
                self.note(str(said["actor"]), event, why[:140])
        elif event == "internal error":
            self.note("door", event, repr(said.get("exc_info"))[:140])
        raise structlog.DropEvent


ENOUGH_TO_BE_LATE = 4
"""Deaths of actors: the pauses between lives grow."""
_SLOW = {"outage", "slow database", "journal held", "worker hangs", "worker late", "worker slow"}
_SLOW |= {"house gave up", "node stopped", "node killed", "operator suspend", "operator drain"}
_ENDS = {"actor died", "actor ended", "actor finished", "actor rests", "dead letter", "supervisor gives up"}
