"""One customer of a drill: a fresh tenant with one store and one agent, that remembers what it was promised.

Speaks HTTP to whichever server it is told to, and has the independent auditor judge the whole at the end.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import trio

from tests.auditor.audit import audit
from tests.auditor.reading import over_http, read_stream
from tests.e2e.world import Agent, Server

Json = dict[str, Any]
REQUEST_S = 30.0
ANSWERED_S = 40.0
"""For a request that is sent again until it has receipts, once nothing is in its way any more."""


@dataclass
class Shop:
    server: Server
    http: httpx.AsyncClient
    agent: Agent
    api_key: str
    promised: list[Json] = field(default_factory=list)
    """``{"event", "receipt"}`` of every acknowledged event."""

    def request(self, count: int = 3, *, padding: int = 0) -> tuple[list[Json], bytes]:
        events = [self.agent.event({"n": n, "padding": "x" * padding}) for n in range(count)]
        return events, self.agent.body(events)

    async def post(self, events: list[Json], body: bytes, *, server: Server | None = None) -> httpx.Response:
        answer = await self.http.post(
            (server or self.server).url + "/api/v1/ves/events/ingest",
            content=body,
            headers={"authorization": f"ApiKey {self.api_key}", "content-type": "application/json"},
        )
        if answer.status_code == 200:
            sent = {event["event_id"]: event for event in events}
            self.promised += [
                {"event": sent[r["eventId"]], "receipt": r} for r in answer.json().get("receipts", [])
            ]
        return answer

    async def post_until_answered(
        self, events: list[Json], body: bytes, *, server: Server | None = None
    ) -> Json:
        """The answer with all receipts; 503 and lost connections are answered by sending it again."""
        with trio.fail_after(ANSWERED_S):
            while True:
                try:
                    answer = await self.post(events, body, server=server)
                    if answer.status_code == 200:
                        told: Json = answer.json()
                        assert len(told["receipts"]) == len(events), told
                        return told
                    assert answer.status_code in (503, 504), answer.text
                except httpx.TransportError:
                    pass
                await trio.sleep(0.2)

    async def ready(self) -> bool:
        return (await self.http.get(self.server.url + "/ready")).status_code == 200

    async def ready_becomes(self, wanted: bool, *, within_s: float) -> None:
        with trio.fail_after(within_s):
            while await self.ready() is not wanted:  # noqa: ASYNC110 - a poll is what a balancer does
                await trio.sleep(0.1)

    async def head(self) -> int:
        answer = await self.http.get(
            self.server.url + "/api/v1/ves/head",
            params=self._stream,
            headers={"authorization": f"ApiKey {self.api_key}"},
        )
        assert answer.status_code == 200, answer.text
        return int(answer.json()["head_sequence"])

    async def broken_promises(self) -> list[str]:
        """What the auditor says of the stream and of everything this customer was promised."""
        evidence = await trio.to_thread.run_sync(
            partial(
                read_stream,
                over_http(self.server.url, self.api_key),
                *self._stream.values(),
                acknowledged=self.promised,
            )
        )
        return audit(evidence)

    @property
    def _stream(self) -> dict[str, str]:
        return {"tenant_id": str(self.agent.tenant_id), "store_id": str(self.agent.store_id)}


@asynccontextmanager
async def open_shop(server: Server) -> AsyncIterator[Shop]:
    agent = Agent(uuid.uuid4(), uuid.uuid4())
    async with httpx.AsyncClient(timeout=REQUEST_S) as http:
        made = await http.post(
            server.admin_url + "/api/v1/admin/api-keys",
            headers={"authorization": f"ApiKey {server.bootstrap_key}"},
            json={"tenantId": str(agent.tenant_id), "permissions": ["read", "write", "admin"]},
        )
        assert made.status_code in (200, 201), made.text
        shop = Shop(server, http, agent, str(made.json()["apiKey"]))
        registered = await http.post(
            server.url + "/api/v1/agents/keys",
            headers={"authorization": f"ApiKey {shop.api_key}"},
            json={
                "tenantId": str(agent.tenant_id),
                "agentId": str(agent.agent_id),
                "keyId": agent.key_id,
                "publicKey": agent.public_key,
            },
        )
        assert registered.status_code in (200, 201), registered.text
        yield shop
