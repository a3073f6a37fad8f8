"""``sequencer audit``: look through the audit trail, keep it, and find out whether it is still what it was.

``verify`` recomputes every chain from the entries' texts. A trail that was rewritten as a whole is consistent
with itself, so the heads that an auditor kept earlier (``heads --out FILE``) are what makes a verdict
trusted: without ``--heads`` the best result is ``consistent, not trusted``, exit code 3.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
import trio
from cyclopts import App

from transport.cli.audit_compare import compare, head
from transport.cli.audit_follow import follow
from transport.cli.console import AdminListener, Exit, Json, read_file, run, show, write_file
from transport.client.audit_trail import (
    AUDIT,
    KeptHeads,
    Record,
    Verdict,
    check,
    from_lines,
    heads_over_http,
    over_http,
)
from transport.client.errors import BadAnswer, ClientError
from transport.client.wire import decode

app = App(
    name="audit",
    help="The audit trail (admin listener): list, heads, export, verify. A stream as it grows: follow, head, "
    "compare.",
)
app.command(follow)
app.command(compare)
app.command(head)

HERE = AdminListener()
FINDINGS_SHOWN = 100
LINE_BYTES_MAX = 1024 * 1024

Tenant = UUID | None
"""Not from SEQUENCER_TENANT: who looks for operators' acts would find none."""


class _Entry(msgspec.Struct):
    node_id: str
    entry_number: int
    recorded_at: str
    tenant_id: str | None
    actor: str
    action: str
    subject: str
    entry: str


class _Page(msgspec.Struct):
    entries: list[_Entry]
    has_more: bool
    next_after: str | None


@app.command(name="list")
def list_entries(
    *,
    tenant: Tenant = None,
    node: UUID | None = None,
    action: str | None = None,
    actor: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Show audit entries, newest first.

    Parameters
    ----------
    tenant
        Only this tenant's.
    node
        Only what this node recorded.
    action
        Only this action, for example agent_key.revoke.
    actor
        Only this actor's, for example bootstrap or api_key:UUID.
    since
        RFC 3339; recorded at or after.
    until
        RFC 3339; recorded before.
    limit
        At most so many.
    """
    wanted = {"tenant_id": tenant, "node_id": node, "action": action, "actor": actor}
    wanted |= {"from": since, "to": until}

    async def work() -> int:
        query: dict[str, Any] = {name: str(value) for name, value in wanted.items() if value is not None}
        left = limit
        async with admin.client() as client:
            while left > 0:
                query["limit"] = min(left, 1000)
                page = decode(await client.ask("GET", AUDIT, query=query), _Page, AUDIT)
                for entry in page.entries:
                    show(_line(entry), entry, as_json)
                left -= len(page.entries)
                if not page.has_more or page.next_after in (None, query.get("after")):
                    break
                query["after"] = page.next_after
        return Exit.OK

    return run(work, as_json=as_json)


def _line(entry: _Entry) -> str:
    details = msgspec.json.decode(entry.entry, type=dict[str, Any]).get("details", {})
    more = "  ".join(f"{name}={value}" for name, value in sorted(details.items()) if value is not None)
    of = f"  tenant {entry.tenant_id}" if entry.tenant_id else ""
    return f"{entry.recorded_at}  {entry.actor}  {entry.action}  {entry.subject}{of}  {more}"


@app.command
def heads(*, out: Path | None = None, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """Show where every chain stands. Keep it elsewhere: `verify --heads` then finds what was changed or cut.

    Parameters
    ----------
    out
        Write it to this file, for `verify --heads`.
    """

    async def work() -> int:
        async with admin.client() as client:
            kept = KeptHeads(await heads_over_http(client))
        if out is not None:
            write_file(out, msgspec.json.encode(kept))
        lines = [
            f"{one.node_id}  entry {one.entry_number}  {one.entry_hash}  committed through "
            f"{one.committed_through}  state root {one.state_root}"
            for one in kept.heads
        ]
        show("\n".join(lines) or "there is no chain yet", kept, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def export(*, out: Path, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """Write the whole audit trail to a new file, one JSON object per line, and check it on the way.

    Parameters
    ----------
    out
        A file that does not exist yet.
    """

    async def work() -> int:
        try:
            file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ClientError(f"{out}: {error.strerror}") from error
        verdict = Verdict(None)
        with os.fdopen(file, "wb") as lines:
            async with admin.client() as client:
                found = await _findings(_written(over_http(client), lines), verdict)
        told = f"{_counts(verdict)} in {out}{'; NOT consistent' if found else ''}"
        show("\n".join([*found, told]), _data(found, verdict), as_json)
        return Exit.FAILED if found else Exit.OK

    return run(work, as_json=as_json)


async def _written(trail: AsyncIterator[Record], file: Any) -> AsyncIterator[Record]:
    async for record in trail:
        await trio.to_thread.run_sync(file.write, msgspec.json.encode(record) + b"\n")
        yield record


@app.command
def verify(
    *,
    file: Path | None = None,
    heads: Path | None = None,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Recompute every chain, commitment and state root. Is the audit trail still what it was?

    Parameters
    ----------
    file
        Check this export instead of the running server.
    heads
        Heads kept earlier (`audit heads --out`): shows what was rewritten or cut off since.
    """

    async def work() -> int:
        kept = None if heads is None else _kept(heads)
        verdict = Verdict(kept)
        if file is not None:
            with _opened(file) as lines:
                found = await _findings(from_lines(_bounded(lines, file), str(file)), verdict)
        else:
            async with admin.client() as client:
                found = await _findings(over_http(client), verdict)
        return _judge(found, verdict, trusted=bool(kept), as_json=as_json)

    return run(work, as_json=as_json)


def _kept(path: Path) -> dict[bytes, Any]:
    try:
        return decode(read_file(path), KeptHeads, str(path)).by_node()
    except (BadAnswer, ValueError) as wrong:
        raise ClientError(f"{path} holds no kept heads: {wrong}") from wrong


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error


def _bounded(lines: BinaryIO, path: Path) -> Iterator[bytes]:
    while line := lines.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise BadAnswer(f"{path}: a line is longer than {LINE_BYTES_MAX} bytes")
        yield line


async def _findings(trail: AsyncIterator[Record], verdict: Verdict) -> list[str]:
    """The first findings, and how many more there are."""
    found: list[str] = []
    more = 0
    async for finding in check(trail, verdict):
        if len(found) < FINDINGS_SHOWN:
            found.append(finding)
        else:
            more += 1
    return found + ([f"… and {more} more"] if more else [])


def _judge(found: list[str], verdict: Verdict, *, trusted: bool, as_json: bool) -> int:
    """Wrong beats untrusted beats fine."""
    if found:
        code, what = Exit.FAILED, "NOT what was written"
    elif not trusted:
        code, what = Exit.NOT_TRUSTED, "consistent, not trusted: give --heads that were kept earlier"
    else:
        code, what = Exit.OK, "consistent, and continues the kept heads"
    data = _data(found, verdict) | {"ok": code == Exit.OK, "trusted": trusted}
    show("\n".join([*found, f"{_counts(verdict)}: {what}"]), data, as_json)
    return code


def _counts(verdict: Verdict) -> str:
    return f"{verdict.chains} chains, {verdict.entries} entries, {verdict.commitments} commitments"


def _data(found: list[str], verdict: Verdict) -> dict[str, Any]:
    return {
        "ok": not found,
        "chains": verdict.chains,
        "entries": verdict.entries,
        "commitments": verdict.commitments,
        "problems": found,
    }
