"""The judgement at the end of a run, when everything is healed: is all true that callers were told?

It asks the house through its doors as a caller would, and looks into the database only where the doors do not
show it. What it finds wrong is a violation in the history; it repairs nothing.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec
import trio

from journal.memory import MemoryDatabase
from tests.simulation.agents import (
    AGENTS,
    BOOTSTRAP,
    EVERYBODY,
    FRESH,
    STREAMS,
    Agent,
    Event,
    Stream,
    body,
    signing_hash,
)
from tests.simulation.history import ENOUGH_TO_BE_LATE, History
from tests.simulation.node import Node
from ves.commitments import state_root, stream_id
from ves.constants import ZERO_HASH
from ves.encoding import uuid_bytes, uuid_text
from ves.merkle import leaf_hash, merkle_root
from ves.signatures import Signer, verify_signature

RECOVERY_S = 60.0
"""Virtual time in which a healed house answers again: the longest rest that a run can have earned."""
TRY_EVERY_S = 0.5


async def judge(history: History, nodes: list[Node], database: MemoryDatabase) -> None:
    oracle = _Oracle(history, nodes, database)
    # A node that a run left for good would have its tenants rest; each node is asked for itself.
    for node in nodes:
        for tenant in sorted({event.agent.tenant for event in history.outcomes} | {0}):
            await oracle.house_takes_a_fresh_event(node, tenant)
    for agent in EVERYBODY:
        registered = database.agent_keys.get(agent.key)
        if registered and registered.registered_at_us and registered.revoked_at_us is None:
            await oracle.agent_is_known(agent)
    await oracle.every_acknowledged_event_is_replayed()
    for stream in STREAMS:
        if database.events.get(stream.ids):
            await oracle.stream_is_what_was_promised(stream)
            await oracle.commitments_cover_the_stream(stream)
    oracle.nothing_acknowledged_is_missing()
    for node in nodes:
        if node.bytes_in_flight:
            history.violation(f"{node.name} still counts {node.bytes_in_flight} bytes in flight")


class _Oracle:
    def __init__(self, history: History, nodes: list[Node], database: MemoryDatabase) -> None:
        self.history = history
        self.nodes = nodes
        self.database = database
        self.wrong = history.violation
        self.present: dict[Event, dict[str, Any]] = {}
        self.fresh: set[Event] = set()

    async def insist(self, node: Node, method: str, target: str, body: bytes = b"") -> Any:
        """The JSON of the 200 that must come; None (and a violation) when it does not in time."""
        told = "nothing"
        with trio.move_on_after(RECOVERY_S):
            while True:
                reply = await node.ask(method, target, key=BOOTSTRAP, body=body)
                if reply.status == 200:
                    return reply.json
                told = f"{reply.kind} {reply.status} {reply.body[:120]!r}"
                if reply.status == 504 and self.history.slowed < ENOUGH_TO_BE_LATE:
                    self.wrong(f"nothing was slow, and {method} {target[:60]} is answered {told}")
                if reply.status in (400, 401, 403, 404, 409, 413, 422):
                    break
                await trio.sleep(TRY_EVERY_S)
        self.wrong(f"{node.name} does not recover: {method} {target[:60]}: {told}")
        return None

    async def house_takes_a_fresh_event(self, node: Node, tenant: int) -> None:
        await self._takes(node, Event(Agent(tenant, AGENTS - 1), 0, FRESH + node.number))

    async def agent_is_known(self, agent: Agent) -> None:
        """One that was registered during the run."""
        for node in self.nodes:
            await self._takes(node, Event(agent, 0, FRESH + node.number))

    async def _takes(self, node: Node, event: Event) -> None:
        self.fresh.add(event)
        answer = await self.insist(node, "POST", "/api/v1/ves/events/ingest", body((event,)))
        if answer is not None:
            if not answer.get("receipts"):
                self.wrong(f"a fresh event was not accepted: {answer}")
            else:
                self.history.acknowledge(event, answer["receipts"][0])

    async def every_acknowledged_event_is_replayed(self) -> None:
        """One request per agent and store says the same as one per request did: replays are per event."""
        acknowledged = sorted(self.history.receipts)
        for _, group in groupby(acknowledged, key=lambda event: (event.agent, event.store)):
            events = tuple(group)
            node = self.nodes[len(events) % len(self.nodes)]
            answer = await self.insist(node, "POST", "/api/v1/ves/events/ingest", body(events))
            if answer is None:
                continue
            told = {receipt["eventId"]: receipt for receipt in answer.get("receipts", [])}
            for event in events:
                if told.get(uuid_text(event.id)) != self.history.receipts[event]:
                    self.wrong(
                        f"event {event} of {event.agent} was acknowledged, its replay is answered "
                        f"{told.get(uuid_text(event.id)) or answer.get('rejections')}"
                    )

    async def stream_is_what_was_promised(self, stream: Stream) -> None:
        node = self.nodes[stream.store % len(self.nodes)]
        page = await self.insist(node, "GET", f"/api/v1/ves/events?{stream.query}&limit=1000")
        if page is None:
            return
        rows = page["events"]
        numbers = [row["sequence_number"] for row in rows]
        if numbers != [*range(1, page["head_sequence"] + 1)]:
            self.wrong(f"{stream} has the numbers {numbers}, its head is {page['head_sequence']}")
        if len({row["event_id"] for row in rows}) < len(rows):
            self.wrong(f"{stream} has an event twice")
        times = [row["sequenced_at"] for row in rows]
        stored = [event.receipt.sequenced_at_us for event in self.database.events[stream.ids]]
        if stored != sorted(stored):
            self.wrong(f"sequenced_at falls along {stream}: {times}")
        for row in rows:
            self._row(stream, row)
        self._nothing_after_a_revocation(stream, rows)

    def _row(self, stream: Stream, row: dict[str, Any]) -> None:
        event = _who_sent(row)
        if event is None:
            self.wrong(f"{stream} has an event that nobody ever made: {row['event_id']}")
            return
        if event.stream != stream or bytes.fromhex(row["event_signing_hash"][2:]) != signing_hash(event):
            self.wrong(f"event {event} of {event.agent} is changed, or in another stream")
        if row["payload"] != {"n": event.n}:
            self.wrong(f"event {event} of {event.agent} has the payload {row['payload']}")
        if event.is_forged:
            self.wrong(f"event {event} of {event.agent} has a forged signature and is there")
        if event not in self.fresh and not {"ok", "unknown"} & {*self.history.outcomes.get(event, [])}:
            outcomes = self.history.outcomes.get(event)
            self.wrong(f"event {event} of {event.agent} is there, and every answer was: {outcomes}")
        if event in self.present:
            self.wrong(f"event {event} of {event.agent} is there twice")
        self.present[event] = row["receipt"]
        if not self._signed(row["receipt"]):
            self.wrong(f"the receipt of event {event} of {event.agent} is not signed by its sequencer")

    def _signed(self, receipt: dict[str, Any]) -> bool:
        number = uuid_bytes(receipt["sequencerId"])[0] - 1
        seed = self.nodes[number].seed
        return _holds(seed, receipt["receiptHash"], receipt["sequencerSignature"])

    def _nothing_after_a_revocation(self, stream: Stream, rows: list[dict[str, Any]]) -> None:
        for who, heads in self.history.no_more_of:
            for row in rows:
                event = _who_sent(row)
                if event is None or event in self.fresh:  # ours, with the bootstrap key
                    continue
                if str(event.agent) == who and row["sequence_number"] > heads[stream]:
                    self.wrong(
                        f"{who} was revoked when {stream} had {heads[stream]} events, "
                        f"and its event {event} has number {row['sequence_number']}"
                    )

    def nothing_acknowledged_is_missing(self) -> None:
        for event, receipt in self.history.receipts.items():
            if event not in self.present:
                self.wrong(f"event {event} of {event.agent} was acknowledged and is not there: {receipt}")
            elif self.present[event] != receipt:
                self.wrong(f"event {event} of {event.agent} is there with another receipt than acknowledged")

    async def commitments_cover_the_stream(self, stream: Stream) -> None:
        """Contiguous from 1 to the head, chained, each root that of the events it covers."""
        tenant_id, store_id = stream.ids
        await self._commit_the_rest(stream)
        page = await self.insist(self.nodes[0], "GET", f"/api/v1/ves/commitments?{stream.query}&limit=1000")
        if page is None:
            return
        next_start, previous = 1, ZERO_HASH
        for told in page["commitments"]:
            start, end = told["sequence_start"], told["sequence_end"]
            if start != next_start:
                self.wrong(f"the commitments of {stream} go on at {start} after {next_start - 1}")
            rows = self.database.events[stream.ids][start - 1 : end]
            root = merkle_root(
                [
                    leaf_hash(
                        tenant_id,
                        store_id,
                        row.receipt.sequence_number,
                        row.event_signing_hash,
                        row.agent_signature,
                    )
                    for row in rows
                ]
            )
            chained = state_root(stream_id(tenant_id, store_id), previous, root, start, end, end - start + 1)
            if (told["merkle_root"], told["prev_state_root"], told["new_state_root"]) != (
                root.hex(),
                previous.hex(),
                chained.hex(),
            ):
                self.wrong(f"the commitment of {stream} over {start}..{end} is not that of its events")
            next_start, previous = end + 1, chained
        head = len(self.database.events[stream.ids])
        if next_start != head + 1:
            self.wrong(f"the commitments of {stream} end at {next_start - 1}, its head is {head}")

    async def _commit_the_rest(self, stream: Stream) -> None:
        wanted = {"tenant_id": uuid_text(stream.ids[0]), "store_id": uuid_text(stream.ids[1])}
        with trio.move_on_after(RECOVERY_S):
            while True:
                reply = await self.nodes[0].ask(
                    "POST", "/api/v1/ves/commitments", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
                )
                if reply.status == 409 or (reply.status == 200 and not reply.json["remaining"]):
                    return
                await trio.sleep(TRY_EVERY_S)
        self.wrong(f"{stream} cannot be committed: {reply.kind} {reply.body[:120]!r}")


@lru_cache(maxsize=65_536)
def _holds(seed: bytes, receipt_hash: str, signature: str) -> bool:
    """Real Ed25519; remembered, because runs give the same events the same numbers again and again."""
    return verify_signature(Signer(seed).public_key, bytes.fromhex(receipt_hash), bytes.fromhex(signature))


_makers: dict[tuple[str, str], Event] = {}


def _who_sent(row: dict[str, Any]) -> Event | None:
    """The event of ours with this id and these contents."""
    if not _makers:
        for tenant_number in range(3):
            _fill(tenant_number)
    return _makers.get((row["event_id"], row["event_signing_hash"]))


def _fill(tenant: int) -> None:
    for number in range(AGENTS):
        for store in range(2):
            for n in [*range(40), *range(100, 140), *range(200, 210), *range(FRESH, FRESH + 4)]:
                event = Event(Agent(tenant, number), store, n)
                _makers[uuid_text(event.id), "0x" + signing_hash(event).hex()] = event
