"""A small HTTP server that plays a sequencer: the auditor's honest one behind it, failures in front of it.

Real sockets, h11, one connection per request. ``script`` says what happens to the coming requests to a path,
one entry each; when it is empty, the honest answer. Every body that was received whole is remembered.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from tests.auditor.honest import Honest

INGEST = "/api/v1/ves/events/ingest"
Json = dict[str, Any]
Wire = trio.SocketStream | trio.SSLStream[trio.SocketStream]


def _start(commitment: Json) -> int:
    return int(commitment["sequence_start"])


class Fails:
    """One scripted answer: a status, or a connection that is lost before or after the work is done."""

    def __init__(
        self,
        status: int = 0,
        *,
        lost: Literal["before", "after", "halfway"] | None = None,
        hang: bool = False,
        body: bytes = b"",
        **headers: str,
    ) -> None:
        self.status, self.lost, self.hang, self.body = status, lost, hang, body
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]


class PlayedSequencer:
    """State of the play. ``spoil`` may change any honest answer before it leaves, by path."""

    def __init__(self) -> None:
        self.honest = Honest()
        self.url = ""
        self.script: dict[str, deque[Fails]] = defaultdict(deque)
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        self.authorizations: list[str | None] = []
        self.tenants_named: dict[str, list[bytes | None]] = defaultdict(list)
        """X-Tenant-Id of each request, by path."""
        self.registered: list[Json] = []
        self.spoil: dict[str, Callable[[Any], Any]] = {}
        self.page = 1000

    # ---- the honest answers

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        status, answer = self._route(method, url.path, query, body)
        if url.path in self.spoil:
            answer = self.spoil[url.path](answer)
        return status, answer

    def _route(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        honest = self.honest
        match [method, *path.strip("/").split("/")]:
            case ["POST", "api", "v1", "ves", "events", "ingest"]:
                return 200, self._ingest(json.loads(body))
            case ["GET", "api", "v1", "ves", "events"]:
                return 200, self._page(honest.events, "events", lambda e: e["sequence_number"], query) | {
                    "head_sequence": honest.head
                }
            case ["GET", "api", "v1", "ves", "streams"]:
                done = honest.commitments[-1]["sequence_end"] if honest.commitments else 0
                numbers = {"head_sequence": honest.head, "committed_through": done}
                unsigned = {"legacy_head_sequence": len(honest.unsigned)}
                streams = [{"store_id": honest.store_id, **numbers, **unsigned}]
                return 200, {"streams": streams, "count": 1, "has_more": False, "next_after": None}
            case ["GET", "api", "v1", "schemas"]:
                return 200, {"schemas": [{"eventType": "x"}], "count": 1, "hasMore": False, "nextAfter": None}
            case ["GET", "api", "v1", "ves", "head"]:
                voided = [{"first_number": first, "last_number": last} for first, last in honest.voided]
                return 200, {"head_sequence": honest.head, "voided": voided}
            case ["GET", "api", "v1", "head"]:
                return 200, {"head_sequence": len(honest.unsigned)}
            case ["GET", "api", "v1", "events"]:
                return 200, self._page(
                    honest.unsigned, "events", lambda e: e["envelope"]["sequence_number"], query
                )
            case ["GET", "api", "v1", "commitments"]:
                return 200, self._page(honest.unsigned_commitments, "commitments", _start, query)
            case ["GET", "api", "v1", "commitments", batch_id]:
                one = next(c for c in honest.unsigned_commitments if c["batch_id"] == batch_id)
                roots = ("prev_state_root", "new_state_root")
                return 200, one | {name: list(bytes.fromhex(one[name])) for name in roots}
            case ["GET", "api", "v1", "ves", "validity", "proofs", proof_id]:
                return 200, next(p for p in honest.validity_proofs if p["proof_id"] == proof_id)
            case ["GET", "api", "v1", "ves", "validity", batch_id, "proofs"]:
                return 200, self._proofs(batch_id, query.get("after", ""))
            case ["GET", "api", "v1", "ves", "commitments"]:
                return 200, self._page(honest.commitments, "commitments", _start, query)
            case ["GET", "api", "v1", "ves", "commitments", batch_id, "leaves"]:
                return 200, {"leaf_hashes": honest.leaves[batch_id]}
            case ["GET", "api", "v1", "ves", "commitments", batch_id]:
                return 200, next(c for c in honest.commitments if c["batch_id"] == batch_id)
            case ["POST", "api", "v1", "ves", "commitments"]:
                done = honest.commitments[-1]["sequence_end"] if honest.commitments else 0
                if done == len(honest.events):
                    return 409, _error("CONFLICT", "there is nothing to commit")
                return 200, honest.commit() | {"remaining": 0}
            case ["GET", "api", "v1", "ves", "proofs", number]:
                done = honest.commitments[-1]["sequence_end"] if honest.commitments else 0
                if int(number) > done:
                    return 404, _error("RESOURCE_NOT_FOUND", f"number {number} is not committed")
                return 200, honest.proof(int(number))
            case ["POST", "api", "v1", "agents", "keys"]:
                self.registered.append(json.loads(body))
                return 200, {"success": True}
            case ["GET", "api", "v1", "agents", _, "keys"]:
                key = "0x" + honest.agent_key.public_key().public_bytes_raw().hex()
                entry = {"keyId": 1, "publicKey": key, "validFrom": None, "validTo": None}
                return 200, {"keys": [entry], "count": 1, "has_more": False, "next_from": 2}
            case ["GET", ".well-known", "ves-sequencer"]:
                return 200, self.well_known()
            case ["GET", "health"]:
                return 200, {"status": "healthy", "service": "played", "version": "0", "timestamp": ""}
            case ["GET", "ready"]:
                return 200, {"status": "ready", "database": {"connected": True, "response_time_ms": 1}}
        return 404, _error("RESOURCE_NOT_FOUND", "no such path")

    def well_known(self) -> Json:
        key = "0x" + self.honest.sequencer_key.public_key().public_bytes_raw().hex()
        name = {"sequencer_id": self.honest.sequencer_id}
        return name | {
            "receipt_keys": [name | {"key_version": 1, "alg": "ed25519", "public_key": key, "active": True}]
        }

    def _ingest(self, body: Json) -> Json:
        before = len(self.honest.events)
        receipts, replayed = [], 0
        for event in body["events"]:
            known = next((e for e in self.honest.events if e["event_id"] == event["event_id"]), None)
            replayed += known is not None
            receipts.append((known or self.honest.accept(event))["receipt"])
        after = len(self.honest.events)
        return {
            "batchId": self.honest.store_id,
            "eventsAccepted": after - before,
            "eventsReplayed": replayed,
            "eventsRejected": 0,
            "sequenceStart": before + 1 if after > before else None,
            "sequenceEnd": after if after > before else None,
            "headSequence": after,
            "receipts": receipts,
        }

    def _proofs(self, batch_id: str, after: str) -> Json:
        of_it = [p for p in self.honest.validity_proofs if p["batch_id"] == batch_id]
        page = [p for p in of_it if p["proof_id"] > after][:1]
        more = bool(page) and page[-1] is not of_it[-1]
        return {"proofs": page, "has_more": more, "next_after": page[-1]["proof_id"] if more else None}

    def _page(
        self, of: list[Json], member: str, number_of: Callable[[Json], int], query: dict[str, str]
    ) -> Json:
        start, limit = int(query.get("from", 1)), min(int(query.get("limit", 100)), self.page)
        due = [one for one in of if number_of(one) >= start]
        page = due[:limit]
        next_from = number_of(page[-1]) + 1 if page else max(start, 1)
        return {member: page, "count": len(page), "has_more": len(due) > limit, "next_from": next_from}

    # ---- the wire

    async def serve(self, stream: Wire) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            request, body = await _request(connection, stream)
            if request is None:
                return
            path = urlsplit(request.target.decode()).path
            headers = dict(request.headers)
            self.bodies[path].append(body)
            self.tenants_named[path].append(headers.get(b"x-tenant-id"))
            credential = headers.get(b"authorization")
            self.authorizations.append(credential.decode() if credential else None)
            fails = self.script[path].popleft() if self.script[path] else None
            if fails is not None and fails.hang:
                await trio.sleep(math.inf)
            if fails is not None and fails.lost == "before":
                return
            if fails is not None and fails.status:
                await _send(connection, stream, fails.status, fails.body, fails.headers)
                return
            status, answer = self.answer(request.method.decode(), request.target.decode(), body)
            if fails is not None and fails.lost == "after":
                return
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            cut = len(raw) // 2 if fails is not None and fails.lost == "halfway" else None
            await _send(connection, stream, status, raw, [("content-type", "application/json")], cut)


async def _request(connection: h11.Connection, stream: Wire) -> tuple[h11.Request | None, bytes]:
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            except trio.BrokenResourceError:
                return None, b""
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request, body
        else:
            return None, b""


async def _send(
    connection: h11.Connection,
    stream: Wire,
    status: int,
    body: bytes,
    headers: list[tuple[str, str]],
    cut: int | None = None,
) -> None:
    head = [*headers, ("content-length", str(len(body))), ("connection", "close")]
    out = connection.send(h11.Response(status_code=status, headers=head)) or b""
    await stream.send_all(out + body[:cut])


def _error(code: str, message: str) -> Json:
    return {
        "error": {"code": code, "numeric_code": 0, "message": message, "request_id": "r-1"},
        "message": message,
    }


@asynccontextmanager
async def played_sequencer() -> AsyncIterator[PlayedSequencer]:
    """The play on a free port of 127.0.0.1 until the block ends."""
    play = PlayedSequencer()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, play.serve, 0, host="127.0.0.1"))
        port = next(one.socket.getsockname()[1] for one in listeners)
        play.url = f"http://127.0.0.1:{port}"
        yield play
        nursery.cancel_scope.cancel()
