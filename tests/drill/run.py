"""A whole drill: load, a backup under it, more load, the machine gone; back from the base, then to the end.

Alone decides what makes a drill fail. What is right is said by others: the independent auditor
(``tests/auditor``) reads what the restored servers show, and sets of receipts are compared by their ids.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import trio

from tests.auditor.audit import audit_tenant
from tests.auditor.reading import over_http, read_stream
from tests.chaos.clients import COMMIT, INGEST, Client, Sent, Stream, Wire
from tests.chaos.database import Embedded
from tests.chaos.history import History, Json
from tests.chaos.house import SERVER_SETTINGS, House, signal_embedded
from tests.chaos.proxy import Proxy
from tests.e2e.world import Agent, Server

TENANTS, STORES, CLIENTS = 2, 2, 4
PAUSE_S = 0.05
ARCHIVED_DEADLINE_S = 30.0
WAL_TIMEOUT_S = 1
MISSING = re.compile(r"^MISSING: number (\d+) of tenant \S+ store (\S+), event (\S+) ")


class Failed(Exception):
    """The drill shows something that must not be; the text says what."""


@dataclass
class Report:
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.started:6.1f} s  {text}"
        self.lines.append(line)
        print(line, flush=True)

    def check(self, holds: bool, text: str) -> None:
        """``text`` is what must hold."""
        self.say(f"{'ok' if holds else 'NOT OK'}: {text}")
        if not holds:
            self.problems.append(text)

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0


@dataclass
class Place:
    """Where a drill keeps what outlives the server: away from its DATA_DIR, as an operator would."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("wal", "kept"):
            (self.folder / name).mkdir(mode=0o700)
        self.passphrase.write_text(uuid.uuid4().hex + "\n")
        self.passphrase.chmod(0o600)

    @property
    def passphrase(self) -> Path:
        return self.folder / "passphrase"

    @property
    def backup(self) -> Path:
        return self.folder / "drill.tar.gz.age"

    @property
    def receipts(self) -> Path:
        return self.folder / "kept" / "receipts.jsonl"

    @property
    def heads(self) -> Path:
        return self.folder / "kept-heads.json"

    def settings(self, *, archiving: bool) -> dict[str, str]:
        settings = SERVER_SETTINGS | {"BACKUP_PASSPHRASE_FILE": str(self.passphrase)}
        if archiving:
            settings |= {
                "BACKUP_WAL_DIR": str(self.folder / "wal"),
                "BACKUP_WAL_TIMEOUT_SECS": str(WAL_TIMEOUT_S),
            }
        return settings

    def house(self, name: str, *, archiving: bool = False) -> House:
        home = self.folder / name
        home.mkdir(mode=0o700)
        (home / "server").mkdir(mode=0o700)
        return House(
            home,
            Embedded(home / "server"),
            Proxy(("127.0.0.1", 0)),
            **self.settings(archiving=archiving),
        )


async def drill(folder: Path, seed: int, load_s: float) -> Report:
    report, place = Report(), Place(folder)
    history = History(folder / "history.jsonl")
    history.run(seed=seed, load_s=load_s)
    try:
        first = place.house("first", archiving=True)
        with ended(first):
            wire, streams, before = await _work(first, place, report, history, seed, load_s)
        shutil.rmtree(folder / "first" / "server")
        report.say(
            "the server was killed and its DATA_DIR wiped: the backup, the kept WAL and receipts are left"
        )
        base = place.house("base")
        with ended(base):
            await _from_the_base(base, place, report, wire, streams, before)
        latest = place.house("latest", archiving=True)
        with ended(latest):
            await _to_the_end(latest, place, report, wire, streams)
    except Failed as failed:
        report.check(False, str(failed))
    finally:
        history.close()
    return report


@contextmanager
def ended(house: House) -> Iterator[None]:
    try:
        yield
    finally:
        house.end_everything()


# ---- before the disaster --------------------------------------------------------------------------------


async def _work(
    house: House, place: Place, report: Report, history: History, seed: int, load_s: float
) -> tuple[Wire, list[Stream], dict[str, Sent]]:
    """Load, a backup under it, more load; then kill -9. Answers also what was acknowledged before it."""
    await house.start_server()
    await trio.to_thread.run_sync(house.server.wait_ready)
    wire = Wire(history, lambda: house.url)
    streams = []
    for _ in range(TENANTS):
        tenant_id = uuid.uuid4()
        api_key = await house.new_api_key(str(tenant_id))
        streams += [Stream(tenant_id, uuid.uuid4(), api_key) for _ in range(STORES)]
    stop = trio.Event()
    async with trio.open_nursery() as load:
        for n in range(CLIENTS):
            chance = random.Random(f"{seed}/client-{n}")
            client = Client(f"client-{n}", wire, streams[n % len(streams)], chance, PAUSE_S)
            load.start_soon(client.run, stop)
        await trio.sleep(load_s)
        before = dict(wire.acknowledged)
        report.say(f"{_count(before)} events acknowledged, the backup begins under load")
        done = await _command(house.server, "backup", "--to", str(place.backup))
        report.check(done.returncode == 0, f"backup: {done.stdout.splitlines()[:1]}{done.stderr[-300:]}")
        during = len(wire.acknowledged)
        await trio.sleep(load_s)
        stop.set()
    report.say(f"{_count(wire.acknowledged)} events acknowledged, {during - len(before)} requests meanwhile")
    checked = await _command(house.server, "backup", "verify", str(place.backup))
    report.check(checked.returncode == 0, f"the backup is whole {checked.stderr[-300:]}")
    heads = await _command(house.server, "audit", "heads", "--out", str(place.heads))
    report.check(heads.returncode == 0, f"an auditor keeps the audit heads {heads.stderr[-300:]}")
    _keep_receipts(place, wire)
    waited = await _everything_archived(house, place)
    report.say(f"all WAL was in the archive {waited:.1f} s after the last answer")
    await wire.http.aclose()
    assert isinstance(house.postgres, Embedded)
    signal_embedded(house.postgres, signal.SIGKILL)  # a machine that is gone shuts nothing down
    await house.kill_server(group=True)
    vacant = partial(house.postgres.cluster.wait_until_vacant, deadline_s=30, give_up=lambda: False)
    await trio.to_thread.run_sync(vacant)
    return wire, streams, before


def _count(requests: dict[str, Sent]) -> int:
    return sum(len(sent.events) for sent in requests.values())


def _keep_receipts(place: Place, wire: Wire) -> None:
    with place.receipts.open("w") as out:
        for digest, sent in wire.acknowledged.items():
            events = {event["event_id"]: event for event in sent.events}
            for receipt in wire.receipts[digest]:
                out.write(json.dumps({"event": events[receipt["eventId"]], "receipt": receipt}) + "\n")


async def _everything_archived(house: House, place: Place) -> float:
    """What a machine that dies now would lose is what is not in the archive yet: at most the timeout's."""
    started = time.monotonic()
    # A little back: after a change of files the next one begins with a header and nothing to lose.
    [name] = await house.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn() - 64)")
    with trio.fail_after(ARCHIVED_DEADLINE_S):
        while not (place.folder / "wal" / name).exists():  # noqa: ASYNC110 - it rings no bell
            await trio.sleep(0.1)
    return time.monotonic() - started


# ---- back from the base ---------------------------------------------------------------------------------


async def _from_the_base(
    house: House, place: Place, report: Report, wire: Wire, streams: list[Stream], before: dict[str, Sent]
) -> None:
    await _restore(house, place, report)
    await _is_read_only(house, report, streams[0])
    kept = {digest: wire.receipts[digest] for digest in before}
    problems = await trio.to_thread.run_sync(partial(_audited, house, wire, streams, kept))
    report.check(
        not problems,
        f"every one of {_receipts_of(kept)} receipts acknowledged before the snapshot began verifies "
        f"{problems[:3]}",
    )
    held = await trio.to_thread.run_sync(partial(_event_ids, house, streams))
    acknowledged = {r["eventId"]: r["sequenceNumber"] for some in wire.receipts.values() for r in some}
    expected = set(acknowledged) - held
    refused = await _confirm(house, place)
    listed = {m[3] for line in refused.stdout.splitlines() if (m := MISSING.match(line))}
    report.check(
        refused.returncode == 1 and listed == expected and bool(expected),
        f"confirm refuses and lists exactly the {len(expected)} events given since ({len(listed)} listed)",
    )
    before_ids = {r["eventId"] for some in kept.values() for r in some}
    report.check(not before_ids & listed, "none of those acknowledged before the snapshot is among them")
    await _give_up_what_is_missing(house, place, report, streams, acknowledged)


async def _give_up_what_is_missing(
    house: House, place: Place, report: Report, streams: list[Stream], acknowledged: dict[str, int]
) -> None:
    """The way without WAL: numbers are void, and what comes next gets greater ones."""
    voided = await _confirm(house, place, "--void-missing")
    report.check(
        voided.returncode == 0, f"confirm --void-missing gives the numbers up {voided.stderr[-300:]}"
    )
    await trio.to_thread.run_sync(house.server.terminate)
    await house.start_server()
    await trio.to_thread.run_sync(house.server.wait_ready)
    given = max(acknowledged.values())
    for stream in streams:
        agent = await _new_agent(house, stream)
        events = [agent.event({"after": "the restore"}) for _ in range(3)]
        answer = await _post(house, stream, agent, events)
        numbers = [r["sequenceNumber"] for r in answer.json()["receipts"]]
        await _commit(house, stream)
        shown = await trio.to_thread.run_sync(partial(_shown, house, stream, []))
        top = max((last for _, last in shown.voided), default=0)
        report.check(
            len(numbers) == 3 and min(numbers) > top,
            f"store {str(stream.store_id)[:8]}: numbers go on at {min(numbers, default=given)}, beyond all "
            f"{sum(last - first + 1 for first, last in shown.voided)} void ones",
        )
        problems = audit_tenant([shown])
        report.check(not problems, f"the auditor finds nothing wrong with it {problems[:3]}")
    code = await trio.to_thread.run_sync(house.server.terminate)
    report.check(code == 0, "the server that went on without them stops in order")


# ---- and to the end -------------------------------------------------------------------------------------


async def _to_the_end(house: House, place: Place, report: Report, wire: Wire, streams: list[Stream]) -> None:
    await _restore(house, place, report, "--to-latest", "--wal", str(place.folder / "wal"))
    await _is_read_only(house, report, streams[0])
    confirmed = await _confirm(house, place, "--heads", str(place.heads))
    report.check(confirmed.returncode == 0, f"confirm finds nothing missing {confirmed.stdout[-400:]}")
    await trio.to_thread.run_sync(house.server.terminate)
    await house.start_server()
    await trio.to_thread.run_sync(house.server.wait_ready)
    replayed = await _replay_everything(house, wire)
    report.check(not replayed, f"every acknowledged request is answered with its old receipts {replayed[:2]}")
    for stream in streams:
        agent = await _new_agent(house, stream)
        answer = await _post(house, stream, agent, [agent.event({"after": "the restore"})])
        report.check(
            answer.status_code == 200 and len(answer.json()["receipts"]) == 1,
            f"store {str(stream.store_id)[:8]}: numbers go on at {answer.json().get('sequenceStart')}",
        )
        await _commit(house, stream)
    problems = await trio.to_thread.run_sync(partial(_audited, house, wire, streams, wire.receipts))
    report.check(
        not problems,
        f"the auditor finds all {_receipts_of(wire.receipts)} events at their numbers {problems[:3]}",
    )
    code = await trio.to_thread.run_sync(house.server.terminate)
    report.check(code == 0, "the restored server stops in order")


async def _replay_everything(house: House, wire: Wire) -> list[str]:
    problems = []
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        for digest, sent in wire.acknowledged.items():
            headers = {"authorization": f"ApiKey {sent.stream.api_key}", "content-type": "application/json"}
            answer = await http.post(INGEST, content=sent.body, headers=headers)
            if answer.status_code != 200 or answer.json()["receipts"] != wire.receipts[digest]:
                problems.append(answer.text[:200])
    return problems


# ---- steps ----------------------------------------------------------------------------------------------


async def _restore(house: House, place: Place, report: Report, *words: str) -> None:
    started = time.monotonic()
    done = await _command(house.server, "restore", str(place.backup), *words)
    text = (done.stdout.splitlines() or [""])[0]
    report.check(
        done.returncode == 0, f"restore in {time.monotonic() - started:.1f} s: {text}{done.stderr[-300:]}"
    )
    if done.returncode != 0:
        raise Failed(done.stderr)
    await house.start_server()


async def _is_read_only(house: House, report: Report, stream: Stream) -> None:
    agent = Agent(stream.tenant_id, stream.store_id)
    refused = await _post(house, stream, agent, [agent.event({"n": 1})])
    committed = await _commit(house, stream)
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        ready = await http.get("/ready")
    codes = [answer.headers.get("x-error-code") for answer in (refused, committed, ready)]
    report.check(
        [answer.status_code for answer in (refused, committed, ready)] == [503] * 3
        and codes == ["NOT_READY"] * 3,
        f"the restored server is read-only: ingest, commitments and /ready answer 503 {codes}",
    )


async def _confirm(house: House, place: Place, *words: str):  # type: ignore[no-untyped-def]
    return await _command(
        house.server,
        "restore",
        "confirm",
        "--receipts",
        str(place.receipts.parent),
        "--reason",
        "drill",
        *words,
    )


async def _command(server: Server, *words: str):  # type: ignore[no-untyped-def]
    return await trio.to_thread.run_sync(partial(server.command, *words))


async def _new_agent(house: House, stream: Stream) -> Agent:
    agent = Agent(stream.tenant_id, stream.store_id)
    answer = await _ask(
        house,
        stream,
        "/api/v1/agents/keys",
        {
            "tenantId": str(agent.tenant_id),
            "agentId": str(agent.agent_id),
            "keyId": 1,
            "publicKey": agent.public_key,
        },
    )
    if answer.status_code not in (200, 201):
        raise Failed(f"no agent can be registered: {answer.text}")
    return agent


async def _post(house: House, stream: Stream, agent: Agent, events: list[Json]) -> httpx.Response:
    return await _ask(house, stream, INGEST, json.loads(agent.body(events)))


async def _commit(house: House, stream: Stream) -> httpx.Response:
    return await _ask(house, stream, COMMIT, stream.name)


async def _ask(house: House, stream: Stream, path: str, body: Json) -> httpx.Response:
    async with httpx.AsyncClient(base_url=house.url, timeout=30) as http:
        return await http.post(path, json=body, headers={"authorization": f"ApiKey {stream.api_key}"})


# ---- judging, in threads --------------------------------------------------------------------------------


def _audited(house: House, wire: Wire, streams: list[Stream], receipts: dict[str, list[Json]]) -> list[str]:
    """Everything that the auditor says, holding the server against these receipts."""
    evidence = []
    for stream in streams:
        kept = []
        for digest, some in receipts.items():
            sent = wire.acknowledged[digest]
            if sent.stream == stream:
                events = {event["event_id"]: event for event in sent.events}
                kept += [{"event": events[r["eventId"]], "receipt": r} for r in some]
        evidence.append(_shown(house, stream, kept))
    return [problem for one in evidence for problem in audit_tenant([one])]


def _shown(house: House, stream: Stream, kept: list[Json]):  # type: ignore[no-untyped-def]
    return read_stream(
        over_http(house.url, stream.api_key),
        str(stream.tenant_id),
        str(stream.store_id),
        acknowledged=kept,
        proof_every=11,
    )


def _event_ids(house: House, streams: list[Stream]) -> set[str]:
    return {event["event_id"] for stream in streams for event in _shown(house, stream, []).events}


def _receipts_of(receipts: dict[str, list[Json]]) -> int:
    return sum(map(len, receipts.values()))
