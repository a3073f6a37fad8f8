"""The core and its front-ends: who is true to whom, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from tests.http.doubles import BOOTSTRAP, INGEST, JSON, Cardboard, batch, parts, serving, verified
from tests.http.test_http_serving import GET_HEALTH, closed_within, one_answer, post, until
from transport.front.channel import Channel, FrontEndDied
from transport.front.hall import Hall
from transport.front.wire import Arrived, Outbox, Request, ToFront, to_front


async def test_small_bodies_come_with_their_head_and_large_ones_when_the_core_asks() -> None:
    async with serving(front=True) as house:
        key = house.api_key("write")
        async with house.client(key) as client:
            for size in (2, 60_000, 300_000, 2_000_000):
                answer = await client.post(INGEST, content=b"x" * size, headers=JSON)
                assert answer.status_code == 200
                assert house.verifiers.asked[-1].body == b"x" * size

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(40):
                    yield b"y" * 10_001

            assert (await client.post(INGEST, content=pieces(), headers=JSON)).status_code == 200
            assert house.verifiers.asked[-1].body == b"y" * 400_040


async def test_a_client_that_waits_for_100_continue_is_told_when_the_core_wants_the_body() -> None:
    async with serving(front=True) as house:
        for key, status in ((house.api_key("write"), 200), (house.api_key("read"), 403)):
            stream = await house.connect()
            await stream.send_all(post(key, length=2, more=b"Expect: 100-continue\r\nConnection: close\r\n"))
            if status == 200:
                assert await stream.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
                await stream.send_all(b"{}")
            assert parts(await closed_within(stream, 5))[0] == status


async def test_answers_of_many_connections_do_not_wait_for_each_other() -> None:
    async with serving(front=True) as house:
        release = trio.Event()

        async def wait(message: Any) -> Any:
            await release.wait()
            return batch(verified())

        house.verifiers.reply = wait
        slow, quick = await house.connect(), await house.connect()
        await slow.send_all(post(house.api_key("write"), length=2, body=b"{}"))
        await until(lambda: house.verifiers.asked)
        await quick.send_all(GET_HEALTH)
        assert (await one_answer(quick))[0] == 200
        release.set()
        assert (await one_answer(slow))[0] == 200
        for stream in (slow, quick):
            await stream.aclose()


async def test_the_true_peer_reaches_the_core_and_proxies_are_judged_there() -> None:
    for proxies, address in (("127.0.0.1", "192.0.2.7"), ("", "127.0.0.1")):
        async with serving(front=True, trusted_proxies=proxies) as house, house.client() as client:
            with structlog.testing.capture_logs() as logs:
                await client.get("/health", headers={"x-forwarded-for": "192.0.2.7"})
            assert [line["address"] for line in logs if line["event"] == "request"] == [address]


async def test_connections_and_requests_of_each_front_end_are_metrics() -> None:
    async with serving(front=True) as house:
        stream = await house.connect()
        await stream.send_all(GET_HEALTH)
        await one_answer(stream)
        async with house.client(BOOTSTRAP, admin=True) as client:
            text = (await client.get("/metrics")).text
        assert 'sequencer_frontend_connections{number="0"} 1.0' in text
        assert 'sequencer_frontend_requests{number="0"} 0.0' in text
        await stream.aclose()


# ---- one channel, and a process that a test plays


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[Hall, Channel, trio.abc.Stream, list[BaseException]]]:
    cardboard = Cardboard({"connections_max": 3, "connections_per_address_max": 2})
    hall = Hall(cardboard.house.settings)
    hall.app = cardboard.public
    here, there = trio.testing.memory_stream_pair()

    async def receive(bytes_max: int) -> bytes | bytearray:
        return await here.receive_some(bytes_max)

    of_hall = Channel(hall, here.send_all, receive)
    ends: list[BaseException] = []

    async def run() -> None:
        try:
            await of_hall.run(until_stop=trio.sleep_forever)
        except FrontEndDied as died:
            ends.append(died)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield hall, of_hall, there, ends
            nursery.cancel_scope.cancel("enough")


def said(*frames: Any) -> bytes:
    outbox = Outbox()
    for frame in frames:
        outbox.put(frame)
    return bytes(outbox.take())


async def heard(stream: trio.abc.Stream, count: int) -> list[ToFront]:
    frames, found = to_front(), []
    while len(found) < count:
        found += frames.feed(await stream.receive_some())
    return found


async def test_of_a_connection_too_many_of_all_front_ends_no_request_is_heard() -> None:
    async with channel() as (hall, _, process, _):
        head = [(b"host", b"x")]
        asked = [Request(10 + n, n, "GET", b"/health", head, b"") for n in (1, 2, 3)]
        await process.send_all(said(*(Arrived(n, "192.0.2.1") for n in (1, 2, 3)), *asked))
        frames = await heard(process, 3)
        assert sorted(type(frame).__name__ for frame in frames) == ["Answer", "Answer", "TurnAway"]
        assert hall.crowd.connections == 2
    assert hall.crowd.connections == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        said(Request(1, 7, "GET", b"/", [], b"")),
        said(Arrived(1, "192.0.2.1")) + b"\0\0\0\2\x91\x63",
    ],
    ids=["too-long", "no-frame", "no-such-connection", "no-such-tag"],
)
async def test_a_front_end_that_talks_nonsense_is_given_up(nonsense: bytes) -> None:
    async with channel() as (hall, _, process, ends):
        await process.send_all(nonsense)
        with trio.move_on_after(5):
            while not ends:  # noqa: ASYNC110 - what is waited for happens in the channel
                await trio.sleep(0.01)
        assert "nonsense" in str(ends[0])
        assert hall.crowd.connections == 0


async def test_a_front_end_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with channel() as (_, _, _, ends):
        with trio.move_on_after(15):
            while not ends:  # noqa: ASYNC110 - what is waited for happens in the channel
                await trio.sleep(0.1)
        assert "hangs" in str(ends[0])
