"""The load: a few agents of several tenants and stores, at a bounded rate, that resend until they know.

Every request is written to the history before it is sent and after it is answered. A request whose outcome is
not final is sent again, the same bytes; a few are given up, as clients do that crash. Knows only the wire.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from journal.append import AT_ONCE_MAX
from tests.chaos.history import History, Json, Outcome, seen, sha256_hex, told
from tests.e2e.world import Agent

REQUEST_S = 20.0
"""Longer than the server's own deadline: whoever is not answered by then was forgotten."""
PATIENCE_S = 90.0
"""For one request, through all its resends."""
RESEND_PAUSE_S = (0.05, 0.4)
GIVEN_UP = 0.03
"""Of requests whose outcome is unknown, this share is never sent again."""
EVENTS_MAX = 8
MANY_EVENTS = AT_ONCE_MAX + 6
"""In some requests: their append has moments between BEGIN and COMMIT, that of fewer is one statement."""
MANY = 0.08
KEPT_REQUESTS_MAX = 400
INGEST, HEAD, COMMIT = "/api/v1/ves/events/ingest", "/api/v1/ves/head", "/api/v1/ves/commitments"
REGISTER, REVOKE = "/api/v1/agents/keys", "/api/v1/agents/keys/revoke"


@dataclass(frozen=True)
class Stream:
    tenant_id: uuid.UUID
    store_id: uuid.UUID
    api_key: str

    @property
    def name(self) -> dict[str, str]:
        return {"tenant_id": str(self.tenant_id), "store_id": str(self.store_id)}


@dataclass(frozen=True)
class Sent:
    """A request that was acknowledged at least once: to be sent again, the same bytes."""

    stream: Stream
    body: bytes
    events: list[Json]
    told: list[Json]

    @property
    def digest(self) -> str:
        return sha256_hex(self.body)


@dataclass
class Answer:
    outcome: Outcome
    status: int = 0
    json: Json = field(default_factory=dict)

    @property
    def final(self) -> bool:
        return self.outcome == "ok" or 400 <= self.status < 500


@dataclass
class Wire:
    """How a process speaks to the server and writes down what it said and heard."""

    history: History
    url: Callable[[], str]
    anomalies: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, Sent] = field(default_factory=dict)
    """By the body's hash: all that have to be replayed at the end."""
    receipts: dict[str, list[Json]] = field(default_factory=dict)
    """The first ones that each of these was answered with."""

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(timeout=REQUEST_S, limits=httpx.Limits(max_connections=32))

    async def call(
        self, process: str, op: str, stream: Stream, method: str, path: str, *, note: Json, **request: Any
    ) -> Answer:
        number = self.history.invoke(
            process, op, tenant=str(stream.tenant_id), store=str(stream.store_id), **note
        )
        headers = {"authorization": f"ApiKey {stream.api_key}", "content-type": "application/json"}
        try:
            response = await self.http.request(method, self.url() + path, headers=headers, **request)
            answer = self._judged(response)
            error = None if answer.outcome == "ok" else response.text[:200]
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failure:
            answer, error = Answer("fail"), type(failure).__name__
        except httpx.TransportError as failure:
            answer, error = Answer("unknown"), type(failure).__name__
            if isinstance(failure, httpx.TimeoutException):
                self.anomalies.append(f"call {number} ({op}) was not answered within {REQUEST_S:g} s")
        self.answers[f"{answer.status or error}"] += 1
        self.history.complete(
            number, process, answer.outcome, status=answer.status, error=error, **_heard(op, answer)
        )
        return answer

    def _judged(self, response: httpx.Response) -> Answer:
        status = response.status_code
        if status == 200 or status == 201:
            return Answer("ok", status, response.json())
        if status in (503, 504) and "retry-after" not in response.headers:
            self.anomalies.append(f"{status} without Retry-After: {response.text[:200]}")
        if status >= 500 and status not in (503, 504):
            self.anomalies.append(f"{status}: {response.text[:200]}")
        if status == 504 or (status == 503 and response.headers.get("x-error-code") == "OUTCOME_UNKNOWN"):
            return Answer("unknown", status)
        return Answer("fail" if status == 503 or status < 500 else "unknown", status)

    async def ingest(self, process: str, sent: Sent, *, op: str = "ingest") -> Answer:
        answer = await self.call(
            process,
            op,
            sent.stream,
            "POST",
            INGEST,
            note={"body": sent.digest, "events": sent.told},
            content=sent.body,
        )
        if answer.json.get("receipts"):
            self.acknowledged.setdefault(sent.digest, sent)
            self.receipts.setdefault(sent.digest, answer.json["receipts"])
        return answer


def _heard(op: str, answer: Answer) -> Json:
    """What of an answer goes into the history."""
    if answer.outcome != "ok":
        return {}
    if op in ("ingest", "replay"):
        rejections = [
            {"event_id": r["event_id"], "reason": r["reason"]} for r in answer.json.get("rejections", [])
        ]
        return {"receipts": answer.json.get("receipts", []), "rejections": rejections}
    if op == "head":
        return {"head": answer.json["head_sequence"]}
    return {}


class Client:
    """One process of the history: does one thing after the other on one stream until told to stop."""

    def __init__(self, name: str, wire: Wire, stream: Stream, chance: random.Random, pause_s: float) -> None:
        self.name = name
        self.revocations = 0
        self._wire = wire
        self._stream = stream
        self._chance = chance
        self._pause_s = pause_s
        self._kept: list[Sent] = []
        self._agent: Agent | None = None

    async def run(self, stop: trio.Event) -> None:
        deeds: list[tuple[Callable[[], Any], int]] = [
            (self._post, 66),
            (self._replay, 14),
            (self._tamper, 10),
            (self._commit, 6),
            (self._revoke, 4),
        ]
        while not stop.is_set():
            await trio.sleep(min(1.0, self._chance.expovariate(1 / self._pause_s)))
            if self._agent is None and not await self._register():
                continue
            [deed] = self._chance.choices([d for d, _ in deeds], [w for _, w in deeds])
            await deed()

    # Deeds.

    async def _post(self) -> None:
        least, most = (MANY_EVENTS,) * 2 if self._chance.random() < MANY else (1, EVENTS_MAX)
        await self._send(self._request(self._some_events(least, most)))

    async def _replay(self) -> None:
        """An earlier request, the same bytes, out of the blue."""
        if self._kept:
            await self._wire.ingest(self.name, self._chance.choice(self._kept))

    async def _tamper(self) -> None:
        """Honest events with a forged one among them."""
        events = self._some_events(1, 3)
        forged = self._forged()
        events.insert(self._chance.randrange(len(events) + 1), forged)
        await self._send(self._request(events, tampered={forged["event_id"]}))

    async def _commit(self) -> None:
        await self._wire.call(
            self.name, "commit", self._stream, "POST", COMMIT, note={}, json=self._stream.name
        )

    async def _register(self) -> bool:
        agent = Agent(self._stream.tenant_id, self._stream.store_id)
        body = {**self._key_name(agent), "publicKey": agent.public_key}
        answer = await self._insist("register_key", REGISTER, agent, body)
        self._agent = agent if answer.outcome == "ok" else None
        return answer.outcome == "ok"

    async def _revoke(self) -> None:
        """While a request of this key is on its way; and afterwards it tries once more."""
        agent = self._agent
        assert agent is not None
        racing = self._request(self._some_events(1, EVENTS_MAX))
        late = self._request(self._some_events(1, 3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, racing)
            await trio.sleep(self._chance.uniform(0, 0.02))
            answer = await self._insist("revoke_key", REVOKE, agent, self._key_name(agent))
            if answer.outcome == "ok":
                self.revocations += 1
                await self._wire.call(
                    self.name, "head", self._stream, "GET", HEAD, note={}, params=self._stream.name
                )
        await self._send(late)
        self._agent = None

    # How.

    async def _insist(self, op: str, path: str, agent: Agent, body: Json) -> Answer:
        note = {"agent": f"{agent.agent_id}/{agent.key_id}"}

        async def once() -> Answer:
            return await self._wire.call(self.name, op, self._stream, "POST", path, note=note, json=body)

        return await self._until_final(once)

    async def _send(self, sent: Sent) -> Answer:
        """Until the answer is final, or as long as a client that crashes lives."""
        gives_up = self._chance.random() < GIVEN_UP

        async def once() -> Answer:
            return await self._wire.ingest(self.name, sent)

        answer = await self._until_final(once, gives_up=gives_up)
        if answer.json.get("receipts"):
            self._kept.append(sent)
            del self._kept[:-KEPT_REQUESTS_MAX]
        elif 400 <= answer.status < 500:
            self._wire.anomalies.append(f"{self.name}: {answer.status} for a well-formed request")
        return answer

    async def _until_final(self, once: Callable[[], Any], *, gives_up: bool = False) -> Answer:
        give_up_at = trio.current_time() + PATIENCE_S
        while True:
            answer: Answer = await once()
            if answer.final or (gives_up and answer.outcome == "unknown"):
                return answer
            if trio.current_time() > give_up_at:
                self._wire.anomalies.append(f"{self.name}: no final answer within {PATIENCE_S:g} s")
                return answer
            await trio.sleep(self._chance.uniform(*RESEND_PAUSE_S))

    def _request(self, events: list[Json], tampered: frozenset[str] | set[str] = frozenset()) -> Sent:
        assert self._agent is not None
        noted = [told(event, tampered=event["event_id"] in tampered) for event in events]
        return Sent(self._stream, self._agent.body(events), events, noted)

    def _some_events(self, fewest: int, most: int) -> list[Json]:
        assert self._agent is not None
        count = self._chance.randint(fewest, most)
        return [
            self._agent.event({"n": n, "note": "x" * self._chance.randrange(200)}, event_id=self._uuid())
            for n in range(count)
        ]

    def _forged(self) -> Json:
        """Its signature or its payload is not what was signed."""
        [event] = self._some_events(1, 1)
        forged = copy.deepcopy(event)
        kind = self._chance.randrange(3)
        if kind == 0:
            forged["payload"]["n"] = -1
        elif kind == 1:
            forged["agent_signature"] = "0x" + bytes(64).hex()
        else:
            forged["entity_id"] += "-elsewhere"
        return forged

    def _key_name(self, agent: Agent) -> Json:
        return {"tenantId": str(agent.tenant_id), "agentId": str(agent.agent_id), "keyId": agent.key_id}

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))


def read_note(events: list[Json], head: int) -> Json:
    """The completion of a final read."""
    return {"head": head, "events": seen(events)}
