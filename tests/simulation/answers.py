"""What a caller is told of his events, taken down and held against what he sent and what went wrong so far.

Judges one answer at a time: is it complete, does every receipt belong to its event, has every refusal and
every «not now» a reason in the script. Whether all of it is true is the oracle's question.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tests.simulation import script as s
from tests.simulation.agents import TWIN, Agent, Event, signing_hash
from tests.simulation.history import ENOUGH_TO_BE_LATE, History, Outcome
from tests.simulation.node import Reply
from ves.encoding import uuid_text
from ves.receipts import receipt_hash

_NOTHING_DONE = {"SERVICE_UNAVAILABLE", "NOT_READY", "RATE_LIMIT_EXCEEDED"}
_FULL = "too many requests are waiting"
_CROWDED = "too many tenants"


class Answers:
    def __init__(self, script: s.Script, history: History) -> None:
        steps = script.steps
        self._history = history
        # Two nodes contend for a stream, and a tiny mailbox may be full inside the house too.
        self._nobody_in_the_way = script.nodes == 1 and not is_tiny(script.settings)
        self._crashes = any(isinstance(step, s.Crash) for step in steps)
        self._keys_change = {step.agent for step in steps if isinstance(step, s.RevokeKey | s.RegisterKey)}
        self._credentials_end = {step.agent for step in steps if isinstance(step, s.RevokeApiKey)}
        self._sent = {event for step in steps if isinstance(step, s.Post) for event in step.named}

    def posted(self, events: tuple[Event, ...], reply: Reply) -> tuple[str, bool]:
        """Take it down; what to show of it, and whether it is final."""
        told = shown(reply)
        if reply.status == 200:
            return self._each(events, reply.json), True
        outcome, final = _of_all(reply)
        for event in set(events):
            self._history.outcomes[event].append(outcome)
        if _FULL in told:
            self._history.hits["mailbox full"] += 1
        elif _CROWDED in told:
            self._history.hits["too many tenants"] += 1
        elif why := self._unexplained(events[0].agent, reply):
            self._history.violation(f"{why}, and the answer is {told}")
        return told, final

    def _unexplained(self, agent: Agent, reply: Reply) -> str | None:
        """What would have had to go wrong for this answer, and did not."""
        history = self._history
        if reply.kind in ("left", "refused", "hung"):
            return None
        if reply.kind == "lost":
            return None if history.hits["node killed"] or history.hits["house gave up"] else "no server died"
        if reply.status == 401:
            return None if agent in self._credentials_end else "the API key was never revoked"
        if reply.status == 504:
            return None if history.slowed >= ENOUGH_TO_BE_LATE else "nothing was slow"
        if reply.status == 503:
            return "nothing went wrong" if self._nobody_in_the_way and not history.troubled else None
        if reply.status == 500:
            return None if self._crashes else "nobody was surprised"
        return "the request is a good one"

    def _each(self, events: tuple[Event, ...], answer: dict[str, Any]) -> str:
        wrong = self._history.violation
        receipts = answer.get("receipts", [])
        numbers = [receipt["sequenceNumber"] for receipt in receipts]
        by_id = {receipt["eventId"]: receipt for receipt in receipts}
        reasons = {one["event_id"]: one["reason"] for one in answer.get("rejections", [])}
        told = " ".join(["200", f"numbers {numbers}" if numbers else "", ", ".join(sorted(reasons.values()))])
        counted = answer["eventsAccepted"] + answer["eventsReplayed"]
        if counted != len(receipts) or counted + answer["eventsRejected"] != len(events):
            wrong(f"{len(events)} events were sent, and answered is {answer}")
        if max(numbers, default=0) > answer["headSequence"]:
            wrong(f"the head is said to be {answer['headSequence']}, the numbers {numbers}")
        if [*by_id] != [name for event in dict.fromkeys(events) if (name := uuid_text(event.id)) in by_id]:
            wrong("the receipts are not in request order")
        for event in dict.fromkeys(events):
            self._one(event, events, by_id.get(uuid_text(event.id)), reasons.get(uuid_text(event.id)))
        return told.strip()

    def _one(
        self,
        event: Event,
        events: tuple[Event, ...],
        receipt: dict[str, Any] | None,
        reason: str | None,
    ) -> None:
        history, who = self._history, f"event {event} of {event.agent}"
        if receipt is not None:
            history.outcomes[event].append("ok")
            if receipt["receiptHash"] != _hash_of(event, receipt["sequenceNumber"]):
                history.violation(f"the receipt for {who} is another event's")
            history.acknowledge(event, receipt)
        elif reason is not None:
            history.outcomes[event].append("refused")
            if not self._may_be_refused(event, events, reason.split(":")[0]):
                history.violation(f"{who} was refused without a reason: {reason}")
        else:
            history.violation(f"nothing was said of {who}")

    def _may_be_refused(self, event: Event, events: tuple[Event, ...], reason: str) -> bool:
        match reason:
            case "invalid_signature":
                return event.is_forged
            case "agent_key_invalid":
                return event.agent in self._keys_change
            case "duplicate_event_id":
                twin = event._replace(n=event.n - TWIN if event.n >= TWIN else event.n + TWIN)
                return twin in self._sent or events.count(event) > 1
            case "duplicate_command_id":
                return event.n % 10 == 7 and self._has_a_rival(event)
            case "version_conflict":
                return event.n % 10 == 8 and self._has_a_rival(event)
        return False

    def _has_a_rival(self, event: Event) -> bool:
        """Another event with its command id, or of its entity."""
        return any(e != event and (e.stream, e.n) == (event.stream, event.n) for e in self._sent) or any(
            e.id == event.id and e != event for e in self._sent
        )


def is_tiny(settings: dict[str, int | float]) -> bool:
    return settings["mailbox_letters_max"] < s.TINY_BELOW


def _of_all(reply: Reply) -> tuple[Outcome, bool]:
    if reply.kind == "refused":
        return "nothing", False
    if reply.kind != "answered" or reply.status in (500, 504):
        return "unknown", False
    if reply.status >= 500:
        return ("nothing" if reply.json["error"]["code"] in _NOTHING_DONE else "unknown"), False
    return "nothing", True


@lru_cache(maxsize=65_536)
def _hash_of(event: Event, number: int) -> str:
    return receipt_hash(*event.stream.ids, event.id, number, signing_hash(event)).hex()


def shown(reply: Reply) -> str:
    if reply.kind != "answered":
        return reply.kind
    if reply.status == 200:
        return "200"
    error = reply.json["error"]
    return f"{reply.status} {error['code']}: {error['message'][:60]}"
