"""A tenant leaves: its administrator exports it from a real server, strangers verify the copy offline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import unsigned
from tests.e2e.test_archive import ALL_OF_IT, Kept
from tests.e2e.test_legacy_commitments import commit_legacy
from tests.e2e.test_validity_proofs import submit
from tests.e2e.world import ROOT, Server


class Leaving(Kept):
    """With a second store, and a folder for its papers."""

    def __init__(self, server: Server, folder: Path) -> None:
        super().__init__(server)
        other = self.tenant.new_agent(uuid.uuid4())
        assert self.tenant.post(other.event({"n": 0}), agent=other).status_code == 200
        self._leaves_more()
        self.folder = folder
        self.key = folder / "key"
        self.key.write_text(self.tenant.api_key)
        self.trust = folder / "trust.json"
        self.trust.write_bytes(httpx.get(server.url + "/.well-known/ves-sequencer").content)

    def _leaves_more(self) -> None:
        """Unsigned events beside the signed ones and in a store of their own; two validity proofs."""
        tenant = self.tenant
        events = [unsigned.unsigned(tenant, {"n": n, "ü": [[], {}]}, entity_id="o-1") for n in range(5)]
        assert unsigned.post(tenant, *events)["assigned_sequence_end"] == 5
        assert commit_legacy(tenant).json()["event_count"] == 5
        doubles = b"[1.0, 1e-6, -0.0, 1e21, 12345.678]"  # written otherwise than they are hashed
        text = "[1.0,1e-6,-0.0,1e21,12345.678]"
        event = unsigned.unsigned(tenant, "here", payload_hash=unsigned.text_hash(text))
        raw = unsigned.body(tenant, event).replace(b'"here"', doubles)
        assert unsigned.post_raw(tenant, raw).json()["events_accepted"] == 1
        self.alone = str(uuid.uuid4())
        event = unsigned.unsigned(tenant, {}, store_id=self.alone)
        assert unsigned.post(tenant, event)["events_accepted"] == 1
        listed = tenant.http.get("/api/v1/ves/commitments", params=tenant.stream).json()["commitments"]
        for commitment, proof in zip(listed, (b"one", b"two"), strict=False):
            inputs = tenant.http.get(f"/api/v1/ves/validity/{commitment['batch_id']}/inputs").json()
            submit(tenant, commitment["batch_id"], proof, publicInputs=inputs["public_inputs"])

    def words(self, to: str, *more: str) -> list[str]:
        tenant = str(self.tenant.tenant_id)
        files = ["--api-key-file", str(self.key), "--pins", str(self.folder / "pins.json")]
        return ["export", "--tenant", tenant, "--to", str(self.folder / to), "--json", *files, *more]

    def exported(self, to: str, *more: str) -> dict[str, Any]:
        done = self.tenant.server.command(*self.words(to, *more))
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def verified(self, to: str, *more: str, code: int = 0) -> dict[str, Any]:
        """Without a server: in an environment that knows none."""
        words = ["verify", "export", str(self.folder / to), "--json", *more]
        done = Server(self.folder / "nowhere").command(*words)
        assert done.returncode == code, (done.stdout, done.stderr)
        return dict(json.loads(done.stdout))

    def audited(self, to: str) -> subprocess.CompletedProcess[str]:
        """By the auditor, who knows nothing of ours."""
        return subprocess.run(
            [sys.executable, "-m", "tests.auditor", "--export", str(self.folder / to)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_a_tenant_takes_everything_along_and_strangers_verify_it(server: Server, tmp_path: Path) -> None:
    leaving = Leaving(server, tmp_path)
    leaving.archived(*ALL_OF_IT, "--limit", "5")
    made = leaving.exported("copy", "--admin-url", server.admin_url)
    assert (made["events"], made["streams"]) == (14, 3)
    assert (made["legacy_events"], made["validity_proofs"]) == (7, 2)
    trust = ("--trust", str(leaving.trust))
    found = leaving.verified("copy", *trust)
    assert found["problems"] == []
    assert (found["events"], found["receipts"], found["commitments"], found["committed"]) == (14, 14, 3, 12)
    unsigned_ones = [
        found[f"legacy_{what}"] for what in ("events", "commitments", "committed", "uncommitted")
    ]
    assert unsigned_ones == [7, 1, 5, 2]
    assert (found["validity_proofs"], found["proofs_without_inputs"], found["streams"]) == (2, 0, 3)
    alone = {path.name for path in (tmp_path / "copy" / "streams" / leaving.alone).iterdir()}
    assert alone == {"legacy-events-000000000001.jsonl", "legacy-commitments.jsonl"}
    audited = leaving.audited("copy")
    assert audited.returncode == 0, audited.stdout
    assert "6 unsigned events, 1 commitments over them, 2 validity proofs" in audited.stderr
    # What it holds is the same before and after the archive, and without trust it says less.
    leaving.archived(*ALL_OF_IT)
    leaving.exported("again", "--admin-url", server.admin_url)
    store = str(leaving.tenant.store_id)
    for name in (
        "events-000000000001.jsonl",
        "commitments.jsonl",
        "validity-proofs.jsonl",
        "legacy-events-000000000001.jsonl",
        "legacy-commitments.jsonl",
    ):
        both = [tmp_path / which / "streams" / store / name for which in ("copy", "again")]
        assert both[0].read_bytes() == both[1].read_bytes()
    alone = leaving.verified("copy", "--pins", str(tmp_path / "no-pins.json"), code=3)
    assert any("vouches for it" in what for what in alone["not_verified"])
    assert (tmp_path / "copy" / "audit.jsonl").read_bytes().count(b"\n") >= 2
    assert json.loads((tmp_path / "copy" / "policy.json").read_bytes())["tenantId"]
    # Finished is finished.
    again = leaving.words("copy", "--admin-url", server.admin_url)
    told = server.command(*(word for word in again if word != "--json"))
    assert told.returncode == 0, told.stderr
    assert "was verified, and not written again" in told.stdout
    # And a change is found by both.
    events = tmp_path / "copy" / "streams" / store / "events-000000000001.jsonl"
    events.write_bytes(events.read_bytes().replace(b"order.created", b"order.forged!", 1))
    found = leaving.verified("copy", *trust, code=1)
    assert f"streams/{store}/events-000000000001.jsonl" in found["problems"][0]
    assert leaving.audited("copy").returncode == 3


def test_an_export_needs_a_credential_for_the_tenant_and_the_same_words(
    server: Server, tmp_path: Path
) -> None:
    leaving, stranger = Leaving(server, tmp_path), Kept(server)
    leaving.key.write_text(stranger.tenant.api_key)
    refused = server.command(*leaving.words("copy"))
    assert refused.returncode == 1
    assert "403" in refused.stderr
    assert not (tmp_path / "copy" / "export.json").exists()
    leaving.key.write_text(leaving.tenant.api_key)
    one = ("--store", str(leaving.tenant.store_id), "--from-sequence", "2", "--to-sequence", "7")
    assert leaving.exported("part", *one, "--without-payloads")["events"] == 6
    assert leaving.verified("part", "--trust", str(leaving.trust))["committed"] == 6
    assert server.command(*leaving.words("x", "--from-sequence", "3", "--to-sequence", "2")).returncode == 2
    (tmp_path / "part" / "manifest.json").unlink()
    other = server.command(*leaving.words("part"))
    assert other.returncode == 2
    assert "begun with other words" in other.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_an_export_that_is_killed_goes_on(own_server: Callable[..., Server], tmp_path: Path) -> None:
    server = own_server(VERIFIERS="1", ENCRYPTORS="1", COMMITMENT_INTERVAL_SECS="3600").start()
    server.wait_ready()
    leaving = Leaving(server, tmp_path)
    for _ in range(8):
        leaving.posts(1000)
    leaving.commits()
    words = [sys.executable, "-m", "supervisor.main", *leaving.words("copy"), "--url", server.url]
    progress, kills = tmp_path / "copy" / "progress.jsonl", 0
    for files in (1, 3, 6):
        process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"DATA_DIR": str(tmp_path / "none")})
        while process.poll() is None:
            if progress.exists() and progress.read_bytes().count(b"\n") >= files:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                break
            time.sleep(0.01)
    assert kills == 3, "it was too fast to be killed"
    assert leaving.exported("copy")["events"] == 8014
    found = leaving.verified("copy", "--trust", str(leaving.trust))
    assert (found["problems"], found["committed"]) == ([], 8013)
    assert leaving.audited("copy").returncode == 0
