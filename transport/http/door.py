"""The door: takes each request through authentication, permission, rate limit and work, in this order.

Every answer leaves through here, every error in the one shape, every request with one line in the log and
one count in the metrics. Nothing is decided here that a route could decide, and no actor or journal is asked
for anything but credentials and audit entries.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import Any, cast

import msgspec
import structlog
import trio
from opentelemetry.trace import Span
from quart import Response, request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from config.networks import Networks
from transport.house import House
from transport.http import rates
from transport.http.about import DatabasePulse
from transport.http.anchor_metrics import AnchorNumbers
from transport.http.anchor_waits import AnchorWaits
from transport.http.asked import Asked, asked_in, scope_of
from transport.http.callers import Caller, authenticate
from transport.http.client_address import is_allowed
from transport.http.errors import EXPECTED, ApiError, Code, answer_to, internal_error
from transport.http.headers import OVER_TLS, security_headers
from transport.http.limits import BytesInFlight, LargeBodies, Pace, Turns
from transport.http.longpoll import Heads
from transport.http.metrics import Metrics
from transport.http.paths import Found, Paths
from transport.http.patience import TOLD_TOO_MANY_AFTER_S
from transport.http.permissions import OPERATOR, holds
from transport.http.residency import must_be_served_here
from transport.http.resting import must_not_write
from transport.http.routing import JSON, Reply, Route
from transport.http.tracing import describe, request_span
from transport.http.visit import ClientGone, Receive, Visit
from ves.encoding import uuid_text

LOOKS_FOR_ROOM_PER_S = 500.0
"""Of all requests together that wait for room at the verifiers; and of those that wait at the sequencers: few
and half done, they do not queue behind the many."""
PAGES_MAX = 8
"""Pages of events being read and opened at a time; others wait for their turn."""
CHAIN_LOOKS_MAX = 4
"""Looks at the chain at a time, all tenants together: endpoints have quotas."""
VISIT = "sequencer.visit"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
FORBIDDEN = 403
CLIENT_GONE = 499
"""In logs and metrics only: the caller did not wait for the answer."""

log = structlog.get_logger("http")
_encode = msgspec.json.Encoder().encode
_random = SystemRandom()

Send = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None]]
"""Status, headers, body: the whole answer."""


class Door:
    """What all requests of a node share."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.in_flight = BytesInFlight(
            tenant_bytes_max=house.settings.tenant_bytes_in_flight_max,
            node_bytes_max=house.settings.node_bytes_in_flight_max,
        )
        self.large_bodies = LargeBodies(max(1, house.settings.verifier_count - 1))
        self.anchor_numbers = AnchorNumbers(house)
        self.metrics = Metrics(self.in_flight, house, self.anchor_numbers)
        self.heads = Heads(house.journal)
        self.room_at_verifiers = Pace(per_s=LOOKS_FOR_ROOM_PER_S)
        self.room_at_sequencers = Pace(per_s=LOOKS_FOR_ROOM_PER_S)
        self.pages = trio.Semaphore(PAGES_MAX)
        self.at_schema_checker = Turns("other schemas of your tenant are being tried")
        self.at_chain = Turns("another anchor of your tenant is being looked up")
        self.chain_looks = trio.Semaphore(CHAIN_LOOKS_MAX)
        self.anchor_waits = AnchorWaits(house.journal)
        self.pulse = DatabasePulse(house.journal)
        self.rates = rates.RateCheck(house.rate_limits, house.security)

    async def answer(self, visit: Visit) -> Reply:
        """The reply of a route that was found. Raises ClientGone when nobody is there to hear it."""
        try:
            with visit.scope:
                return await self._through(visit)
            raise trio.TooSlowError if visit.remaining_s == 0 else ClientGone
        except ApiError as refusal:
            if refusal.status == FORBIDDEN:
                self._tell_denied(visit, refusal)
            return error_reply(refusal, visit.request_id)
        except EXPECTED as reason:
            text = f"{type(reason).__name__}: {reason}"
            log.warning("not now", request_id=visit.request_id, route=_template(visit), reason=text)
            return error_reply(answer_to(reason, operator=_is_operator(visit)), visit.request_id)

    def _tell_denied(self, visit: Visit, refusal: ApiError) -> None:
        self.house.security.happened(
            "permission_denied",
            who=visit.caller.name if visit.caller else None,
            address=visit.address,
            request_id=visit.request_id,
            route=f"{visit.method} {_template(visit)}",
            what=refusal.message,
        )

    async def _through(self, visit: Visit) -> Reply:
        route = visit.route
        assert route is not None
        if route.needed:
            await self._admit(visit, route)
        else:
            self.rates.unknown(visit, route.rate_class)
        if route.body_shape is None:
            visit.let_body_go()
        answer = await route.handle(visit)
        if isinstance(answer, Reply):
            return answer
        body = _encode(answer)
        if route.body_shape is None:
            visit.hold(len(body))
        return Reply(body, route.status)

    async def _admit(self, visit: Visit, route: Route) -> None:
        try:
            caller = await self._permitted(visit, route)
        except ApiError as refusal:
            self.rates.unknown(visit)  # its address has so many failures
            if refusal.status == Code.RATE_LIMIT_EXCEEDED.status:
                visit.rate_verdict = None  # it waits for something else than this bucket
            raise
        self.rates.known(visit, caller, route.rate_class)
        if route.rate_class == "events_ingest" and caller.tenant_id is not None:
            self.rates.tenant(visit, caller.tenant_id)
        must_not_write(self.house, route)
        await self._audit_bootstrap(visit, route)

    async def _permitted(self, visit: Visit, route: Route) -> Caller:
        visit.caller = await authenticate(visit.asked, self.house, visit.address)
        visit.caller.must_hold(route.needed)
        if visit.caller.tenant_id is not None:
            await must_be_served_here(self.house, visit.caller.tenant_id)
        return visit.caller

    async def _audit_bootstrap(self, visit: Visit, route: Route) -> None:
        """Every use of the bootstrap key leaves a trace, before anything is done with it."""
        if visit.caller is not None and visit.caller.is_bootstrap:
            await visit.audit(visit.act("credential.use", f"{route.method} {route.path}", None))

    def left(self, visit: Visit, span: Span) -> None:
        """The request is over, answered or abandoned."""
        visit.leave()
        seconds = time.perf_counter() - visit.started_at
        status = visit.status or CLIENT_GONE
        method = visit.route.method if visit.route else "other"
        self.metrics.answered(method, _template(visit), status, seconds)
        describe(span, method, _template(visit), status, visit.request_id)
        caller = visit.caller
        log.info(
            "request",
            method=method,
            route=_template(visit),
            status=status,
            ms=round(seconds * 1000, 2),
            address=visit.address,
            request_id=visit.request_id,
            tenant=uuid_text(caller.tenant_id) if caller and caller.tenant_id else None,
            caller=caller.name if caller else None,
        )


def error_reply(error: ApiError, request_id: str) -> Reply:
    return Reply(error.body(request_id), error.status, JSON, tuple(error.headers()))


def _is_operator(visit: Visit) -> bool:
    return visit.caller is not None and holds(visit.caller.permissions, (OPERATOR,))


def _template(visit: Visit) -> str:
    return visit.route.path if visit.route else "unmatched"


class FrontDoor(QuartTrio):
    """The Quart application of one listener: dispatches, and shapes what Quart itself has to say."""

    def __init__(self, door: Door, routes: Sequence[Route], *, allowed: Networks = ()) -> None:
        """``allowed``: only callers from there are heard; empty: all are."""
        super().__init__("sequencer", static_folder=None)
        self.door = door
        self._headers = security_headers(over_tls=door.house.settings.tls_terminated_by_proxy)
        self._allowed = allowed
        if allowed:
            self.before_request(self._hear_only_the_allowed)
        self.asgi_http_class = Connection
        self.url_map.merge_slashes = False
        self.config.update(RESPONSE_TIMEOUT=None, MAX_CONTENT_LENGTH=None, PROPAGATE_EXCEPTIONS=False)
        self.register_error_handler(HTTPException, self._on_http_exception)
        self.register_error_handler(Exception, self._on_surprise)
        self._paths = Paths(routes)
        for path, methods in self._paths.own.items():
            # A path of its own beats a pattern: GET …/events/ingest is a wrong method, not event «ingest».
            others = sorted(METHODS - methods)
            self.add_url_rule(
                path, f"not {path}", _wrong_method, methods=others, provide_automatic_options=False
            )
        for route in routes:
            rule = route.path.replace("{", "<").replace("}", ">")
            endpoint = f"{route.method} {route.path}"
            self.add_url_rule(
                rule,
                endpoint,
                self._view(route),
                methods=[route.method],
                provide_automatic_options=False,
            )

    def _view(self, route: Route):  # type: ignore[no-untyped-def]
        async def view(**path_values: str) -> Response:
            visit = _visit()
            visit.enter(route, path_values)
            return _response(await self.door.answer(visit))

        return view

    def create_url_adapter(self, request):  # type: ignore[no-untyped-def]
        """Matching looks at method and path only: a Host header, however odd, changes nothing."""
        if request is None:
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, "localhost", "/", "", "http", request.path, request.method, request.query_string
        )

    async def _hear_only_the_allowed(self) -> Response | None:
        reply = self._unheard(_visit())
        return None if reply is None else _response(reply)

    def _unheard(self, visit: Visit) -> Reply | None:
        """Before anything else: others learn neither which routes there are nor whether a key is good."""
        if not self._allowed or is_allowed(visit.address, self._allowed):
            return None
        self.door.house.security.happened("permission_denied", address=visit.address, what="admin listener")
        return error_reply(ApiError(Code.ADMIN_IP_DENIED, "admin access denied"), visit.request_id)

    def headers_of(self, visit: Visit) -> list[tuple[bytes, bytes]]:
        """Those of every answer, whatever it says."""
        headers = [*(self._headers if visit.asked.scheme == "http" else OVER_TLS)]
        if visit.rate_verdict is not None:
            headers += rates.headers(visit.rate_verdict)
        headers.append((b"x-request-id", visit.request_id.encode()))
        return headers

    async def _reply(self, visit: Visit, found: Found) -> Reply:
        """The whole answer of a route that was found below Quart: what its dispatching does above."""
        try:
            if (unheard := self._unheard(visit)) is not None:
                return unheard
            visit.enter(*found)
            return await self.door.answer(visit)
        except ClientGone:
            raise
        except Exception as error:  # the door: no surprise gets past it, and no word of it
            return self._surprised(visit, error)

    async def serve(
        self, asked: Asked, receive: Receive, send: Send, whole: bytes | None, scope: trio.CancelScope
    ) -> None:
        """One request of a front-end: what our own table of paths finds passes below Quart (ADR 32), the rest
        through it. ``whole``: the body, which ``receive`` answers too. ``scope`` is cancelled when the client
        goes away."""
        found = self._paths.find(asked.method, asked.path)
        if found is None:
            with scope:
                await super().__call__(scope_of(asked), receive, _Collecting(send))  # type: ignore[arg-type]
        else:
            await self._serve_found(found, Visit(self.door, asked, receive, whole, scope), send)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The same for an ASGI server."""
        found = None
        if scope["type"] == "http":
            found = self._paths.find(scope["method"], scope["raw_path"].decode("ascii"))
        if found is None:
            await super().__call__(scope, receive, send)
        else:
            visit = Visit(self.door, asked_in(scope), receive)
            await self._serve_found(found, visit, partial(_send, send), watched=True)

    async def _serve_found(self, found: Found, visit: Visit, send: Send, *, watched: bool = False) -> None:
        """``watched``: nobody cancels us when the client goes away."""
        with request_span(visit.asked, visit.method) as span:
            try:
                if watched:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_when_gone, visit, nursery.cancel_scope)
                        await self._answer_found(found, visit, send)
                        nursery.cancel_scope.cancel("answered")
                else:
                    await self._answer_found(found, visit, send)
            except ClientGone:
                pass
            finally:
                self.door.left(visit, span)

    async def _answer_found(self, found: Found, visit: Visit, send: Send) -> None:
        reply = await self._reply(visit, found)
        visit.status = reply.status
        visit.let_body_go()
        if reply.status == Code.RATE_LIMIT_EXCEEDED.status:
            await _hold_back()
        await send(reply.status, _lines(reply) + self.headers_of(visit), reply.body)

    async def _on_http_exception(self, error: HTTPException) -> Response:
        visit = _visit()
        refusal = _as_api_error(error, self._paths.own.get(request.path))
        try:
            self.door.rates.unknown(visit)
        except ApiError as too_many:
            await _hold_back()
            refusal = too_many
        return _response(error_reply(refusal, visit.request_id))

    async def _on_surprise(self, error: Exception) -> Response:
        """Whatever nobody expected: in the log once, with the request id; outside no word of it."""
        return _response(self._surprised(_visit(), error))

    def _surprised(self, visit: Visit, error: Exception) -> Reply:
        log.error("internal error", request_id=visit.request_id, route=_template(visit), exc_info=error)
        return error_reply(internal_error(), visit.request_id)


async def _hold_back() -> None:
    """Whoever is over a limit."""
    await trio.sleep(_random.uniform(*TOLD_TOO_MANY_AFTER_S))


async def _wrong_method() -> Response:
    raise MethodNotAllowed


def _visit() -> Visit:
    visit: Visit = cast(Any, request.scope)[VISIT]
    return visit


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status, content_type=reply.content_type)
    for name, value in reply.headers:
        response.headers[name] = value
    return response


def _lines(reply: Reply) -> list[tuple[bytes, bytes]]:
    lines = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", b"%d" % len(reply.body)),
    ]
    lines += [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    return lines


async def _send(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Collecting:
    """ASGI's two messages of an answer become one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Any = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif not message.get("more_body"):  # the door answers whole, as Connection does
            await self._send(self._start["status"], self._start["headers"], message["body"])


async def _cancel_when_gone(visit: Visit, scope: trio.CancelScope) -> None:
    await visit.until_disconnect()
    scope.cancel("the client went away")


def _as_api_error(error: HTTPException, allowed: set[str] | None) -> ApiError:
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(allowed or error.valid_methods or ()))
        text = f"this path answers {allow}" if allow else "method not allowed"
        return ApiError(Code.METHOD_NOT_ALLOWED, text, headers=(("allow", allow),))
    return ApiError(Code.RESOURCE_NOT_FOUND, "no such path")


class Connection(TrioASGIHTTPConnection):
    """One request as Quart's ASGI layer sees it.

    Quart reads every body as fast as it comes; here it is read only when a handler asks, and what nobody
    asked for is thrown away while the answer is being sent.
    """

    app: FrontDoor

    async def __call__(self, receive: Receive, send):  # type: ignore[no-untyped-def]
        visit = Visit(self.app.door, asked_in(self.scope), receive)
        self.visit = visit
        cast(Any, self.scope)[VISIT] = visit
        # Path parameters are percent-decoded one by one later, so that %2F may stand in them.
        self.scope["path"] = visit.asked.path
        with request_span(visit.asked, visit.method) as span:
            try:
                await super().__call__(receive, send)
            finally:
                self.app.door.left(visit, span)
                # The circle is opened here, or thousands of requests wait for the garbage collector.
                cast(Any, self.scope).pop(VISIT, None)
                del self.visit

    async def handle_messages(self, nursery: trio.Nursery, request, receive: Receive) -> None:  # type: ignore[no-untyped-def,override]
        await self.visit.until_disconnect()
        nursery.cancel_scope.cancel("the client went away")

    async def _send_response(self, send, response) -> None:  # type: ignore[no-untyped-def]
        visit = self.visit
        visit.status = response.status_code
        visit.let_body_go()
        body = await response.get_data(as_text=False)
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        headers += self.app.headers_of(visit)
        await _send(send, response.status_code, headers, body)
