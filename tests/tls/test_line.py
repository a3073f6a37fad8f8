"""The end of a line: the peer hears that it has everything, also when it said something nobody read."""

from __future__ import annotations

import pytest
import trio

from config.certificates import load
from tests.tls.authority import Authority
from transport.http.line import Line


async def connected(authority: Authority) -> tuple[Line, trio.SSLStream[trio.SocketStream]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname())
        line = Line(await listener.accept(), load(authority.files()).context)
    peer = trio.SSLStream(near, authority.client_context(), server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.do_handshake)
        assert await line.shake_hands() is None
    return line, peer


@pytest.mark.parametrize("read", [0, 10])
async def test_unread_data_does_not_cost_the_peer_its_close_notify(read: int, authority: Authority) -> None:
    line, peer = await connected(authority)
    with trio.fail_after(10):
        await peer.send_all(b"x" * 50_000)
        if read:
            await line.receive_some(read)
        await line.send_all(b"the answer")
        await line.end_sending()
        assert await peer.receive_some() == b"the answer"
        assert await peer.receive_some() == b""  # with anything but a close_notify this raises
        await peer.aclose()
        await line.discard()
    line.close()


async def test_ending_a_line_whose_socket_was_closed_is_no_error(authority: Authority) -> None:
    line, peer = await connected(authority)
    line.close()
    await line.end_sending()
    await line.discard()
    assert await line.receive_some(1) == b""
    await trio.aclose_forcefully(peer)
