"""Writing an export: everything a tenant has, over HTTP, with a credential like anybody's, into a folder.

How far each stream goes is decided once, at the start; then file after file, each durable before it is noted
in ``progress.jsonl``. So a run that died goes on with the first file that is missing, and memory holds one
page and one commitment. Checks only that what comes is what was asked for; ``export_check`` is the judge.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from config.files import open_private, sync_folder, write_whole
from transport.client.errors import BadAnswer, ClientError, Refused
from transport.client.export_form import (
    AGENT_KEYS,
    AUDIT_ENTRIES,
    FORMAT,
    MANIFEST,
    PLAN,
    POLICY,
    PROGRESS,
    SCHEMAS,
    SEQUENCER,
    DamagedExport,
    ListedFile,
    Manifest,
    Plan,
    PlannedStream,
    Span,
    digest_of,
    event_starts,
    events_file,
    files_of,
    first_in,
    lines_of,
    read_plan,
)
from transport.client.export_streams import PAGE, Asking, StreamFiles
from transport.client.wire import decode, encode
from ves.encoding import uuid_bytes, uuid_text
from ves.records import Uuid

SCHEMAS_PAGE = 100
AGENTS_MAX = 1_000_000

Progress = Callable[[int, int], None]
"""Hears how many of how many events are written."""


class _Page(msgspec.Struct):
    """Any listing: its rows as they came."""

    has_more: bool
    next_from: int | None = None
    next_after: str | None = None
    keys: list[msgspec.Raw] = []
    entries: list[msgspec.Raw] = []


class _SchemasPage(msgspec.Struct, rename="camel"):
    schemas: list[msgspec.Raw]
    has_more: bool
    next_after: str | None = None


class _Stream(msgspec.Struct):
    store_id: str
    head_sequence: int
    legacy_head_sequence: int


class _Streams(msgspec.Struct):
    streams: list[_Stream]
    has_more: bool
    next_after: str | None = None


class _Void(msgspec.Struct):
    first_number: int
    last_number: int


class _Head(msgspec.Struct):
    head_sequence: int
    voided: list[_Void] = []


class _Signer(msgspec.Struct):
    source_agent_id: str


class Export:
    """One export in one folder. ``admin``: a client of the admin listener, for policy and audit entries."""

    def __init__(self, folder: Path, plan: Plan, client: Asking, admin: Asking | None) -> None:
        self._folder = folder
        self._plan = plan
        self._client = client
        self._admin = admin
        self._tenant = {"tenant_id": plan.tenant_id}
        self._stream_files = StreamFiles(folder, plan, client)

    async def run(self, progress: Progress) -> Manifest:
        """Writes what is missing, and at last the manifest."""
        done = self._read_progress()
        total = sum(_count(s, s.voided) + _count(s.legacy, []) for s in self._plan.streams)
        written = sum(e.lines for e in done.values() if first_in(e.file) is not None)
        progress(written, total)
        for name in files_of(self._plan):
            if name in done:
                continue
            entry = await self._write(name)
            done[name] = entry
            if first_in(name) is not None:
                written += entry.lines
                progress(written, total)
        return self._finish(done)

    async def _write(self, name: str) -> ListedFile:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.draft")
        async with aclosing(self._lines(name)) as lines:
            with open_private(draft, "wb") as file:
                async for line in lines:
                    file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
        entry = msgspec.structs.replace(digest_of(path), file=name)
        with open_private(self._folder / PROGRESS, "ab") as progress:
            progress.write(encode(entry) + b"\n")
            progress.flush()
            os.fsync(progress.fileno())
        return entry

    def _read_progress(self) -> dict[str, ListedFile]:
        """The files that are there as they were noted; a changed one is a surprise to be told."""
        path = self._folder / PROGRESS
        found: dict[str, ListedFile] = {}
        if not path.exists():
            return found
        raw = path.read_bytes()
        whole, _, rest = raw.rpartition(b"\n")
        if rest:  # cut off by a crash: its file is written anew
            os.truncate(path, len(raw) - len(rest))
        for line in whole.splitlines():
            entry = decode(line, ListedFile, str(path))
            if not (self._folder / entry.file).exists():
                raise DamagedExport(f"{self._folder / entry.file} is gone: begin again in an empty folder")
            found[entry.file] = entry
        return found

    def _finish(self, done: dict[str, ListedFile]) -> Manifest:
        """Every file is read once more: what was changed meanwhile does not get into a manifest."""
        for name, entry in done.items():
            if msgspec.structs.replace(digest_of(self._folder / name), file=name) != entry:
                raise DamagedExport(f"{self._folder / name} was changed: begin again in an empty folder")
        manifest = Manifest(
            format=FORMAT,
            tenant_id=self._plan.tenant_id,
            finished_at=_now(),
            plan_sha256=digest_of(self._folder / PLAN).sha256,
            files=[done[name] for name in files_of(self._plan)],
            not_included=self._not_included(),
        )
        write_whole(self._folder / MANIFEST, msgspec.json.format(encode(manifest), indent=1) + b"\n")
        (self._folder / PROGRESS).unlink()
        sync_folder(self._folder)
        return manifest

    def _not_included(self) -> list[str]:
        missing = ["API keys and tokens: secrets, or nothing without them"]
        if not self._plan.with_payloads:
            missing.append("payloads: asked for without")
        if not self._plan.with_admin:
            missing.append("policy and audit entries: no --admin-url was given")
        for stream in self._plan.streams:
            for span, what in ((stream, "events"), (stream.legacy, "unsigned events")):
                if not span.covers_all():
                    missing.append(
                        f"{what} of store {stream.store_id} outside {span.first} to {span.through}"
                    )
        return missing

    # ---- what stands in each file ------------------------------------------------------------------------

    def _lines(self, name: str) -> AsyncGenerator[bytes, None]:
        if name == SEQUENCER:
            return self._one(self._client, "/.well-known/ves-sequencer")
        if name == POLICY:
            return self._one(self._of_admin(), f"/api/v1/admin/tenants/{self._plan.tenant_id}/policy")
        if name == SCHEMAS:
            return self._schemas()
        if name == AUDIT_ENTRIES:
            return self._audit()
        if name == AGENT_KEYS:
            return self._agent_keys()
        stream = next(one for one in self._plan.streams if f"/{one.store_id}/" in name)
        return self._stream_files.lines(stream, name)

    @staticmethod
    async def _one(client: Asking, path: str) -> AsyncGenerator[bytes, None]:
        yield await client.ask("GET", path, query={})

    def _of_admin(self) -> Asking:
        if self._admin is None:
            raise ClientError("this export was begun with --admin-url; give it again")
        return self._admin

    async def _schemas(self) -> AsyncGenerator[bytes, None]:
        query: dict[str, Any] = {**self._tenant, "limit": SCHEMAS_PAGE}
        while True:
            raw = await self._client.ask("GET", "/api/v1/schemas", query=query)
            page = decode(raw, _SchemasPage, "/api/v1/schemas")
            for one in page.schemas:
                yield bytes(one)
            if not page.has_more or page.next_after in (None, query.get("after")):
                return
            query["after"] = page.next_after

    async def _audit(self) -> AsyncGenerator[bytes, None]:
        """Newest first, as the server lists them."""
        path, query = "/api/v1/admin/audit", {**self._tenant, "limit": PAGE}
        while True:
            page = decode(await self._of_admin().ask("GET", path, query=query), _Page, path)
            for one in page.entries:
                yield bytes(one)
            if not page.has_more or page.next_after in (None, query.get("after")):
                return
            query["after"] = page.next_after

    async def _agent_keys(self) -> AsyncGenerator[bytes, None]:
        for agent_id in sorted(self._agents()):
            path, start = f"/api/v1/agents/{agent_id}/keys", 0
            while True:
                query = {**self._tenant, "from": start, "limit": PAGE}
                page = decode(await self._client.ask("GET", path, query=query), _Page, path)
                for one in page.keys:
                    yield bytes(one)
                if not page.has_more or page.next_from is None or page.next_from <= start:
                    break
                start = page.next_from

    def _agents(self) -> set[str]:
        """Everybody who signed an exported event, read back from the files, for a run that goes on."""
        found: set[str] = set()
        for stream in self._plan.streams:
            for first in event_starts(stream, stream.voided, self._plan.file_events):
                path = self._folder / events_file(stream.store_id, first)
                for number, line in lines_of(path):
                    signer = decode(line, _Signer, f"{path}:{number}")
                    found.add(uuid_text(uuid_bytes(signer.source_agent_id)))
            if len(found) > AGENTS_MAX:
                raise ClientError(f"more than {AGENTS_MAX} agents: export store by store (--store)")
        return found


async def plan_export(
    client: Asking,
    tenant_id: Uuid,
    *,
    store_id: Uuid | None,
    first: int | None,
    through: int | None,
    with_payloads: bool,
    with_admin: bool,
) -> Plan:
    """What there is to export now. Refused when the store has no event."""
    streams = [one for one in await _streams(client, tenant_id) if store_id in (None, one[0])]
    wanted = first or 1, through
    if store_id is not None and not streams:
        raise Refused(404, "STREAM_NOT_FOUND", f"store {uuid_text(store_id)} has no event", "")
    planned = []
    for store, head, legacy_head in streams:
        stream = {"tenant_id": uuid_text(tenant_id), "store_id": uuid_text(store)}
        planned.append(
            PlannedStream(
                *_span(head, *wanted),
                store_id=stream["store_id"],
                legacy=Span(*_span(legacy_head, *wanted)),
                voided=await _voided(client, stream, head) if head else [],
            )
        )
    return Plan(
        format=FORMAT,
        tenant_id=uuid_text(tenant_id),
        origin=client.origin,
        begun_at=_now(),
        with_payloads=with_payloads,
        with_admin=with_admin,
        streams=planned,
    )


def _span(head: int, first: int, through: int | None) -> tuple[int, int, int]:
    return first, max(first - 1, min(through or head, head)), head


def _count(span: Span, voided: list[tuple[int, int]]) -> int:
    void = sum(max(0, min(last, span.through) - max(first, span.first) + 1) for first, last in voided)
    return span.through - span.first + 1 - void


async def _voided(client: Asking, stream: dict[str, Any], head: int) -> list[tuple[int, int]]:
    """Those up to ``head``: what is declared void later lies behind it."""
    path = "/api/v1/ves/head"
    shown = decode(await client.ask("GET", path, query=stream), _Head, path).voided
    return [(void.first_number, void.last_number) for void in shown if void.first_number <= head]


async def _streams(client: Asking, tenant_id: Uuid) -> list[tuple[Uuid, int, int]]:
    """Stores and heads, of signed and of unsigned events. A store's name becomes the name of a folder:
    BadAnswer unless it is a UUID."""
    path, found = "/api/v1/ves/streams", []
    query: dict[str, Any] = {"tenant_id": uuid_text(tenant_id), "limit": PAGE}
    while True:
        page = decode(await client.ask("GET", path, query=query), _Streams, path)
        try:
            found += [
                (uuid_bytes(one.store_id), one.head_sequence, one.legacy_head_sequence)
                for one in page.streams
            ]
        except ValueError as wrong:
            raise BadAnswer(f"{path}: {wrong}") from wrong
        if not page.has_more or page.next_after in (None, query.get("after")):
            return found
        query["after"] = page.next_after


def begin(folder: Path, plan: Plan) -> None:
    """The plan is durable in an empty folder."""
    write_whole(folder / PLAN, msgspec.json.format(encode(plan), indent=1) + b"\n")


def begun(folder: Path) -> Plan | None:
    """The plan of an export that was begun here; None in an empty folder. DamagedExport in any other."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / PLAN).exists():
        return read_plan(folder)
    if any(not path.name.endswith(".draft") for path in folder.iterdir()):
        raise DamagedExport(f"{folder} holds other things: name an empty or a new folder")
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
