"""One real server for the room; each test brings a fresh tenant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import sequencer
from tests.e2e.world import OPENED, Server, Tenant

__all__ = ["sequencer", "server", "tenant"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    small = {"VERIFIERS": "1", "ENCRYPTORS": "1", "COMMITMENT_INTERVAL_SECS": "3600"}
    running = Server(tmp_path_factory.mktemp("agentkeys") / "data", **small).start()
    running.wait_ready()
    yield running
    assert running.terminate() == 0, running.tail()


@pytest.fixture
def tenant(server: Server) -> Iterator[Tenant]:
    yield Tenant(server)
    while OPENED:
        OPENED.pop().http.close()
