"""One real server for the whole run; each test brings a fresh tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.nodes import Operated, operated_postgres
from tests.e2e.world import OPENED, ROOMY, Server, Tenant


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # All tests fail from one address: none may make another wait.
    patient = {"COMMITMENT_INTERVAL_SECS": "3600", "AUTH_FAILURES_BURST": "1000000", **ROOMY}
    running = Server(tmp_path_factory.mktemp("e2e") / "data", **patient).start()
    running.wait_ready()
    yield running
    code = running.terminate()
    assert code == 0, running.tail()


@pytest.fixture(autouse=True)
def connections_end_with_their_test() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().http.close()


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return Tenant(server)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers that a test may kill; whatever is left of them is killed at the end."""
    started: list[Server] = []

    def make(name: str = "data", **environment: str) -> Server:
        server = Server(tmp_path / name, **environment)
        started.append(server)
        return server

    yield make
    for server in started:
        if server.process is not None:
            server.kill_9()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """An operator's database, for several nodes."""
    with operated_postgres(tmp_path_factory.mktemp("nodes") / "postgres") as running:
        yield running


@pytest.fixture
def nodes(postgres: Operated, tmp_path: Path) -> Iterator[list[Server]]:
    """Two that know nothing of each other."""
    both = [postgres.node(tmp_path / "one"), postgres.node(tmp_path / "two")]
    for node in both:
        node.start()
    for node in both:
        node.wait_ready()
    yield both
    for node in both:
        node.kill_9()
