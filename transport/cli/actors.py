"""``sequencer actors``: look at the living tree of a server and act on it, through the admin listener.

The same listener and credential as ``sequencer api-key``. Everything works while the server's database is
away. Acts that would be done twice are never sent twice: after a lost answer look first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from actors.dead_letters import LETTERS_MAX, DeadLetter
from actors.views import CHILDREN_MAX, Acted, Action, Order, Resent
from transport.cli import top as screen
from transport.cli.console import Exit, ImpatientAdmin, Json, run, show
from transport.cli.top import ACTORS, plain_console
from transport.cli.tree_view import Row, flat_rows, one_line, table, tree_rows
from transport.client.wire import decode
from transport.http.shapes import ActorsReply, DeadLettersReply, TenantsReply

app = App(name="actors", help="See the living tree of actors and act on it (admin listener).")
dead_letters = App(name="dead-letters", help="Letters nobody could handle.")
app.command(dead_letters)

T = TypeVar("T")

HERE = ImpatientAdmin()
DEAD_LETTERS = f"{ACTORS}/dead-letters"
TRIES_ONCE = frozenset({"kill", "restart"})
"""Done twice they do two things."""
NOW = {
    "pausing": "pausing before its next life",
    "drained": "drained, takes nothing until restarted",
    "suspended": "suspended, takes nothing until resumed",
    "stopping": "stopping, not ended yet",
}
"""States that need a word more."""

Children = Annotated[int, Parameter(validator=Number(gte=0, lte=1000))]
Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=1000))]
Interval = Annotated[float, Parameter(validator=Number(gte=0.1, lte=3600))]
Reason = Annotated[str, Parameter(name="--reason", help="Why; it goes into the audit log.")]
Id = Annotated[int, Parameter(validator=Number(gte=1), help="As `dead-letters list` shows it.")]


# Looking.


@app.command
def tree(
    path: str | None = None,
    *,
    children: Children = CHILDREN_MAX,
    as_json: Json = False,
    admin: ImpatientAdmin = HERE,
) -> int:
    """Show who lives in the house: state, life, uptime, letters waiting/peak/limit, handled, restarts.

    Parameters
    ----------
    path
        Only the part below, for example house/sequencers.
    children
        At most so many tenants.
    """

    async def work() -> int:
        query: dict[str, Any] = {"children": children} | ({"path": path} if path else {})
        async with admin.client() as client:
            seen = decode(await client.ask("GET", ACTORS, query=query), ActorsReply, ACTORS)
        if as_json:
            show("", {"ok": True, **msgspec.to_builtins(seen)}, as_json)
        else:
            _draw(list(tree_rows(seen.tree, {})))
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def tenants(
    *, order: Order = "depth", limit: Limit = 20, as_json: Json = False, admin: ImpatientAdmin = HERE
) -> int:
    """Show the busiest tenants' sequencers.

    Parameters
    ----------
    order
        depth: most letters waiting; handled: most handled; recent: newest lives.
    limit
        So many.
    """

    async def work() -> int:
        where = f"{ACTORS}/tenants"
        async with admin.client() as client:
            raw = await client.ask("GET", where, query={"order": order, "limit": limit})
        found = decode(raw, TenantsReply, where).tenants
        if as_json:
            show("", {"ok": True, "tenants": found}, as_json)
        elif found:
            _draw(list(flat_rows(found, {})), "tenant")
        else:
            show("no tenant's sequencer lives now", None, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _draw(rows: Sequence[Row], heading: str = "actor") -> None:
    console = plain_console()
    console.print(table(rows, width=console.width, with_rates=False, heading=heading))


@app.command
def top(
    *,
    interval: Interval = 1.0,
    order: Order = "depth",
    once: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
    admin: ImpatientAdmin = HERE,
) -> int:
    """Watch the house: the tree and the busiest tenants, drawn anew until q or ctrl-C.

    Parameters
    ----------
    interval
        Seconds between two looks; each leaves a line in the audit log.
    order
        Which tenants: depth, handled or recent.
    once
        Print one picture and end.
    """

    async def work() -> int:
        # A screen that waits for a retry shows nothing: each look asks once.
        async with replace(admin, patience=0.0).client() as client:
            look = screen.once if once else screen.watch
            return await look(client, order=order, interval_s=interval, as_json=as_json)

    code: int = Exit.OK
    try:
        code = run(work, as_json=as_json)
    except* KeyboardInterrupt:
        pass  # seen enough
    return code


# Acting.


@app.command
def kill(path: str, *, reason: Reason, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Cancel a life at once, a letter in hand or not; its supervisor starts the next. For drills."""
    return _act("kill", path, reason, as_json, admin)


@app.command
def restart(path: str, *, reason: Reason, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """End a life between two letters and start the next; revives a drained one."""
    return _act("restart", path, reason, as_json, admin)


@app.command
def drain(path: str, *, reason: Reason, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Let the letters that wait be finished, then end; new ones are refused until `restart`."""
    return _act("drain", path, reason, as_json, admin)


@app.command
def suspend(path: str, *, reason: Reason, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Let no letter be taken until `resume`; they wait within the mailbox's bound. The node is not ready."""
    return _act("suspend", path, reason, as_json, admin)


@app.command
def resume(path: str, *, reason: Reason, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Let letters be taken again after a `suspend`."""
    return _act("resume", path, reason, as_json, admin)


def _act(action: Action, path: str, reason: str, as_json: bool, admin: ImpatientAdmin) -> int:
    async def work() -> int:
        where = f"{ACTORS}/{action}"
        body = {"path": path, "reason": reason}
        async with admin.client() as client:
            raw = await client.ask("POST", where, body=body, repeatable=action not in TRIES_ONCE)
        done = decode(raw, Acted, where)
        show(_told(done), {"ok": True, **msgspec.to_builtins(done)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _told(done: Acted) -> str:
    now = f"now {NOW.get(done.state, done.state)} (life {done.incarnation})"
    if done.ended is not None:
        why = one_line(done.ended.why)
        return f"{done.path}: life {done.ended.incarnation} ended, {done.ended.how} ({why}); {now}"
    return f"{done.path}: {now}"


# Dead letters.


@dead_letters.command(name="list")
def list_letters(*, limit: Limit = LETTERS_MAX, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """List the last dead letters, newest first. Their content is never shown.

    Parameters
    ----------
    limit
        At most so many.
    """

    async def work() -> int:
        async with admin.client() as client:
            raw = await client.ask("GET", DEAD_LETTERS, query={"limit": limit})
        page = decode(raw, DeadLettersReply, DEAD_LETTERS)
        lines = [_line(letter) for letter in page.dead_letters] or ["there is no dead letter"]
        if page.has_more:
            lines.append("(there are more; --limit)")
        show("\n".join(lines), {"ok": True, "dead_letters": page.dead_letters}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _line(letter: DeadLetter) -> str:
    return f"{letter.id}  {_when(letter)}  {letter.message} to {letter.mailbox}: {one_line(letter.reason)}"


def _when(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(letter.buried_at))


@dead_letters.command(name="show")
def show_letter(id: Id, *, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Show one dead letter; its content stays where it is."""

    async def work() -> int:
        letter = await _ask("GET", f"{DEAD_LETTERS}/{id}", admin, DeadLetter)
        lines = [
            f"dead letter {letter.id}: {letter.message} to {letter.mailbox}",
            f"  died       {_when(letter)}, {letter.lives_cost} lives cost",
            f"  reason     {one_line(letter.reason)}",
            f"  content    {letter.content_bytes} bytes{'' if letter.resendable else ', let go: no resend'}",
        ]
        if letter.trace_id is not None:
            lines.append(f"  trace      {letter.trace_id}")
        show("\n".join(lines), {"ok": True, **msgspec.to_builtins(letter)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@dead_letters.command
def drop(id: Id, *, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Forget a dead letter. It was never acknowledged to anybody."""

    async def work() -> int:
        letter = await _ask("DELETE", f"{DEAD_LETTERS}/{id}", admin, DeadLetter)
        show(f"dead letter {id} is forgotten", {"ok": True, **msgspec.to_builtins(letter)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@dead_letters.command
def resend(id: Id, *, as_json: Json = False, admin: ImpatientAdmin = HERE) -> int:
    """Deliver a dead letter once more. Exit code 1 if it was not answered; then it stays one."""

    async def work() -> int:
        done = await _ask("POST", f"{DEAD_LETTERS}/{id}/resend", admin, Resent)
        said = "was answered" if done.answered else f"was not answered: {one_line(done.why or '')}"
        members = msgspec.to_builtins(done)
        show(f"dead letter {id} {said}", {"ok": done.answered, **members}, as_json)
        return Exit.OK if done.answered else Exit.FAILED

    return run(work, as_json=as_json)


async def _ask(method: str, path: str, admin: ImpatientAdmin, kind: type[T]) -> T:
    async with admin.client() as client:
        return decode(await client.ask(method, path, repeatable=method == "GET"), kind, path)
