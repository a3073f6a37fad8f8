"""Of each tenant one at a time, and nobody waits for another tenant."""

from __future__ import annotations

import pytest
import trio

from transport.http.errors import ApiError
from transport.http.limits import Turns

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
