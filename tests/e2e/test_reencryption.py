"""At-rest keys of real servers change: sealed anew beside live traffic, killed at every step, and retired.

No reader ever sees an error and no event is lost; what the command reports is what is stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from journal.embedded import embedded_dsn
from tests.e2e.nodes import Operated, operated_postgres
from tests.e2e.world import Load, Server, Tenant
from tests.sweeps import with_some
from ves.at_rest import RingKey, Row, ves_payload_aad
from ves.kdf import Purpose

SMALL = {"VERIFIERS": "1", "ENCRYPTORS": "1", "COMMITMENT_INTERVAL_SECS": "3600"}
STEPS_OF_A_UNIT = ("begin", "commit_sent_before", "committed")


def unit(name: str) -> list[str]:
    return [f"{name}.{step}" for step in STEPS_OF_A_UNIT]


OF_A_REENCRYPTION = [
    *unit("begin_sweep"),
    "reencrypt.page_read:2",
    "reencrypt.sealed:2",
    *unit("reencrypt"),
    "reencrypt.committed:2",
    *unit("end_plaintext"),
]
NOTHING_EXCHANGED = ("reencrypt.begin", "reencrypt.commit_sent_before")
OF_A_RETIREMENT = [
    *unit("forbid_at_rest_keys"),
    "forbid_at_rest_keys.committed:3",
    "retire.forbidden",
    *unit("retire_at_rest_key"),
]
KILLED_EACH_TIME = (
    "reencrypt.sealed:2",
    "reencrypt.committed:2",
    "forbid_at_rest_keys.committed:3",
    "retire.forbidden",
    "retire_at_rest_key.committed",
)


class Keys:
    """An old key and a new one, as settings and as keys."""

    def __init__(self) -> None:
        raw = secrets.token_bytes(32), secrets.token_bytes(32)
        self.old, self.new = map(RingKey, raw)
        old, new = (key.hex() for key in raw)
        self.before = {"PAYLOAD_ENCRYPTION_KEYS": old}
        self.known = {"PAYLOAD_ENCRYPTION_KEYS": f"{old},{new}"}
        self.both = {"PAYLOAD_ENCRYPTION_KEYS": f"{new},{old}"}
        self.after = {"PAYLOAD_ENCRYPTION_KEYS": new}
        self.secrets = {old, new}
        spares = {point: secrets.token_bytes(32) for point in OF_A_RETIREMENT}
        self.spares = {point: RingKey(raw) for point, raw in spares.items()}
        """One for each retirement."""
        many = ",".join([new, old, *(raw.hex() for raw in spares.values())])
        self.with_spares = {"PAYLOAD_ENCRYPTION_KEYS": many}


def admin(server: Server, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = server.command("admin", *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def reencrypted(server: Server, *words: str, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(admin(server, "reencrypt-ves-events", "--json", *words, code=code).stdout))


def execute(dsn: str, statement: str, *arguments: Any) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def refuses_to_start(server: Server, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        server.start()


class Posted:
    """What a tenant has posted, to be read again."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.payloads: list[dict[str, int]] = []

    def posts(self, count: int) -> None:
        payloads = [{"n": len(self.payloads) + n} for n in range(count)]
        answer = self.tenant.post(*map(self.tenant.agent.event, payloads))
        assert answer.status_code == 200, answer.text
        assert answer.json()["eventsAccepted"] == count
        self.payloads += payloads

    def reads(self) -> None:
        events = self.tenant.events()["events"]
        assert [event["payload"] for event in events] == self.payloads


@pytest.mark.slow
def test_an_operators_day_from_plaintext_to_a_new_key_alone(own_server: Callable[..., Server]) -> None:
    keys = Keys()
    disabled, optional = {"PAYLOAD_ENCRYPTION_MODE": "disabled"}, {"PAYLOAD_ENCRYPTION_MODE": "optional"}
    server = own_server(**SMALL, **keys.before, **disabled).start()
    server.wait_ready()
    posted = Posted(Tenant(server))
    posted.posts(9)
    assert server.terminate() == 0
    refuses_to_start(own_server(**SMALL, **keys.before), "sequencer admin reencrypt-ves-events")

    hasty = own_server(**SMALL, **keys.both, **optional)
    assert "Restart all nodes with this ring first" in admin(hasty, "reencrypt-ves-events", code=1).stderr
    server = own_server(**SMALL, **keys.before, **optional).start()
    server.wait_ready()
    posted.tenant.moved_to(server)
    posted.posts(5)
    assert server.terminate() == 0

    server = own_server(**SMALL, **keys.both, **optional).start()
    server.wait_ready()
    posted.tenant.moved_to(server)
    posted.posts(2)
    old, new = f"SSE2 {keys.old.key_id.hex()}", f"SSE2 {keys.new.key_id.hex()}"
    before = {old: 5, new: 2, "plaintext": 9}
    rehearsed = admin(server, "reencrypt-ves-events", "--dry-run", code=1).stdout
    assert "9 rows are plaintext. PAYLOAD_ENCRYPTION_MODE=required would make them unreadable" in rehearsed
    assert "5 rows are under an old key" in rehearsed
    dry = reencrypted(server, "--dry-run", code=1)
    assert (dry["before"], dry["after"], dry["reencrypted"]) == (before, before, 14)
    used = admin(server, "retire-at-rest-key", keys.old.key_id.hex(), code=1).stderr
    assert "5 rows of ves_events are sealed under it" in used

    limited = reencrypted(server, "--limit", "4", "--batch-size", "3", code=1)
    assert (limited["reencrypted"], limited["reached_the_end"]) == (4, False)
    done = reencrypted(server, "--batch-size", "3")
    assert (done["ok"], done["reencrypted"], done["already_current"]) == (True, 10, 6)
    assert done["after"] == {new: 16}
    posted.reads()

    # The server's own ring still demands the old key; retired, it does not.
    assert server.terminate() == 0
    refuses_to_start(own_server(**SMALL, **keys.after), f"data exists under .* {keys.old.key_id.hex()}")
    admin(own_server(**SMALL, **keys.both), "retire-at-rest-key", keys.old.key_id.hex())
    again = admin(own_server(**SMALL, **keys.both), "retire-at-rest-key", keys.old.key_id.hex())
    assert "was retired before" in again.stdout
    refuses_to_start(own_server(**SMALL, **keys.known), f"{keys.old.key_id.hex()} is retired")
    server = own_server(**SMALL, **keys.after).start()
    server.wait_ready()
    posted.tenant.moved_to(server)
    posted.posts(1)
    posted.reads()
    listed = server.command("audit", "list", "--json").stdout
    acts = [json.loads(line)["action"] for line in listed.splitlines() if "at_rest" in line]
    assert acts.count("at_rest.reencrypt_begin") == acts.count("at_rest.reencrypt_end") == 2
    assert acts.count("at_rest_key.retire") == 1
    told = rehearsed + used + listed + server.log.read_text()
    assert not [secret for secret in keys.secrets if secret in told]


# ---- killed at every step -------------------------------------------------------------------------------


class Aged:
    """A live server that reads everything, and rows of one tenant as earlier times would have left them."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self.server = server
        self.keys = keys
        self.admin_dsn = embedded_dsn(server.data_dir, admin=True)
        self.posted = Posted(Tenant(server))
        self.posted.posts(12)

    def age(self) -> Counter[str]:
        """A third plaintext, a third under the old key as SSE1, a sixth as SSE2. What was made of them."""
        made: Counter[str] = Counter()
        rows = execute(
            self.admin_dsn,
            "SELECT tenant_id, store_id, event_id, sequence_number, event_signing_hash, payload_sealed "
            "FROM record.ves_events WHERE tenant_id = $1 ORDER BY sequence_number",
            self.posted.tenant.tenant_id,
        )
        old, new = self.keys.old, self.keys.new
        for n, (tenant, store, event, number, signing_hash, sealed) in enumerate(rows):
            aad = ves_payload_aad(tenant.bytes, store.bytes, event.bytes, number, signing_hash)
            row = Row(Purpose.VES_EVENTS, tenant.bytes, aad)
            plaintext = new.open(row, sealed)
            kinds = {
                "plaintext": plaintext,
                f"SSE1 under {old.key_id.hex()}": old.seal_sse1(os.urandom(12), plaintext, aad),
                f"SSE2 {old.key_id.hex()}": old.seal(row, os.urandom(12), plaintext),
                f"SSE2 {new.key_id.hex()}": sealed,
            }
            kind, value = list(kinds.items())[(0, 1, 0, 1, 2, 3)[n % 6]]
            made[kind] += 1
            execute(
                self.admin_dsn,
                "UPDATE record.ves_events SET payload_sealed = $1 "
                "WHERE tenant_id = $2 AND sequence_number = $3",
                *(value, tenant, number),
            )
        execute(
            self.admin_dsn,
            "INSERT INTO record.at_rest_notes SELECT 'ves_events', coalesce(max(note_number), 0) + 1, "
            "'plaintext', now() FROM record.at_rest_notes WHERE table_name = 'ves_events'",
        )
        return made

    def command(self, **more: str) -> Server:
        return Server(self.server.data_dir, **self.server.environment, **more)


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def live(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("live") / "data"
    server = Server(data_dir, **SMALL, **keys.with_spares, PAYLOAD_ENCRYPTION_MODE="optional").start()
    server.wait_ready()
    yield server
    server.kill_9()


class Paced(Load):
    """Not too fast: every run walks over all that was ever posted."""

    def _post(self, http: httpx.Client, body: bytes, events: list[dict[str, Any]]) -> bool:
        time.sleep(0.1)
        return super()._post(http, body, events)


class Reader:
    """Reads a tenant's events without pause; every answer has to be right."""

    def __init__(self, posted: Posted) -> None:
        self._posted = posted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.reads = 0
        self.problems: list[str] = []

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.reads > 0
        assert not self.problems, self.problems[:3]

    def _run(self) -> None:
        tenant = self._posted.tenant
        with httpx.Client(base_url=tenant.server.url, timeout=30, headers=tenant.http.headers) as http:
            while not self._stop.is_set():
                answer = http.get("/api/v1/ves/events", params={**tenant.stream, "from": 1, "limit": 1000})
                self.reads += 1
                payloads = [event.get("payload") for event in answer.json().get("events", [])]
                expected = self._posted.payloads
                if answer.status_code != 200 or payloads[: len(expected)] != expected:
                    self.problems.append(f"{answer.status_code} {answer.text[:500]}")


@pytest.mark.slow
@pytest.mark.parametrize("point", with_some(OF_A_REENCRYPTION, KILLED_EACH_TIME.__contains__))
def test_a_reencryption_killed_at_any_step_is_finished_by_the_next_one(
    live: Server, keys: Keys, point: str
) -> None:
    aged = Aged(live, keys)
    made = aged.age()
    new = f"SSE2 {keys.new.key_id.hex()}"
    load = Paced([Tenant(live)], batch=3).start()
    try:
        with Reader(aged.posted):
            dying = aged.command(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point)
            killed = dying.command("admin", "reencrypt-ves-events", "--batch-size", "5")
            assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
            aged.posted.reads()
            scope = ("--tenant", str(aged.posted.tenant.tenant_id))
            all_done = point.startswith("end_plaintext")
            left = reencrypted(aged.command(), "--dry-run", *scope, code=int(not all_done))
            assert sum(left["before"].values()) == left["scanned"] == 12
            todo = 12 - left["before"].get(new, 0)
            nothing_done = point.startswith("begin_sweep") or point in NOTHING_EXCHANGED
            assert todo == 0 if all_done else 0 < todo <= 12 - made[new]
            assert (todo == 12 - made[new]) is nothing_done or point.endswith(":2")
            done = reencrypted(aged.command())
            assert done["reencrypted"] == todo
            assert (done["plaintext_left"], done["old_left"], done["unreadable"]) == (0, 0, 0)
            exact = reencrypted(aged.command(), *scope)
            assert (exact["before"], exact["already_current"]) == ({new: 12}, 12)
    finally:
        load.stop()
    assert not load.problems
    assert load.answers.keys() == {200}
    [[noted]] = execute(
        aged.admin_dsn,
        "SELECT noted FROM record.at_rest_notes WHERE table_name = 'ves_events' "
        "ORDER BY note_number DESC LIMIT 1",
    )
    assert noted == "clear"
    aged.posted.reads()


@pytest.mark.slow
@pytest.mark.parametrize("point", with_some(OF_A_RETIREMENT, KILLED_EACH_TIME.__contains__))
def test_a_retirement_killed_at_any_step_is_finished_by_the_next_one(
    live: Server, keys: Keys, point: str
) -> None:
    retiring = keys.spares[point].key_id
    posted = Posted(Tenant(live))
    posted.posts(3)
    dying = Server(live.data_dir, **live.environment, SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point)
    words = ("retire-at-rest-key", retiring.hex())
    killed = dying.command("admin", *words)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    posted.posts(1)
    admin(live, *words)
    posted.posts(1)
    posted.reads()
    counted = execute(
        embedded_dsn(live.data_dir, admin=True),
        "SELECT (SELECT count(*) FROM record.at_rest_key_retirements WHERE key_id = $1), "
        "(SELECT count(*) FROM record.audit_log WHERE action = 'at_rest_key.retire' AND subject = $2)",
        retiring,
        retiring.hex(),
    )
    assert tuple(counted[0]) == (1, 1)


# ---- several nodes --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_nodes_with_two_rings_go_on_while_all_is_sealed_anew_and_the_old_key_ends(tmp_path: Path) -> None:
    keys = Keys()
    with operated_postgres(tmp_path / "postgres") as operated:
        login = "shop_admin"
        execute(operated.owner_dsn, f"CREATE ROLE {login} LOGIN IN ROLE sequencer_admin")
        admin_dsn = operated.owner_dsn.replace("sequencer_owner@", f"{login}@")
        one = operated.node(tmp_path / "one", **keys.before)
        two = operated.node(tmp_path / "two", **keys.before)
        started: list[Server] = []
        try:
            _a_rotation_beside_traffic(operated, keys, one, two, admin_dsn, started)
        finally:
            for node in started:
                node.kill_9()


def _a_rotation_beside_traffic(
    operated: Operated, keys: Keys, one: Server, two: Server, admin_dsn: str, started: list[Server]
) -> None:
    def start(node: Server, ring: dict[str, str]) -> None:
        if node in started:
            assert node.terminate() == 0
            started.remove(node)
        node.environment |= ring
        started.append(node.start())
        node.wait_ready()

    start(one, keys.before)
    posted = Posted(Tenant(one))
    posted.posts(40)
    # First every node learns the new key, then one after the other seals with it.
    start(one, keys.known)
    start(two, keys.known)
    start(two, keys.both)
    posted.tenant.moved_to(one)
    operator = Server(one.data_dir, **one.environment)
    operator.environment |= keys.both | {"DATABASE_ADMIN_URL": admin_dsn}
    load = Load([Tenant(one), Tenant(two)], batch=5).start()
    try:
        with Reader(posted):
            first = operator.command("admin", "reencrypt-ves-events", "--json", "--batch-size", "7")
            document = json.loads(first.stdout)
            assert document["unreadable"] == 0
            assert document["reencrypted"] >= 40
        time.sleep(0.5)
    finally:
        load.stop()
    assert not load.problems
    assert load.answers.keys() == {200}
    # One still seals with the old key: what it wrote is found, and the key is not retired.
    posted.posts(2)
    refused = admin(operator, "retire-at-rest-key", keys.old.key_id.hex(), code=1).stderr
    assert "rows of ves_events are sealed under it" in refused
    admin(operator, "reencrypt-ves-events")
    # Now nothing is under it, but node one was forgotten: from the retirement on it stores nothing.
    admin(operator, "retire-at-rest-key", keys.old.key_id.hex())
    answer = posted.tenant.post(posted.tenant.agent.event({"n": 1}))
    assert answer.status_code in (503, 504), answer.text
    posted.reads()
    [[under_old]] = execute(
        admin_dsn,
        "SELECT count(*) FROM record.ves_events WHERE substr(payload_sealed, 5, 8) = $1",
        keys.old.key_id,
    )
    assert under_old == 0
    assert "that is retired: restart it with the current ring" in one.log.read_text()
    one.kill_9()
    started.remove(one)
    refuses_to_start(one, f"{keys.old.key_id.hex()} is retired")
    start(one, keys.after)
    posted.tenant.moved_to(one)
    posted.reads()
    posted.posts(1)
    seen = sum(receipt is not None for receipt in load.acknowledged.values())
    stored = execute(admin_dsn, "SELECT event_id::text FROM record.ves_events")
    assert {row[0] for row in stored} >= load.acknowledged.keys()
    assert seen > 0
