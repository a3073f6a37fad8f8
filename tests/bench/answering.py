"""A server for the load generator: a thread that answers HTTP requests as told, in as many pieces as told."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Generator
from bench.signing import write_file

BODY = (
    b'{"batchId":"x","eventsAccepted":3,"eventsReplayed":2,"eventsRejected":1,"more":"' + b"y" * 5000 + b'"}'
)


@dataclass
class Answering:
    """How it behaves, and what it saw. Each connection has a thread of its own."""

    status: str = "200 OK"
    body: bytes = BODY
    pieces: int = 1
    """The answer is sent in so many."""
    stall_at: int = -1
    """Before the answer to this request, for ``stall_s``."""
    stall_s: float = 0.0
    last_after: int = 1 << 30
    """So many answers on a connection; the last says that it is."""
    cut_after: int = 1 << 30
    """So many answers on a connection, which then ends without a word."""
    received: list[bytes] = field(default_factory=list)
    refuse: int = 0
    """On so many connections, the first of all, the first request is refused at its head."""
    connections: int = 0
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            visit = self._refuse if self.connections <= self.refuse else self._visit
            threading.Thread(target=visit, args=(connected,), daemon=True).start()

    @staticmethod
    def _refuse(connected: socket.socket) -> None:
        with connected, connected.makefile("rb") as file, suppress(OSError):
            file.readline()
            connected.sendall(b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connected.shutdown(socket.SHUT_WR)
            while file.read1():  # an end before the client's would take the answer from it
                pass

    def _visit(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connected, connected.makefile("rb") as file:
            answered = 0
            while (body := _request(file)) is not None and answered < self.cut_after:
                self.received.append(body)
                if len(self.received) - 1 == self.stall_at:
                    time.sleep(self.stall_s)
                answered += 1
                last = answered >= self.last_after
                self._answer(connected, last)
                if last:
                    return

    def _answer(self, connected: socket.socket, last: bool) -> None:
        more = "Connection: close\r\n" if last else ""
        head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\n{more}\r\n".encode()
        whole = head + self.body
        size = -(-len(whole) // self.pieces)
        for start in range(0, len(whole), size):
            connected.sendall(whole[start : start + size])
            if self.pieces > 1:
                time.sleep(0.001)  # so that they arrive one by one


def _request(file: Any) -> bytes | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return None
        head += line
    length = re.search(rb"content-length: (\d+)", head)
    return bytes(file.read(int(length[1]))) if length else b""


@contextmanager
def answering(**how: Any) -> Iterator[Answering]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Answering(**how, port=listener.getsockname()[1])
        threading.Thread(target=server.serve, args=(listener,), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def generate(
    server: Answering, folder: Path, requests: int, *, body_bytes: int = 6, **spec: Any
) -> dict[str, Any]:
    """What the generator tells of so many requests, numbered in their bodies."""
    bodies = [b"%06d" % number + bytes(body_bytes - 6) for number in range(requests)]
    write_file(
        folder / "requests",
        [b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body for body in bodies],
    )
    own = {"host": "127.0.0.1", "port": server.port, "files": [str(folder / "requests")]}
    return Generator({**own, "connections": 1, "seconds": 60, **spec}).run()
