"""Drills at the one moment that cannot be undone: a silent network, or a lost standby, at COMMIT."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.house import SERVER_SETTINGS, built
from tests.chaos.proxy import How
from tests.chaos.shop import open_shop
from tests.chaos.standby import a_standby_of, wait_for_standbys

pytestmark = pytest.mark.slow

REQUEST_S = float(SERVER_SETTINGS["REQUEST_TIMEOUT_SECS"])


def is_unknown(answer: httpx.Response) -> bool:
    """Neither yes nor no, and when to ask again."""
    code = answer.headers.get("x-error-code")
    return (answer.status_code, code) in ((503, "OUTCOME_UNKNOWN"), (504, "TIMEOUT")) and (
        "retry-after" in answer.headers
    )


@pytest.mark.parametrize("how", ["swallowed", pytest.param("silent", marks=pytest.mark.thorough)])
async def test_a_blackhole_exactly_at_commit_is_outcome_unknown_and_resending_tells_which(
    tmp_path: Path, how: How
) -> None:
    """``silent``: COMMIT arrives, its answer does not. ``swallowed``: COMMIT never arrives."""
    async with built(tmp_path) as house, open_shop(house.server) as shop:
        await shop.post_until_answered(*shop.request())
        events, body = shop.request()
        strike = house.proxy.strike("commit", how)
        with trio.fail_after(REQUEST_S + 5):
            answer = await shop.post(events, body)
        assert strike.hit.is_set()
        assert is_unknown(answer), answer.text
        house.proxy.heal()
        told = await shop.post_until_answered(events, body)
        stored_at_first = how == "silent"
        assert told["eventsReplayed"] == (len(events) if stored_at_first else 0)
        assert (await shop.post_until_answered(events, body))["receipts"] == told["receipts"]
        assert await shop.head() == 6
        assert await shop.broken_promises() == []


CANCEL_THE_WAITING = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
"""As an impatient operator does: PostgreSQL then says success, with a warning."""


@pytest.mark.parametrize(
    "afterwards", ["standby-returns", pytest.param("switched-off", marks=pytest.mark.thorough)]
)
async def test_a_standby_lost_during_commit_is_never_an_acknowledgement(
    tmp_path: Path, afterwards: str
) -> None:
    async with built(tmp_path) as house, open_shop(house.server) as shop:
        with a_standby_of(house.postgres, tmp_path / "standby") as standby:
            await trio.to_thread.run_sync(wait_for_standbys, house.postgres, "standby")
            await shop.post_until_answered(*shop.request())
            standby.end(signal.SIGKILL)
            standby.vacate()
            unheard, cancelled = shop.request(), shop.request()
            answers: list[httpx.Response] = []

            async def post(request: tuple[list[dict[str, object]], bytes]) -> None:
                answers.append(await shop.post(*request))

            with trio.fail_after(2 * REQUEST_S):
                await post(unheard)  # waits for a copy until its deadline
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(post, cancelled)
                    while len(answers) < 2:  # also of what the first one left behind
                        await trio.to_thread.run_sync(house.postgres.psql, CANCEL_THE_WAITING)
                        await trio.sleep(0.05)
            assert "COMMIT was answered with a warning" in house.server.log.read_text()
            assert [is_unknown(answer) for answer in answers] == [True, True], [a.text for a in answers]
            assert len(shop.promised) == 3, "acknowledged without a copy on the standby"
            if afterwards == "standby-returns":
                standby.spawn()
            else:
                await trio.to_thread.run_sync(wait_for_standbys, house.postgres, "")
            for request in (unheard, cancelled):
                told = await shop.post_until_answered(*request)
                assert (await shop.post_until_answered(*request))["receipts"] == told["receipts"]
            assert await shop.head() == 9
            assert await shop.broken_promises() == []
