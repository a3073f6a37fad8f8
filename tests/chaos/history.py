"""The history of a run: every invocation, every completion and every act of the adversary, a JSON line each.

Alone owns the file and its format, which ``docs/chaos.md`` describes for other people's checkers. Writes what
happened and judges nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import rfc8785

from tests.e2e.world import signing_hash

FORMAT = 1

Json = dict[str, Any]
Outcome = Literal["ok", "fail", "unknown"]


class History:
    """Lines are written in the order things happened; used from one event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._ids = itertools.count(1)

    def run(self, **about: Any) -> None:
        """The first line."""
        self._write({"type": "run", "format": FORMAT, **about})

    def receipt_keys(self, keys: list[Json]) -> None:
        self._write({"type": "receipt_keys", "keys": keys})

    def invoke(self, process: str, op: str, **request: Any) -> int:
        """The id under which its completion is written."""
        number = next(self._ids)
        self._write({"type": "invoke", "id": number, "process": process, "op": op, **request})
        return number

    def complete(self, number: int, process: str, outcome: Outcome, **answer: Any) -> None:
        self._write({"type": "complete", "id": number, "process": process, "outcome": outcome, **answer})

    def act(self, kind: str, **detail: Any) -> None:
        self._write({"type": "act", "process": "adversary", "kind": kind, **detail})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Json) -> None:
        stamp = {"wall": datetime.now(UTC).isoformat(), "mono": round(time.monotonic(), 6)}
        self._file.write(json.dumps({**line, **stamp}) + "\n")


def read_history(path: Path) -> list[Json]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sha256_hex(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def told(event: Json, *, tampered: bool = False) -> Json:
    """What the history says of an event that is sent."""
    return {**identity(event), "tampered": tampered}


def identity(event: Json) -> Json:
    """Which event, whose, and exactly with which content: computed from its members, never copied."""
    return {
        "event_id": event["event_id"],
        "agent": f"{event['source_agent_id']}/{event['agent_key_id']}",
        "signing_hash": signing_hash(event).hex(),
        "content": sha256_hex(
            bytes.fromhex(event["agent_signature"].removeprefix("0x")), rfc8785.dumps(event["payload"])
        ),
    }


def seen(events: Iterable[Json]) -> list[Json]:
    """What the history says of events that were read back."""
    return [
        {**identity(event), "sequence_number": event["sequence_number"], "receipt": event["receipt"]}
        for event in events
    ]
