"""Nothing acknowledged is lost, doubled, moved or unprovable, whatever is killed, whenever.

The oracle is the independent auditor in ``tests/auditor``, which imports nothing of ours.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from journal.append import AT_ONCE_MAX
from tests.e2e.verdict import acknowledged_everything, audited
from tests.e2e.world import Load, Server, Tenant
from tests.sweeps import with_some

pytestmark = pytest.mark.slow

WRITE_PATH = [
    "sequencer.read",
    "sequencer.sealed",
    "append.begin",
    "append.fenced",
    "append.copied",
    "append.commit_sent_before",
    "append.committed",
    "sequencer.appended",
]
KILLED_EACH_TIME = ("sequencer.sealed", "append.copied", "append.commit_sent_before", "append.committed")


@pytest.mark.parametrize("point", with_some(WRITE_PATH, KILLED_EACH_TIME.__contains__))
def test_a_crash_on_the_write_path_loses_and_doubles_nothing(
    own_server: Callable[..., Server], point: str
) -> None:
    calm = own_server().start()
    calm.wait_ready()
    tenants = [Tenant(calm), Tenant(calm)]
    for tenant in tenants:
        events = [tenant.agent.event({"n": n}) for n in range(3)]
        tenant.quietly_posted.update(e["event_id"] for e in events)
        assert tenant.post(*events).status_code == 200
    calm.terminate()
    nth = random.Random(point).randint(3, 12)
    crashing = own_server(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=f"{point}:{nth}").start()
    crashing.wait_ready()
    batch = 2 * AT_ONCE_MAX if point in ("append.fenced", "append.copied") else 10
    load = Load([t.moved_to(crashing) for t in tenants], batch=batch).start()
    assert crashing.process is not None
    crashing.process.wait(60)  # a hit: the interval was reached under load
    load.stop()
    assert load.acknowledged, "nothing was acknowledged before the crash"
    survivor = own_server().start()
    survivor.wait_ready()
    moved = [t.moved_to(survivor) for t in tenants]
    acknowledged_everything(moved, load)
    audited(moved, load)
    assert survivor.terminate() == 0


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(True, id="whole-group"),
        pytest.param(False, id="server-alone", marks=pytest.mark.thorough),
    ],
)
def test_kill_9_at_random_moments_under_load(own_server: Callable[..., Server], group: bool) -> None:
    chance = random.Random(7)
    server = own_server().start()
    server.wait_ready()
    tenants = [Tenant(server) for _ in range(3)]
    load = Load(tenants, batch=20)
    for _ in range(4):
        load = Load(tenants, 20, load.acknowledged, load.unknown).start()
        time.sleep(chance.uniform(0.3, 1.2))
        server.kill_9(group=group)
        load.stop()
        server = own_server().start()  # without a pause: its PostgreSQL may still be shutting down
        server.wait_ready()
        tenants = [t.moved_to(server) for t in tenants]
    assert len(load.acknowledged) > 200
    acknowledged_everything(tenants, load)
    audited(tenants, load)


def test_killed_workers_are_replaced_and_every_request_is_answered(own_server: Callable[..., Server]) -> None:
    server = own_server().start()
    server.wait_ready()
    tenants = [Tenant(server) for _ in range(2)]
    load = Load(tenants, batch=20).start()
    chance = random.Random(3)
    killed = 0
    for _ in range(12):
        time.sleep(0.3)
        workers = [pid for pid, line in server.children() if "actors.worker" in line]
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
    time.sleep(1)
    load.stop()
    assert killed >= 8
    assert load.answers.get(0, 0) == 0, "a connection was dropped"
    assert set(load.answers) <= {200, 503}
    assert load.answers[200] > 20
    acknowledged_everything(tenants, load)
    audited(tenants, load)


def test_a_database_that_dies_is_a_503_and_recovers_without_a_restart(
    own_server: Callable[..., Server],
) -> None:
    server = own_server().start()
    server.wait_ready()
    tenant = Tenant(server)
    load = Load([tenant], batch=5).start()
    time.sleep(0.5)
    for _ in range(2):
        postmaster = int((server.data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        time.sleep(4)
    time.sleep(2)
    before = len(load.acknowledged)
    time.sleep(2)
    load.stop()
    assert len(load.acknowledged) > before, f"no recovery:\n{server.tail()}"
    assert load.answers.get(0, 0) == 0
    assert set(load.answers) <= {200, 503, 504}
    assert server.process is not None
    assert server.process.poll() is None, "the server itself must not have restarted"
    acknowledged_everything([tenant], load)
    audited([tenant], load)


def test_sigterm_answers_what_is_in_flight(own_server: Callable[..., Server]) -> None:
    server = own_server().start()
    server.wait_ready()
    tenants = [Tenant(server) for _ in range(4)]
    load = Load(tenants, batch=50).start()
    time.sleep(1)
    assert server.terminate() == 0, server.tail()
    load.stop()
    restarted = own_server().start()
    restarted.wait_ready()
    moved = [t.moved_to(restarted) for t in tenants]
    acknowledged_everything(moved, load)
    audited(moved, load)


def test_no_worker_and_no_postgres_outlives_a_killed_server(own_server: Callable[..., Server]) -> None:
    server = own_server().start()
    server.wait_ready()
    children = [pid for pid, _ in server.children()]
    workers = [pid for pid, line in server.children() if "actors.worker" in line]
    assert len(workers) >= 2
    os.kill(workers[0], signal.SIGSTOP)
    server.kill_9(group=False)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in children):
        time.sleep(0.1)
    left = [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    assert not left, f"{len(left)} children outlive their server"


def test_a_second_server_on_the_same_data_is_refused_with_a_reason(own_server: Callable[..., Server]) -> None:
    server = own_server().start()
    second = Server(server.data_dir)
    second.log = server.data_dir.parent / "second.log"
    with pytest.raises(AssertionError, match=str(server.pid)):
        second.start()
    assert httpx.get(server.url + "/health").status_code == 200
