"""One "machine" of the cluster: an etcd, a Patroni and the PostgreSQL it keeps, in one folder on loopback.

Alone starts and ends their processes. A machine is lost by SIGKILL of everything in its folder, or falls
silent by SIGSTOP: then its kernel still takes connections and nobody answers them, as behind a pulled cable.
The files are those of ``deploy/patroni``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from journal import embedded_child
from tests.chaos.database import free_port
from tests.e2e.world import ROOT

RECIPE = ROOT / "deploy/patroni"
HOST = "127.0.0.1"
ENDED_DEADLINE_S = 20.0


@dataclass
class Machine:
    name: str
    folder: Path
    patroni: Path
    """Its program."""
    port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def api(self) -> str:
        return f"https://{HOST}:{self.api_port}"

    def prepare(self, **filled_in: str) -> None:
        """Its folders and its two files, of which one holds passwords."""
        for folder in (self.folder, self.folder / "socket"):
            folder.mkdir(mode=0o700)
        words = filled_in | {
            "name": self.name,
            "host": HOST,
            "network": f"{HOST}/32",
            "port": str(self.port),
            "api_port": str(self.api_port),
            "client_port": str(self.client_port),
            "peer_port": str(self.peer_port),
            "etcd_dir": str(self.folder / "etcd"),
            "data_dir": str(self.folder / "data"),
            "socket_dir": str(self.folder / "socket"),
            "pgpass": str(self.folder / "pgpass"),
        }
        for file in ("etcd.yml", "patroni.yml"):
            path = self.folder / file
            path.touch(0o600)
            path.write_text(Template((RECIPE / file).read_text().replace("${…}", "…")).substitute(words))

    def start(self) -> None:
        """Call it in a thread that outlives it: the kernel ends etcd and Patroni with that thread."""
        self._spawn("etcd", "as-is", "/usr/bin/etcd", "--config-file", str(self.folder / "etcd.yml"))
        # PostgreSQL refuses root, and Patroni starts it: so Patroni runs where root is shown as another.
        identity = "namespace" if os.geteuid() == 0 else "as-is"
        self._spawn("patroni", identity, str(self.patroni), str(self.folder / "patroni.yml"))

    def _spawn(self, name: str, identity: str, *command: str) -> None:
        before = [sys.executable, "-I", "-S", embedded_child.__file__, str(os.getpid())]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*before, str(int(signal.SIGKILL)), identity, *command],
                cwd=self.folder,  # by which they are found, and all that they start
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)

    def residents(self) -> list[int]:
        """All processes that work in the folder. The backends' directory is the data."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if Path(os.readlink(entry / "cwd")).is_relative_to(self.folder):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def signal_all(self, kind: signal.Signals) -> int:
        """How many were told. Twice, for those that were just being started."""
        told = 0
        for _ in range(2):
            for pid in self.residents():
                try:
                    os.kill(pid, kind)
                    told += 1
                except ProcessLookupError:
                    continue
        return told

    def end(self) -> None:
        """As by a cut of its power; also when it is silent. Nothing of it is left afterwards."""
        self.signal_all(signal.SIGKILL)
        for child in self._children:
            child.wait(ENDED_DEADLINE_S)
        self._children.clear()

    def tail(self, lines: int = 15) -> str:
        ends = []
        for name in ("etcd", "patroni"):
            log = self.folder / f"{name}.log"
            told = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
            ends.append("\n".join([f"{self.name} {name}:", *told]))
        return "\n".join(ends)
