"""Sends what the attacks make, judges every answer by one rule, and remembers what broke it.

The rule: an attack is answered 4xx, in the one error shape, with nothing of anybody else's in it. Alone talks
HTTP; decides nothing about what is an attack.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.probe.routes import Ask

SECOND_ANSWER_S = 0.3
NOT_IMPLEMENTED = 501
"""What RFC 9112 section 6.1 wants for a transfer coding that is not understood."""


@dataclass
class Prober:
    url: str
    admin_url: str
    canaries: list[str]
    """Texts that belong to the victim alone."""
    problems: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    """Per attack."""
    statuses: dict[str, Counter[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._http = {
            "public": httpx.Client(base_url=self.url, timeout=60),
            "admin": httpx.Client(base_url=self.admin_url, timeout=60),
        }

    def close(self) -> None:
        for http in self._http.values():
            http.close()

    def send(self, ask: Ask) -> httpx.Response:
        headers = dict(ask.headers)
        body = ask.body()
        if body is not None:
            headers.setdefault("content-type", "application/json")
        encoded = {name: value.encode("latin1", "replace") for name, value in headers.items()}
        return self._http[ask.route.listener].request(
            ask.route.method, ask.target(), content=body, headers=encoded
        )

    def refused(
        self, attack: str, ask: Ask, *, also: tuple[int, ...] = (), only: tuple[int, ...] = ()
    ) -> int:
        """Sends it and files a problem unless it was refused (or answered one of ``also``)."""
        try:
            answer = self.send(ask)
        except (httpx.LocalProtocolError, httpx.InvalidURL):
            return 0  # the client library cannot even say it; raw sockets do elsewhere
        except httpx.RemoteProtocolError as error:
            return self._file(attack, ask, f"no answer: {error}")
        return self.judge(attack, ask, answer, also=also, only=only)

    def judge(
        self,
        attack: str,
        ask: Ask,
        answer: httpx.Response,
        *,
        also: tuple[int, ...] = (),
        only: tuple[int, ...] = (),
    ) -> int:
        status = answer.status_code
        self.sent[attack] += 1
        self.statuses.setdefault(attack, Counter())[status] += 1
        if only and status not in only:
            self._file(attack, ask, f"{status} instead of {only}: {answer.text[:200]}")
        elif not 400 <= status < 500 and status not in also:
            self._file(attack, ask, f"{status}: {answer.text[:200]}")
        if 400 <= status < 500 and ask.route.method != "HEAD":
            self._check_shape(attack, ask, answer)
        for canary in self.canaries:
            if canary in answer.text:
                self._file(attack, ask, f"{status} shows {canary!r}")
        return status

    def raw(self, attack: str, listener: str, request: bytes, *, one_answer: bool = True) -> int:
        """Bytes no HTTP library would send; answers the status, 0 for a connection closed without one.
        Without ``one_answer`` it listens on for a while: there may be a second one."""
        parts = urllib.parse.urlsplit(self.url if listener == "public" else self.admin_url)
        assert parts.hostname is not None
        assert parts.port is not None
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
            stream = ssl._create_unverified_context().wrap_socket(plain) if parts.scheme == "https" else plain
            stream.sendall(request)
            answer = b""
            while not (one_answer and _is_whole(answer)) and (chunk := _receive(stream)):
                answer += chunk
                if _is_whole(answer):
                    stream.settimeout(SECOND_ANSWER_S)
        self.sent[attack] += 1
        statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
        for status in statuses:
            self.statuses.setdefault(attack, Counter())[status] += 1
            if not 400 <= status < 500 and status != NOT_IMPLEMENTED:
                self.problems.append(f"{attack}: {request[:120]!r} was answered {status}")
        return statuses[0] if statuses else 0

    def _check_shape(self, attack: str, ask: Ask, answer: httpx.Response) -> None:
        try:
            told = answer.json()
            assert told["error"]["code"] == answer.headers["x-error-code"]
            assert told["error"]["request_id"] == answer.headers["x-request-id"]
        except (KeyError, TypeError, AssertionError, json.JSONDecodeError):
            self._file(attack, ask, f"{answer.status_code} in another shape: {answer.text[:200]}")
        if "Traceback" in answer.text or 'File "' in answer.text:
            self._file(attack, ask, "shows a traceback")

    def _file(self, attack: str, ask: Ask, what: str) -> int:
        self.problems.append(f"{attack}: {ask.route.name} {str(ask.values)[:300]} -> {what}")
        return 0


def _is_whole(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(blank and length and len(body) >= int(length[1]))


def _receive(stream: socket.socket) -> bytes:
    try:
        return stream.recv(65536)
    except (ConnectionError, TimeoutError):
        return b""
