"""What fits is written at once, the rest when there is room; and errors have Trio's names."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import trio

from actors.pipe import send_all

Pipe = tuple[trio.lowlevel.FdStream, trio.lowlevel.FdStream]
"""Its reading and its writing end."""


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    reading, writing = os.pipe()
    streams = trio.lowlevel.FdStream(reading), trio.lowlevel.FdStream(writing)
    yield streams
    for stream in streams:
        stream.close()


async def test_what_fits_is_there_before_anybody_else_has_a_turn(pipe: Pipe) -> None:
    reader, writer = pipe
    with trio.CancelScope() as cancelled:
        cancelled.cancel("so that every turn of the loop would end it")
        await send_all(writer, b"question")
    assert not cancelled.cancelled_caught
    assert await reader.receive_some(100) == b"question"


async def test_more_than_fits_arrives_whole_and_in_order(pipe: Pipe) -> None:
    reader, writer = pipe
    data = os.urandom(1_000_000)
    came = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, writer, data)
        while len(came) < len(data):
            came += await reader.receive_some(300_000)
    assert came == data


async def test_a_pipe_that_nobody_reads_and_a_closed_one_say_so(pipe: Pipe) -> None:
    reader, writer = pipe
    reader.close()
    with pytest.raises(trio.BrokenResourceError):
        await send_all(writer, b"question")
    writer.close()
    with pytest.raises(trio.ClosedResourceError):
        await send_all(writer, b"question")
