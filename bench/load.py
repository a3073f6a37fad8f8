"""The load generator, a process of its own: sends requests that were written before, and counts what is answered.

    python -m bench.load SPEC.json     (or the spec on standard input: -)

It is made to cost as little as possible, because it shares the machine with what it measures: plain sockets,
one epoll, no parsing beyond the status, the length and three counters. It says what processor time it took
itself. Two modes, and a result says which:

- **closed loop** (no ``rate``): each connection sends its next request when the last was answered. That finds
  what the server can do. Its latencies belong to a server that is never left without work.
- **open loop** (``rate`` requests a second): request *i* is due at *start + i / rate*, whatever became of the
  others. A request that is due goes to a connection without one under way, or waits for one; its latency counts
  **from when it was due**. A server that stalls is so charged for all who would have come meanwhile
  (no coordinated omission).

A request that is answered with one of the spec's ``refusals`` (statuses by which a server says that it is too much)
is sent again before any other; any further status but 200 is unexpected, and told with its answer. ``after_s``: the
clock starts so long after the connections are open.

Never repeats what was accepted unless it is told to (``repeat``), never signs, never knows what an event is.
"""

from __future__ import annotations

import json
import mmap
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

RECEIVE_BYTES = 1 << 18
COUNTERS_WITHIN = 512
"""Bytes at the beginning of a body within which the counters are."""
ANSWER_DEADLINE_S = 60.0
"""After the last request was sent, for all that are under way."""
_HEAD_END = b"\r\n\r\n"
_LAST = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_COUNTS = re.compile(rb'"eventsAccepted":(\d+),"eventsReplayed":(\d+),"eventsRejected":(\d+)')


class GeneratorError(Exception):
    """The run measured nothing: what happened, in one line."""


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("due", "head", "last", "left", "refused", "request", "socket", "to_send")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.last = False
        """The server answers no more on it than this."""
        self.refused = False
        self.request = memoryview(b"")
        """Under way, or the last that was."""
        self.to_send = memoryview(b"")
        """Of it."""
        self.head = b""
        """Of the answer, until its status, its length and its counters are known."""
        self.left = -1
        """Bytes of the body still to come; -1: the head is not known yet."""
        self.due = 0.0


class Generator:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.address = (spec["host"], int(spec["port"]))
        self.seconds = float(spec["seconds"])
        self.rate: float | None = spec.get("rate")
        self.repeat = bool(spec.get("repeat", False))
        self.refusals = frozenset(spec.get("refusals", ()))
        self.after_s = float(spec.get("after_s", 0.0))
        self.again: deque[memoryview] = deque()
        """Refused, to be sent before all others."""
        self.requests = _requests(spec["files"], repeat=self.repeat)
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        for _ in range(int(spec["connections"])):
            self._connect()
        self.latencies: list[float] = []
        self.statuses: dict[int, int] = {}
        self.counted = [0, 0, 0]
        self.body_bytes = 0
        self.sent = 0
        self.under_way = 0
        self.ran_out = False
        self.late_s = 0.0
        self.unexpected = ""

    def run(self) -> dict[str, Any]:
        """To the end, which is also that of the connections."""
        try:
            return self._run()
        finally:
            for connection in self.connections.values():
                connection.socket.close()
            self.epoll.close()

    def _run(self) -> dict[str, Any]:
        time.sleep(self.after_s)
        busy = time.process_time()
        began = time.perf_counter()
        ended = self._open(self.rate, began) if self.rate else self._closed(began)
        busy = time.process_time() - busy
        self.latencies.sort()
        return {
            "mode": "open" if self.rate else "closed",
            "seconds": ended - began,
            "sent": self.sent,
            "answered": len(self.latencies),
            "statuses": self.statuses,
            "accepted": self.counted[0],
            "replayed": self.counted[1],
            "rejected": self.counted[2],
            "body_bytes": self.body_bytes,
            "ran_out": self.ran_out,
            "late_ms": 1000 * self.late_s,
            "unexpected": self.unexpected,
            "cpu_s": busy,
            "latencies_us": [round(1e6 * latency) for latency in self.latencies],
        }

    def _connect(self) -> Connection:
        connection = Connection(self.address)
        self.connections[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket, select.EPOLLIN)
        return connection

    def _closed(self, began: float) -> float:
        until = began + self.seconds
        for connection in self.connections.values():
            self._next(connection, began)
        give_up = until + ANSWER_DEADLINE_S
        while self.under_way:
            for connection in self._answered(give_up):
                now = time.perf_counter()
                self.latencies.append(now - connection.due)
                if now < until:
                    self._next(connection, now)
        return time.perf_counter()

    def _open(self, rate: float, began: float) -> float:
        count = max(1, int(rate * self.seconds))
        idle = deque(self.connections.values())
        due, number = began, 0
        give_up = began + self.seconds + ANSWER_DEADLINE_S
        while number < count or self.under_way:
            now = time.perf_counter()
            while number < count and due <= now and idle:
                connection = idle.popleft()
                if not self._next(connection, due):
                    count = number
                    break
                number += 1
                due = began + number / rate
            waits = idle and number < count
            if waits and due <= time.perf_counter():
                continue
            for connection in self._answered(due if waits else give_up):
                self.latencies.append(time.perf_counter() - connection.due)
                idle.append(connection)
            if waits:  # how late this process itself is: a connection was idle
                self.late_s = max(self.late_s, time.perf_counter() - due)
        return time.perf_counter()

    def _next(self, connection: Connection, due: float) -> bool:
        request = self.again.popleft() if self.again else next(self.requests, None)
        if request is None:
            self.ran_out = True
            return False
        connection.due = due
        connection.request = connection.to_send = request
        self.sent += 1
        self.under_way += 1
        self._send(connection)
        return True

    def _send(self, connection: Connection) -> None:
        try:
            done = connection.socket.send(connection.to_send)
        except BlockingIOError:
            done = 0
        except (BrokenPipeError, ConnectionResetError):
            done = len(
                connection.to_send
            )  # nobody reads the rest: there is an answer that says why, or the end
        connection.to_send = connection.to_send[done:]
        more = select.EPOLLOUT if connection.to_send else 0
        if more or not done:
            self.epoll.modify(connection.socket, select.EPOLLIN | more)

    def _answered(self, until: float) -> Iterator[Connection]:
        """Those whose answers are complete, after at most one wait."""
        # select() knows microseconds where epoll's wait knows milliseconds.
        wait = max(0.0, until - time.perf_counter())
        select.select([self.epoll], [], [], wait)
        happened = self.epoll.poll(0)
        if not happened and time.perf_counter() - until > 1:
            raise GeneratorError(
                f"{self.under_way} requests were not answered within {ANSWER_DEADLINE_S:g} s"
            )
        for number, mask in happened:
            connection = self.connections[number]
            if mask & select.EPOLLOUT:
                self._send(connection)
                if not connection.to_send:
                    self.epoll.modify(connection.socket, select.EPOLLIN)
            if mask & ~select.EPOLLOUT and self._receive(connection):
                self.under_way -= 1
                if connection.refused:
                    self.again.append(connection.request)
                yield self._replaced(connection) if connection.last else connection

    def _replaced(self, old: Connection) -> Connection:
        """Servers bound the requests of one connection; the next request belongs on a new one."""
        del self.connections[old.socket.fileno()]
        old.socket.close()
        new = self._connect()
        new.due = old.due
        return new

    def _receive(self, connection: Connection) -> bool:
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise GeneratorError(f"the server closed a connection after {len(self.latencies)} answers")
        if connection.left < 0:
            return self._head(connection, connection.head + data if connection.head else data)
        connection.left -= len(data)
        return self._complete(connection)

    def _head(self, connection: Connection, data: bytes) -> bool:
        end = data.find(_HEAD_END)
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if end >= 0 and length is None:
            raise GeneratorError(f"an answer without content-length: {data[:end]!r}")
        body_bytes = int(length[1]) if length else 0
        if length is None or len(data) < end + 4 + min(body_bytes, COUNTERS_WITHIN):
            connection.head = data
            return False
        connection.head = b""
        status = int(data[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.body_bytes += body_bytes
        connection.last = _LAST.search(data, 0, end + 2) is not None
        connection.refused = status in self.refusals
        if status != 200 and not connection.refused and not self.unexpected:
            self.unexpected = data[:700].decode(errors="replace")
        counts = _COUNTS.search(data, end)
        if counts:
            for place in range(3):
                self.counted[place] += int(counts[place + 1])
        connection.left = end + 4 + body_bytes - len(data)
        return self._complete(connection)

    def _complete(self, connection: Connection) -> bool:
        if connection.left < 0:
            raise GeneratorError("more was answered than asked")
        # Who refuses may close at once, whatever is still to come.
        if connection.to_send and not (connection.refused and connection.last):
            raise GeneratorError(f"answered before all was sent: {self.unexpected!r}")
        if connection.left:
            return False
        connection.left = -1
        return True


def _requests(files: list[str], *, repeat: bool) -> Iterator[memoryview]:
    views = []
    for name in files:
        with open(name, "rb") as file:
            views.append(memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)))
    while True:
        for view in views:
            at = 0
            while at < len(view):
                (length,) = struct.unpack_from("<I", view, at)
                yield view[at + 4 : at + 4 + length]
                at += 4 + length
        if not repeat:
            return


def main() -> None:
    with sys.stdin if sys.argv[1:] == ["-"] else open(sys.argv[1]) as file:
        spec = json.load(file)
    try:
        told = Generator(spec).run()
    except (GeneratorError, OSError) as error:
        raise SystemExit(f"the load generator gives up: {error}") from error
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
