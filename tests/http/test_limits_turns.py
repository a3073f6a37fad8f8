"""Of each tenant one at a time, and nobody waits for another tenant; how many bytes may be in flight."""

from __future__ import annotations

import pytest
import trio

from transport.http.errors import ApiError, Code
from transport.http.limits import BytesInFlight, Turns

ONE, OTHER = b"1" * 16, b"2" * 16


async def test_a_tenant_has_one_turn_at_a_time_and_others_do_not_wait_for_it() -> None:
    turns = Turns("others are under way")
    async with turns.turn(ONE, patience_s=1):
        with pytest.raises(ApiError) as told:
            async with turns.turn(ONE, patience_s=0.01):
                pass
        assert told.value.status == 429
        with trio.fail_after(1):
            async with turns.turn(OTHER, patience_s=1):
                pass
    async with turns.turn(ONE, patience_s=1):
        pass
    assert not turns._of_tenant, "nobody is remembered"


def test_the_nodes_bytes_in_flight_are_a_quarter_of_the_memory_unless_they_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transport.http.limits.usable_memory", lambda: 4000)
    bytes_in_flight = BytesInFlight(tenant_bytes_max=5000, node_bytes_max=None)
    bytes_in_flight.reserve(None, 1000)
    with pytest.raises(ApiError, match="on this node") as caught:
        bytes_in_flight.reserve(None, 1)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE
    BytesInFlight(tenant_bytes_max=5000, node_bytes_max=2000).reserve(None, 2000)
