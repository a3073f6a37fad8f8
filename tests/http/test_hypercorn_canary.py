"""What ``transport/http/connection.py`` and ``door.py`` take for granted inside Hypercorn and Quart-Trio.

When one of these fails after an upgrade, read the named code again before changing the version.
"""

from __future__ import annotations

import inspect
from hashlib import sha256
from importlib.metadata import version

import pytest
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from quart_trio.asgi import TrioASGIHTTPConnection


def test_the_versions_are_the_ones_that_were_read() -> None:
    assert version("hypercorn") == "0.18.0"
    assert version("quart-trio") == "0.12.0"
    assert version("quart") == "0.22.0"


@pytest.mark.parametrize(
    ("thing", "digest"),
    [
        (TCPServer, "5593e38b83d3e22e"),
        (H11Protocol, "b32a61e0a8ca2127"),
        (HTTPStream, "e0f656feb55ab89c"),
        (TaskGroup, "8467a3a16a7e8763"),
        (TrioASGIHTTPConnection, "6393e71c2a5138be"),
    ],
)
def test_the_code_we_build_on_is_the_code_that_was_read(thing: type, digest: str) -> None:
    assert sha256(inspect.getsource(thing).encode()).hexdigest()[:16] == digest
