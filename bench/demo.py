"""The whole promise on real data: ``python -m bench.demo`` against a running server.

Two fresh tenants with three agents each post the CDNOW orders as signed ``order.created`` events, pull them
back, commit both streams, and check every receipt and every inclusion offline: with the client, and with the
independent auditor that shares no code with it. If the server anchors, it waits until
the commitments are final, fetches an event's evidence and has both check that too. Prints a table; exit code 0
only if all of it holds. Tenants are new in every run, so it can run again and again.

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
from tests.auditor.evidence import audited as second_opinion
from tests.auditor.reading import Unreadable, over_http, read_stream
from transport.chain.opening import open_chain
from transport.cli.console import AdminListener, announcement, read_trust
from transport.client.agent import Agent
from transport.client.checks import StreamReport
from transport.client.errors import ClientError
from transport.client.evidence_on_chain import ask_chain
from transport.client.sequencer import SequencerClient
from transport.client.trust import Pins
from transport.client.wire import Acknowledgement, Envelope, Stream, encode
from ves.encoding import prefixed_hex, uuid_text
from ves.evidence import ON_CHAIN, Link, check, failed, missing
from ves.evidence_file import read_evidence

CACHE = Path(".demo")
FINAL_S = 180.0
"""A chain of one's own takes seconds; one that others run may take minutes."""
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
    final: int = 0
    """Commitments in final blocks."""
    links: list[Link] = field(default_factory=list)
    """Of one event's evidence."""

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
    here = announcement()
    url = os.environ.get("SEQUENCER_URL") or (here.url if here else "http://127.0.0.1:8080")
    await _ready(url)
    all_orders = orders(CACHE)
    with console.status(f"signing {len(all_orders)} orders"):
        shops = _shops(all_orders)
    await _admit(shops, url)
    for shop in shops:
        _write(shop.folder / "trust.json", await _trust(shop, url))
    seconds = await _post(shops, url)
    await _check(shops, url)
    chain = await _chain(shops[0], url)
    if chain is not None:
        for shop in shops:
            await _anchor(shop, url, chain)
    _print(shops, url, seconds)
    _tell_of_chain(shops, chain)
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


@dataclass(frozen=True)
class Chain:
    """Where the server says that it anchors."""

    chain_id: int
    contract: str
    rpc_url: str | None
    """None: not on this machine; whose word to take is then for you to say."""


async def _chain(shop: Shop, url: str) -> Chain | None:
    async with _client(shop, url) as client:
        told = msgspec.json.decode(await client.ask("GET", "/api/v1/anchor/status"))
    if not told["anchor_enabled"]:
        return None
    here = announcement()
    return Chain(told["chain_id"], told["contract"], here.development_chain if here else None)


async def _anchor(shop: Shop, url: str, chain: Chain) -> None:
    """Until every commitment is final; then the evidence of one event, checked by both."""
    trust = shop.folder / "trust.json"
    _write(trust, _with_chain(trust.read_bytes(), chain))
    async with _client(shop, url) as client:
        with (
            console.status(f"{shop.name}: anchoring, until the chain calls it final"),
            trio.fail_after(FINAL_S),
        ):
            commitments = await client.commitments(shop.stream)
            await client.ask("POST", "/api/v1/ves/anchor", body={"batch_id": commitments[0].batch_id})
            while shop.final < len(commitments):
                shop.final = await _count_final(client, shop)
                await trio.sleep(0.5)
        event_id = UUID(shop.kept[0].event.event_id).bytes
        raw = await client.evidence(shop.stream, event_id, payload=True)
    _write(shop.folder / "evidence.json", raw)
    shop.links = check(read_evidence(raw), read_trust(trust).of_evidence())
    if chain.rpc_url is not None:
        async with open_chain([chain.rpc_url], chain.chain_id, 10.0) as asked:
            on_chain = await ask_chain(read_evidence(raw), asked)
        shop.links = [link for link in shop.links if link.name not in ON_CHAIN] + on_chain
    shop.broken += [
        f"evidence, {link.name}: {link.text}" for link in failed(shop.links) + missing(shop.links)
    ]
    verdicts = second_opinion(msgspec.json.decode(raw), msgspec.json.decode(trust.read_bytes()))
    shop.broken += [
        f"evidence, {name}: the auditor says no" for name, held in verdicts.items() if held is False
    ]


async def _count_final(client: SequencerClient, shop: Shop) -> int:
    query = {**shop.stream.query(), "limit": 1000}
    page = msgspec.json.decode(await client.ask("GET", "/api/v1/ves/commitments", query=query))
    return sum((one["anchor"] or {}).get("state") == "finalized" for one in page["commitments"])


def _with_chain(trust: bytes, chain: Chain) -> bytes:
    """An auditor gets chain and contract from elsewhere; this demo believes the server's status."""
    told = msgspec.json.decode(trust) | {"chain_id": chain.chain_id, "contract": chain.contract}
    return msgspec.json.format(msgspec.json.encode(told))


def _tell_of_chain(shops: list[Shop], chain: Chain | None) -> None:
    if chain is None:
        console.print(
            "not anchored: the server has ANCHOR=off; ANCHOR=dev make run has a chain on this machine"
        )
        return
    passed = sum(link.verdict == "passed" for link in shops[0].links)
    where = (
        "a chain on this machine, which nobody else witnesses" if chain.rpc_url else f"chain {chain.chain_id}"
    )
    console.print(
        f"anchored on {where}: {sum(shop.final for shop in shops)} commitments in final blocks; the evidence of "
        f"one event: {passed} links hold\n  .venv/bin/sequencer verify evidence {shops[0].folder}/evidence.json "
        f"--trust {shops[0].folder}/trust.json" + (f" --rpc {chain.rpc_url}" if chain.rpc_url else ""),
        highlight=False,
        soft_wrap=True,
    )


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
