"""Archiving beside a real server: every answer is what it was, and a run that is killed is simply run again.

The age is faked: ``--older-than 0s --yes`` archives whatever is committed.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auditor.audit import audit
from tests.auditor.reading import over_http, read_stream
from tests.e2e.nodes import Operated
from tests.e2e.world import Server, Tenant
from tests.sweeps import some_or_all

ALL_OF_IT = ("--older-than", "0s", "--yes")
OF_AN_ARCHIVE = [
    "archive.begin",
    "archive.copied",
    "archive.deleted",
    "archive.commit_sent_before",
    "archive.committed",
    "archive_file.written",
    "archive_file.named",
    "archive_file.listed",
    "archive_audit.begin",
    "archive_audit.commit_sent_before",
    "archive_audit.committed",
]
KILLED_EACH_TIME = ["archive.deleted", "archive_file.named"]


class Kept:
    """A tenant with 12 events in three committed ranges and one that is not committed, and all receipts."""

    def __init__(self, server: Server) -> None:
        self.tenant = Tenant(server)
        self.bodies: list[bytes] = []
        self.receipts: list[list[dict[str, Any]]] = []
        for size in (5, 4, 3):
            self.posts(size)
            self.commits()
        self.posts(1)

    def posts(self, size: int) -> None:
        body = self.tenant.agent.body([self.tenant.agent.event({"n": n}) for n in range(size)])
        answer = self.tenant.post_raw(body)
        assert answer.status_code == 200, answer.text
        self.bodies.append(body)
        self.receipts.append(answer.json()["receipts"])

    def commits(self) -> None:
        answer = self.tenant.http.post("/api/v1/ves/commitments", json=self.tenant.stream)
        assert answer.status_code in (200, 201), answer.text

    def archived(self, *words: str, **more: int) -> dict[str, Any]:
        done = self.run(*words)
        assert done.returncode == more.get("code", 0), done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        tenant = str(self.tenant.tenant_id)
        return self.tenant.server.command("admin", "archive", "--tenant", tenant, "--json", *words)

    def holds(self) -> list[Any]:
        """Everything anybody can read of the stream, after the auditor looked at it and all was replayed."""
        stream = self.tenant.stream
        get = over_http(self.tenant.server.url, self.tenant.api_key)
        evidence = read_stream(get, stream["tenant_id"], stream["store_id"], proof_every=1)
        assert not audit(evidence)
        assert len(evidence.proofs) == 12
        for body, receipts in zip(self.bodies, self.receipts, strict=True):
            again = self.tenant.post_raw(body).json()
            assert again["receipts"] == receipts
            assert again["eventsReplayed"] == len(receipts)
        ids = [event["event_id"] for event in evidence.events]
        by_id = [get(f"/api/v1/ves/events/{one}", stream) for one in ids]
        entity = evidence.events[0]
        path = f"/api/v1/ves/entities/{entity['entity_type']}/{entity['entity_id']}"
        return [evidence.events, evidence.head, evidence.leaves, evidence.proofs, by_id, get(path, stream)]


def test_archived_events_stay_what_they_were(server: Server, tmp_path: Path) -> None:
    kept = Kept(server)
    before = kept.holds()
    found = kept.archived(*ALL_OF_IT, "--dry-run")
    assert (found["events"], found["ranges"], found["dry_run"]) == (12, 3, True)
    found = kept.archived(*ALL_OF_IT, "--limit", "6", "--to", str(tmp_path / "files"))
    assert (found["events"], found["ranges"], found["held_back"]) == (5, 1, 1)
    assert kept.holds() == before
    found = kept.archived(*ALL_OF_IT, "--batch-size", "2", "--to", str(tmp_path / "files"))
    assert (found["events"], found["ranges"], found["files"], found["held_back"]) == (7, 2, 2, 0)
    assert kept.holds() == before
    assert kept.archived(*ALL_OF_IT)["events"] == 0
    files_hold(tmp_path / "files", kept, before[0])
    # Its ids are taken and its numbers are gone.
    event = json.loads(kept.bodies[0])["events"][0]
    other = kept.tenant.agent.event({"n": "other"}, event_id=event["event_id"])
    refused = kept.tenant.post(other).json()
    assert [r["reason"] for r in refused["rejections"]] == ["duplicate_event_id"], refused
    kept.posts(1)
    assert kept.receipts[-1][0]["sequenceNumber"] == 14
    kept.holds()


def files_hold(folder: Path, kept: Kept, events: list[dict[str, Any]]) -> None:
    listed = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["manifest.jsonl", *(e["file"] for e in listed)]
    )
    numbers = []
    for entry in listed:
        raw = (folder / entry["file"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == entry["sha256"]
        first, *rows, last = [json.loads(line) for line in raw.splitlines()]
        assert first["commitment"]["leaf_count"] == entry["events"] == last["events"] == len(rows)
        for line in rows:
            row = line["row"]
            shown = events[row["sequence_number"] - 1]
            assert row["event_id"] == shown["event_id"]
            assert row["agent_signature"][2:] == shown["agent_signature"].removeprefix("0x")
            assert row["payload_sealed"].startswith("\\x53534532"), "SSE2: sealed as it was stored"
            numbers.append(row["sequence_number"])
    assert numbers == list(range(1, 13))


def test_what_makes_no_sense_is_refused_before_anything_is_moved(server: Server, tmp_path: Path) -> None:
    kept = Kept(server)
    young = kept.run("--older-than", "5s")
    assert young.returncode == 1
    assert "younger than a day" in young.stderr
    future = kept.run("--older-than", "2999-01-01", "--yes")
    assert future.returncode == 1
    assert "has not come yet" in future.stderr
    for words in (("--older-than", "soon"), (*ALL_OF_IT, "--batch-size", "0"), (*ALL_OF_IT, "--limit", "0")):
        wrong = kept.run(*words)
        assert wrong.returncode == 2, wrong.stderr
    assert kept.archived("--older-than", "7y")["events"] == 0
    (tmp_path / "file").write_text("")
    assert "file" in kept.run(*ALL_OF_IT, "--to", str(tmp_path / "file")).stderr


def test_each_run_is_in_the_audit_trail_with_its_numbers(server: Server) -> None:
    kept = Kept(server)
    kept.archived(*ALL_OF_IT, "--limit", "5")
    mine = str(kept.tenant.tenant_id)
    trail = server.command("audit", "list", "--action", "retention.archive", "--json", "--tenant", mine)
    assert trail.returncode == 0, trail.stderr
    entries = [json.loads(json.loads(line)["entry"])["details"] for line in trail.stdout.splitlines()]
    assert [entry["outcome"] for entry in entries] == ["done", "begun"]
    assert entries[0]["events"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("points", some_or_all(KILLED_EACH_TIME, OF_AN_ARCHIVE))
def test_a_run_that_is_killed_anywhere_is_run_again(
    own_server: Callable[..., Server], tmp_path: Path, points: list[str]
) -> None:
    small = {"VERIFIERS": "1", "ENCRYPTORS": "1", "COMMITMENT_INTERVAL_SECS": "3600"}
    server = own_server(**small).start()
    server.wait_ready()
    for point in points:
        nth = (
            1 if point.startswith("archive_file") else 2
        )  # in the middle of a range, and the entry at the end
        kept = Kept(server)
        before = kept.holds()
        folder = str(tmp_path / point)
        server.environment |= {"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": f"{point}:{nth}"}
        killed = kept.run(*ALL_OF_IT, "--batch-size", "2", "--to", folder)
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        del server.environment["SEQUENCER_FAULTS"], server.environment["SEQUENCER_CRASH_AT"]
        assert kept.holds() == before, point
        kept.archived(*ALL_OF_IT, "--batch-size", "2", "--to", folder)
        assert kept.holds() == before, point
        files_hold(Path(folder), kept, before[0])
        assert kept.archived(*ALL_OF_IT, "--dry-run")["events"] == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_two_nodes_at_work_and_two_archives_lose_and_double_nothing(
    postgres: Operated, nodes: list[Server]
) -> None:
    operators = [
        Server(node.data_dir, **node.environment, DATABASE_ADMIN_URL=postgres.admin_dsn) for node in nodes
    ]
    words = ("admin", "archive", "--json", "--batch-size", "3", *ALL_OF_IT)
    kept = Kept(nodes[0])
    through = [kept.tenant, kept.tenant.seen_from(nodes[1])]
    done = threading.Event()
    posted: list[tuple[Tenant, bytes, list[dict[str, Any]]]] = []

    def post(tenant: Tenant) -> None:
        while not done.is_set():
            body = tenant.agent.body([tenant.agent.event({"n": n}) for n in range(5)])
            answer = tenant.post_raw(body)
            if answer.status_code == 200:
                posted.append((tenant, body, answer.json()["receipts"]))
            httpx.post(
                f"{tenant.server.url}/api/v1/ves/commitments",
                json=tenant.stream,
                headers={"authorization": f"ApiKey {tenant.api_key}"},
                timeout=30,
            )

    writers = [threading.Thread(target=post, args=(tenant,)) for tenant in through]
    for writer in writers:
        writer.start()
    moved = 0
    try:
        for _ in range(3):
            with ThreadPoolExecutor() as both:
                runs = list(both.map(lambda one: one.command(*words), operators))
            for run in runs:
                assert run.returncode == 0, run.stderr
                moved += json.loads(run.stdout)["events"]
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert moved > 12
    for tenant, body, receipts in posted:
        assert tenant.post_raw(body).json()["receipts"] == receipts
    stream = kept.tenant.stream
    evidence = read_stream(
        over_http(nodes[1].url, kept.tenant.api_key), stream["tenant_id"], stream["store_id"], proof_every=7
    )
    assert not audit(evidence)
    assert evidence.head == 13 + 5 * len(posted)
