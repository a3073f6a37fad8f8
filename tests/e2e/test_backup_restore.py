"""Backups and restores of a running server, killed and misused: never half a backup, never half a server, and
a database that went back in time is noticed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.chaos.database import Postgres, wait_until
from tests.drill.run import drill
from tests.e2e.world import Server, Tenant
from tests.sweeps import some_or_all

PASSPHRASE = "a passphrase of the tests"
OF_A_BACKUP = ["backup.begun", "backup.copied", "backup.written", "backup.named"]
OF_A_RESTORE = [
    "restore.marked",
    "restore.unpacked",
    "restore.replayed",
    "record_restoration.begin",
    "record_restoration.commit_sent_before",
    "record_restoration.committed",
    "restore.recorded",
    "restore.done",
]
# The last one of either list leaves a server that may be started.
RESTORES_KILLED_EACH_TIME = ["record_restoration.committed", "restore.done"]
OF_A_CONFIRMATION = [f"confirm_restoration.{step}" for step in ("begin", "commit_sent_before", "committed")]
SMALL = {"VERIFIERS": "1", "ENCRYPTORS": "1", "COMMITMENT_INTERVAL_SECS": "3600"}

pytestmark = pytest.mark.slow


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE)
    path.chmod(0o600)
    return path


def stopped(make: Callable[..., Server], passphrase: Path) -> tuple[Server, Tenant]:
    """A server that holds two events and has stopped in order."""
    server = make(BACKUP_PASSPHRASE_FILE=str(passphrase), **SMALL).start()
    server.wait_ready()
    tenant = Tenant(server)
    assert tenant.post(tenant.agent.event({"n": 1}), tenant.agent.event({"n": 2})).status_code == 200
    assert server.terminate() == 0
    return server, tenant


def dying(server: Server, point: str, *words: str) -> None:
    """The command, killed there."""
    armed = Server(server.data_dir, **server.environment, SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point)
    assert armed.begin(*words).wait(60) == -signal.SIGKILL, f"{point} is not reached"


def said(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_backup_that_is_killed_leaves_no_file_or_a_whole_one(
    own_server: Callable[..., Server], passphrase: Path, tmp_path: Path
) -> None:
    server, _ = stopped(own_server, passphrase)
    for point in OF_A_BACKUP:
        file = tmp_path / f"{point}.backup"
        dying(server, point, "backup", "--to", str(file))
        assert file.exists() == (point == "backup.named"), point
        if file.exists():
            assert "is whole" in said(server.command("backup", "verify", str(file)))
    said(server.command("backup", "--to", str(tmp_path / "last.backup")))
    noted = json.loads((server.data_dir / "last-backup.json").read_text())
    assert (noted["file"], noted["encrypted"], noted["events"]) == (str(tmp_path / "last.backup"), True, 2)
    assert not list((server.data_dir / "postgres").glob("backup.tmp*"))


@pytest.mark.parametrize("points", some_or_all(RESTORES_KILLED_EACH_TIME, OF_A_RESTORE))
def test_a_restore_that_is_killed_is_begun_anew_and_never_served_before(
    own_server: Callable[..., Server], passphrase: Path, tmp_path: Path, points: list[str]
) -> None:
    server, tenant = stopped(own_server, passphrase)
    file = tmp_path / "a.backup"
    said(server.command("backup", "--to", str(file)))
    target = own_server("restored", **server.environment)
    for point in points[:-1]:
        dying(target, point, "restore", str(file))
        refused = said(target.command("serve"), 1)
        assert "a restore into" in refused, refused
        assert "did not end" in refused
    dying(target, points[-1], "restore", str(file))
    target.start()
    assert tenant.moved_to(target).head() == 2
    assert tenant.post(tenant.agent.event({"n": 3})).headers["x-error-code"] == "NOT_READY"
    assert target.terminate() == 0
    for words in (["receipt-key", "rotate"], ["admin", "archive", "--older-than", "30d"]):
        assert "sequencer restore confirm first" in said(target.command(*words), 1), words
    for point in OF_A_CONFIRMATION:
        dying(target, point, "restore", "confirm", "--reason", "test", "--without-evidence")
    assert "nothing waits for" in said(target.command("restore", "confirm", "--reason", "x"), 1)
    target.start()
    target.wait_ready()
    [receipt] = tenant.moved_to(target).post(tenant.agent.event({"n": 3})).json()["receipts"]
    assert receipt["sequenceNumber"] == 3


def test_what_cannot_be_restored_or_backed_up_is_told_with_its_remedy(
    own_server: Callable[..., Server], passphrase: Path, tmp_path: Path
) -> None:
    server, _ = stopped(own_server, passphrase)
    file = tmp_path / "a.backup"
    plain = own_server(server.data_dir.name, **SMALL)
    assert "BACKUP_PASSPHRASE_FILE" in said(plain.command("backup", "--to", str(file)), 1)
    said(plain.command("backup", "--to", str(tmp_path / "plain.backup"), "--unencrypted"))
    said(server.command("backup", "--to", str(file)))
    assert "is there already" in said(server.command("backup", "--to", str(file)), 1)
    assert "is not empty" in said(server.command("restore", str(file)), 1)
    target = own_server("restored", **server.environment)
    assert "BACKUP_PASSPHRASE_FILE" in said(own_server("restored").command("restore", str(file)), 1)
    assert "need --wal" in said(target.command("restore", str(file), "--to-latest"), 1)
    early = ("--to-time", "2020-01-01T00:00:00Z", "--wal", str(tmp_path))
    assert "is before this backup ended" in said(target.command("restore", str(file), *early), 1)
    (tmp_path / "other").write_text("another passphrase of the tests")
    (tmp_path / "other").chmod(0o600)
    other = own_server("restored", BACKUP_PASSPHRASE_FILE=str(tmp_path / "other"))
    assert "the passphrase is not the one" in said(other.command("restore", str(file)), 1)
    os.truncate(file, file.stat().st_size - 1000)
    assert "was changed or cut" in said(target.command("restore", str(file)), 1)
    assert not (target.data_dir / "keys").exists()


def test_a_restore_to_a_time_has_what_was_acknowledged_until_then_and_nothing_later(
    own_server: Callable[..., Server], passphrase: Path, tmp_path: Path
) -> None:
    (tmp_path / "wal").mkdir(mode=0o700)
    more = {"BACKUP_PASSPHRASE_FILE": str(passphrase), "BACKUP_WAL_DIR": str(tmp_path / "wal"), **SMALL}
    server, file = own_server(**more).start(), tmp_path / "a.backup"
    server.wait_ready()
    tenant = Tenant(server)
    tenant.post(tenant.agent.event({"n": 1}))
    said(server.command("backup", "--to", str(file)))
    tenant.post(tenant.agent.event({"n": 2}))
    time.sleep(0.5)
    until = datetime.now(UTC).isoformat()
    time.sleep(0.5)
    tenant.post(tenant.agent.event({"n": 3}))
    assert server.terminate() == 0  # an orderly stop leaves all WAL in the archive
    target = own_server("restored", **more)
    said(target.command("restore", str(file), "--to-time", until))
    target.start()
    assert tenant.moved_to(target).head() == 2
    assert target.terminate() == 0
    late = own_server("late", **more)
    refused = said(late.command("restore", str(file), "--to-time", "2100-01-01T00:00:00Z"), 1)
    assert "nothing was written that late" in refused


@pytest.mark.thorough
def test_a_database_of_ones_own_that_went_back_in_time_is_noticed_and_its_numbers_are_not_given_again(
    tmp_path: Path,
) -> None:
    """An older copy put in its place by PostgreSQL's own means; the node keeps its DATA_DIR."""
    source = Postgres(tmp_path / "source")
    with source.running():
        source.migrate()
        copy = tmp_path / "copy"
        node = Server(tmp_path / "node", DATABASE_URL=source.dsn(), **SMALL).start()
        try:
            node.wait_ready()
            tenant = Tenant(node)
            tenant.post(tenant.agent.event({"n": 1}))
            words = ["-D", str(copy), "-h", str(source.cluster.socket_dir), "-p", str(source.port)]
            taken = source.cluster.spawn(
                "pg_basebackup",
                [*words, "-U", "sequencer_owner", "--checkpoint=fast"],
                death_signal=signal.SIGKILL,
                output=subprocess.DEVNULL,
            )
            assert taken.wait(60) == 0
            lost = tenant.post(tenant.agent.event({"n": 2}), tenant.agent.event({"n": 3})).json()["receipts"]
            assert [receipt["sequenceNumber"] for receipt in lost] == [2, 3]
        finally:
            assert node.terminate() == 0
    shutil.rmtree(source.cluster.data)
    copy.rename(source.cluster.data)
    with source.running():
        for _ in range(2):  # the second start finds what the first one recorded
            node.start()
            assert tenant.moved_to(node).head() == 1
            refused = tenant.post(tenant.agent.event({"n": 4}))
            assert (refused.status_code, refused.headers["x-error-code"]) == (503, "NOT_READY")
            assert node.terminate() == 0
        missing = said(node.command("restore", "confirm", "--reason", "test"), 1)
        assert lost[1]["eventId"] in missing
        assert "number 3 " in missing
        said(node.command("restore", "confirm", "--reason", "test", "--void-missing"))
        node.start()
        wait_until(lambda: tenant.moved_to(node).http.get("/ready").status_code == 200, 30, "not ready")
        [receipt] = tenant.post(tenant.agent.event({"n": 4})).json()["receipts"]
        assert receipt["sequenceNumber"] == 4
        told = exported_and_verified(node, tenant, tmp_path)
        assert "2 events: payloads, agents' signatures, numbers without gap but for 2 void ones" in told
        assert "that the numbers 2 to 3 are nobody's" in told
        assert node.terminate() == 0


def exported_and_verified(node: Server, tenant: Tenant, folder: Path) -> str:
    key, trust, to = folder / "key", folder / "trust.json", str(folder / "copy")
    key.write_text(tenant.api_key)
    trust.write_bytes(httpx.get(node.url + "/.well-known/ves-sequencer").content)
    words = ["--api-key-file", str(key), "--pins", str(folder / "pins.json")]
    said(node.command("export", "--tenant", str(tenant.tenant_id), "--to", to, *words))
    return said(node.command("verify", "export", to, "--trust", str(trust)))


async def test_the_drill(tmp_path: Path) -> None:
    report = await drill(tmp_path, seed=1, load_s=1.0)
    assert report.exit_code == 0, report.problems
    assert sum("ok: " in line for line in report.lines) > 20
