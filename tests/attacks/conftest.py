"""One chain, one database, one server for all attacks; an anchor that each test starts as it needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.world import World, world_in
from tests.e2e.world import OPENED


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("attacks")) as world:
        yield world


@pytest.fixture
def world(standing: World) -> Iterator[World]:
    """With its anchor at work and an endpoint that behaves."""
    standing.endpoint.behaves()
    if standing.anchor.ended() is not None or standing.anchor.process is None:
        standing.anchor.start()
    else:
        standing.anchor.from_now_on()
    yield standing
    standing.endpoint.behaves()
    for other in standing.others:
        other.kill_9()
    standing.others.clear()
    while OPENED:
        OPENED.pop().http.close()
