"""A liar between a client and a real server: hands every question on, and changes answers as it was told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx

Change = Callable[[Any], Any]


class Liar:
    """``changes`` by path."""

    def __init__(self, url: str) -> None:
        self.changes: dict[str, Change] = {}
        self._upstream = httpx.Client(base_url=url, timeout=30)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _handler(liar) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                headers = {"authorization": self.headers.get("authorization", "")}
                answer = liar._upstream.get(self.path, headers={n: v for n, v in headers.items() if v})
                body = answer.content
                if answer.status_code == 200 and path in liar.changes:
                    body = json.dumps(liar.changes[path](json.loads(body))).encode()
                self.send_response(answer.status_code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[Liar]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join(10)
            self._http.server_close()
            self._upstream.close()
