"""What is signed ahead is what an agent would send: the tests' world, which follows the text, agrees."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from bench.load import _requests
from bench.signing import Sender, order, write_requests
from tests.e2e.world import Agent, signing_hash


def senders(count: int) -> tuple[list[Agent], list[Sender]]:
    agents = [Agent(uuid.uuid4(), uuid.uuid4()) for _ in range(count)]
    return agents, [
        Sender(
            one.tenant_id.bytes,
            one.store_id.bytes,
            one.agent_id.bytes,
            one.key_id,
            one.key.private_bytes_raw(),
            "key",
            "host:1",
        )
        for one in agents
    ]


def test_a_request_holds_fresh_events_as_the_agent_signs_them() -> None:
    [agent], [sender] = senders(1)
    requests = sender.requests(3)
    seen = set()
    for request in (next(requests), next(requests)):
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /api/v1/ves/events/ingest HTTP/1.1\r\nhost: host:1\r\n")
        assert f"content-length: {len(body)}".encode() in head
        events = json.loads(body)["events"]
        for n, event in enumerate(events):
            seen.add(uuid.UUID(event["event_id"]))
            signature = bytes.fromhex(event["agent_signature"].removeprefix("0x"))
            agent.key.public_key().verify(signature, signing_hash(event))
            own = {"event_id": event["event_id"], "entity_id": event["entity_id"]}
            assert event == agent.event(order(n), **own)
        assert body == agent.body(events)
    assert len(seen) == 6
    assert {one.version for one in seen} == {4}


def test_many_processes_together_write_the_requests_of_all_senders(tmp_path: Path) -> None:
    agents, own = senders(3)

    def written(pool: Executor, processes: int) -> Iterator[str]:
        paths = write_requests(tmp_path / "requests", own, 1, 10, pool, processes)
        for request in _requests([str(path) for path in paths], repeat=False):
            yield json.loads(bytes(request).partition(b"\r\n\r\n")[2])["agentId"]

    with ThreadPoolExecutor(2) as pool:
        for processes in (1, 2, 7):
            expected = [str(agents[n % 3].agent_id) for n in range(10)]
            assert list(written(pool, processes)) == expected
