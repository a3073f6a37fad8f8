"""Rows of reading back: pages of events, inclusion proofs, and making the commitment they prove.

Every page and every proof is checked once before the clock runs; while it runs, the sizes of all answers must be
those that were checked. `bench.reads` goes further: long streams, and who else waits meanwhile.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.playing import Run
from bench.results import Round, Row, round_of
from bench.signing import Sender, write_file
from bench.stage import Measurement, Stage
from ves.proofs import path_leads_to_root

PAGE = 1000
EVENTS = 10_000
"""In a stream that is read, and in a commitment."""
PROOFS = 500
INGESTED_AT_ONCE = 500
INGEST_DEADLINE_S = 120.0
"""For what is read afterwards; it ends with the last request."""
ALONE = {"COMMITMENT_EVENTS": "65536", "COMMITMENT_INTERVAL_SECS": "3600"}
"""Settings of a server that commits only when it is asked."""


def readings(events: int = EVENTS) -> list[Measurement]:
    """``events``: a multiple of ``PAGE``."""
    return [Pull(1, events), Pull(8, events), Prove(1, events), Prove(8, events), Commit(events)]


class Pull:
    """All connections read one stream from its beginning, page by page, again and again."""

    def __init__(self, connections: int, events: int) -> None:
        self.events = events
        name = f"pull {PAGE}x{connections}"
        self.row = Row(
            name=name, kind="pull", unit="events", mode="closed", batch=PAGE, connections=connections
        )

    def prepare(self, stage: Stage) -> None:
        if "pull" not in stage.kept:
            sender = _with_events(stage, self.events)
            paths = [
                f"/api/v1/ves/events?{_stream(sender)}&from={first}&limit={PAGE}"
                for first in range(1, self.events + 1, PAGE)
            ]
            bodies = [stage.get(sender, path) for path in paths]
            numbers = [event["sequence_number"] for body in bodies for event in json.loads(body)["events"]]
            if numbers != list(range(1, self.events + 1)):
                raise SystemExit(f"the pages do not hold the stream: {len(numbers)} events")
            stage.kept["pull"] = _Gets(stage, "pages", sender, paths, bodies)

    def round(self, stage: Stage, seconds: float) -> Round:
        pages: _Gets = stage.kept["pull"]
        return pages.round(stage, self.row, seconds)


class Prove:
    """Inclusion proofs of numbers all over one commitment."""

    def __init__(self, connections: int, events: int) -> None:
        self.events = events
        name = f"proof 1x{connections}"
        self.row = Row(name=name, kind="proof", unit="proofs", mode="closed", connections=connections)

    def prepare(self, stage: Stage) -> None:
        if "prove" not in stage.kept:
            sender = _with_events(stage, self.events)
            _commit(stage, sender, self.events)
            numbers = [1 + n * 7919 % self.events for n in range(PROOFS)]
            paths = [f"/api/v1/ves/proofs/{number}?{_stream(sender)}" for number in numbers]
            bodies = [stage.get(sender, path) for path in paths]
            for number, body in zip(numbers, bodies, strict=True):
                _must_prove(number, self.events, json.loads(body))
            stage.kept["prove"] = _Gets(stage, "proofs", sender, paths, bodies)

    def round(self, stage: Stage, seconds: float) -> Round:
        proofs: _Gets = stage.kept["prove"]
        return proofs.round(stage, self.row, seconds)


class Commit:
    """One commitment of fresh events a round: what is told is how long it takes, not a rate."""

    def __init__(self, events: int) -> None:
        self.events = events
        name = f"commitment of {events:,}"
        self.row = Row(name=name, kind="commitment", unit="events", mode="closed", batch=events)

    def prepare(self, stage: Stage) -> None:
        """The proofs' commitment has warmed it up."""

    def round(self, stage: Stage, seconds: float) -> Round:
        run = _commit(stage, _with_events(stage, self.events), self.events)
        return round_of(
            run.told, units=self.events, offered_per_s=None, cpu_s=run.cpu_s, elsewhere=run.elsewhere
        )


class _Gets:
    """Requests whose answers are known, to be sent over and over."""

    def __init__(
        self, stage: Stage, name: str, sender: Sender, paths: Sequence[str], bodies: Sequence[bytes]
    ) -> None:
        self.file = stage.folder / name
        write_file(self.file, [_get(sender, path) for path in paths])
        self.lengths = [len(body) for body in bodies]

    def round(self, stage: Stage, row: Row, seconds: float) -> Round:
        run = stage.load([self.file], connections=row.connections, seconds=seconds, repeat=True)
        told = run.told
        whole, rest = divmod(told["answered"], len(self.lengths))
        if told["body_bytes"] != whole * sum(self.lengths) + sum(self.lengths[:rest]):
            raise SystemExit(f"{row.name}: the answers changed while they were measured")
        units = told["answered"] * row.batch
        return round_of(told, units=units, offered_per_s=None, cpu_s=run.cpu_s, elsewhere=run.elsewhere)


def _with_events(stage: Stage, count: int) -> Sender:
    """A fresh stream of so many events."""
    [sender] = stage.senders(tenants=1, stores=1, agents=1)
    files = stage.requests([sender], INGESTED_AT_ONCE, count // INGESTED_AT_ONCE)
    told = stage.load(files, connections=4, seconds=INGEST_DEADLINE_S).told
    if told["accepted"] != count or stage.head(sender) != count:
        raise SystemExit(f"of {count} events {told['accepted']} were accepted")
    return sender


def _commit(stage: Stage, sender: Sender, events: int) -> Run:
    stream = dict(pair.split("=") for pair in _stream(sender).split("&"))
    body = json.dumps({**stream, "sequence_start": 1, "sequence_end": events}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    file: Path = stage.folder / "commitment"
    write_file(file, [_head("POST", sender, "/api/v1/ves/commitments") + head.encode() + b"\r\n" + body])
    run = stage.load([file], connections=1, seconds=60)
    [[leaves]] = stage.fetch(
        "SELECT leaf_count FROM record.ves_commitments WHERE tenant_id = $1",
        uuid.UUID(bytes=sender.tenant_id),
    )
    if leaves != events:
        raise SystemExit(f"a commitment of {leaves} events")
    return run


def _must_prove(number: int, events: int, proof: dict[str, Any]) -> None:
    path = [bytes.fromhex(node) for node in proof["proof_path"]]
    leaf, root = bytes.fromhex(proof["leaf_hash"]), bytes.fromhex(proof["merkle_root"])
    right = proof["sequence_number"] == number and proof["leaf_count"] == events
    if not right or not path_leads_to_root(leaf, number - 1, path, root):
        raise SystemExit(f"a proof that proves nothing: {proof}")


def _get(sender: Sender, path: str) -> bytes:
    return _head("GET", sender, path) + b"\r\n"


def _head(method: str, sender: Sender, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: {sender.host}\r\nauthorization: ApiKey {sender.api_key}\r\n".encode()


def _stream(sender: Sender) -> str:
    tenant, store = (uuid.UUID(bytes=raw) for raw in (sender.tenant_id, sender.store_id))
    return f"tenant_id={tenant}&store_id={store}"
