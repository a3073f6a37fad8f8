"""A leaked key on a real server: revoked, and what it signed is listed in a report that anybody checks."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow

SMALL = {"VERIFIERS": "1", "ENCRYPTORS": "1"}
CRASHES = ["incident.revoked", "incident.listed", "incident.reported"]


@pytest.fixture
def mine(own_server: Callable[..., Server]) -> Server:
    started = own_server(**SMALL).start()
    started.wait_ready()
    return started


class Shop:
    """A tenant whose agent has signed in two stores, with another agent beside it."""

    def __init__(self, server: Server) -> None:
        self.tenant = Tenant(server)
        self.agent = self.tenant.agent
        self.other = self.tenant.new_agent()
        self.elsewhere = Tenant(server)
        self.signed: list[str] = []

    def sell(self, count: int = 3) -> None:
        for n in range(count):
            event = self.agent.event({"n": n})
            assert self.tenant.post(event).json()["eventsAccepted"] == 1
            self.signed.append(event["event_id"])
            self.tenant.post(self.other.event({"n": n}), agent=self.other)
            self.elsewhere.post(self.elsewhere.agent.event({"n": n}))

    def handle(self, to: Path, *more: str) -> subprocess.CompletedProcess[str]:
        words = ["incident", "key-compromise", "--agent", str(self.agent.agent_id)]
        return self.tenant.server.command(*words, "--key", str(self.agent.key_id), "--to", str(to), *more)

    def status(self) -> str:
        listed = self.tenant.http.get(
            f"/api/v1/agents/{self.agent.agent_id}/keys", params={"tenant_id": str(self.tenant.tenant_id)}
        )
        (key,) = listed.json()["keys"]
        return "revoked" if key["revokedAt"] else "active"


def report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text())["report"])


def trusting(server: Server, folder: Path) -> Path:
    trust = folder / "trust.json"
    trust.write_text(httpx.get(server.url + "/.well-known/ves-sequencer", timeout=30).text)
    return trust


def verify(server: Server, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return server.command("incident", "verify", str(folder), *more)


def test_a_leaked_key_is_revoked_and_all_it_signed_is_reported(mine: Server, tmp_path: Path) -> None:
    shop = Shop(mine)
    shop.sell()
    time.sleep(0.01)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    dry = shop.handle(tmp_path / "dry", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "NOT revoked" in dry.stdout
    assert shop.status() == "active"
    done = shop.handle(tmp_path / "done", "--since", since)
    assert done.returncode == 0, done.stderr
    assert "signed 3 events in 1 streams, 0 of them since" in done.stdout
    assert shop.status() == "revoked"
    refused = shop.tenant.post(shop.agent.event({"n": 9})).json()
    assert refused["rejections"][0]["reason"].startswith("agent_key_invalid")
    listed = [json.loads(line) for line in (tmp_path / "done" / "events.jsonl").read_text().splitlines()]
    assert [one["event_id"] for one in listed] == shop.signed
    assert not any(one["suspected"] for one in listed)
    told = report(tmp_path / "done")
    assert told["key"]["revocation_reason"] == "suspected_compromise"
    assert told["affected_tenants"] == [str(shop.tenant.tenant_id)]
    assert [(one["store_id"], one["events"]) for one in told["streams"]] == [(str(shop.agent.store_id), 3)]
    trail = mine.command("audit", "list", "--action", "incident.key_compromise")
    assert trail.returncode == 0, trail.stderr
    assert str(shop.agent.agent_id) in trail.stdout


def test_anybody_checks_a_report_against_the_keys_he_trusts(mine: Server, tmp_path: Path) -> None:
    shop = Shop(mine)
    shop.sell(2)
    folder = tmp_path / "report"
    assert shop.handle(folder).returncode == 0
    trust = trusting(mine, tmp_path)
    good = verify(mine, folder, "--trust", str(trust))
    assert (good.returncode, good.stdout.strip()) == (0, "report key_compromise: valid")
    nobody = verify(mine, folder, "--pins", str(tmp_path / "no-pins"))
    assert nobody.returncode == 3
    whole = (folder / "events.jsonl").read_bytes()
    (folder / "events.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])
    cut = verify(mine, folder, "--trust", str(trust))
    assert cut.returncode == 1
    assert "events.jsonl is not the file" in cut.stdout
    (folder / "events.jsonl").unlink()
    assert "events.jsonl is missing" in verify(mine, folder, "--trust", str(trust)).stdout
    (folder / "events.jsonl").write_bytes(whole)
    signed = json.loads((folder / "report.json").read_text())
    signed["report"]["events_signed"] = 1
    (folder / "report.json").write_text(json.dumps(signed))
    changed = verify(mine, folder, "--trust", str(trust))
    assert changed.returncode == 1
    assert "signature does not belong" in changed.stdout


@pytest.mark.parametrize("point", CRASHES)
def test_killed_anywhere_the_key_stays_revoked_and_the_report_can_be_made_again(
    mine: Server, tmp_path: Path, point: str
) -> None:
    shop = Shop(mine)
    shop.sell(2)
    mine.environment |= {"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": point}
    killed = shop.handle(tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL
    for name in ("SEQUENCER_FAULTS", "SEQUENCER_CRASH_AT"):
        del mine.environment[name]
    assert shop.status() == "revoked"
    assert (tmp_path / "killed" / "report.json").exists() is (point == "incident.reported")
    again = shop.handle(tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert report(tmp_path / "again")["events_signed"] == 2


def test_an_incident_report_holds_every_audited_act_of_its_time(mine: Server, tmp_path: Path) -> None:
    shop = Shop(mine)
    shop.sell(1)
    folder = tmp_path / "report"
    made = mine.command("incident", "report", "--since", "1h", "--to", str(folder), "--title", "a drill")
    assert made.returncode == 0, made.stderr
    told = report(folder)
    acts = {(one["action"], one["actor"]): one["times"] for one in told["acts"]}
    assert acts["server.start", "system"] == 1
    assert acts["api_key.create", "bootstrap"] >= 2
    assert sum(acts.values()) == told["files"]["audit.jsonl"]["lines"]
    assert told["complete"] is True
    assert told["audit_heads"]
    assert verify(mine, folder, "--trust", str(trusting(mine, tmp_path))).returncode == 0
    own = tmp_path / "own"
    words = ["--since", "1h", "--to", str(own), "--tenant", str(shop.tenant.tenant_id)]
    assert mine.command("incident", "report", *words).returncode == 0
    assert 0 < report(own)["files"]["audit.jsonl"]["lines"] < told["files"]["audit.jsonl"]["lines"]


def test_what_is_asked_wrongly_is_refused_before_anything_is_done(mine: Server, tmp_path: Path) -> None:
    shop = Shop(mine)
    shop.sell(1)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    assert shop.handle(full).returncode == 2
    assert shop.handle(tmp_path / "a", "--since", "yesterday").returncode == 2
    unknown = mine.command(
        "incident", "key-compromise", "--agent", str(uuid.uuid4()), "--key", "1", "--to", str(tmp_path / "b")
    )
    assert unknown.returncode == 1
    assert "no tenant has key 1" in unknown.stderr
    turned = ["--since", "1h", "--until", "2020-01-01T00:00:00Z", "--to", str(tmp_path / "c")]
    assert mine.command("incident", "report", *turned).returncode == 2
    assert shop.status() == "active"


def test_without_a_running_server_the_command_starts_the_database_for_a_moment(
    mine: Server, tmp_path: Path
) -> None:
    shop = Shop(mine)
    shop.sell(2)
    mine.terminate()
    done = shop.handle(tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path / "report")["events_signed"] == 2
    mine.start()
    mine.wait_ready()
    shop.tenant.moved_to(mine)
    assert shop.status() == "revoked"
