"""Three machines, and the house on them: roles, TLS and addresses as ``docs/scaling.md`` says.

Alone knows how the cluster is asked who is the primary, and how a sequencer is put on it. ``psql`` is the
superuser's, over TLS, to whoever takes writes.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.chaos.database import PSQL_DEADLINE_S, PsqlFailed
from tests.chaos.house import SERVER_SETTINGS, new_api_key
from tests.e2e.world import ROOT, Server
from tests.patroni.machine import RECIPE, Machine
from tests.tls.authority import Authority

ELSEWHERE = "LOCALHOST"
"""Leads here, but only the name localhost is known to be this machine: so TLS is demanded."""
HEALTHY_DEADLINE_S = 180.0
ASK_S = 3.0


@dataclass(frozen=True)
class Member:
    name: str
    role: str
    state: str


class Cluster:
    def __init__(self, folder: Path, patroni: Path, bin_dir: Path, *, synchronous_mode: str) -> None:
        self.folder = folder
        self.machines = [Machine(f"m{n}", folder / f"m{n}", patroni) for n in (1, 2, 3)]
        self._patroni = patroni
        self._bin = bin_dir
        self._mode = synchronous_mode
        self._passwords = {
            name: secrets.token_urlsafe(24)
            for name in ("api", "superuser", "replication", "rewind", "owner", "server")
        }
        self.authority = Authority(folder)
        self._context = self.authority.client_context()

    def prepare(self) -> None:
        certificate, key = self.authority.write_pair()
        for machine in self.machines:
            machine.prepare(
                **{f"{name}_password": word for name, word in self._passwords.items()},
                certificate=str(certificate),
                key=str(key),
                authority=str(self.authority.file),
                bin_dir=str(self._bin),
                synchronous_mode=self._mode,
                shared_buffers="64MB",
                etcd_hosts=", ".join(f"127.0.0.1:{m.client_port}" for m in self.machines),
                initial_cluster=",".join(f"{m.name}=https://127.0.0.1:{m.peer_port}" for m in self.machines),
            )

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.machines if machine.name == name)

    # Who is what.

    def members(self) -> list[Member]:
        """As the first machine says that answers; nobody, if none does. Blocking."""
        for machine in self.machines:
            try:
                with urllib.request.urlopen(
                    f"{machine.api}/cluster", timeout=ASK_S, context=self._context
                ) as answer:
                    told = json.load(answer)
            except (OSError, ValueError):
                continue
            return [Member(m["name"], m["role"], m["state"]) for m in told["members"]]
        return []

    def primary(self, not_among: Iterable[str] = ()) -> str | None:
        """Who says so of itself and holds the lease."""
        for machine in self.machines:
            if machine.name not in not_among and self._says(machine, "primary"):
                return machine.name
        return None

    def _says(self, machine: Machine, what: str) -> bool:
        try:
            with urllib.request.urlopen(f"{machine.api}/{what}", timeout=ASK_S, context=self._context):
                return True
        except OSError:
            return False

    def healthy(self) -> bool:
        """One primary and two that stream from it, of which one at least is waited for; each says itself that
        it is well, since the others remember for a while what a dead one last said."""
        if not all(self._says(machine, "health") for machine in self.machines):
            return False
        members = self.members()
        copies = [m for m in members if m.role != "leader" and m.state == "streaming"]
        synchronous = [m for m in copies if m.role in ("sync_standby", "quorum_standby")]
        leads = any(m.role == "leader" and m.state == "running" for m in members)
        return leads and len(copies) == 2 and bool(synchronous) and self.primary() is not None

    async def becomes_healthy(self) -> float:
        """How long that took."""
        started = time.monotonic()
        while not await trio.to_thread.run_sync(self.healthy):
            if time.monotonic() - started > HEALTHY_DEADLINE_S:
                tails = "\n".join(machine.tail() for machine in self.machines)
                raise AssertionError(f"not healthy after {HEALTHY_DEADLINE_S:g} s: {self.members()}\n{tails}")
            await trio.sleep(0.5)
        return time.monotonic() - started

    def standby(self) -> str:
        """The one that commits wait for."""
        return next(m.name for m in self.members() if m.role in ("sync_standby", "quorum_standby"))

    def switch_over(self, primary: str, to: str) -> None:
        """As an operator does it, before he works on the primary's machine."""
        done = subprocess.run(
            [
                str(self._patroni.with_name("patronictl")),
                *("-c", str(self.machine(to).folder / "patroni.yml"), "switchover", "sequencer"),
                *("--leader", primary, "--candidate", to, "--force"),
            ],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    # The database.

    def address(self, user: str, password: str, database: str = "sequencer") -> str:
        """All three hosts; whose certificate is demanded and that it takes writes is the reader's to add."""
        hosts = ",".join(f"{ELSEWHERE}:{machine.port}" for machine in self.machines)
        ca = self.authority.file
        return f"postgresql://{user}:{self._passwords[password]}@{hosts}/{database}?sslrootcert={ca}"

    def psql(self, *statements: str) -> list[str]:
        """As the superuser, each in a transaction of its own. Raises PsqlFailed."""
        return self.script("postgres", "superuser", "sequencer", "\n;".join([*statements, ""]))

    def script(self, user: str, password: str, database: str, text: str) -> list[str]:
        """Text and passwords come by standard input and environment, never in a command line."""
        settings = "".join(f"\\set {name}_password '{word}'\n" for name, word in self._passwords.items())
        hosts = ",".join(ELSEWHERE for _ in self.machines)
        done = subprocess.run(
            [str(self._bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"],
            input=(settings + text).encode(),
            env={
                "PATH": os.environ["PATH"],
                "PGHOST": hosts.lower(),
                "PGPORT": ",".join(str(machine.port) for machine in self.machines),
                "PGUSER": user,
                "PGDATABASE": database,
                "PGPASSWORD": self._passwords[password],
                "PGSSLMODE": "verify-full",
                "PGSSLROOTCERT": str(self.authority.file),
                "PGTARGETSESSIONATTRS": "read-write",
                "PGCONNECT_TIMEOUT": "3",
            },
            capture_output=True,
            timeout=PSQL_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise PsqlFailed(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode().splitlines()

    def furnish(self) -> None:
        """Logins and schema, once, in the order of the recipe."""
        self.script("postgres", "superuser", "postgres", (RECIPE / "roles.sql").read_text())
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE_"))}
        address = self.folder / "owner-address"
        address.touch(0o600)
        address.write_text(self.address("sequencer_owner", "owner"))
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.main", "migrate"],
            cwd=ROOT,
            env=env | {"DATABASE_ADMIN_URL_FILE": str(address)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        self.script("sequencer_owner", "owner", "sequencer", (RECIPE / "logins.sql").read_text())

    def end(self) -> None:
        for machine in self.machines:
            machine.end()


class House:
    """One sequencer node on the cluster: what the chaos clients and the auditor ask."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        address = cluster.folder / "server-address"
        address.touch(0o600)
        address.write_text(cluster.address("shop_server", "server"))
        self.server = Server(cluster.folder / "server", **SERVER_SETTINGS, DATABASE_URL_FILE=str(address))

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def postgres(self) -> Cluster:
        return self.cluster

    async def new_api_key(self, tenant_id: str) -> str:
        return await new_api_key(self.server, tenant_id)


@asynccontextmanager
async def built(cluster: Cluster) -> AsyncIterator[House]:
    """Everything up and ready; afterwards nothing is left running."""
    cluster.prepare()
    house = None
    try:
        for machine in cluster.machines:  # from this thread, which outlives them
            machine.start()
        await cluster.becomes_healthy()
        await trio.to_thread.run_sync(cluster.furnish)
        house = House(cluster)
        await trio.to_thread.run_sync(house.server.start)
        await trio.to_thread.run_sync(house.server.wait_ready)
        yield house
    finally:
        if house is not None and house.server.process is not None:
            house.server.kill_9()
        cluster.end()
