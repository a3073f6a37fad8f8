"""The checker of histories: judges a run by its JSON lines alone, so that the file is shown to suffice.

``python -m tests.chaos.checker chaos-history.jsonl``: every broken promise, one a line; exit 0 or 1.
Pure. Needs nothing that is not in the file: what was sent, what was answered, what was read at the end, and
the published receipt keys. Commitments and proofs are the auditor's, who asks the server.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.auditor import rules

Json = dict[str, Any]
Stream = tuple[str, str]
Identity = tuple[str, str, str]
"""event_id, signing_hash, content: one event as one agent meant it, or as somebody forged it."""


@dataclass
class Verdict:
    """Sentences, by kind of broken promise; ``acked`` counts different events."""

    acked: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.gaps, *self.invalid]


@dataclass
class _Call:
    invoked: Json
    completed: Json | None = None

    @property
    def outcome(self) -> str:
        """A call that nobody completed may have had any effect."""
        return str(self.completed["outcome"]) if self.completed else "unknown"

    @property
    def receipts(self) -> list[Json]:
        return list(self.completed.get("receipts", [])) if self.completed else []

    def answer_to(self, event_id: str) -> str:
        """receipt, rejected, unknown or fail: for one event of this call."""
        if self.outcome != "ok":
            return self.outcome
        assert self.completed is not None
        if any(receipt["eventId"] == event_id for receipt in self.receipts):
            return "receipt"
        rejected = any(r["event_id"] == event_id for r in self.completed.get("rejections", []))
        return "rejected" if rejected else "unknown"


def check(history: Iterable[Json]) -> Verdict:
    lines = list(history)
    calls = _calls(lines)
    sent = [call for call in calls if call.invoked["op"] in ("ingest", "replay")]
    read_back = [call for call in calls if call.invoked["op"] == "read" and call.outcome == "ok"]
    reads = {_stream(call.invoked): call.completed for call in read_back}
    keys = {
        (key["sequencer_id"], key["key_version"]): bytes.fromhex(key["public_key"].removeprefix("0x"))
        for line in lines
        if line["type"] == "receipt_keys"
        for key in line["keys"]
    }
    verdict = Verdict()
    promised = _promises(sent, verdict)
    verdict.acked = len(promised)
    for stream in sorted({_stream(call.invoked) for call in sent} - set(reads)):
        verdict.invalid.append(f"stream {stream[1]} was written and never read back")
    verdict.lost += _lost(promised, reads)
    verdict.doubled += _doubled(reads)
    verdict.gaps += _gaps(reads)
    verdict.invalid += _receipts(promised, keys)
    verdict.invalid += _strangers(sent, reads)
    verdict.invalid += _after_revocation(calls, sent, reads)
    verdict.invalid += _unreplayed(sent)
    return verdict


def _calls(lines: list[Json]) -> list[_Call]:
    """In the order of invocation."""
    calls: dict[int, _Call] = {}
    for line in lines:
        if line["type"] == "invoke":
            calls[line["id"]] = _Call(line)
        elif line["type"] == "complete":
            calls[line["id"]].completed = line
    return list(calls.values())


def _stream(invoked: Json) -> Stream:
    return invoked["tenant"], invoked["store"]


@dataclass
class _Promise:
    stream: Stream
    event: Json
    receipt: Json

    @property
    def place(self) -> tuple[Stream, int]:
        return self.stream, self.receipt["sequenceNumber"]


def _promises(sent: list[_Call], verdict: Verdict) -> dict[tuple[str, str], _Promise]:
    """By tenant and event_id. A second, other receipt, or one for a forged event, is a broken promise."""
    found: dict[tuple[str, str], _Promise] = {}
    for call in sent:
        events = {event["event_id"]: event for event in call.invoked["events"]}
        for receipt in call.receipts:
            event = events.get(receipt["eventId"])
            if event is None:
                verdict.invalid.append(f"call {call.invoked['id']} got a receipt for what it did not send")
                continue
            if event["tampered"]:
                verdict.invalid.append(f"event {event['event_id']} was tampered with and got a receipt")
            promise = _Promise(_stream(call.invoked), event, receipt)
            earlier = found.setdefault((promise.stream[0], event["event_id"]), promise)
            if earlier.place != promise.place:
                verdict.doubled.append(f"event {event['event_id']} was given two numbers")
            elif earlier.receipt != receipt:
                verdict.invalid.append(f"event {event['event_id']} was given two different receipts")
    return found


def _lost(promised: dict[tuple[str, str], _Promise], reads: dict[Stream, Json | None]) -> Iterator[str]:
    places = {
        stream: {(event["event_id"], event["sequence_number"]): event for event in _events(read)}
        for stream, read in reads.items()
    }
    for promise in promised.values():
        place = promise.receipt["eventId"], promise.receipt["sequenceNumber"]
        event = places.get(promise.stream, {}).get(place)
        if event is None:
            yield f"acknowledged event {place[0]} is not at its number {place[1]}"
        elif _identity(event) != _identity(promise.event):
            yield f"acknowledged event {place[0]} came back with other content"
        elif event["receipt"] != promise.receipt:
            yield f"acknowledged event {place[0]} came back with another receipt"


def _events(read: Json | None) -> list[Json]:
    return read["events"] if read else []


def _doubled(reads: dict[Stream, Json | None]) -> Iterator[str]:
    homes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (tenant, _), read in reads.items():
        for event in _events(read):
            homes[tenant, event["event_id"]].append(event["sequence_number"])
    for (_, event_id), numbers in homes.items():
        if len(numbers) > 1:
            yield f"event {event_id} is there {len(numbers)} times, numbers {numbers}"


def _gaps(reads: dict[Stream, Json | None]) -> Iterator[str]:
    for (_, store), read in reads.items():
        numbers = [event["sequence_number"] for event in _events(read)]
        head = read["head"] if read else 0
        missing = set(range(1, head + 1)) - set(numbers)
        if missing:
            yield f"stream {store}: {len(missing)} numbers up to {head} are missing, first {min(missing)}"
        if numbers != sorted(numbers) or (numbers and numbers[-1] > head):
            yield f"stream {store}: numbers are out of order or beyond the head {head}"


def _receipts(promised: dict[tuple[str, str], _Promise], keys: dict[tuple[str, int], bytes]) -> Iterator[str]:
    for promise in promised.values():
        receipt, (tenant, store) = promise.receipt, promise.stream
        expected = rules.sha256(
            b"VES_RECEIPT_V1",
            rules.uuid16(tenant),
            rules.uuid16(store),
            rules.uuid16(receipt["eventId"]),
            rules.u64(receipt["sequenceNumber"]),
            bytes.fromhex(promise.event["signing_hash"]),
        )
        key = keys.get((receipt["sequencerId"], receipt["sequencerKeyVersion"]))
        if receipt["receiptHash"] != expected.hex():
            yield f"the receipt of {receipt['eventId']} does not bind it to its number"
        elif key is None:
            yield f"the receipt of {receipt['eventId']} names a key that is not published"
        elif not rules.signature_holds(key, expected, bytes.fromhex(receipt["sequencerSignature"])):
            yield f"the receipt of {receipt['eventId']} is not signed by its key"


def _identity(event: Json) -> Identity:
    return event["event_id"], event["signing_hash"], event["content"]


def _strangers(sent: list[_Call], reads: dict[Stream, Json | None]) -> Iterator[str]:
    """Present events that every answer so far says are not."""
    answers: dict[tuple[Stream, Identity], list[str]] = defaultdict(list)
    by_end = sorted(sent, key=lambda call: call.completed["mono"] if call.completed else float("inf"))
    for call in by_end:
        for event in call.invoked["events"]:
            answers[_stream(call.invoked), _identity(event)].append(call.answer_to(event["event_id"]))
    for stream, read in reads.items():
        for event in _events(read):
            heard = answers.get((stream, _identity(event)), [])
            if not heard:
                yield f"event {event['event_id']} is there as nobody sent it"
            elif heard[-1] == "rejected":
                yield f"event {event['event_id']} is there, its last answer was a refusal"
            elif not {"receipt", "unknown"} & set(heard):
                yield f"event {event['event_id']} is there, every attempt was answered: nothing was done"


def _after_revocation(
    calls: list[_Call], sent: list[_Call], reads: dict[Stream, Json | None]
) -> Iterator[str]:
    """The head of a stream, asked for after a revocation was acknowledged, is the last number that the key
    can have there. An event of it that was first sent after the acknowledgement is nowhere."""
    revoked: dict[tuple[str, str], float] = {}
    for call in calls:
        if call.invoked["op"] == "revoke_key" and call.outcome == "ok":
            assert call.completed is not None
            key = call.invoked["tenant"], call.invoked["agent"]
            revoked[key] = min(call.completed["mono"], revoked.get(key, float("inf")))
    heads: dict[tuple[Stream, str], int] = {}
    for call in calls:
        if call.invoked["op"] == "head" and call.outcome == "ok" and call.completed is not None:
            stream = _stream(call.invoked)
            for tenant, agent in revoked:
                if tenant == stream[0] and call.invoked["mono"] >= revoked[tenant, agent]:
                    known = heads.get((stream, agent), call.completed["head"])
                    heads[stream, agent] = min(known, call.completed["head"])
    first_sent: dict[tuple[Stream, str], float] = {}
    for call in sent:
        for event in call.invoked["events"]:
            first_sent.setdefault((_stream(call.invoked), event["event_id"]), call.invoked["mono"])
    for stream, read in reads.items():
        for event in _events(read):
            since = revoked.get((stream[0], event["agent"]))
            if since is None:
                continue
            last = heads.get((stream, event["agent"]))
            late = first_sent.get((stream, event["event_id"]), 0.0) > since
            if late or (last is not None and event["sequence_number"] > last):
                yield f"event {event['event_id']} of a revoked key was sequenced after the revocation"


def _unreplayed(sent: list[_Call]) -> Iterator[str]:
    """Every request that got a receipt was sent once more at the end, and answered. That the receipts were
    the same is seen where promises are gathered."""
    acknowledged = {call.invoked["body"] for call in sent if call.receipts}
    replayed = {call.invoked["body"] for call in sent if call.invoked["op"] == "replay" and call.receipts}
    for body in sorted(acknowledged - replayed):
        yield f"request {body[:16]} was acknowledged; it was not replayed, or its replay had no receipt"


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as lines:
        verdict = check(map(json.loads, lines))
    for sentence in verdict.broken:
        print(sentence)
    print(f"{verdict.acked} acknowledged events, {len(verdict.broken)} broken promises", file=sys.stderr)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
