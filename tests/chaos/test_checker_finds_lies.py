"""The checker can fail: an honest history passes, and each planted lie is counted under its own word."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.auditor import rules
from tests.chaos.checker import Verdict, check
from tests.chaos.history import History, Json, identity, read_history, sha256_hex, told
from tests.chaos.judgement import classified
from tests.e2e.world import Agent

SEQUENCER = str(uuid.UUID(int=9))
RECEIPT_KEY = Ed25519PrivateKey.from_private_bytes(bytes([4]) * 32)


class Recorded:
    """A short honest run, written by the recorder that chaos runs use."""

    def __init__(self, path: Path) -> None:
        self.history = History(path)
        self.history.run(seed=0, duration_s=0)
        self.tenant, self.store = uuid.UUID(int=1), uuid.UUID(int=2)
        self.stream = {"tenant": str(self.tenant), "store": str(self.store)}
        self.agent = Agent(self.tenant, self.store)
        self.stored: list[Json] = []

    def attempt(self, events: list[Json], outcome: str, *, op: str = "ingest", **answer: Any) -> None:
        body = sha256_hex(self.agent.body(events))
        tampered = answer.pop("tampered", False)
        number = self.history.invoke(
            "client-0", op, **self.stream, body=body, events=[told(e, tampered=tampered) for e in events]
        )
        self.history.complete(number, "client-0", outcome, **answer)  # type: ignore[arg-type]

    def store_events(self, events: list[Json]) -> list[Json]:
        """As a sequencer would: the next numbers, and receipts for them."""
        for event in events:
            number = len(self.stored) + 1
            digest = rules.receipt_hash(event, number)
            receipt = {
                "eventId": event["event_id"],
                "sequenceNumber": number,
                "receiptHash": digest.hex(),
                "sequencerId": SEQUENCER,
                "sequencerKeyVersion": 1,
                "sequencerSignature": RECEIPT_KEY.sign(digest).hex(),
            }
            self.stored.append({**identity(event), "sequence_number": number, "receipt": receipt})
        return [stored["receipt"] for stored in self.stored[-len(events) :]]

    def revoke(self) -> None:
        agent = f"{self.agent.agent_id}/{self.agent.key_id}"
        number = self.history.invoke("client-0", "revoke_key", **self.stream, agent=agent)
        self.history.complete(number, "client-0", "ok")
        number = self.history.invoke("client-0", "head", **self.stream)
        self.history.complete(number, "client-0", "ok", head=len(self.stored))

    def finish(self) -> list[Json]:
        number = self.history.invoke("auditor", "read", **self.stream)
        self.history.complete(number, "auditor", "ok", head=len(self.stored), events=self.stored)
        public = RECEIPT_KEY.public_key().public_bytes_raw().hex()
        self.history.receipt_keys([{"sequencer_id": SEQUENCER, "key_version": 1, "public_key": public}])
        self.history.close()
        return read_history(self.history.path)


@pytest.fixture
def honest(tmp_path: Path) -> list[Json]:
    """Acknowledged at once; unheard and resent; nothing done; refused; stored and never heard of."""
    run = Recorded(tmp_path / "history.jsonl")
    some, unheard, never, forged, silent, late = (
        [run.agent.event({"n": n})] for n in ("some", "unheard", "never", "forged", "silent", "late")
    )
    receipts = run.store_events(some)
    run.attempt(some, "ok", receipts=receipts, rejections=[])
    run.attempt(unheard, "unknown")
    heard = run.store_events(unheard)
    run.attempt(unheard, "ok", receipts=heard, rejections=[])
    run.attempt(never, "fail")
    refused = [{"event_id": forged[0]["event_id"], "reason": "invalid_signature"}]
    run.attempt(forged, "ok", tampered=True, receipts=[], rejections=refused)
    run.store_events(silent)
    run.attempt(silent, "unknown")
    run.revoke()
    run.attempt(late, "ok", receipts=[], rejections=[{"event_id": late[0]["event_id"], "reason": "revoked"}])
    run.attempt(some, "ok", op="replay", receipts=receipts, rejections=[])
    run.attempt(unheard, "ok", op="replay", receipts=heard, rejections=[])
    return run.finish()


def the_read(history: list[Json]) -> Json:
    return history[-2]


def sent_as(history: list[Json], place: int) -> Json:
    return [line for line in history if line["type"] == "invoke" and line["op"] == "ingest"][place]


def as_stored(line: Json, number: int, receipt: Json) -> Json:
    event = {k: v for k, v in line["events"][0].items() if k != "tampered"}
    return {**event, "sequence_number": number, "receipt": receipt}


def add(history: list[Json], line: Json) -> None:
    """The event of this request is there, though its answers say that it is not."""
    read = the_read(history)
    read["head"] += 1
    read["events"].append(as_stored(line, read["head"], read["events"][0]["receipt"]))


def lose_the_last_acknowledged(history: list[Json]) -> None:
    del the_read(history)["events"][1:]
    the_read(history)["head"] = 1


def move(history: list[Json]) -> None:
    events = the_read(history)["events"]
    events[0]["sequence_number"], events[1]["sequence_number"] = 2, 1
    events.sort(key=lambda event: event["sequence_number"])


def change_the_content(history: list[Json]) -> None:
    the_read(history)["events"][0]["content"] = "00" * 32


def store_twice(history: list[Json]) -> None:
    read = the_read(history)
    read["head"] += 1
    read["events"].append({**read["events"][0], "sequence_number": read["head"]})


def number_twice(history: list[Json]) -> None:
    history[-4]["receipts"][0]["sequenceNumber"] += 7


def leave_a_gap(history: list[Json]) -> None:
    the_read(history)["events"].pop()


def hide_behind_the_head(history: list[Json]) -> None:
    the_read(history)["head"] -= 1


def forge_a_receipt(history: list[Json]) -> None:
    for line in history:
        for receipt in [
            *line.get("receipts", []),
            *(e["receipt"] for e in line.get("events", []) if "receipt" in e),
        ]:
            receipt["sequencerSignature"] = bytes(64).hex()


def answer_a_replay_with_another_receipt(history: list[Json]) -> None:
    history[-4]["receipts"][0]["sequencerSignature"] = "11" * 64


def keep_a_replay_for_oneself(history: list[Json]) -> None:
    history[-4] |= {"outcome": "fail", "receipts": []}


def keep_what_was_refused(history: list[Json]) -> None:
    add(history, sent_as(history, 4))


def keep_what_was_not_done(history: list[Json]) -> None:
    add(history, sent_as(history, 3))


def keep_what_nobody_sent(history: list[Json]) -> None:
    add(history, {"events": [{**sent_as(history, 0)["events"][0], "event_id": str(uuid.uuid4())}]})


def acknowledge_a_forgery(history: list[Json]) -> None:
    line = sent_as(history, 4)
    answer = next(one for one in history if one["type"] == "complete" and one["id"] == line["id"])
    receipt = {**the_read(history)["events"][0]["receipt"], "eventId": line["events"][0]["event_id"]}
    answer["receipts"], answer["rejections"] = [receipt], []


def sequence_after_the_revocation(history: list[Json]) -> None:
    """It was on its way before, but the head after the acknowledgement did not have it."""
    line = sent_as(history, 3)
    answer = next(one for one in history if one["type"] == "complete" and one["id"] == line["id"])
    answer["outcome"] = "unknown"
    add(history, line)


def read_nothing_back(history: list[Json]) -> None:
    del history[-3:-1]


LIES: list[tuple[Callable[[list[Json]], None], str, str]] = [
    (lose_the_last_acknowledged, "lost", "is not at its number"),
    (move, "lost", "is not at its number"),
    (change_the_content, "lost", "with other content"),
    (store_twice, "doubled", "is there 2 times"),
    (number_twice, "doubled", "two numbers"),
    (leave_a_gap, "gaps", "are missing"),
    (hide_behind_the_head, "gaps", "beyond the head"),
    (forge_a_receipt, "invalid", "not signed by its key"),
    (answer_a_replay_with_another_receipt, "invalid", "two different receipts"),
    (keep_a_replay_for_oneself, "invalid", "not replayed"),
    (keep_what_was_refused, "invalid", "its last answer was a refusal"),
    (keep_what_was_not_done, "invalid", "nothing was done"),
    (keep_what_nobody_sent, "invalid", "as nobody sent it"),
    (acknowledge_a_forgery, "invalid", "was tampered with and got a receipt"),
    (sequence_after_the_revocation, "invalid", "sequenced after the revocation"),
    (read_nothing_back, "invalid", "never read back"),
]


def test_an_honest_history_has_nothing_broken(honest: list[Json]) -> None:
    verdict = check(honest)
    assert verdict.broken == []
    assert verdict.acked == 2


@pytest.mark.parametrize(("lie", "word", "sentence"), LIES, ids=lambda what: getattr(what, "__name__", None))
def test_each_lie_is_counted_under_its_word(
    honest: list[Json], lie: Callable[[list[Json]], None], word: str, sentence: str
) -> None:
    history = copy.deepcopy(honest)
    lie(history)
    told_as = getattr(check(history), word)
    assert any(sentence in text for text in told_as), check(history)


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("stream a/b: acknowledged event e (number 3) is lost", "lost"),
        ("stream a/b: event_id e has two places, numbers 1 and 2", "doubled"),
        ("stream a/b: acknowledged event e (number 3) is there 2 times", "doubled"),
        ("tenant a: event e is in store b and in store c", "doubled"),
        ("stream a/b: number 3 is missing before 4", "gaps"),
        ("stream a/b: the head says 4, the events end at 3", "gaps"),
        ("stream a/b: acknowledged event e (number 3): it is now at number 4", "lost"),
        ("stream a/b: event e (number 3): its receipt's signature does not hold", "invalid"),
    ],
)
def test_the_auditors_sentences_are_counted_under_the_same_words(sentence: str, word: str) -> None:
    verdict: Verdict = classified([sentence])
    assert getattr(verdict, word) == [sentence]
    assert verdict.broken == [sentence]
