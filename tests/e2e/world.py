"""A stranger's view of a running server: starts the real command, signs events by the book, speaks HTTP.

Imports nothing of ours but what a client has: the wire. The signing here follows the VES text on its own, so
that a mistake shared by client and server cannot hide.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config.settings import RATE_LIMITED
from tests.clusters import lend

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60.0
ROOMY = {"RATE_LIMIT_MODE": "enforce"} | {
    f"RATE_LIMIT_{name}_{what}": "1000000"
    for name in map(str.upper, RATE_LIMITED)
    for what in ("PER_SECOND", "BURST")
}
"""Rate limits that are asked and that nobody reaches."""


class Server:
    """``sequencer serve`` as its own process group, on ports of its own choosing."""

    root = ROOT
    """The source it runs."""
    python = sys.executable

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.url = ""
        self.admin_url = ""

    def launch(self) -> subprocess.Popen[bytes]:
        """The process begins; ``start`` also waits until it serves."""
        if not {"DATABASE_URL", "SEQUENCER_FAULTS"} & self.environment.keys():
            lend(self.data_dir)
        (self.data_dir / "server.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "supervisor.main", "serve"],
                cwd=self.root,
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self, *, deadline_s: float = START_DEADLINE_S) -> Server:
        address = self.data_dir / "server.json"
        process = self.launch()
        give_up = time.monotonic() + deadline_s
        while not address.exists():
            if process.poll() is not None:
                raise AssertionError(f"the server ended with {process.returncode}:\n{self.tail()}")
            if time.monotonic() > give_up:
                raise AssertionError(f"the server did not start:\n{self.tail()}")
            time.sleep(0.02)
        told = json.loads(address.read_text())
        self.url, self.admin_url = told["url"], told["admin_url"]
        return self

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of ours in the same environment, to its end."""
        return subprocess.run(
            [self.python, "-m", "supervisor.main", *words],
            cwd=self.root,
            env=self._env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
            check=False,
        )

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """The same without waiting for its end, and without what it says."""
        return subprocess.Popen(
            [self.python, "-m", "supervisor.main", *words],
            cwd=self.root,
            env=self._env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE_"))}
        env |= {"DATA_DIR": str(self.data_dir), "PORT": "0", "HOST": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
        # Tests and benchmarks ask faster than anybody may; those of the limits set them.
        return env | {"RATE_LIMIT_MODE": "off"} | self.environment

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, deadline_s: float = 30.0) -> None:
        give_up = time.monotonic() + deadline_s
        while True:
            try:
                if httpx.get(self.url + "/ready", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < give_up, f"not ready:\n{self.tail()}"
            time.sleep(0.05)

    def terminate(self, deadline_s: float = 40.0) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline_s)

    def kill_9(self, *, group: bool = True) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            if group:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)

    def children(self) -> list[tuple[int, str]]:
        """(pid, command line) of the direct children."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    if int(stat[1]) == self.pid and stat[0] != "Z":
                        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        found.append((int(entry.name), line))
                except (OSError, IndexError):
                    continue
        return found

    @property
    def bootstrap_key(self) -> str:
        made = self.data_dir / "keys" / "bootstrap-admin-api-key"
        kept = Path(self.environment.get("BOOTSTRAP_ADMIN_API_KEY_FILE", made))
        return self.environment.get("BOOTSTRAP_ADMIN_API_KEY") or kept.read_text().strip()


def length_prefixed(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">I", len(raw)) + raw


@dataclass
class Agent:
    """An agent with its key; makes and signs events by the VES text (3.1, 3.2)."""

    tenant_id: uuid.UUID
    store_id: uuid.UUID
    agent_id: uuid.UUID = field(default_factory=uuid.uuid4)
    key_id: int = 1
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()

    def event(self, payload: Any, **changes: Any) -> dict[str, Any]:
        canonical = rfc8785.dumps(payload)
        event: dict[str, Any] = {
            "ves_version": 1,
            "event_id": str(uuid.uuid4()),
            "tenant_id": str(self.tenant_id),
            "store_id": str(self.store_id),
            "source_agent_id": str(self.agent_id),
            "agent_key_id": self.key_id,
            "entity_type": "order",
            "entity_id": f"o-{uuid.uuid4().hex[:12]}",
            "event_type": "order.created",
            "created_at": "2026-01-01T00:00:00.123Z",
            "payload_kind": 0,
            "payload": payload,
            "payload_plain_hash": "0x" + hashlib.sha256(b"VES_PAYLOAD_PLAIN_V1" + canonical).hexdigest(),
            "payload_cipher_hash": "0x" + "00" * 32,
        }
        event |= changes
        if "agent_signature" not in changes:
            event["agent_signature"] = "0x" + self.key.sign(signing_hash(event)).hex()
        return event

    def body(self, events: Iterable[dict[str, Any]]) -> bytes:
        return json.dumps(
            {"agentId": str(self.agent_id), "events": list(events)}, ensure_ascii=False
        ).encode()


def signing_hash(event: dict[str, Any]) -> bytes:
    return hashlib.sha256(
        b"VES_EVENTSIG_V1"
        + struct.pack(">I", event["ves_version"])
        + uuid.UUID(event["tenant_id"]).bytes
        + uuid.UUID(event["store_id"]).bytes
        + uuid.UUID(event["event_id"]).bytes
        + uuid.UUID(event["source_agent_id"]).bytes
        + struct.pack(">I", event["agent_key_id"])
        + length_prefixed(event["entity_type"])
        + length_prefixed(event["entity_id"])
        + length_prefixed(event["event_type"])
        + length_prefixed(event["created_at"])
        + struct.pack(">I", event["payload_kind"])
        + bytes.fromhex(event["payload_plain_hash"].removeprefix("0x"))
        + bytes.fromhex(event["payload_cipher_hash"].removeprefix("0x"))
    ).digest()


OPENED: list[Tenant] = []
"""Tenants whose connections a fixture closes after each test."""


@dataclass
class Tenant:
    """A fresh tenant of a running server: a store, an API key, one agent whose key is registered."""

    server: Server
    tenant_id: uuid.UUID = field(default_factory=uuid.uuid4)
    store_id: uuid.UUID = field(default_factory=uuid.uuid4)
    api_key: str = ""
    quietly_posted: set[str] = field(default_factory=set)
    """Ids that a test posted outside of a Load."""

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.server.url, timeout=60)
        OPENED.append(self)
        if not self.api_key:
            self.api_key = self.new_api_key(["read", "write", "admin"])
        self.http.headers["authorization"] = f"ApiKey {self.api_key}"
        self.agent = self.new_agent()

    def moved_to(self, server: Server) -> Tenant:
        """The same tenant, agent and key on a restarted server."""
        self.server = server
        self.http.close()
        self.http = httpx.Client(base_url=server.url, timeout=60)
        self.http.headers["authorization"] = f"ApiKey {self.api_key}"
        return self

    def seen_from(self, server: Server) -> Tenant:
        """The same tenant, agent and key, through another node of the same database."""
        other = copy.copy(self)
        other.server = server
        other.http = httpx.Client(base_url=server.url, timeout=60, headers=self.http.headers)
        OPENED.append(other)
        return other

    @property
    def stream(self) -> dict[str, str]:
        return {"tenant_id": str(self.tenant_id), "store_id": str(self.store_id)}

    def new_api_key(self, permissions: list[str], **more: Any) -> str:
        answer = httpx.post(
            self.server.admin_url + "/api/v1/admin/api-keys",
            headers={"authorization": f"ApiKey {self.server.bootstrap_key}"},
            json={"tenantId": str(self.tenant_id), "permissions": permissions, **more},
            timeout=30,
        )
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["apiKey"])

    def new_agent(self, store_id: uuid.UUID | None = None) -> Agent:
        agent = Agent(self.tenant_id, store_id or self.store_id)
        answer = self.http.post(
            "/api/v1/agents/keys",
            json={
                "tenantId": str(self.tenant_id),
                "agentId": str(agent.agent_id),
                "keyId": agent.key_id,
                "publicKey": agent.public_key,
            },
        )
        assert answer.status_code in (200, 201), answer.text
        return agent

    def post(self, *events: dict[str, Any], agent: Agent | None = None) -> httpx.Response:
        return self.post_raw((agent or self.agent).body(events))

    def post_raw(self, body: bytes, **headers: str) -> httpx.Response:
        return self.http.post(
            "/api/v1/ves/events/ingest",
            content=body,
            headers={"content-type": "application/json", **headers},
        )

    def events(self, start: int = 1, limit: int = 1000) -> dict[str, Any]:
        answer = self.http.get("/api/v1/ves/events", params={**self.stream, "from": start, "limit": limit})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def head(self) -> int:
        answer = self.http.get("/api/v1/ves/head", params=self.stream)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["head_sequence"])


@dataclass
class Load:
    """Agents posting without pause from threads; remembers what was acknowledged, refused and unknown."""

    tenants: list[Tenant]
    batch: int = 10
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> Load:
        for tenant in self.tenants:
            thread = threading.Thread(target=self._run, args=(tenant,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hangs"

    def _run(self, tenant: Tenant) -> None:
        with httpx.Client(base_url=tenant.server.url, timeout=45, headers=tenant.http.headers) as http:
            while not self._stop.is_set():
                events = [tenant.agent.event({"n": i}) for i in range(self.batch)]
                body = tenant.agent.body(events)
                while not self._stop.is_set():
                    if self._post(http, body, events):
                        break
                    time.sleep(0.05)

    def _post(self, http: httpx.Client, body: bytes, events: list[dict[str, Any]]) -> bool:
        try:
            answer = http.post(
                "/api/v1/ves/events/ingest", content=body, headers={"content-type": "application/json"}
            )
        except httpx.HTTPError:
            self._count(0)
            with self._lock:
                self.unknown.update(e["event_id"] for e in events)
            return False
        self._count(answer.status_code)
        if answer.status_code in (503, 504):
            with self._lock:
                self.unknown.update(e["event_id"] for e in events)
            return False
        if answer.status_code != 200 or answer.json()["eventsRejected"]:
            self.problems.append(f"{answer.status_code} {answer.text[:500]}")
            return True
        with self._lock:
            for receipt in answer.json()["receipts"]:
                earlier = self.acknowledged.setdefault(receipt["eventId"], receipt)
                if earlier != receipt:
                    self.problems.append(f"two receipts for {receipt['eventId']}: {earlier} {receipt}")
        return True

    def _count(self, status: int) -> None:
        with self._lock:
            self.answers[status] = self.answers.get(status, 0) + 1
