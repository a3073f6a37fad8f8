"""The whole promise on real data: ``python -m bench.demo`` against a running server.

Two fresh tenants with three agents each post the CDNOW orders as signed ``order.created`` events, pull them
back, commit both streams, and check every receipt and every inclusion offline: with the client, and with the
independent auditor that shares no code with it. Prints a table; exit code 0 only if all of it holds.
Tenants are new in every run, so it can run again and again.

The server: SEQUENCER_URL and SEQUENCER_ADMIN_URL, else DATA_DIR/server.json, else 127.0.0.1:8080 and :8082.
The bootstrap key: BOOTSTRAP_ADMIN_API_KEY, else its file under DATA_DIR.
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.cdnow import DataUnavailable, Order, orders
from tests.auditor.audit import Evidence, audit_tenant
from tests.auditor.reading import Unreadable, over_http, read_stream
from transport.cli.console import AdminListener, announced
from transport.client.agent import Agent
from transport.client.checks import StreamReport
from transport.client.errors import ClientError
from transport.client.sequencer import SequencerClient
from transport.client.trust import Pins
from transport.client.wire import Acknowledgement, Envelope, Stream, encode
from ves.encoding import prefixed_hex, uuid_text

CACHE = Path(".demo")
TENANTS = 2
AGENTS_PER_TENANT = 3
BATCH = 100
AUDITED_PROOF_EVERY = 100
"""The auditor checks every event's inclusion from the leaves, and fetches one served proof in so many."""

console = Console()


@dataclass
class Shop:
    """A tenant with one store, its agents, and what came of it."""

    name: str
    tenant_id: UUID
    store_id: UUID
    folder: Path
    agents: list[Agent]
    api_key: str = ""
    signed: dict[int, list[Envelope]] = field(default_factory=dict)
    """By agent."""
    kept: list[Acknowledgement] = field(default_factory=list)
    refused: int = 0
    report: StreamReport = field(default_factory=StreamReport)
    evidence: Evidence | None = None
    broken: list[str] = field(default_factory=list)
    """What the auditor found."""

    @property
    def stream(self) -> Stream:
        return Stream(self.tenant_id.bytes, self.store_id.bytes)

    @property
    def events(self) -> int:
        return sum(len(envelopes) for envelopes in self.signed.values())

    @property
    def faults(self) -> list[str]:
        """Why this shop's part of the demo failed, if it did."""
        found = [*self.report.problems, *self.broken]
        if self.refused or len(self.kept) != self.events:
            found.append(
                f"{self.events} events were sent, {len(self.kept)} have receipts, {self.refused} refused"
            )
        for what in ("events", "receipts", "proofs"):
            if getattr(self.report, what) != self.events:
                found.append(f"{getattr(self.report, what)} {what} verified, {self.events} expected")
        if self.evidence is None or len(self.evidence.events) != self.events:
            found.append("the auditor did not see all events")
        return found


def main() -> int:
    code = 1
    try:
        code = trio.run(demo)
    except* (ClientError, DataUnavailable, Unreadable) as group:
        for error in group.exceptions:
            console.print(f"[red]demo:[/] {error}", highlight=False)
    return code


async def demo() -> int:
    url = os.environ.get("SEQUENCER_URL") or announced("url") or "http://127.0.0.1:8080"
    await _ready(url)
    all_orders = orders(CACHE)
    with console.status(f"signing {len(all_orders)} orders"):
        shops = _shops(all_orders)
    await _admit(shops, url)
    for shop in shops:
        _write(shop.folder / "trust.json", await _trust(shop, url))
    seconds = await _post(shops, url)
    await _check(shops, url)
    _print(shops, url, seconds)
    return 1 if any(shop.faults for shop in shops) else 0


async def _ready(url: str) -> None:
    async with SequencerClient(url) as client:
        answer = await client.look("/ready")
    if answer.status != 200:
        raise ClientError(f"the server at {url} is not ready; start it with: make run")


def _shops(all_orders: list[Order]) -> list[Shop]:
    """Customers are spread over tenants and their agents; every order is signed here, once."""
    run = CACHE / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    shops = []
    for number in range(TENANTS):
        tenant_id, name = uuid4(), f"tenant {'AB'[number]}"
        agents = [Agent.generate(tenant_id.bytes) for _ in range(AGENTS_PER_TENANT)]
        folder = run / name.replace(" ", "-")
        folder.mkdir(parents=True)
        shops.append(
            Shop(name, tenant_id, uuid4(), folder, agents, signed={n: [] for n in range(len(agents))})
        )
    for order in all_orders:
        shop = shops[int(order.customer) % TENANTS]
        chosen = int(order.customer) // TENANTS % AGENTS_PER_TENANT
        shop.signed[chosen].append(_event(shop.agents[chosen], shop, order))
    return shops


def _event(agent: Agent, shop: Shop, order: Order) -> Envelope:
    payload: dict[str, Any] = {
        "customer": order.customer,
        "items": order.units,
        "total": order.dollars,
        "currency": "USD",
        "ordered_on": order.date,
    }
    return agent.sign(
        shop.store_id.bytes,
        entity_type="order",
        entity_id=f"cdnow-{order.number}",
        event_type="order.created",
        payload=payload,
        created_at=f"{order.date}T12:00:00.000Z",
        base_version=0,
    )


async def _admit(shops: list[Shop], url: str) -> None:
    """Each tenant gets an API key of its own; its agents' keys are registered with it."""
    async with AdminListener(pins=CACHE / "admin-pins.json").client() as admin:
        for shop in shops:
            body = {
                "tenantId": str(shop.tenant_id),
                "role": "admin",
                "name": "demo",
            }
            made = await admin.ask("POST", "/api/v1/admin/api-keys", body=body, repeatable=False)
            shop.api_key = msgspec.json.decode(made)["apiKey"]
    for shop in shops:
        async with _client(shop, url) as client:
            for agent in shop.agents:
                await client.register_key(agent)


def _client(shop: Shop, url: str) -> SequencerClient:
    return SequencerClient(url, api_key=shop.api_key, pins=Pins(shop.folder / "pins.json"))


async def _trust(shop: Shop, url: str) -> bytes:
    """What an auditor would want to have got beforehand: the sequencer's keys and the agents'."""
    async with _client(shop, url) as client:
        known = msgspec.json.decode(await client.ask("GET", "/.well-known/ves-sequencer"))
    known["agent_keys"] = [
        {
            "tenant_id": str(shop.tenant_id),
            "agent_id": uuid_text(agent.name.agent_id),
            "key_id": agent.name.key_id,
            "public_key": prefixed_hex(agent.public_key),
        }
        for agent in shop.agents
    ]
    return msgspec.json.format(msgspec.json.encode(known))


async def _post(shops: list[Shop], url: str) -> float:
    """All agents at once, each one batch after the other. Seconds from the first post to the last receipt."""
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        async with trio.open_nursery() as nursery:
            for shop in shops:
                bar = progress.add_task(f"{shop.name}: posting signed orders", total=shop.events)
                for envelopes in shop.signed.values():
                    advance = partial(progress.advance, bar)
                    nursery.start_soon(_post_of_agent, shop, url, envelopes, advance)
    seconds = time.perf_counter() - started
    for shop in shops:
        _write(shop.folder / "receipts.jsonl", b"".join(encode(one) + b"\n" for one in shop.kept))
    return seconds


async def _post_of_agent(shop: Shop, url: str, envelopes: list[Envelope], advance: Any) -> None:
    async with _client(shop, url) as client:
        for batch in _batches(envelopes):
            reply = await client.post(batch)  # every receipt is verified in here
            by_id = {envelope.event_id: envelope for envelope in batch}
            shop.kept += [Acknowledgement(by_id[receipt.event_id], receipt) for receipt in reply.receipts]
            shop.refused += reply.events_rejected
            for rejection in reply.rejections[:3]:
                console.print(f"refused: {rejection.event_id}: {rejection.reason}", highlight=False)
            advance(len(batch))


def _batches(envelopes: list[Envelope]) -> Iterator[list[Envelope]]:
    for start in range(0, len(envelopes), BATCH):
        yield envelopes[start : start + BATCH]


async def _check(shops: list[Shop], url: str) -> None:
    for shop in shops:
        async with _client(shop, url) as client:
            with console.status(f"{shop.name}: committing"):
                # The committer may be faster than we are; both ends at the same place.
                while (commitment := await client.commit(shop.stream)) is not None and commitment.remaining:
                    pass
            with console.status(f"{shop.name}: the client pulls and verifies everything"):
                keys = {agent.name: agent.public_key for agent in shop.agents}
                shop.report = await client.verify_stream(shop.stream, acknowledged=shop.kept, agent_keys=keys)
                proof = await client.prove(shop.stream, 1)
                _write(shop.folder / "proof.json", encode(proof) + b"\n")
        with console.status(f"{shop.name}: the auditor reads and verifies everything"):
            await trio.to_thread.run_sync(_audit, shop, url)


def _audit(shop: Shop, url: str) -> None:
    """The second opinion: no code in common with the client, its own reading of the specification."""
    shop.evidence = read_stream(
        over_http(url, shop.api_key),
        str(shop.tenant_id),
        str(shop.store_id),
        acknowledged=[msgspec.json.decode(encode(one)) for one in shop.kept],
        proof_every=AUDITED_PROOF_EVERY,
    )
    shop.broken = audit_tenant([shop.evidence])


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _print(shops: list[Shop], url: str, seconds: float) -> None:
    events = sum(shop.events for shop in shops)
    table = Table(title=f"{events} CDNOW orders through {url}", title_justify="left")
    for column in ("", *(shop.name for shop in shops)):
        table.add_column(column, justify="left" if not column else "right")
    rows: list[tuple[str, list[object]]] = [
        ("events sent", [s.events for s in shops]),
        ("receipts", [len(s.kept) for s in shops]),
        ("refused", [s.refused for s in shops]),
        ("commitments", [s.report.commitments for s in shops]),
        ("receipts verified: client", [s.report.receipts for s in shops]),
        ("inclusions verified: client", [s.report.proofs for s in shops]),
        ("events verified: auditor", [len(s.evidence.events) if s.evidence else 0 for s in shops]),
        ("served proofs verified: auditor", [len(s.evidence.proofs) if s.evidence else 0 for s in shops]),
        ("broken promises: client / auditor", [f"{len(s.report.problems)} / {len(s.broken)}" for s in shops]),
    ]
    for name, values in rows:
        table.add_row(name, *(str(value) for value in values))
    console.print(table)
    for shop in shops:
        console.print(f"state root of {shop.name}: {shop.report.state_root}", highlight=False, soft_wrap=True)
    console.print(
        f"posted in {seconds:.2f} s: [bold]{events / seconds:,.0f} events/s[/] with signed, durable, verified "
        f"receipts; {TENANTS * AGENTS_PER_TENANT} agents, batches of {BATCH}, "
        f"{os.cpu_count()} cores shared with the server, Python {platform.python_version()}",
        highlight=False,
        soft_wrap=True,
    )
    for shop in shops:
        for fault in shop.faults[:10]:
            console.print(f"[red]{shop.name}:[/] {fault}", highlight=False)
    folder = shops[0].folder
    console.print(
        f"check it yourself, offline:\n  .venv/bin/sequencer verify receipt {folder}/receipts.jsonl --trust {folder}/trust.json"
        f"\n  .venv/bin/sequencer verify proof {folder}/proof.json --trust {folder}/trust.json",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
