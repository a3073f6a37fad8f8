"""A JSON-RPC endpoint that misbehaves on purpose, in front of a real chain.

It passes questions on to anvil and spoils what its script says. It serves from threads of its own, so a test
of any kind may use it, a process under test may be pointed at it (``L2_RPC_URL``), and several may stand in
front of one chain:

    with anvil() as chain, bad_endpoint(chain.url) as bad:
        bad.does(hangs(), method="eth_call")             # from now on
        bad.does(says_http(503), times=2)                # the next two questions, whatever they are
        bad.does(flips_status())                         # knows itself which answers it spoils
        bad.behaves()                                    # the script is empty again
        bad.asked("eth_call")                            # how often it was asked so far

Each entry applies to one method or to all, from its ``after``-th matching question on, ``times`` times. Of
those that apply, entries that replace the answer win over the chain's own; entries that change it all do so,
in order. Faults:

    hangs            no answer until it is closed             loses_answer   the chain did it, nobody hears
    closes           the connection is cut, no answer         delays         an honest answer, late
    says_http        a status, Retry-After if given           redirects      to another address
    says_bytes       any bytes as an answer                   says_huge      more bytes than anybody wants
    never_ends       zeros and zeros                          says_deep      JSON nested that deep
    refuses          a JSON-RPC error                         changes        a result made of the chain's
    says             a result in place of the chain's
    another_chain    its chain id                             stands_still   the head of some blocks ago
    flips_status     receipts say the opposite                alters_logs    another word in a log
    foreign_hashes   answers about another transaction        forks          other blocks at those numbers
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

Result = Callable[[Any], Any]
"""The chain's result to another."""
_RECEIPTS = ("eth_getTransactionReceipt", "eth_getBlockReceipts")
_BLOCKS = ("eth_getBlockByNumber", "eth_getBlockByHash")


@dataclass(frozen=True)
class Fault:
    answers: Callable[[_Question], bool] | None = None
    """Takes the chain's place: answers itself, or not at all. False: the chain is asked after all."""
    changes: Result | None = None
    methods: tuple[str, ...] = ()
    """Those it is about; empty: all."""


@dataclass
class _Entry:
    fault: Fault
    method: str | None
    left: int | None
    skipped: int

    def applies(self, method: str) -> bool:
        """Once for each question; counts it."""
        wanted = (self.method,) if self.method else self.fault.methods
        if (wanted and method not in wanted) or self.left == 0:
            return False
        if self.skipped > 0:
            self.skipped -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass
class BadEndpoint:
    url: str
    upstream: str
    closed: threading.Event = field(default_factory=threading.Event)
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request so far, names in lower case."""
    paths: list[str] = field(default_factory=list)
    _cut: Callable[[], None] = lambda: None
    _script: list[_Entry] = field(default_factory=list)
    _asked: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30.0, verify=False))

    def does(
        self, fault: Fault, *, method: str | None = None, times: int | None = None, after: int = 0
    ) -> None:
        with self._lock:
            self._script.append(_Entry(fault, method, times, after))

    def behaves(self) -> None:
        with self._lock:
            self._script.clear()

    def asked(self, method: str) -> int:
        with self._lock:
            return self._asked[method]

    def cut(self) -> None:
        """Ends the connections that are open now."""
        self._cut()

    def faults_for(self, method: str) -> list[Fault]:
        with self._lock:
            self._asked[method] += 1
            return [entry.fault for entry in self._script if entry.applies(method)]

    def pass_on(self, body: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post(
            self.upstream, content=body, headers={"content-type": "application/json"}
        ).json()
        return answer

    def close(self) -> None:
        self.closed.set()
        self._client.close()


@dataclass
class _Question:
    method: str
    body: bytes
    endpoint: BadEndpoint
    handler: BaseHTTPRequestHandler

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.handler.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.handler.send_header(name.replace("_", "-"), value)
            self.handler.send_header("content-length", str(len(body)))
            self.handler.end_headers()
            self.handler.wfile.write(body)

    def reply_with(self, **member: Any) -> None:
        answer = {"jsonrpc": "2.0", "id": json.loads(self.body)["id"], **member}
        self.reply(json.dumps(answer).encode())


@contextmanager
def bad_endpoint(upstream: str, path: str = "/") -> Iterator[BadEndpoint]:
    """``path``: the address's, which may hold what nobody should see."""
    server = _Server(("127.0.0.1", 0), _Handler)
    endpoint = BadEndpoint(f"http://127.0.0.1:{server.server_address[1]}{path}", upstream)
    server.endpoint = endpoint
    endpoint._cut = server.cut_all
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.close()
        server.shutdown()
        server.cut_all()
        server.server_close()
        thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    endpoint: BadEndpoint

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
        endpoint.paths.append(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        question = _Question(json.loads(body)["method"], body, endpoint, self)
        faults = endpoint.faults_for(question.method)
        for fault in faults:
            if fault.answers is not None and fault.answers(question):
                return
        answer = endpoint.pass_on(body)
        for fault in faults:
            if fault.changes is not None and answer.get("result") is not None:
                answer["result"] = fault.changes(answer["result"])
        question.reply(json.dumps(answer).encode())

    def log_message(self, *words: Any) -> None:
        """Tests have their own output."""


def hangs() -> Fault:
    def answers(question: _Question) -> bool:
        question.endpoint.closed.wait()
        question.handler.close_connection = True
        return True

    return Fault(answers)


def closes() -> Fault:
    def answers(question: _Question) -> bool:
        question.handler.close_connection = True
        return True

    return Fault(answers)


def loses_answer() -> Fault:
    """Done, but unheard."""

    def answers(question: _Question) -> bool:
        question.endpoint.pass_on(question.body)
        question.handler.close_connection = True
        return True

    return Fault(answers)


def delays(seconds: float) -> Fault:
    def answers(question: _Question) -> bool:
        question.endpoint.closed.wait(seconds)
        return False

    return Fault(answers)


def says_http(status: int, *, retry_after: str | None = None, body: bytes = b"no") -> Fault:
    def answers(question: _Question) -> bool:
        question.reply(body, status, **({} if retry_after is None else {"retry_after": retry_after}))
        return True

    return Fault(answers)


def redirects(location: str) -> Fault:
    def answers(question: _Question) -> bool:
        question.reply(b"", 307, location=location)
        return True

    return Fault(answers)


def says_bytes(body: bytes) -> Fault:
    return says_http(200, body=body)


def says_huge(size: int) -> Fault:
    return says_bytes(b'{"jsonrpc":"2.0","id":0,"result":"0x' + b"0" * size + b'"}')


def never_ends() -> Fault:
    """Zeros until the asker goes away."""

    def answers(question: _Question) -> bool:
        handler = question.handler
        handler.close_connection = True
        with suppress(OSError):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b'{"jsonrpc":"2.0","id":0,"result":"0x')
            while not question.endpoint.closed.is_set():
                handler.wfile.write(b"0" * 65_536)
        return True

    return Fault(answers)


def says_deep(depth: int) -> Fault:
    return says_bytes(b'{"jsonrpc":"2.0","id":0,"result":' + b"[" * depth + b"]" * depth + b"}")


def refuses(code: int, message: str, data: Any = None) -> Fault:
    def answers(question: _Question) -> bool:
        question.reply_with(error={"code": code, "message": message, "data": data})
        return True

    return Fault(answers)


def says(result: Any) -> Fault:
    def answers(question: _Question) -> bool:
        question.reply_with(result=result)
        return True

    return Fault(answers)


def changes(made: Result, *methods: str) -> Fault:
    return Fault(changes=made, methods=methods)


def another_chain(chain_id: int) -> Fault:
    return changes(lambda _: hex(chain_id), "eth_chainId")


def stands_still(blocks: int) -> Fault:
    """Its latest block is that many behind the chain's, and it knows none after it."""

    def answers(question: _Question) -> bool:
        head = max(int(question.endpoint.pass_on(_ask("eth_blockNumber"))["result"], 16) - blocks, 0)
        if question.method == "eth_blockNumber":
            question.reply_with(result=hex(head))
            return True
        asked = json.loads(question.body)
        which = asked["params"][0]
        if which == "latest":
            asked["params"][0] = hex(head)
            question.reply_with(result=question.endpoint.pass_on(json.dumps(asked).encode())["result"])
            return True
        if which.startswith("0x") and int(which, 16) > head:
            question.reply_with(result=None)
            return True
        return False

    return Fault(answers, methods=("eth_blockNumber", "eth_getBlockByNumber"))


def flips_status() -> Fault:
    def made(receipt: dict[str, Any]) -> dict[str, Any]:
        return receipt | {"status": "0x0" if receipt["status"] == "0x1" else "0x1"}

    return changes(_each(made), *_RECEIPTS)


def alters_logs() -> Fault:
    def made(receipt: dict[str, Any]) -> dict[str, Any]:
        logs = [log | {"data": "0x" + "66" * 32} for log in receipt["logs"]]
        return receipt | {"logs": logs}

    return changes(_each(made), *_RECEIPTS)


def foreign_hashes() -> Fault:
    def made(answer: dict[str, Any]) -> dict[str, Any]:
        return {
            name: "0x" + "ab" * 32 if name in ("hash", "transactionHash") else value
            for name, value in answer.items()
        }

    return changes(_each(made), "eth_getTransactionByHash", *_RECEIPTS)


def forks() -> Fault:
    """Blocks as a chain would have them that parted from ours before the first."""

    def made(block: dict[str, Any]) -> dict[str, Any]:
        other = f"0x{int(block['number'], 16):064x}"
        return block | {"hash": other, "parentHash": "0x" + "cd" * 32}

    return changes(made, *_BLOCKS)


def _each(made: Result) -> Result:
    return lambda answer: [made(each) for each in answer] if isinstance(answer, list) else made(answer)


def _ask(method: str, *params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
