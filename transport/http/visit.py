"""One request on its way through the door: its id, its caller, its deadline, its body and its bytes.

It alone reads request bodies, only when a handler asks and only as far as the limits allow. It decides
nothing about what is asked; it never outlives its request.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio

from actors.errors import MailboxFull
from actors.mailbox import Ref
from actors.messages import Message
from actors.rate_limits import Verdict
from actors.security_events import SecurityEvent
from journal.port import AuditEntry
from transport.http.asked import Asked, Lines
from transport.http.bodies import BODY_BYTES_MAX, read_json, read_path, read_query, require_json
from transport.http.callers import Caller
from transport.http.client_address import client_address
from transport.http.errors import ApiError, Code
from transport.http.limits import Pace
from ves.encoding import uuid_bytes
from ves.records import Uuid

if TYPE_CHECKING:
    from transport.house import House
    from transport.http.door import Door
    from transport.http.routing import Route

A = TypeVar("A")
S = TypeVar("S", bound=msgspec.Struct)
Receive = Callable[[], Awaitable[Any]]

ROOM_PATIENCE_S = 5.0
BODY_SHARE = 2 / 3
"""Of the request's time: a body that has not arrived by then leaves nothing for the work."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class ClientGone(Exception):
    """The caller did not wait: nobody is to be answered."""


class Visit:
    __slots__ = (
        "_body_let_go",
        "_held_bytes",
        "_path_values",
        "_receive",
        "_whole",
        "address",
        "asked",
        "caller",
        "deadline",
        "door",
        "events_taken",
        "method",
        "rate_verdict",
        "request_id",
        "route",
        "scope",
        "started_at",
        "status",
    )

    def __init__(
        self,
        door: Door,
        asked: Asked,
        receive: Receive,
        whole: bytes | None = None,
        scope: trio.CancelScope | None = None,
    ) -> None:
        """``whole``: the body, if it is here already. ``scope``: cancelled by whoever notices that the caller
        went away."""
        self.door = door
        self.asked = asked
        self.method = asked.method
        self.address = client_address(asked.peer, asked.lines, door.house.settings.trusted_proxies)
        """The client's IP address: the peer's, or what a trusted proxy says."""
        self.request_id = _request_id(asked.lines)
        self.started_at = time.perf_counter()
        self.deadline = trio.current_time() + door.house.settings.request_timeout_secs
        self.scope = scope or trio.CancelScope()
        """Of the work: one for both its ends, the caller's and the deadline, because each costs as much as a
        route's own work."""
        self.scope.deadline = self.deadline
        self.route: Route | None = None
        self.caller: Caller | None = None
        self.rate_verdict: Verdict | None = None
        """None until a rate limit was asked, and when there is none."""
        self.events_taken = 0
        """Of its tenant's, so far."""
        self.status = 0
        """0 until the reply's status is decided."""
        self._receive = receive
        self._whole = whole
        self._body_let_go = trio.Event()
        self._held_bytes: list[tuple[Uuid | None, int]] = []
        self._path_values: dict[str, str] = {}

    # What handlers use.

    @property
    def house(self) -> House:
        return self.door.house

    @property
    def declared_bytes(self) -> int | None:
        """Of the body, as the head says; None: nobody knows yet."""
        return self.asked.content_length if self._whole is None else len(self._whole)

    @property
    def remaining_s(self) -> float:
        """What is left of the request's time: the deadline of every ask."""
        return max(0.0, self.deadline - trio.current_time())

    @property
    def who(self) -> Caller:
        assert self.caller is not None, "a public route has no caller"
        return self.caller

    def query(self, shape: type[S]) -> S:
        return read_query(self.asked.query_string, shape)

    def path(self, shape: type[S]) -> S:
        return read_path(self._path_values, shape)

    async def json(self, shape: type[S]) -> S:
        return read_json(await self.body(bytes_max=BODY_BYTES_MAX), shape)

    async def ask(self, ref: Ref, message: Message[A], room: Pace) -> A:
        """The answer. While the mailbox is full, waits for ``room`` for a while: a refusal costs nearly as
        much as an answer, and callers who come back at once would take the time of those who are served.
        Raises MailboxFull after that, and what ``Ref.ask`` raises."""
        give_up_at: float | None = None
        while True:
            remaining_s = self.remaining_s
            try:
                return await ref.ask(message, deadline_s=remaining_s)
            except MailboxFull:
                now = trio.current_time()
                give_up_at = give_up_at or now + min(ROOM_PATIENCE_S, remaining_s / 2)
                patience_s = give_up_at - now
                if patience_s <= 0:
                    raise
            await room.turn(patience_s=patience_s)

    def stream(self, named: Any) -> tuple[Uuid, Uuid]:
        """The tenant and store a request names, checked against the caller's scope (403) at once."""
        tenant_id, store_id = self.uuid(named, "tenant_id"), self.uuid(named, "store_id")
        self.who.must_reach(tenant_id, store_id)
        return tenant_id, store_id

    @staticmethod
    def uuid(shape: Any, field: str) -> Uuid:
        try:
            return uuid_bytes(getattr(shape, field))
        except ValueError:
            raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: not a UUID") from None

    def optional_uuid(self, shape: Any, field: str) -> Uuid | None:
        return None if getattr(shape, field) is None else self.uuid(shape, field)

    def act(
        self, action: str, subject: str, tenant_id: Uuid | None, **details: str | int | None
    ) -> AuditEntry:
        """The audit entry of an act, to be written in the act's own transaction: there means done."""
        details |= {"request_id": self.request_id, "address": self.address, "outcome": "done"}
        return AuditEntry(self.who.name, action, subject, tenant_id, details)

    def alert(self, kind: SecurityEvent, /, **about: str | int | None) -> None:
        """A security event of this request: by whom, from where, in which request."""
        self.house.security.happened(
            kind, times=1, by=self.who.name, address=self.address, request_id=self.request_id, **about
        )

    async def audit(self, entry: AuditEntry) -> None:
        """Write the entry of an act that changes nothing else in the journal, before it is done. Raises what
        the journal raises, except on a route that works without the database: there it waits in the spool."""
        assert self.route is not None
        # What becomes of the act is not known yet.
        entry = msgspec.structs.replace(entry, details={**entry.details, "outcome": "begun"})
        resting = self.house.read_only is not None
        if self.route.works_without_database or resting:
            away = resting or "database" in self.house.readiness.reasons
            await self.house.audit_spool.write(entry, journal_away=away)
        else:
            await self.house.journal.audit(entry)

    async def body(self, *, bytes_max: int) -> bytes:
        """The whole body. 415, 413, 408, or 429 and 503 for too many bytes in flight: all before more of it
        is read than the limits allow. A caller who goes away meanwhile ends the visit."""
        require_json(self.asked.get("content-type"))
        declared = self.declared_bytes
        if declared is not None and declared > bytes_max:
            raise _too_large(bytes_max)
        if self._whole is not None:
            self.hold(len(self._whole))
            self.let_body_go()
            return self._whole
        self.hold(declared or 0)
        started = self.deadline - self.house.settings.request_timeout_secs
        with trio.move_on_at(started + self.house.settings.request_timeout_secs * BODY_SHARE):
            body = await self._read_body(bytes_max, counted=declared is not None)
            self.let_body_go()
            return body
        raise ApiError(Code.REQUEST_TIMEOUT, "the body did not arrive in time; nothing was done")

    async def _read_body(self, bytes_max: int, *, counted: bool) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.let_body_go(disconnected=True)
                await trio.sleep_forever()  # until the connection cancels this visit
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if chunk:
                chunks.append(chunk)
                if not counted:
                    self.hold(len(chunk))
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def hold(self, size: int) -> None:
        """Count so many bytes as in flight until the reply is sent. 429 or 503 when they are too many."""
        if size:
            tenant_id = self.caller.tenant_id if self.caller else None
            self.door.in_flight.reserve(tenant_id, size)
            self._held_bytes.append((tenant_id, size))

    # What the connection and the door use.

    def enter(self, route: Route, path_values: dict[str, str]) -> None:
        self.route = route
        self._path_values = path_values

    def let_body_go(self, *, disconnected: bool = False) -> None:
        """The handler reads no more of the body: the connection may throw the rest away."""
        if disconnected:
            self._receive = _gone
        self._body_let_go.set()

    async def until_disconnect(self) -> None:
        """Throw away what the handler does not want to read; returns when the caller has gone away."""
        await self._body_let_go.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def leave(self) -> None:
        for tenant_id, size in self._held_bytes:
            self.door.in_flight.release(tenant_id, size)
        self._held_bytes.clear()


async def _gone() -> Any:
    return {"type": "http.disconnect"}


def _too_large(bytes_max: int) -> ApiError:
    return ApiError(Code.PAYLOAD_TOO_LARGE, f"the body is larger than {bytes_max} bytes")


def _request_id(lines: Lines) -> str:
    """The caller's ``x-request-id`` if it is 1 to 128 of [A-Za-z0-9._-], else a fresh one."""
    for name, value in lines:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return os.urandom(16).hex()
