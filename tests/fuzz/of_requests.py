"""What reaches the door: bytes on a connection, query strings, bodies, forwarded addresses, proofs."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import h11
import msgspec
import trio
import trio.testing
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext

from config.networks import parse_networks
from tests.fuzz.target import Plant, Target, law
from transport.front import wire
from transport.front.connection import Connection as FrontConnection
from transport.front.http1 import NotHttp, Reader
from transport.http import (
    api_key_shapes,
    audit_shapes,
    key_shapes,
    schema_shapes,
    shapes,
    token_shapes,
)
from transport.http.bodies import read_json, read_query
from transport.http.client_address import client_address
from transport.http.connection import TcpConnection
from transport.http.errors import ApiError
from transport.http.headers import ALWAYS
from transport.http.serve import _config
from ves.encoding import bare_hex_bytes
from ves.proofs import path_leads_to_root

_ROOMS = (shapes, api_key_shapes, audit_shapes, key_shapes, schema_shapes, token_shapes)


def _named(ending: str) -> list[type[msgspec.Struct]]:
    found = {name: kind for room in _ROOMS for name, kind in vars(room).items() if name.endswith(ending)}
    return [kind for _, kind in sorted(found.items()) if isinstance(kind, type)]


_QUERIES, _BODIES = _named("Query"), _named("Body")


def _query(data: bytes) -> None:
    """Every query string of every route: 400, or values within their bounds that can be told again."""
    for kind in _QUERIES:
        try:
            found = read_query(data, kind)
        except ApiError as refused:
            law(refused.status == 400, f"{kind.__name__}: status {refused.status}")
            continue
        told = msgspec.convert(msgspec.to_builtins(found), kind)
        law(told == found, f"{kind.__name__}: told again it is another")


def _body(data: bytes) -> None:
    """Every small body: 400 or 422, or a value that can be sent again."""
    for kind in _BODIES:
        try:
            found = read_json(data, kind)
        except ApiError as refused:
            law(refused.status in (400, 422), f"{kind.__name__}: status {refused.status}")
            continue
        law(msgspec.json.decode(msgspec.json.encode(found), type=kind) == found, "sent again it is another")


def _proof(data: bytes) -> None:
    """A proof is valid when a slow second reader, bottom up by recursion, comes to the same root."""
    try:
        body = read_json(data, shapes.VerifyProofBody)
        leaf, root = bare_hex_bytes(body.leaf_hash, 32), bare_hex_bytes(body.merkle_root, 32)
        path = [bare_hex_bytes(node, 32) for node in body.proof_path]
    except (ApiError, ValueError):
        return
    valid = path_leads_to_root(leaf, body.leaf_index, path, root)
    fits = body.leaf_index < 1 << len(path)
    law(valid == (fits and _climb(leaf, body.leaf_index, path) == root), "the slow reader says otherwise")


def _climb(node: bytes, index: int, path: list[bytes]) -> bytes:
    if not path:
        return node
    pair = (path[0], node) if index % 2 else (node, path[0])
    return _climb(hashlib.sha256(b"VES_NODE_V1" + b"".join(pair)).digest(), index // 2, path[1:])


_PROXIES = parse_networks("10.0.0.0/8, 2001:db8::/32")


def _forwarded(data: bytes) -> None:
    """An address: the peer's, or one that the header names and that is no proxy; and lists of networks."""
    lines = [(b"x-forwarded-for", line) for line in data.split(b"\n")]
    law(client_address("192.0.2.1", lines, _PROXIES) == "192.0.2.1", "a stranger was believed")
    for peer in ("10.0.0.1", "2001:db8::1"):
        found = client_address(peer, lines, _PROXIES)
        address = ip_address(found)
        if found != peer:
            law(not any(address in network for network in _PROXIES), "a proxy is taken for a client")
    text = data.decode("utf-8", "replace")
    try:
        networks = parse_networks(text)
    except ValueError:
        return
    law(parse_networks(", ".join(map(str, networks))) == networks, "told again they are others")


# A connection, in memory.


class _Line:
    """What the peer sends comes in a few pieces; what it is sent is kept."""

    is_tls = False

    def __init__(self, data: bytes) -> None:
        self.socket: Any = self
        self.family = socket.AF_INET
        self.sent = b""
        size = 1 + len(data) // 3
        self._pieces = [data[at : at + size] for at in range(0, len(data), size)]

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.1", 4711

    getsockname = getpeername

    async def shake_hands(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, bytes_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            await trio.sleep_forever()  # the peer says no more, and waits for its answers
        return self._pieces.pop(0)

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    send_in_clear = send_all

    def send_at_once(self, data: bytes) -> int:
        """A kernel with little room: the rest has to wait."""
        self.sent += data[:200]
        return len(data[:200])

    async def end_sending(self) -> None:
        await trio.lowlevel.checkpoint()

    discard = end_sending

    def close(self) -> None:
        pass


_seen: list[dict[str, Any]] = []


async def _application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the body for as long as the door does, then answers."""
    if scope["type"] != "http":
        return
    _seen.append(scope)
    status = 408
    with trio.move_on_after(30):
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass
        if message["type"] != "http.request":
            return
        status = 200
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def _connection(data: bytes) -> None:
    """Whatever bytes come, whole answers go out, and nothing that two readers would take apart differently
    reaches the application."""
    _seen.clear()
    line = _Line(data)

    async def serve() -> None:
        app, config = ASGIWrapper(_application), _config()  # type: ignore[arg-type]
        with trio.fail_after(300):
            await TcpConnection(
                app,
                config,
                WorkerContext(None),
                line,
                write_stall_s=30,
                headers=ALWAYS,  # type: ignore[arg-type]
            ).run()

    trio.run(serve, clock=trio.testing.MockClock(autojump_threshold=0))
    for scope in _seen:
        names = [name for name, _ in scope["headers"]]
        law(
            not {b"transfer-encoding", b"content-length"} <= set(names), "two lengths reached the application"
        )
        law(names.count(b"authorization") <= 1, "two credentials reached the application")
        law(names.count(b"host") <= 1, "two hosts reached the application")
    _check_answers(line.sent, [scope["method"] for scope in _seen])


# A front-end's connection, and its reader beside h11's.


def same_in_h11(data: bytes) -> None:
    """What our reader takes for requests, h11 takes for the same ones."""
    reader, theirs = Reader(), h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.feed(data)
    theirs.receive_data(data)
    while True:
        try:
            head = reader.next_head()
            if head is None:
                return
            body = b""
            while part := reader.body(1000):
                body += part
        except NotHttp:
            return
        found = _next_of(theirs, whole=reader.body_ended)
        law(found is not None, f"h11 does not take {head} for a request")
        assert found is not None
        request, their_body = found
        law(request.method.upper() == head.method.encode(), "another method")
        law(request.target == head.target, "another target")
        law(list(request.headers) == [_as_h11_has_it(*line) for line in head.lines], "other headers")
        if not reader.body_ended:
            return
        law(their_body == body, "another body")
        if head.is_last:
            law(theirs.their_state is h11.MUST_CLOSE, "h11 would go on")
            return
        theirs.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        theirs.send(h11.EndOfMessage())
        theirs.start_next_cycle()


def _as_h11_has_it(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, value.lower() if name == b"transfer-encoding" else value


def _next_of(theirs: h11.Connection, *, whole: bool) -> tuple[h11.Request, bytes] | None:
    try:
        request, body = theirs.next_event(), b""
        if not isinstance(request, h11.Request):
            return None
        while whole and not isinstance(event := theirs.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return None
            body += event.data
    except h11.RemoteProtocolError:
        return None
    return request, body


class _Core:
    """Reads each body as far as the peer sends it, then answers; is asked through a desk."""

    is_closing = False

    def __init__(self) -> None:
        self.asked: list[wire.Request] = []
        self._connection: Any = None

    def open(self, connection: Any) -> int:
        self._connection = connection
        return len(self.asked) + 1

    def close(self, request: int) -> None:
        pass

    def say(self, frame: Any) -> None:
        if isinstance(frame, wire.Request):
            self.asked.append(frame)
            whole = frame.body is not None
        elif isinstance(frame, wire.Chunk):
            whole = frame.is_last
        else:
            return
        number = len(self.asked)
        word = _answered(number, 200) if whole else wire.More(number, 1000)
        trio.lowlevel.current_trio_token().run_sync_soon(self._hear, word)

    async def lose_patience(self) -> None:
        """With bodies that do not come."""
        while True:
            await trio.sleep(30)
            if self._connection is not None and self._connection._request is not None:
                self._connection.answer(_answered(self._connection._request, 408))

    def _hear(self, word: Any) -> None:
        if word.request != self._connection._request:
            return  # it is gone
        if isinstance(word, wire.Answer):
            self._connection.answer(word)
        else:
            self._connection.more(word.bytes_max)


def _answered(request: int, status: int) -> wire.Answer:
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    return wire.Answer(request, status, headers, b"{}")


def _front(data: bytes) -> None:
    """As for the core's own connections, and nothing is taken that h11 would take for something else."""
    same_in_h11(data)
    line, core = _Line(data), _Core()

    async def serve() -> None:
        with trio.fail_after(300):
            connection = FrontConnection(
                core,
                line,  # type: ignore[arg-type]
                number=1,
                peer="192.0.2.1",
                write_stall_s=30,
                headers=ALWAYS,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(core.lose_patience)
                await connection.run()
                nursery.cancel_scope.cancel("over")

    trio.run(serve, clock=trio.testing.MockClock(autojump_threshold=0))
    for asked in core.asked:
        names = [name for name, _ in asked.lines]
        law(not {b"transfer-encoding", b"content-length"} <= set(names), "two lengths reached the core")
        law(names.count(b"authorization") <= 1, "two credentials reached the core")
        law(names.count(b"host") <= 1, "two hosts reached the core")
    _check_answers(line.sent, [asked.method for asked in core.asked])


def _check_answers(sent: bytes, methods: Sequence[str] = ()) -> None:
    """They are HTTP, one after the other, and JSON. ``methods``: of the first requests."""
    asked = iter(methods)
    while sent:
        reader = h11.Connection(h11.CLIENT)
        is_head = next(asked, "") == "HEAD"
        reader.send(h11.Request(method="HEAD" if is_head else "GET", target="/", headers=[("host", "x")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(sent)
        body, status = b"", 0
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                law(False, "half an answer")
        law(status in (200, 400, 408, 413, 431, 500, 501, 505), f"status {status}")
        if not is_head:
            json.loads(body)
        sent = reader.trailing_data[0]


def _believing(right: Any) -> Any:
    """The left-most address is believed: anybody's."""

    def wrong(entries: Any, proxies: Any) -> Any:
        return right(list(reversed(entries)), ())

    return wrong


def _left_right(right: Any) -> Any:
    return lambda leaf, index, path, root: right(leaf, index ^ 2 if len(path) > 1 else index, path, root)


async def _unchecked(self: Any, event: Any) -> None:
    pass


_LEAF = bytes(32)
_PATH = [bytes([n]) * 32 for n in (1, 2, 3)]
_PROOF = {
    "leaf_hash": _LEAF.hex(),
    "merkle_root": _climb(_LEAF, 2, _PATH).hex(),
    "proof_path": [node.hex() for node in _PATH],
    "leaf_index": 2,
}
_UUID = "6f1d3c1e-0000-4000-8000-00000000000a"


def _both_lengths(right: Any) -> Any:
    """Chunks win over a length, as the RFC lets a server choose; a proxy may choose otherwise."""

    def wrong(found: dict[bytes, bytes], is_1_0: bool) -> Any:
        if b"transfer-encoding" in found:
            found = {name: value for name, value in found.items() if name != b"content-length"}
        return right(found, is_1_0)

    return wrong


_CONNECTIONS = [
    b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nExpect: 100-continue\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: close\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\nabcdefghi",
]

TARGETS = (
    Target(
        "front",
        _front,
        _CONNECTIONS,
        Plant("transport.front.http1", "_length", _both_lengths),
        bytes_max=40_000,
    ),
    Target(
        "connection",
        _connection,
        _CONNECTIONS,
        Plant("transport.http.connection", "Http11._check_protocol", lambda right: _unchecked),
        bytes_max=40_000,
    ),
    Target(
        "query",
        _query,
        [
            f"tenant_id={_UUID}&store_id={_UUID}&from=1&limit=1000&wait_s=30".encode(),
            f"tenant={_UUID}&agent_id={_UUID}&after=0&cursor=abc&prefix=sk_live_&limit=10".encode(),
            b"order=depth&path=house%2Fverifiers&children=3&since=2026-01-31T12:00:00Z&action=a",
        ],
        Plant("transport.http.bodies", "_refusal", lambda right: lambda wrong, status: right(wrong, 422)),
        bytes_max=512,
    ),
    Target(
        "body",
        _body,
        [
            json.dumps(
                {"tenantId": _UUID, "agentId": _UUID, "keyId": 1, "publicKey": "0x" + "ab" * 32}
            ).encode(),
            json.dumps(
                {"tenant_id": _UUID, "store_id": _UUID, "sequence_start": 1, "sequence_end": 1.0}
            ).encode(),
            json.dumps(
                {"reason": "x", "role": "agent", "stores": [_UUID], "schema": {"type": "object"}}
            ).encode(),
        ],
        Plant("transport.http.bodies", "_refusal", lambda right: lambda wrong, status: right(wrong, 500)),
    ),
    Target(
        "proof",
        _proof,
        [json.dumps(_PROOF).encode(), json.dumps(_PROOF | {"leaf_index": 8}).encode()],
        Plant("tests.fuzz.of_requests", "path_leads_to_root", _left_right),
    ),
    Target(
        "forwarded",
        _forwarded,
        [
            b"198.51.100.7, 10.1.2.3",
            b"2001:db8::7, [2001:db9::1]:443\n::ffff:10.0.0.1, 192.0.2.9:1",
            b"10.0.0.0/8, 2001:db8::/32, ::ffff:192.0.2.0/120",
        ],
        Plant("transport.http.client_address", "_forwarded", _believing),
        bytes_max=256,
    ),
)
