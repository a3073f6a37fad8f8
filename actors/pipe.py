"""Writing to a pipe without a turn of the loop first, as nearly every write can.

Trio's stream goes once around the scheduler before it tries: a fifth of what a question to a worker costs us.
What does not fit, and whatever goes wrong, is left to the stream. No checkpoint unless the pipe is full.
"""

from __future__ import annotations

import os

import trio


async def send_all(stream: trio.lowlevel.FdStream, data: bytes | bytearray) -> None:
    """Raises what the stream raises. One sender at a time."""
    try:
        sent = os.write(stream.fileno(), data)
    except OSError:  # full, or something that the stream has a name for
        sent = 0
    if sent < len(data):
        await stream.send_all(memoryview(data)[sent:])
