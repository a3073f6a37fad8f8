"""What is found below Quart is what its own routing finds, and is answered, logged and counted the same."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
import trio
from prometheus_client import generate_latest
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter

from tests.e2e.world import ROOMY
from tests.http.doubles import BOOTSTRAP, OTHER_TENANT, STREAM, Cardboard, stored
from tests.http.test_door_refusals import PATH_VALUES
from transport.http.app import ADMIN, PUBLIC
from transport.http.asked import Asked, scope_of
from transport.http.door import METHODS, FrontDoor
from transport.http.paths import Paths
from transport.http.permissions import NEEDED
from transport.http.rate_classes import CLASS_OF
from transport.http.routing import Route

HOSTILE = [
    *(
        "",
        ".",
        "..",
        "%2e%2e",
        "%2F",
        "a%2Fb",
        "%2f%2f",
        "%5c",
        "\\",
        "%",
        "%zz",
        "%00",
        "%0a",
        "%ff",
        "%C3%A9",
    ),
    *(
        "%C0%AF",
        "a+b",
        "a%20b",
        "a;b=c",
        "a:b",
        "a|b",
        "<x>",
        "{batch_id}",
        "[",
        "a,b",
        "@",
        "~",
        "#x",
        "&",
        "*",
    ),
    *("null", "-1", "01", "1.0", "1e3", "9" * 400, "x" * 3000, "PROOFS"),
]
EVERYWHERE = [
    *(
        "",
        "/",
        "//",
        "///",
        "*",
        "/*",
        "/api",
        "/api/v1/",
        "/api/v1/ves",
        "/..",
        "/./health",
        "/health/",
        "/HEALTH",
    ),
    *("//health", "/%68ealth", "/health%2F", "/health;x", "/api//v1/ves/proofs/1", "/api/v1/ves/proofs//1"),
    *("/api/v1/ves/./proofs/1", "/api/v1/ves/proofs/..", "/x", "//elsewhere/api/v1/ves/proofs/1"),
    *("/%61pi/v1/ves/proofs/1", "/API/v1/ves/proofs/1", "///api/v1/ves/proofs/1", "/api/v1/ves/proofs/1/2"),
    "/api/v1/ves/validity/proofs/proofs",
    "/api/v1/ves/validity/proofs/inputs",
    "/api/v1/ves/validity/proofs/verify/verify",
    "/api/v1/ves/events/ingest/evidence",
    "/api/v1/schemas/event-type/latest",
    "/api/v1/schemas/event-type/status",
    "/api/v1/schemas/validate/status",
    "/api/v1/agents/keys/rotate/keys",
    "/api/v1/admin/actors/dead-letters/dead-letters/resend",
]


def paths_of(routes: Sequence[Route]) -> list[str]:
    """Every route's path with every hostile value in every place, and each bent in the usual ways."""
    words = sorted({word for route in routes for word in route.path.split("/") if "{" not in word})
    found = [*EVERYWHERE]
    for route in routes:
        plain = filled(route.path)
        bent = [
            f"{plain}/",
            f"/{plain}",
            plain.replace("/", "//"),
            plain[1:],
            f"{plain}/x",
            plain.rpartition("/")[0],
        ]
        found += [plain, *bent, plain.upper(), f"{plain}%2F", f"{plain}.", plain.replace("/api", "/api/.")]
        for name in names_in(route.path):
            found += [filled(route.path.replace(name, value)) for value in (*HOSTILE, *words)]
    return sorted(set(found))


def filled(path: str, there: dict[str, str] | None = None) -> str:
    for name, value in (PATH_VALUES | (there or {})).items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


def names_in(path: str) -> list[str]:
    return [part for part in path.split("/") if part.startswith("{")]


def as_quart_routes(app: FrontDoor, method: str, path: str) -> tuple[str, dict[str, Any]] | HTTPException:
    """The endpoint and its values."""
    adapter = MapAdapter(app.url_map, "localhost", "/", "", "http", "/" + path.lstrip("/"), method, b"")
    try:
        endpoint, values = adapter.match()
    except HTTPException as refusal:
        return refusal
    return endpoint, dict(values)


def compare(app: FrontDoor, method: str, path: str) -> bool:
    """Whether it is found below Quart. If not, Quart finds nothing either, or it is Quart's by rule."""
    found, quart = app._paths.find(method, path), as_quart_routes(app, method, path)
    if found is not None:
        route, values = found
        assert quart == (f"{route.method} {route.path}", values), (method, path)
        return True
    if isinstance(quart, HTTPException):
        assert isinstance(quart, MethodNotAllowed | NotFound), (method, path)
    else:
        wrong_method = quart[0].startswith("not /")
        other_spelling = method in ("HEAD", "get") or path.startswith("//") or not path.startswith("/")
        assert wrong_method or other_spelling, (method, path, quart)
    return False


@pytest.mark.parametrize("admin", [False, True])
def test_a_path_is_found_where_quart_finds_it(admin: bool) -> None:
    house = Cardboard()
    app = house.admin if admin else house.public
    routes = ADMIN if admin else PUBLIC
    found = {
        (m, p) for p in paths_of(routes) for m in sorted({*METHODS, "BREW", "get"}) if compare(app, m, p)
    }
    assert found >= {(route.method, filled(route.path)) for route in routes}, (
        "every route is found below Quart"
    )
    assert not [method for method, _ in found if method in ("HEAD", "OPTIONS", "BREW", "get")]


@pytest.mark.parametrize("seed", range(4))
def test_nor_do_routes_lead_elsewhere_when_words_of_others_stand_in_them(seed: int) -> None:
    chance, house = random.Random(seed), Cardboard()
    for app, routes in ((house.public, PUBLIC), (house.admin, ADMIN)):
        words = sorted({word for route in routes for word in route.path.split("/")} | {"1", "%2F"})
        found = 0
        for _ in range(1500):
            parts = chance.choice(routes).path.split("/")
            path = "/".join(chance.choice(words) if chance.random() < 0.25 else part for part in parts)
            found += compare(app, chance.choice(("GET", "POST", "PUT", "DELETE")), path)
        assert found > 50


def test_a_parameter_is_a_whole_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/a/x-{id}", "/a/{Id}", "/a/{id", "/a/{id}{id}"):
        monkeypatch.setitem(NEEDED, ("GET", path), ("read",))
        monkeypatch.setitem(CLASS_OF, ("GET", path), "events_read")
        route = Route("GET", path, handle=None, summary="", answers=None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="whole segment"):
            Paths([route])


# ---- answered the same

WAYS = ("below, front-end", "below, ASGI", "through Quart")
ALLOWED, STRANGE = "192.0.2.7", "203.0.113.9"
"""Addresses, to the admin listener."""


class Asking(NamedTuple):
    app: FrontDoor
    method: str
    path: str
    key: str | None
    peer: str = ALLOWED


async def told_by(house: Cardboard, asking: Asking, *, asgi: bool) -> dict[str, Any]:
    """Everything the house tells of a request, but what differs from one to the next of the same kind."""
    app, method, path, key, peer = asking
    lines = [(b"host", b"x"), (b"x-request-id", b"mine"), (b"content-type", b"application/json")]
    lines += [] if key is None else [(b"authorization", b"ApiKey " + key.encode())]
    query = "&".join(f"{name}={value}" for name, value in STREAM.items()).encode()
    asked = Asked(method, path, query, lines, peer, "http")
    body = [{"type": "http.request", "body": b"{}", "more_body": False}]
    messages: list[Any] = []

    async def receive() -> Any:
        if not body:
            await trio.sleep_forever()
        return body.pop()

    async def send(*answer: Any) -> None:
        messages.append(answer[0] if asgi else {"status": answer[0], "headers": answer[1], "body": answer[2]})

    audited, happened = len(house.journal.audits), dict(house.security.counts)
    with structlog.testing.capture_logs() as logs, trio.fail_after(5):
        await (
            app(scope_of(asked), receive, send)
            if asgi
            else app.serve(asked, receive, send, None, trio.CancelScope())
        )
    answer = {name: value for message in messages for name, value in message.items()}
    headers = {name: b"" if name in PASSING else value for name, value in answer["headers"]}
    assert len(headers) == len(answer["headers"]), "a header twice"
    return {
        "status": answer["status"],
        "headers": headers,
        "body": answer["body"],
        # Security events are told once in a while, and counted each time.
        "logs": [{n: v for n, v in line.items() if n != "ms"} for line in logs if "kind" not in line],
        "security": {kind: n - happened.get(kind, 0) for kind, n in house.security.counts.items()},
        "audits": [
            msgspec.structs.replace(entry, details={**entry.details, "audit_id": ""})
            for entry in house.journal.audits[audited:]
        ],
    }


PASSING = (b"ratelimit-remaining", b"ratelimit-reset")


def askings(house: Cardboard, batch_id: str) -> Iterator[Asking]:
    """Of every route with parameters: by everybody, with hostile values, and with other methods."""
    key = house.api_key("read", "write", "admin")
    callers = [
        key,
        house.api_key("read"),
        house.api_key("read", tenant=OTHER_TENANT),
        "ss_nobody",
        BOOTSTRAP,
        None,
    ]
    there = {"event_id": str(uuid.UUID(bytes=house.journal.events[0].receipt.event_id)), "batch_id": batch_id}
    for app, routes in ((house.public, PUBLIC), (house.admin, ADMIN)):
        for route in (route for route in routes if "{" in route.path):
            usual = filled(route.path, there)
            caller = BOOTSTRAP if app is house.admin else key
            yield from (Asking(app, route.method, usual, whoever) for whoever in callers)
            yield Asking(app, route.method, usual, caller, STRANGE)
            yield from (Asking(app, method, usual, caller) for method in ("HEAD", "OPTIONS", "PATCH", "BREW"))
            bent = [f"{usual}/", f"/{usual}", f"{usual}%2F"]
            bent += [
                filled(route.path.replace(name, value), there)
                for name in names_in(route.path)
                for value in ("", "..", "%2F", "%zz", "%ff", "%00", "null", "x" * 3000, filled(name))
            ]
            yield from (Asking(app, route.method, path, caller) for path in bent)


async def test_what_passes_below_quart_is_answered_logged_and_counted_as_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roomy = {name.lower(): value for name, value in ROOMY.items()}
    house = Cardboard({"admin_ip_allowlist": "192.0.2.0/24", **roomy})
    house.journal.events = [stored(n) for n in (1, 2, 3)]
    batch = house.journal.commit([bytes([n]) * 32 for n in (1, 2, 3)], 1)
    all_askings = list(askings(house, str(uuid.UUID(bytes=batch.batch_id))))
    told, counts, passed = [], [], 0
    for way in WAYS:
        if way.startswith("through"):
            for app in (house.public, house.admin):
                monkeypatch.setattr(app._paths, "find", lambda method, path: None)
        passed += sum(one.app._paths.find(one.method, one.path) is not None for one in all_askings)
        told.append([await told_by(house, asking, asgi=way.endswith("ASGI")) for asking in all_askings])
        counts.append(requests_counted(house))
    for asking, *each in zip(all_askings, *told, strict=True):
        for way, one in zip(WAYS[1:], each[1:], strict=True):
            assert one == each[0], (asking.method, asking.path, asking.peer, way)
    assert counts[-1] == {name: len(WAYS) * count for name, count in counts[0].items()}
    assert passed > 1000
    statuses = {one["status"] for one in told[0]}
    assert statuses >= {200, 400, 401, 403, 404, 405, 422}, statuses


def requests_counted(house: Cardboard) -> dict[str, int]:
    text = generate_latest(house.public.door.metrics.registry).decode()
    lines = [
        line.rpartition(" ") for line in text.splitlines() if line.startswith("sequencer_http_requests_total")
    ]
    return {name: int(float(count)) for name, _, count in lines}
