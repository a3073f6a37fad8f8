"""The auditor's judgement of what only an export shows: unsigned events, their commitments, validity proofs.

Nobody signs an unsigned event, so nothing is asked of who sent it. State roots of commitments over unsigned
events are of a moment that no copy shows: only that each names the one before. Whether a validity proof
proves anything is not asked either.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.auditor import rules
from tests.auditor.rules import unhex

Json = dict[str, Any]


@dataclass
class Copied:
    """Of one store, beside what ``audit.Evidence`` has. Payloads' numbers are ``rules.Spelled``."""

    tenant_id: str
    store_id: str
    unsigned_head: int
    unsigned_events: list[Json] = field(default_factory=list)
    unsigned_commitments: list[Json] = field(default_factory=list)
    commitments: list[Json] = field(default_factory=list)
    validity_proofs: list[Json] = field(default_factory=list)


def audit_copy(copied: Copied) -> list[str]:
    """Every fault, each a sentence naming what and where."""
    name = f"stream {copied.tenant_id}/{copied.store_id}"
    found: list[str] = []
    for what in (_events, _commitments, _proofs):
        try:
            found += [f"{name}: {problem}" for problem in what(copied)]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            found.append(f"{name}: not formed as the protocol says: {type(error).__name__} {error}")
    return found


def _events(copied: Copied) -> Iterator[str]:
    ids, latest = set(), 0
    for expected, shown in enumerate(copied.unsigned_events, 1):
        event, name = shown["envelope"], f"unsigned event {expected}"
        if event["sequence_number"] != expected:
            yield f"{name} has number {event['sequence_number']}"
        if (event["tenant_id"], event["store_id"]) != (copied.tenant_id, copied.store_id):
            yield f"{name} belongs to another stream"
        if event["event_id"] in ids:
            yield f"{name} has an event_id that occurred before"
        ids.add(event["event_id"])
        if "payload" in event:
            hashed = rules.sha256(rules.unsigned_text(event["payload"]).encode())
            if hashed != unhex(event["payload_hash"], 32, "payload_hash"):
                yield f"{name} has a payload of another hash"
        now = rules.instant_us(shown["sequenced_at"])
        if now < latest:
            yield f"{name} was sequenced before its predecessor"
        latest = max(latest, now)
    if len(copied.unsigned_events) != copied.unsigned_head:
        yield f"{len(copied.unsigned_events)} unsigned events are here, the head is {copied.unsigned_head}"


def _commitments(copied: Copied) -> Iterator[str]:
    leaves = [rules.unsigned_leaf(e["envelope"], n) for n, e in enumerate(copied.unsigned_events, 1)]
    start, state = 1, rules.ZEROS.hex()
    for shown in copied.unsigned_commitments:
        name, end = f"commitment {shown['batch_id']} over unsigned events", shown["sequence_end"]
        if (shown["sequence_start"], shown["prev_state_root"]) != (start, state):
            yield f"{name} does not follow from the one before"
        covered = leaves[start - 1 : end]
        if len(covered) != end - start + 1 or not covered or shown["event_count"] != len(covered):
            yield f"{name} covers {start} to {end}, {len(covered)} events are here"
        elif rules.unsigned_root(covered) != unhex(shown["events_root"], 32, "events_root"):
            yield f"{name} has another root than its events"
        start, state = end + 1, shown["new_state_root"]


def _proofs(copied: Copied) -> Iterator[str]:
    commitments = {commitment["batch_id"]: commitment for commitment in copied.commitments}
    for proof in copied.validity_proofs:
        name = f"validity proof {proof['proof_id']}"
        commitment = commitments.get(proof["batch_id"])
        if commitment is None:
            yield f"{name} is about no commitment that is here"
            continue
        given = base64.b64decode(proof["proof_b64"], validate=True)
        if rules.validity_proof_hash(given) != unhex(proof["proof_hash"], 32, "proof_hash"):
            yield f"{name} has other bytes than its proof_hash says"
        inputs = proof["public_inputs"]
        due = rules.canonical(rules.validity_inputs(commitment))
        if inputs is not None and rules.canonical(inputs) != due:
            yield f"{name} has public inputs of something else"
