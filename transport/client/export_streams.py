"""Writing what an export holds of a store: signed and unsigned events, their commitments, validity proofs.

Checks only that what comes is what was asked for. Holds a page, or one commitment with its leaves, or one
proof. ``export`` writes the lines into files and knows when it is finished.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from transport.client.errors import BadAnswer
from transport.client.export_form import (
    Plan,
    PlannedStream,
    Span,
    commitments_file,
    first_in,
    legacy_commitments_file,
    legacy_events_file,
    lines_of,
    numbers_due,
    proofs_file,
)
from transport.client.wire import decode, encode
from ves.encoding import uuid_bytes, uuid_text

PAGE = 1000
PROOFS_PAGE = 100


class Asking(Protocol):
    """A client, as far as reading goes."""

    origin: str

    async def ask(self, method: str, path: str, *, query: dict[str, Any]) -> bytes: ...


class _Page(msgspec.Struct):
    has_more: bool
    next_from: int | None = None
    next_after: str | None = None
    events: list[msgspec.Raw] = []
    commitments: list[msgspec.Raw] = []
    proofs: list[msgspec.Raw] = []


class _EventNumber(msgspec.Struct):
    sequence_number: int


class _LegacyNumber(msgspec.Struct):
    envelope: _EventNumber


class _CommitmentPlace(msgspec.Struct):
    batch_id: str
    sequence_start: int
    sequence_end: int


class _ProofPlace(msgspec.Struct):
    proof_id: str
    batch_id: str


class _Leaves(msgspec.Struct):
    leaf_hashes: list[str]


class _StateRoots(msgspec.Struct):
    prev_state_root: list[int]
    new_state_root: list[int]


Whole = Callable[[msgspec.Raw, str, dict[str, Any]], Awaitable[bytes]]
"""Of a listed commitment, its batch_id and the query of its stream: the line."""


class _Kind(NamedTuple):
    """Where events of this kind are, and how they are read."""

    path: str
    number_of: Callable[[msgspec.Raw], int]
    without_payload: Callable[[msgspec.Raw], bytes]


class StreamFiles:
    """The lines of each file of a store."""

    def __init__(self, folder: Path, plan: Plan, client: Asking) -> None:
        self._folder = folder
        self._plan = plan
        self._client = client

    def lines(self, stream: PlannedStream, name: str) -> AsyncGenerator[bytes, None]:
        """Of the file ``name``, which is one of this stream's."""
        store, first = stream.store_id, first_in(name)
        if name == commitments_file(store):
            return self._commitments(stream, stream, "/api/v1/ves/commitments", self._with_leaves)
        if name == legacy_commitments_file(store):
            return self._commitments(stream, stream.legacy, "/api/v1/commitments", self._with_state_roots)
        if name == proofs_file(store):
            return self._proofs(stream)
        assert first is not None, f"{name} is no file of a store"
        if name == legacy_events_file(store, first):
            return self._events(store, _LEGACY, first, stream.legacy, [])
        return self._events(store, _SIGNED, first, stream, stream.voided)

    def _query(self, store_id: str) -> dict[str, Any]:
        return {"tenant_id": self._plan.tenant_id, "store_id": store_id}

    async def _page(self, path: str, query: dict[str, Any]) -> _Page:
        return decode(await self._client.ask("GET", path, query=query), _Page, path)

    async def _events(
        self, store_id: str, kind: _Kind, first: int, span: Span, voided: list[tuple[int, int]]
    ) -> AsyncGenerator[bytes, None]:
        last = min(first + self._plan.file_events - 1, span.through)
        due = numbers_due(first, last, voided)
        number = next(due, None)
        while number is not None:
            query = {**self._query(store_id), "from": number, "limit": last - number + 1}
            page = await self._page(kind.path, query)
            if not page.events:
                raise BadAnswer(f"store {store_id}: {kind.path} shows no event {number} any more")
            for raw in page.events:
                if number is None:
                    break  # behind void numbers the page goes further than this file
                shown = kind.number_of(raw)
                if shown != number:
                    raise BadAnswer(f"store {store_id}: number {number} was due, not {shown}")
                yield bytes(raw) if self._plan.with_payloads else kind.without_payload(raw)
                number = next(due, None)

    async def _commitments(
        self, stream: PlannedStream, span: Span, path: str, whole: Whole
    ) -> AsyncGenerator[bytes, None]:
        """Those that reach into what is exported, up to the first that begins behind it."""
        start, query = 1, self._query(stream.store_id)
        while True:
            page = await self._page(path, {**query, "from": start, "limit": PAGE})
            for raw in page.commitments:
                place = decode(raw, _CommitmentPlace, path)
                if place.sequence_end > span.head_sequence:
                    return  # made of events that came after the start
                if place.sequence_start > span.through:
                    return
                if place.sequence_end >= span.first:
                    yield await whole(raw, uuid_text(uuid_bytes(place.batch_id)), query)
            if not page.has_more or page.next_from is None or page.next_from <= start:
                return
            start = page.next_from

    async def _with_leaves(self, raw: msgspec.Raw, batch_id: str, query: dict[str, Any]) -> bytes:
        path = f"/api/v1/ves/commitments/{batch_id}/leaves"
        leaves = decode(await self._client.ask("GET", path, query=query), _Leaves, path)
        return encode({**msgspec.json.decode(raw), "leaf_hashes": leaves.leaf_hashes})

    async def _with_state_roots(self, raw: msgspec.Raw, batch_id: str, query: dict[str, Any]) -> bytes:
        """The single one has them as numbers; its leaves are its events'."""
        path = f"/api/v1/commitments/{batch_id}"
        roots = decode(await self._client.ask("GET", path, query=query), _StateRoots, path)
        try:
            members = {name: bytes(getattr(roots, name)).hex() for name in roots.__struct_fields__}
        except ValueError as wrong:
            raise BadAnswer(f"{path}: {wrong}") from wrong
        return encode({**msgspec.json.decode(raw), **members})

    async def _proofs(self, stream: PlannedStream) -> AsyncGenerator[bytes, None]:
        """All about the commitments that were written, in their order, read back for a run that goes on."""
        file, query = self._folder / commitments_file(stream.store_id), self._query(stream.store_id)
        for number, line in lines_of(file):
            batch_id = uuid_text(uuid_bytes(decode(line, _CommitmentPlace, f"{file}:{number}").batch_id))
            path, more = f"/api/v1/ves/validity/{batch_id}/proofs", {**query, "limit": PROOFS_PAGE}
            while True:
                page = await self._page(path, more)
                for raw in page.proofs:
                    yield await self._proof(decode(raw, _ProofPlace, path), batch_id, query)
                if not page.has_more or page.next_after in (None, more.get("after")):
                    break
                more["after"] = page.next_after

    async def _proof(self, listed: _ProofPlace, batch_id: str, query: dict[str, Any]) -> bytes:
        path = f"/api/v1/ves/validity/proofs/{uuid_text(uuid_bytes(listed.proof_id))}"
        raw = await self._client.ask("GET", path, query=query)
        shown = decode(raw, _ProofPlace, path)
        if (shown.proof_id, shown.batch_id) != (listed.proof_id, batch_id):
            raise BadAnswer(f"{path}: a proof of batch {batch_id} was due, not {shown}")
        return raw


def _signed_number(raw: msgspec.Raw) -> int:
    return decode(raw, _EventNumber, _SIGNED.path).sequence_number


def _legacy_number(raw: msgspec.Raw) -> int:
    return decode(raw, _LegacyNumber, _LEGACY.path).envelope.sequence_number


def _signed_without_payload(raw: msgspec.Raw) -> bytes:
    event = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return encode(
        {name: part for name, part in event.items() if not name.startswith("payload")}
        | {name: event[name] for name in ("payload_kind", "payload_plain_hash", "payload_cipher_hash")}
    )


def _legacy_without_payload(raw: msgspec.Raw) -> bytes:
    event = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    envelope = msgspec.json.decode(event["envelope"], type=dict[str, msgspec.Raw])
    return encode({**event, "envelope": {name: part for name, part in envelope.items() if name != "payload"}})


_SIGNED = _Kind("/api/v1/ves/events", _signed_number, _signed_without_payload)
_LEGACY = _Kind("/api/v1/events", _legacy_number, _legacy_without_payload)
