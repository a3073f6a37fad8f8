"""``sequencer actors top``: the house as it lives, drawn anew every second until somebody has seen enough.

One request a frame. While there is no answer the last picture stays, with a line that says so. It changes
nothing in the house, and leaves the terminal as it was.
"""

from __future__ import annotations

import os
import re
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import trio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from actors.views import ActorView, Order
from transport.cli.console import Exit
from transport.cli.tree_view import WIDE, Row, flat_rows, one_line, table, tree_rows
from transport.client.errors import BadAnswer, ClientError, Refused
from transport.client.sequencer import SequencerClient
from transport.client.wire import UNREADABLE, ErrorBody, decode
from transport.http.shapes import ActorsReply

ACTORS = "/api/v1/admin/actors"
TENANTS = 100
"""Asked for; as many are shown as have room."""
SLOW_S = 0.05
"""A lag of the event loop from here on is worth a colour."""

_SHORT = re.compile(r"/\S*/(?=[^/ ]+/[^/ ]+\.py)")
"""Folders that tell an operator nothing: all but the last."""


class Sample(NamedTuple):
    taken_at: float
    """``time.monotonic``"""
    seen: ActorsReply


class Picture(NamedTuple):
    """What a frame shows: the last sample, the one before for the rates, and what went wrong since."""

    now: Sample | None = None
    before: Sample | None = None
    trouble: str | None = None

    def with_sample(self, sample: Sample) -> Picture:
        return Picture(sample, self.now, None)

    def rates(self) -> dict[str, float]:
        """Letters handled per second, of those seen in both samples."""
        if self.now is None or self.before is None:
            return {}
        seconds = max(self.now.taken_at - self.before.taken_at, 1e-3)
        earlier = {actor.path: actor.handled for actor in _everybody(self.before.seen)}
        # Less than before: it was forgotten meanwhile and came back.
        return {
            actor.path: (actor.handled - earlier[actor.path]) / seconds
            for actor in _everybody(self.now.seen)
            if earlier.get(actor.path, actor.handled + 1) <= actor.handled
        }


def _everybody(seen: ActorsReply) -> Iterator[ActorView]:
    waiting = [seen.tree, *seen.tenants]
    while waiting:
        actor = waiting.pop()
        yield actor
        waiting += actor.children


async def take(client: SequencerClient, order: Order, patience_s: float) -> Sample:
    """Asks once. Raises ClientError."""
    query = urlencode({"children": 0, "tenants": TENANTS, "order": order})
    with trio.move_on_after(patience_s):
        answer = await client.look(f"{ACTORS}?{query}")
        if answer.status != 200:
            raise _refused(answer.status, answer.body)
        return Sample(time.monotonic(), decode(answer.body, ActorsReply, ACTORS))
    raise ClientError(f"no answer within {patience_s:g} s")


def _refused(status: int, body: bytes) -> ClientError:
    try:
        error = msgspec.json.decode(body, type=ErrorBody).error
    except UNREADABLE:
        return BadAnswer(f"the admin listener answers {status} without an explanation")
    return Refused(status, error.code, error.message, error.request_id or "")


def frame(picture: Picture, *, where: str, order: Order, width: int, height: int | None) -> Group:
    """The whole screen; without a ``height`` as long as it gets."""
    lines: list[Text] = []
    if picture.trouble is not None:
        lines.append(Text(f"NO NEW PICTURE: {one_line(picture.trouble)}", "bold red"))
    if picture.now is None:
        return Group(*lines, Text(f"waiting for {where}", "dim"))
    seen = picture.now.seen
    lines += _headlines(seen, where)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    rates = picture.rates()
    rows: list[Row] = list(tree_rows(seen.tree, rates))
    tenants: list[Row] = list(flat_rows(seen.tenants, rates))
    if height is not None:
        tenants = tenants[: max(0, height - len(lines) - len(rows) - 4)]
    if tenants:
        rows += [(None, ()), (None, (f"tenants by {order}",)), *tenants]
    return Group(*lines, Text(""), table(rows, width=width, with_rates=True))


def _headlines(seen: ActorsReply, where: str) -> list[Text]:
    lag = Text.assemble(
        "loop lag ",
        (_ms(seen.lag_s), "yellow" if seen.lag_s >= SLOW_S else ""),
        " (peak ",
        (_ms(seen.lag_peak_s), "yellow" if seen.lag_peak_s >= SLOW_S else ""),
        ")",
    )
    dead = Text(f"dead letters {seen.dead_letters_total}", "yellow" if seen.dead_letters_total else "")
    ready = Text("NOT READY", "bold red") if seen.waiting_for else Text("ready", "bold green")
    lines = [Text("   ").join([ready, lag, dead, Text(time.strftime("%H:%M:%S")), Text(where, "dim")])]
    lines += [Text(f"waits for {part}: {one_line(why)}", "red") for part, why in seen.waiting_for.items()]
    if seen.last_hog is not None:
        who = _SHORT.sub("", one_line(seen.last_hog))
        lines.append(Text(f"last held the loop: {who}", "yellow"))
    if seen.audit_bytes_spooled:
        lines.append(
            Text(f"{seen.audit_bytes_spooled} bytes of audit entries wait for the database", "yellow")
        )
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


# Running.


async def watch(client: SequencerClient, *, order: Order, interval_s: float, as_json: bool) -> int:
    """Until ``q`` or ctrl-C; without a terminal one picture after the other until interrupted."""
    console = Console()
    if as_json or not console.is_terminal:
        await _print_on(client, order, interval_s, as_json)
    with _keys() as keyboard, Live(console=console, auto_refresh=False, screen=True) as live:
        async with trio.open_nursery() as nursery:
            if keyboard is not None:
                nursery.start_soon(_until_q, keyboard, nursery.cancel_scope)
            picture = Picture()
            while True:
                picture = await _next(picture, client, order, interval_s)
                where, (width, height) = client.origin, console.size
                live.update(
                    frame(picture, where=where, order=order, width=width, height=height), refresh=True
                )
                await trio.sleep(interval_s)
    return Exit.OK


async def _next(picture: Picture, client: SequencerClient, order: Order, interval_s: float) -> Picture:
    try:
        return picture.with_sample(await take(client, order, max(interval_s, 5.0)))
    except ClientError as error:
        if isinstance(error, Refused) and error.status in (401, 403):
            raise  # does not heal by waiting
        return picture._replace(trouble=str(error))


async def once(client: SequencerClient, *, order: Order, interval_s: float, as_json: bool) -> int:
    """One picture, of two samples: rates need both."""
    first = await take(client, order, 5.0)
    await trio.sleep(interval_s)
    picture = Picture(first).with_sample(await take(client, order, 5.0))
    _print(picture, client.origin, order, as_json)
    return Exit.OK


async def _print_on(client: SequencerClient, order: Order, interval_s: float, as_json: bool) -> None:
    picture = Picture()
    while True:
        picture = picture.with_sample(await take(client, order, max(interval_s, 5.0)))
        _print(picture, client.origin, order, as_json)
        await trio.sleep(interval_s)


def _print(picture: Picture, where: str, order: Order, as_json: bool) -> None:
    assert picture.now is not None
    if as_json:
        rates = picture.rates()
        members = msgspec.to_builtins(picture.now.seen)
        print(msgspec.json.encode({"ok": True, **members, "handled_per_s": rates}).decode(), flush=True)
        return
    console = plain_console()
    console.print(frame(picture, where=where, order=order, width=console.width, height=None))


def plain_console() -> Console:
    """As wide as the terminal; wide enough for everything where there is none."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Console(width=width, highlight=False)


@contextmanager
def _keys() -> Iterator[int | None]:
    """The keyboard's file, each key as it is pressed; None without a keyboard."""
    if not sys.stdin.isatty():
        yield None
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    try:
        yield file
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


async def _until_q(keyboard: int, scope: trio.CancelScope) -> None:
    pressed = b""
    while not {b"q", b"Q"} & {pressed[at : at + 1] for at in range(len(pressed))}:
        await trio.lowlevel.wait_readable(keyboard)
        pressed = os.read(keyboard, 64)
        if not pressed:
            break  # the terminal has gone
    scope.cancel(reason="q was pressed")
