"""The living tree as rows of a table: one actor a row, whatever the width of the terminal.

It only draws what the server said. Names and last errors give way when the room is narrow, numbers never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from actors.views import ActorView

WIDE = 200
"""Columns, where nobody says how many there are (a pipe, a file)."""
NAME_MIN = 20
ERROR_MIN = 12
GAP = 2

HEADINGS = ("actor", "state", "life", "uptime", "wait/peak/max", "handled", "/s", "restarts", "last error")
RIGHT = frozenset(("life", "uptime", "wait/peak/max", "handled", "/s", "restarts"))
DISPENSABLE = (HEADINGS.index("restarts"), HEADINGS.index("last error"))
"""Left out in this order when it is too narrow for all."""
STYLES = {
    "running": "green",
    "starting": "cyan",
    "waiting": "cyan",
    "pausing": "yellow",
    "stopping": "yellow",
    "resting": "red",
    "drained": "magenta",
    "suspended": "magenta",
    "dormant": "dim",
    "ended": "dim",
}

Row = tuple[ActorView | None, tuple[str, ...]]
"""None: a line that is nobody's."""


def tree_rows(actor: ActorView, rates: Mapping[str, float], depth: int = 0) -> Iterator[Row]:
    """The actor and everybody shown below, indented."""
    yield actor, _cells(actor, "  " * depth + actor.name, rates)
    for child in actor.children:
        yield from tree_rows(child, rates, depth + 1)
    more = actor.children_total - len(actor.children)
    if actor.kind == "dynamic" and more:
        others = "more" if actor.children else "of them"
        yield None, ("  " * (depth + 1) + f"({more} {others})",)


def flat_rows(actors: Sequence[ActorView], rates: Mapping[str, float]) -> Iterator[Row]:
    for actor in actors:
        yield actor, _cells(actor, actor.name, rates)


def _cells(actor: ActorView, name: str, rates: Mapping[str, float]) -> tuple[str, ...]:
    box = actor.mailbox
    rate = rates.get(actor.path)
    takes_letters = box is not None or actor.handled > 0
    return (
        name,
        actor.state,
        str(actor.incarnation),
        "" if actor.uptime_s is None else duration(actor.uptime_s),
        _letters(actor),
        str(actor.handled) if takes_letters else "",
        f"{rate:.1f}" if takes_letters and rate is not None else "",
        str(actor.restarts + actor.children_restarts),
        one_line(actor.last_error or ""),
    )


def _letters(actor: ActorView) -> str:
    box = actor.mailbox
    if box is None:
        return ""
    # Of all children together only the sum says something: each has a bound of its own.
    return str(box.depth) if actor.kind == "dynamic" else f"{box.depth}/{box.peak}/{box.letters_max}"


def table(rows: Sequence[Row], *, width: int, with_rates: bool, heading: str = HEADINGS[0]) -> Table:
    """All rows in columns that fit into ``width`` wherever that is possible."""
    titles = [heading, *HEADINGS[1:]]
    shown = [at for at, title in enumerate(HEADINGS) if with_rates or title != "/s"]
    widths = [max(cell_len(text) for text in (titles[at], *_column(rows, at))) for at in range(len(HEADINGS))]
    for at in DISPENSABLE:
        if _room(width, widths, shown) < NAME_MIN + ERROR_MIN:
            shown.remove(at)
    room = _room(width, widths, shown)
    widths[-1] = min(widths[-1], max(room - widths[0], ERROR_MIN)) if len(HEADINGS) - 1 in shown else 0
    widths[0] = min(widths[0], max(room - widths[-1], NAME_MIN))
    drawn = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for at in shown:
        justify = "right" if HEADINGS[at] in RIGHT else "left"
        drawn.add_column(
            titles[at],
            width=widths[at],
            no_wrap=True,
            overflow="ellipsis",
            justify=justify,  # type: ignore[arg-type]
        )
    for actor, cells in rows:
        style = "dim" if actor is None else STYLES[actor.state]
        # Text, not markup: what comes from outside is shown as it is.
        drawn.add_row(*(Text(_cell(cells, at), style if at == 1 or actor is None else "") for at in shown))
    return drawn


def _room(width: int, widths: Sequence[int], shown: Sequence[int]) -> int:
    """What is left for names and last errors."""
    numbers = [widths[at] for at in shown if 0 < at < len(HEADINGS) - 1]
    return width - sum(numbers) - GAP * (len(shown) - 1)


def _column(rows: Sequence[Row], at: int) -> Iterator[str]:
    return (_cell(cells, at) for _, cells in rows)


def _cell(cells: tuple[str, ...], at: int) -> str:
    return cells[at] if at < len(cells) else ""


def one_line(text: str) -> str:
    """Printable: an error's text must not move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def duration(seconds: float) -> str:
    """At most two units: ``8s``, ``4m12s``, ``3h07m``, ``5d02h``."""
    whole = int(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{hours}h{m:02}m"
    return f"{minutes}m{s:02}s" if minutes else f"{whole}s"
