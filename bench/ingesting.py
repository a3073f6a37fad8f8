"""Rows of posting signed events: closed loop for what the server can do, open loop for how long one waits at half of it."""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from bench.playing import Play
from bench.results import Round, Row, round_of
from bench.signing import Sender
from bench.stage import AGENTS_OF_A_STREAM, Stage, say

FIRST_GUESS = {1: 6_000, 10: 18_000}
"""Events a second signed ahead before anything was measured, by batch; larger ones as below."""
LARGE_GUESS = 25_000
SPARE = 1.7
"""Times what the fastest round so far took are signed ahead."""
HALF = 0.5
AT_ONCE_MAX = 7_000
"""Events under way of a shape. More may be more than two cores verify in the five seconds that a tenant's large request
waits for its turn: some are then refused by design, and sent again."""
REFUSALS = (429, 503)
"""How a server says that it is too much: nothing was done, and the same request may come again."""
WARM_S = 1.0
WARM_CONNECTIONS = 64
WARM_DEADLINE_S = 300.0
_SHAPE = re.compile(r"(\d+)x(\d+)(?:@(\d+)(?:x(\d+))?)?")


@dataclass(frozen=True)
class Shape:
    """``100x64@100``: events in a request, connections, streams (``@100x100``: tenants of so many stores)."""

    batch: int
    connections: int
    tenants: int = 1
    stores: int = 1

    @staticmethod
    def read(text: str) -> Shape:
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise SystemExit(
                f"{text!r} is no shape: events x connections, and tenants if not one, such as 100x64@100"
            )
        batch, connections, *more = found.groups()
        shape = Shape(int(batch), int(connections), *(int(number) for number in more if number))
        if min(shape.batch, shape.connections, shape.tenants, shape.stores) < 1 or shape.batch > 1000:
            raise SystemExit(f"{text!r}: each number is at least 1, a request has at most 1000 events")
        return shape

    def __str__(self) -> str:
        streams = (
            "" if self.streams == 1 else f"@{self.tenants}" + (f"x{self.stores}" if self.stores > 1 else "")
        )
        return f"{self.batch}x{self.connections}{streams}"

    @property
    def streams(self) -> int:
        return self.tenants * self.stores


@dataclass
class Known:
    """Of one shape on one server."""

    senders: list[Sender] | None = None
    """Of many tenants: each has posted before the first round, and every round has events of its own."""
    per_s: list[float] = field(default_factory=list)
    """What each closed round reached."""
    sign_per_s: float = 0.0


class Ingest:
    """Closed loop. One stream is a fresh one in every round."""

    def __init__(self, shape: Shape, *, label: str = "") -> None:
        self.shape = shape
        self.row = Row(
            name=f"ingest {shape}{label}",
            kind="ingest",
            unit="events",
            mode="closed",
            batch=shape.batch,
            connections=shape.connections,
            streams=shape.streams,
        )

    def prepare(self, stage: Stage) -> None:
        """A short run warms the server up, and tells how much to sign."""
        known = self.known(stage)
        if self.shape.streams > 1:
            known.senders = self._known_senders(stage)
        self.round(stage, WARM_S)
        known.per_s.clear()

    def round(self, stage: Stage, seconds: float) -> Round:
        known = self.known(stage)
        senders = known.senders or self._fresh(stage)
        while True:
            per_s = known.sign_per_s or FIRST_GUESS.get(self.shape.batch, LARGE_GUESS)
            count = max(2 * self.shape.connections, int(per_s * seconds / self.shape.batch) + 1)
            result, ran_out = self._run(stage, senders, count, seconds)
            if not ran_out:
                break
            known.sign_per_s = SPARE * max(per_s, result.per_s)  # without work there is no number
        known.per_s.append(result.per_s)
        known.sign_per_s = SPARE * max(known.per_s)
        return result

    def _known_senders(self, stage: Stage) -> list[Sender]:
        """Of many tenants, for all shapes that have so many: ten thousand first events take longer than a turn."""
        name = f"senders of {self.shape.tenants}x{self.shape.stores}"
        if name not in stage.kept:
            senders = stage.kept[name] = self._fresh(stage)
            one_of_each = senders[:: self.shape.stores]
            began = time.monotonic()
            files = stage.requests(one_of_each, 1, len(one_of_each))
            stage.load(files, connections=WARM_CONNECTIONS, seconds=WARM_DEADLINE_S)
            say(f"{len(one_of_each):,} tenants have posted, in {time.monotonic() - began:.1f} s")
        found: list[Sender] = stage.kept[name]
        return found

    def known(self, stage: Stage) -> Known:
        found: Known = stage.kept.setdefault(f"ingest {self.shape}", Known())
        return found

    def _run(
        self, stage: Stage, senders: list[Sender], count: int, seconds: float, rate: float | None = None
    ) -> tuple[Round, bool]:
        """With every check; whether the requests ran out before the time did."""
        files = stage.requests(senders, self.shape.batch, count)
        tenants = sorted({sender.tenant_id for sender in senders})
        before = stage.stored(tenants)
        refusals = REFUSALS if self.shape.batch * self.shape.connections > AT_ONCE_MAX else ()
        [run] = stage.play(Play(files, self.shape.connections, seconds, rate, refusals=refusals))
        told = run.told
        accepted = all_new(told, self.shape.batch)
        if stage.stored(tenants) - before != accepted:
            raise SystemExit(f"{accepted} events were accepted, {stage.stored(tenants) - before} are stored")
        if self.shape.streams == 1 and stage.head(senders[0]) != before + accepted:
            raise SystemExit(
                f"the head is {stage.head(senders[0])}, not the {before + accepted} accepted events"
            )
        offered = None if rate is None else rate * self.shape.batch
        result = round_of(
            told, units=accepted, offered_per_s=offered, cpu_s=run.cpu_s, elsewhere=run.elsewhere
        )
        if refused(told):
            say(
                f"{self.row.name}: {refused(told)} of {told['sent']} requests were refused; while there was time they were sent again"
            )
        return result, told["ran_out"]

    def _fresh(self, stage: Stage) -> list[Sender]:
        agents = min(self.shape.connections, AGENTS_OF_A_STREAM) if self.shape.streams == 1 else 1
        return stage.senders(tenants=self.shape.tenants, stores=self.shape.stores, agents=agents)


def all_new(told: dict[str, Any], batch: int) -> int:
    """How many events were accepted: all that were sent and not refused, or it was another benchmark (SystemExit)."""
    accepted: int = told["accepted"]
    if told["rejected"] or told["replayed"] or accepted != (told["sent"] - refused(told)) * batch:
        numbers = {name: told[name] for name in ("sent", "accepted", "replayed", "rejected")}
        raise SystemExit(f"of requests of {batch} fresh events: {numbers}")
    return accepted


def refused(told: dict[str, Any]) -> int:
    """Requests that the server had no room for. Where that was not expected the run has ended before."""
    return sum(count for status, count in told["statuses"].items() if int(status) != 200)


class AtHalf(Ingest):
    """Open loop at half of what the closed loop of the same shape reached on this server so far."""

    def __init__(self, shape: Shape, *, label: str = "") -> None:
        super().__init__(shape, label=f"{label} at half")
        self.row.mode = "open"

    def prepare(self, stage: Stage) -> None:
        """The closed loop has warmed it up."""

    def round(self, stage: Stage, seconds: float) -> Round:
        known = self.known(stage)
        rate = HALF * statistics.median(known.per_s) / self.shape.batch
        result, ran_out = self._run(
            stage, known.senders or self._fresh(stage), int(rate * seconds) + 1, seconds, rate
        )
        assert not ran_out, "there are as many requests as the schedule has"
        return result
