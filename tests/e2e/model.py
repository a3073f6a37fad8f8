"""What one tenant of the sequencer is, as a dictionary and a few counters: the whole truth a client can see.

``Model.post`` says what the service must answer to a request and changes the model as it must change the
service. It knows no signature, hash, database or HTTP: whoever damages an event says how. Written from the
VES text and the README, not from the code.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sent:
    """An event as it goes out, and what is wrong with it by itself (the reason it must be refused for)."""

    event: dict[str, Any]
    flaw: str | None = None

    @property
    def event_id(self) -> str:
        return str(self.event["event_id"])

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for exact replays only: the signature covers what is not named here."""
        names = ("agent_signature", "command_id", "base_version", "store_id")
        return tuple(self.event.get(name) for name in names)


@dataclass
class Kept:
    """An accepted event with the receipt it was answered with."""

    sent: Sent
    receipt: dict[str, Any] = field(default_factory=dict)


@dataclass
class Expected:
    """The verdicts in request order: a receipt that is still to come, an old one, or a reason."""

    accepted: list[Kept] = field(default_factory=list)
    replayed: list[Kept] = field(default_factory=list)
    receipts: list[Kept] = field(default_factory=list)
    """Both, in request order."""
    rejections: list[tuple[str, str]] = field(default_factory=list)
    """(event_id, reason up to its first colon)."""


class Model:
    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.streams: dict[str, list[Kept]] = {}
        self.committed_through: Counter[str] = Counter()
        self.revoked: set[str] = set()
        """Agents, each with one key."""
        self._commands: set[tuple[str, str]] = set()
        self._versions: Counter[tuple[str, str]] = Counter()

    def head(self, store: str) -> int:
        return len(self.streams.get(store, ()))

    def version(self, store: str, entity: str) -> int:
        return self._versions[store, entity]

    def post(self, request: list[Sent]) -> Expected:
        expected = Expected()
        seen: set[str] = set()
        for sent in request:
            reason = sent.flaw or ("duplicate_event_id" if sent.event_id in seen else None)
            if reason is None:
                reason = self._sequence(sent, expected)
            if reason is not None:
                expected.rejections.append((sent.event_id, reason))
            seen.add(sent.event_id)
        return expected

    def _sequence(self, sent: Sent, expected: Expected) -> str | None:
        known = self.kept.get(sent.event_id)
        if known is not None:
            if known.sent.identity != sent.identity:
                return "duplicate_event_id"
            expected.replayed.append(known)
            expected.receipts.append(known)
            return None
        return self._objection(sent) or self._accept(sent, expected)

    def _objection(self, sent: Sent) -> str | None:
        event = sent.event
        if event["source_agent_id"] in self.revoked:
            return "agent_key_invalid"
        if event.get("command_id") and (event["store_id"], event["command_id"]) in self._commands:
            return "duplicate_command_id"
        base = event.get("base_version")
        if base is not None and base != self.version(event["store_id"], event["entity_id"]):
            return "version_conflict"
        return None

    def _accept(self, sent: Sent, expected: Expected) -> None:
        event, kept = sent.event, Kept(sent)
        self.kept[sent.event_id] = kept
        self.streams.setdefault(event["store_id"], []).append(kept)
        self._versions[event["store_id"], event["entity_id"]] += 1
        if event.get("command_id"):
            self._commands.add((event["store_id"], event["command_id"]))
        expected.accepted.append(kept)
        expected.receipts.append(kept)
