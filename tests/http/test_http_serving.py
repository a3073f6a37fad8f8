"""The serving loop on real sockets: limits, slow and broken clients, and stopping with work in flight."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import httpx
import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from tests.http import doubles
from tests.http.doubles import INGEST, JSON, STREAM, batch, parts, read_all, stored, until, verified
from tests.http.test_door_refusals import check_shape


@pytest.fixture(params=[False, True], ids=["core", "front-end"])
def serving(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both servers keep the same promises."""
    return partial(doubles.serving, front=request.param)


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def post(key: str, *, length: int | None, body: bytes = b"", more: bytes = b"") -> bytes:
    size = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return (
        b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: ApiKey %s\r\nContent-Type: application/json\r\n"
        % (INGEST.encode(), key.encode())
        + size
        + b"\r\n"
        + more
        + b"\r\n"
        + body
    )


async def closed_within(stream: trio.SocketStream, seconds: float) -> bytes:
    """What arrives until the server closes."""
    async with stream:
        with trio.fail_after(seconds):
            return await read_all(stream)


async def one_answer(stream: trio.SocketStream) -> tuple[int, dict[str, str], bytes]:
    """Exactly one answer, the connection may stay open."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    body, response = b"", None
    with trio.fail_after(5):
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                headers = {n.decode(): v.decode() for n, v in response.headers}
                return response.status_code, headers, body


async def test_a_connection_serves_many_requests(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        stream = await house.connect()
        for _ in range(3):
            await stream.send_all(GET_HEALTH)
            status, _, _ = await one_answer(stream)
            assert status == 200
        await stream.aclose()


async def test_pipelined_requests_are_answered_in_order(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        stream = await house.connect()
        second = GET_HEALTH.replace(b"/health", b"/nowhere")
        last = GET_HEALTH.replace(b"Host", b"Connection: close\r\nHost")
        await stream.send_all(GET_HEALTH + second + last)
        raw = await closed_within(stream, 5)
        assert [raw[i + 9 : i + 12] for i in range(len(raw)) if raw.startswith(b"HTTP/1.1 ", i)] == [
            b"200",
            b"404",
            b"200",
        ]


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"y" * 100_000, 431),
        (b"PRI * HTTP/2.0\r\nConnection: close\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_gets_our_error_and_the_connection_ends(
    serving: Callable[..., Any], garbage: bytes, status: int
) -> None:
    async with serving() as house:
        for before in (b"", GET_HEALTH):
            stream = await house.connect()
            await stream.send_all(before + garbage)
            raw = await closed_within(stream, 6)
            if before:
                assert raw.startswith(b"HTTP/1.1 200")
                raw = raw[raw.index(b"HTTP/1.1 ", 1) :]
            got, headers, body = parts(raw)
            assert got == status, raw
            assert json.loads(body)["error"]["code"] == headers["x-error-code"]
            assert headers["x-content-type-options"] == "nosniff"
            assert b"<html" not in raw
        async with house.client() as client:
            assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ],
)
async def test_upgrades_are_not_taken(serving: Callable[..., Any], upgrade: bytes) -> None:
    async with serving() as house:
        stream = await house.connect()
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
        status, _, _ = await one_answer(stream)
        assert status == 200
        await stream.aclose()


TARGETS = [b"http://elsewhere/health", b"http://elsewhere", b"*", b"?x", b"x:443", b"/health?a=%"]


async def test_odd_targets_and_hosts_are_answered_by_us(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        for target in TARGETS:
            for host in (b"a b", b"[::1", b"\xe9", b"x:y:z"):
                stream = await house.connect()
                head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
                await stream.send_all(head)
                status, headers, body = parts(await closed_within(stream, 5))
                assert status in (200, 400, 404), body
                assert json.loads(body)
                assert "x-request-id" in headers


PROOF = b"/api/v1/ves/proofs/"
HOSTILE = {
    PROOF + b"1": 404,  # nothing is committed
    PROOF + b"x": 400,
    PROOF + b"%31": 404,
    PROOF + b"1%2F2": 400,
    PROOF + b"%ff": 400,
    PROOF + b"%": 400,
    PROOF + b"..": 400,
    PROOF + b"1/": 404,
    PROOF + b"/1": 404,
    PROOF: 404,
    b"/" + PROOF + b"x": 400,
    b"http://elsewhere" + PROOF + b"x": 400,
    PROOF + b"verify": 405,
}
NAMED_PROBLEM = {400: "INVALID_FIELD_VALUE", 405: "METHOD_NOT_ALLOWED"}


async def test_hostile_values_in_a_path_are_values_or_nothing(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        key = house.api_key("read").encode()
        query = "&".join(f"{name}={value}" for name, value in STREAM.items()).encode()
        stream = await house.connect()
        for target, wanted in HOSTILE.items():
            head = b"GET %s?%s HTTP/1.1\r\nHost: x\r\nAuthorization: ApiKey %s\r\n\r\n"
            await stream.send_all(head % (target, query, key))
            status, headers, body = await one_answer(stream)
            assert status == wanted, (target, body)
            found = target in (PROOF + b"1", PROOF + b"%31")
            absent = "BATCH_NOT_FOUND" if found else "RESOURCE_NOT_FOUND"
            assert headers["x-error-code"] == NAMED_PROBLEM.get(wanted, absent), target
        await stream.aclose()


async def test_a_declared_length_over_the_limit_is_413_before_the_body_is_sent(
    serving: Callable[..., Any],
) -> None:
    async with serving(max_body_size_bytes=1000) as house:
        stream = await house.connect()
        await stream.send_all(post(house.api_key("write"), length=1001))
        status, headers, _ = parts(await closed_within(stream, 5))
        assert status == 413
        assert headers["connection"] == "close"
        assert not house.verifiers.asked


async def test_a_streamed_body_over_the_limit_is_413_and_the_answer_arrives(
    serving: Callable[..., Any],
) -> None:
    async with serving(max_body_size_bytes=100_000) as house:

        async def endless():
            for _ in range(400):
                yield b"x" * 10_000

        async with house.client(house.api_key("write")) as client:
            answer = await client.post(INGEST, content=endless(), headers=JSON)
        check_shape(answer, 413, "PAYLOAD_TOO_LARGE")
        assert not house.verifiers.asked


async def test_a_body_of_exactly_the_limit_passes(serving: Callable[..., Any]) -> None:
    async with serving(max_body_size_bytes=200_000) as house:
        async with house.client(house.api_key("write")) as client:
            answer = await client.post(INGEST, content=b"x" * 200_000, headers=JSON)
        assert answer.status_code == 200
        assert house.verifiers.asked[0].body == b"x" * 200_000


async def test_a_refused_caller_does_not_have_its_body_read(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        for headers, status in (({}, 401), ({"authorization": house.api_key("read")}, 403)):
            async with house.client() as client:
                answer = await client.post(INGEST, content=b"x" * 5_000_000, headers={**JSON, **headers})
            assert answer.status_code == status
        assert house.public.door.in_flight.total == 0


async def test_bytes_in_flight_are_limited_per_tenant_and_per_node(serving: Callable[..., Any]) -> None:
    async with serving(tenant_bytes_in_flight_max=1000, node_bytes_in_flight_max=1500) as house:
        key, release = house.api_key("write"), trio.Event()

        async def wait(message: Any) -> Any:
            await release.wait()
            return batch(verified())

        house.verifiers.reply = wait

        async def first() -> None:
            async with house.client(key) as client:
                answers.append(await client.post(INGEST, content=b"x" * 900, headers=JSON))

        answers: list[httpx.Response] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await until(lambda: house.verifiers.asked)
            async with house.client(key) as client:
                check_shape(
                    await client.post(INGEST, content=b"x" * 200, headers=JSON), 429, "RATE_LIMIT_EXCEEDED"
                )
            async with house.client(house.api_key("write", tenant=uuid.uuid4())) as client:
                check_shape(
                    await client.post(INGEST, content=b"x" * 700, headers=JSON), 503, "SERVICE_UNAVAILABLE"
                )
            release.set()
        assert answers[0].status_code == 200
        async with house.client(key) as client:
            assert (await client.post(INGEST, content=b"x" * 900, headers=JSON)).status_code == 200


async def test_a_body_that_trickles_too_slowly_is_408(serving: Callable[..., Any]) -> None:
    async with serving(request_timeout_secs=0.6) as house:
        stream = await house.connect()
        await stream.send_all(post(house.api_key("write"), length=1000, body=b"xx"))
        status, _, body = parts(await closed_within(stream, 4))
        assert status == 408
        assert json.loads(body)["error"]["code"] == "REQUEST_TIMEOUT"


async def test_a_client_that_leaves_cancels_only_the_waiting(serving: Callable[..., Any]) -> None:
    async with serving() as house:

        async def never(message: Any) -> Any:
            await trio.sleep_forever()

        house.sequencer.reply = never
        stream = await house.connect()
        with structlog.testing.capture_logs() as logs:
            await stream.send_all(post(house.api_key("write"), length=2, body=b"{}"))
            await until(lambda: house.sequencer.asked)
            await stream.aclose()
            await until(lambda: house.sequencer.cancelled)
            await wait_all_tasks_blocked()
        assert [line["status"] for line in logs if line["event"] == "request"] == [499]
        async with house.client() as client:
            assert (await client.get("/health")).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(
    serving: Callable[..., Any],
) -> None:
    async with serving() as house:
        stream = await house.connect()
        await stream.send_all(post(house.api_key("write"), length=50_000, body=b"x" * 20_000))
        await until(lambda: house.public.door.in_flight.total == 50_000)
        await stream.aclose()
        await until(lambda: not house.public.door.in_flight.total)
        assert not house.verifiers.asked


async def test_a_long_poll_ends_with_the_next_append_on_this_node(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        pages: list[Any] = []

        async def wait() -> None:
            async with house.client(house.api_key("read")) as client:
                answer = await client.get("/api/v1/ves/events", params={**STREAM, "wait_s": 2.5})
                pages.append(answer.json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.3)
            assert not pages
            house.journal.events.append(stored(1))
            started = trio.current_time()
            async with house.client(house.api_key("write")) as client:
                await client.post(INGEST, content=b"{}", headers=JSON)
        assert pages[0]["count"] == 1
        assert trio.current_time() - started < 0.5


async def test_a_long_poll_without_news_answers_an_empty_page(serving: Callable[..., Any]) -> None:
    async with serving() as house:
        async with house.client(house.api_key("read")) as client:
            answer = await client.get("/api/v1/ves/events", params={**STREAM, "wait_s": 0.2, "from": 7})
        assert (answer.json()["count"], answer.json()["next_from"]) == (0, 7)


async def test_too_many_connections_are_told_so(serving: Callable[..., Any]) -> None:
    async with serving(connections_max=3, connections_per_address_max=2) as house:
        kept = [await house.connect() for _ in range(2)]
        for stream in kept:
            await stream.send_all(GET_HEALTH)
            await one_answer(stream)
        extra = await house.connect()
        status, headers, body = parts(await closed_within(extra, 3))
        assert status == 503
        assert headers["retry-after"] == "1"
        assert json.loads(body)["error"]["code"] == "SERVICE_UNAVAILABLE"
        await kept[0].aclose()
        await trio.sleep(0.1)
        async with house.client() as client:
            assert (await client.get("/health")).status_code == 200
        await kept[1].aclose()


async def test_silent_connections_and_slow_heads_end(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in ("http", "front"):
        monkeypatch.setattr(f"transport.{server}.connection.HEAD_S", 0.3)
        monkeypatch.setattr(f"transport.{server}.connection.KEEP_ALIVE_S", 0.4)
    async with serving() as house:
        silent = await house.connect()
        assert await closed_within(silent, 2) == b""
        slow = await house.connect()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3):
            await send_slowly(slow, GET_HEALTH * 20)
        await slow.aclose()
        idle = await house.connect()
        await idle.send_all(GET_HEALTH)
        await one_answer(idle)
        started = trio.current_time()
        assert await closed_within(idle, 2) == b""
        assert trio.current_time() - started > 0.3


async def send_slowly(stream: trio.SocketStream, data: bytes) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.05)


async def test_a_client_that_does_not_read_is_cut_off_after_the_stall_limit(
    serving: Callable[..., Any],
) -> None:
    async with serving(write_stall_secs=0.4) as house:
        house.journal.events = [stored(n, b'"%s"' % (b"x" * 1_000_000)) for n in range(1, 9)]
        stream = await house.connect()
        key = house.api_key("read")
        query = f"/api/v1/ves/events?tenant_id={STREAM['tenant_id']}&store_id={STREAM['store_id']}"
        await stream.send_all(f"GET {query} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        await until(lambda: house.public.door.in_flight.total)
        await until(lambda: not house.public.door.in_flight.total)
        raw = await closed_within(stream, 3)
        assert 0 < len(raw) < 8_000_000


async def test_stopping_answers_what_is_in_flight_and_accepts_nothing_new(
    serving: Callable[..., Any],
) -> None:
    async with serving() as house:
        release = trio.Event()

        async def wait(message: Any) -> Any:
            await release.wait()
            return batch(verified())

        house.verifiers.reply = wait
        key, answers = house.api_key("write"), []

        async def go() -> None:
            async with house.client(key) as client:
                answers.append(await client.post(INGEST, content=b"{}", headers=JSON))

        idle = await house.connect()
        await idle.send_all(GET_HEALTH)
        await one_answer(idle)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(go)
            await until(lambda: len(house.verifiers.asked) == 4)
            house.shutdown.set()
            assert await closed_within(idle, 2) == b""
            with pytest.raises(OSError):
                await house.connect()
            release.set()
        assert [answer.status_code for answer in answers] == [200] * 4
        assert {answer.headers["connection"] for answer in answers} == {"close"}


async def test_stopping_does_not_wait_for_ever(serving: Callable[..., Any]) -> None:
    started = 0.0
    async with serving(graceful_timeout_secs=0.5, write_stall_secs=60) as house:

        async def never(message: Any) -> Any:
            await trio.sleep_forever()

        house.verifiers.reply = never
        house.journal.events = [stored(n, b'"%s"' % (b"x" * 1_000_000)) for n in range(1, 9)]
        stuck = await house.connect()
        await stuck.send_all(post(house.api_key("write"), length=2, body=b"{}"))
        deaf = await house.connect()
        query = f"/api/v1/ves/events?tenant_id={STREAM['tenant_id']}&store_id={STREAM['store_id']}"
        key = house.api_key("read")
        await deaf.send_all(f"GET {query} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        greedy = await house.connect()
        await greedy.send_all(GET_HEALTH * 200 + b"GET /hea")
        await until(lambda: house.verifiers.asked and house.encryptors.asked)
        await trio.sleep(0.1)
        started = trio.current_time()
        house.shutdown.set()
    assert trio.current_time() - started < 2.5
    for stream in (stuck, deaf, greedy):
        await stream.aclose()


async def test_a_connection_that_fails_is_the_end_of_that_connection_only(
    serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as house:
        with structlog.testing.capture_logs() as logs:
            with monkeypatch.context() as broken:
                broken.setattr("transport.http.connection.Http11._create_stream", _fail)
                broken.setattr("transport.front.connection.Connection._begin", _fail_at_once)
                stream = await house.connect()
                await stream.send_all(GET_HEALTH)
                await closed_within(stream, 3)
            async with house.client() as client:
                assert (await client.get("/health")).status_code == 200
        assert [line["event"] for line in logs].count("a connection failed") == 1


async def _fail(self: Any, request: Any) -> None:
    raise RuntimeError("a bug in the protocol")


def _fail_at_once(self: Any) -> None:
    raise RuntimeError("a bug in the protocol")
