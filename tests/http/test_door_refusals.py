"""What the door refuses, in which order, and in which shape: the authentication matrix and every error."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import msgspec
import pytest
import structlog
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from actors import errors
from journal.port import JournalAway, JournalOutcomeUnknown
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_STORE,
    OTHER_TENANT,
    STORE,
    STREAM,
    TENANT,
    serving,
)
from transport.http.app import ADMIN, PUBLIC
from transport.http.errors import Code, ErrorBody
from transport.http.limits import Pace
from transport.http.permissions import NEEDED, holds, of_flags
from transport.http.routing import Route

NO_SUCH = "77777777-7777-4777-8777-777777777777"
PATH_VALUES = {
    "key_id": 1,
    "event_id": NO_SUCH,
    "batch_id": NO_SUCH,
    "agent_id": str(AGENT),
    "id": NO_SUCH,
    "key_prefix": "0123456789abcdef",
    "entity_type": "order",
    "entity_id": "o-1",
    "sequence_number": "1",
    "node_id": NO_SUCH,
    "entry_number": "1",
    "schema_id": NO_SUCH,
    "proof_id": NO_SUCH,
    "event_type": "order.created",
    "tenant_id": str(TENANT),
}


def check_shape(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The one error shape, its headers, and nothing of ours in it."""
    assert answer.status_code == status, answer.text
    body = msgspec.json.decode(answer.content, type=ErrorBody)
    assert answer.headers["content-type"] == "application/json"
    assert body.error.code == answer.headers["x-error-code"] == code
    assert body.error.numeric_code == Code[code].numeric
    assert body.message == body.error.message
    assert body.error.request_id == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401 or code == "INSUFFICIENT_PERMISSIONS")
    assert ("retry-after" in answer.headers) == (status in (429, 503, 504))
    assert "Traceback" not in answer.text
    assert "secret-address" not in answer.text
    return answer.json()["error"]


async def request(client: httpx.AsyncClient, route: Route, **more: Any) -> httpx.Response:
    path = route.path.format(**PATH_VALUES)
    if route.body_shape is not None:
        more.setdefault("json", {})
    return await client.request(route.method, path, **more)


ROUTES = [(route, admin) for routes, admin in ((PUBLIC, False), (ADMIN, True)) for route in routes]


@pytest.mark.parametrize("flags", ["", "read", "write", "admin", "read write"])
async def test_every_route_wants_exactly_the_permission_of_the_table(flags: str) -> None:
    async with serving() as house:
        key = house.api_key(*flags.split())
        for route, admin in ROUTES:
            needed = NEEDED[route.method, route.path]
            async with house.client(key, admin=admin) as client:
                answer = await request(client, route)
            if not needed or holds(of_flags(tuple(flags.split())), needed):
                assert answer.status_code not in (401, 403), (route.path, answer.text)
            else:
                check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
        assert not house.verifiers.asked or "write" in flags or "admin" in flags


async def test_without_a_credential_only_public_routes_answer() -> None:
    async with serving() as house:
        for route, admin in ROUTES:
            async with house.client(admin=admin) as client:
                answer = await request(client, route)
            if NEEDED[route.method, route.path]:
                check_shape(answer, 401, "AUTH_REQUIRED")
            else:
                assert answer.status_code == 200, answer.text


def test_a_route_without_a_row_in_the_table_cannot_be_made() -> None:
    with pytest.raises(LookupError, match="permission table"):
        Route("GET", "/api/v1/new", PUBLIC[0].handle, "", str)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "ApiKey {key}"}, 200),
        ({"authorization": "apikey {key}"}, 200),
        ({"authorization": "APIKEY   {key}"}, 200),
        ({"authorization": "{key}"}, 200),
        ({"x-api-key": "{key}"}, 200),
        ({"x-api-key": "ApiKey {key}"}, 200),
        ({"authorization": "Bearer {key}"}, 200),
        ({"authorization": "Bearer {key}x"}, 401),
        ({"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, 401),
        ({"authorization": "Basic abc", "x-api-key": "{key}"}, 401),
        ({"authorization": "", "x-api-key": "{key}"}, 401),
        ({"authorization": "ApiKey"}, 401),
        ({"authorization": "ApiKey sk_{key}"}, 401),
        ({"authorization": "ApiKey {key}x"}, 401),
        ({"authorization": "ApiKey ss_"}, 401),
        ({"authorization": "ApiKey ss_" + "x" * 400}, 401),
        ({"authorization": "ApiKey ss_ééééééééééééééééé"}, 401),
    ],
)
async def test_how_a_credential_may_be_spelled(headers: dict[str, str], status: int) -> None:
    async with serving() as house:
        key = house.api_key("read")
        spelled = {name: value.format(key=key).encode("latin1") for name, value in headers.items()}
        async with house.client() as client:
            answer = await client.get("/api/v1/ves/head", params=STREAM, headers=spelled)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/api/v1/ves/events", {"params": "{other}"}),
        ("GET", "/api/v1/ves/head", {"params": "{other}"}),
        ("GET", f"/api/v1/ves/events/{NO_SUCH}", {"params": "{other}"}),
        ("GET", "/api/v1/ves/entities/a/b", {"params": "{other}"}),
        ("GET", "/api/v1/ves/commitments", {"params": "{other}"}),
        ("GET", f"/api/v1/ves/commitments/{NO_SUCH}", {"params": "{other}"}),
        ("GET", f"/api/v1/ves/commitments/{NO_SUCH}/leaves", {"params": "{other}"}),
        ("GET", "/api/v1/ves/proofs/1", {"params": "{other}"}),
        ("POST", "/api/v1/ves/commitments", {"json": "{other}"}),
    ],
)
async def test_naming_a_foreign_tenant_or_store_is_403_before_anything_is_looked_up(
    method: str, path: str, more: dict[str, str]
) -> None:
    async with serving() as house:
        key = house.api_key("read", "write", stores=[STORE])
        async with house.client(key) as client:
            await client.get("/api/v1/ves/head", params=STREAM)
            house.journal.away = True  # any further look into the journal would be a 503
            for other in (
                {"tenant_id": str(OTHER_TENANT), "store_id": str(STORE)},
                {"tenant_id": str(TENANT), "store_id": str(OTHER_STORE)},
            ):
                house.credentials.heard(asked_at=trio.current_time())
                answer = await client.request(method, path, **dict.fromkeys(more, other))
                check_shape(answer, 403, "INSUFFICIENT_PERMISSIONS")
        assert not house.committer.asked


async def test_a_foreign_commitment_is_as_absent_as_one_that_never_was() -> None:
    async with serving() as house:
        commitment = house.journal.commit([b"\x01" * 32], 1)
        foreign = uuid.UUID(bytes=commitment.batch_id)
        for key in (
            house.api_key("read", tenant=OTHER_TENANT),
            house.api_key("read", stores=[OTHER_STORE]),
        ):
            async with house.client(key) as client:
                answers = [
                    await client.get(f"/api/v1/ves/commitments/{batch_id}", headers={"x-request-id": "same"})
                    for batch_id in (foreign, uuid.uuid4())
                ]
            check_shape(answers[0], 404, "BATCH_NOT_FOUND")
            assert answers[0].content == answers[1].content


async def test_the_bootstrap_key_must_name_the_tenant_and_each_use_is_audited_first() -> None:
    async with serving() as house:
        async with house.client(BOOTSTRAP) as client:
            named = await client.get(f"/api/v1/ves/commitments/{NO_SUCH}", params={"tenant_id": str(TENANT)})
            check_shape(named, 404, "BATCH_NOT_FOUND")
            unnamed = await client.get(f"/api/v1/ves/commitments/{NO_SUCH}")
            check_shape(unnamed, 400, "MISSING_REQUIRED_FIELD")
            assert [entry.action for entry in house.journal.audits] == ["credential.use"] * 2
            house.journal.away = True
            check_shape(await client.post(INGEST, content=b"{}", headers=JSON), 503, "SERVICE_UNAVAILABLE")
        assert not house.verifiers.asked


async def test_a_failed_act_of_the_bootstrap_key_is_audited_too() -> None:
    async with serving() as house:
        async with house.client(BOOTSTRAP) as client:
            check_shape(await client.post("/api/v1/agents/keys", json={}), 422, "MISSING_REQUIRED_FIELD")
        assert [entry.action for entry in house.journal.audits] == ["credential.use"]


@pytest.mark.parametrize(
    ("scope", "path", "body", "status"),
    [
        ({"stores": [STORE]}, "/api/v1/agents/keys", {"publicKey": "11" * 32}, 403),
        ({"agent": uuid.uuid4()}, "/api/v1/agents/keys", {"publicKey": "11" * 32}, 403),
        ({"stores": [STORE]}, "/api/v1/agents/keys/revoke", {}, 403),
        ({"tenant": OTHER_TENANT}, "/api/v1/agents/keys/revoke", {}, 403),
        ({"agent": AGENT}, "/api/v1/agents/keys/revoke", {}, 404),
    ],
)
async def test_a_narrow_admin_key_does_not_reach_beyond_its_scope(
    scope: dict[str, Any], path: str, body: dict[str, Any], status: int
) -> None:
    async with serving() as house:
        body = {"tenantId": str(TENANT), "agentId": str(AGENT), "keyId": 1, **body}
        async with house.client(house.api_key("admin", **scope)) as client:
            answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("scope", [{"stores": [STORE]}, {"agent": AGENT}, {"tenant": OTHER_TENANT}])
async def test_a_narrow_admin_key_cannot_make_itself_a_wider_one(scope: dict[str, Any]) -> None:
    async with serving() as house:
        async with house.client(house.api_key("admin", **scope), admin=True) as client:
            body = {"tenantId": str(TENANT), "permissions": ["admin"]}
            check_shape(
                await client.post("/api/v1/admin/api-keys", json=body), 403, "INSUFFICIENT_PERMISSIONS"
            )
        assert len(house.journal.api_keys) == 1


async def test_admin_routes_do_not_exist_on_the_public_listener() -> None:
    async with serving() as house:
        async with house.client(BOOTSTRAP) as client:
            for path in ("/metrics", "/health/detailed", "/api/v1/admin/api-keys", "/api/v1/admin/overview"):
                check_shape(await client.get(path), 404, "RESOURCE_NOT_FOUND")
        async with house.client(BOOTSTRAP, admin=True) as client:
            check_shape(await client.get("/api/v1/ves/head"), 404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/api/v1/ves/head/", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/api/v1/x402/payments", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/%ff", 404, "RESOURCE_NOT_FOUND"),
        ("GET", INGEST, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", INGEST, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("BREW", "/health", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_unknown_paths_and_wrong_methods(method: str, path: str, status: int, code: str) -> None:
    async with serving() as house, house.client() as client:
        answer = await client.request(method, path)
        check_shape(answer, status, code)
        if status == 405:
            assert answer.headers["allow"] in ("POST", "GET, HEAD", "HEAD, GET")


async def test_head_answers_like_get_without_a_body() -> None:
    async with serving() as house, house.client() as client:
        answer = await client.head("/health")
        assert answer.status_code == 200
        assert answer.content == b""
        assert int(answer.headers["content-length"]) > 20


@pytest.mark.parametrize(
    "query",
    [
        "",
        f"tenant_id={TENANT}",
        f"tenant_id={TENANT}&store_id=nobody",
        f"tenant_id={TENANT}&store_id={STORE}&tenant_id={TENANT}",
        f"tenant_id={TENANT}&store_id={STORE}&limit=0",
        f"tenant_id={TENANT}&store_id={STORE}&limit=1001",
        f"tenant_id={TENANT}&store_id={STORE}&limit=1.5",
        f"tenant_id={TENANT}&store_id={STORE}&limit=",
        f"tenant_id={TENANT}&store_id={STORE}&from=-1",
        f"tenant_id={TENANT}&store_id={STORE}&from=9007199254740992",
        f"tenant_id={TENANT}&store_id={STORE}&from={'9' * 5000}",
        f"tenant_id={TENANT}&store_id={STORE}&wait_s=31",
        f"tenant_id={TENANT}&store_id={STORE}&wait_s=nan",
        f"tenant_id={TENANT}%0a&store_id={STORE}",
        f"tenant_id={TENANT}&store_id=%ff",
        "&".join(f"a{n}=1" for n in range(40)),
    ],
)
async def test_a_bad_query_is_a_400_that_names_the_parameter(query: str) -> None:
    async with serving() as house, house.client(house.api_key("read")) as client:
        answer = await client.get("/api/v1/ves/events?" + query)
        assert answer.status_code == 400, answer.text
        check_shape(answer, 400, answer.headers["x-error-code"])


@pytest.mark.parametrize(
    ("path", "query"),
    [("/api/v1/ves/commitments", "anchored"), ("/api/v1/admin/actors/dead-letters", "after")],
)
async def test_null_is_no_value_of_a_query_parameter(path: str, query: str) -> None:
    async with serving() as house, house.client(BOOTSTRAP, admin="admin" in path) as client:
        answer = await client.get(path, params={**STREAM, query: "null"})
        assert query in check_shape(answer, 400, "INVALID_FIELD_VALUE")["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b"{} x", 400),
        (b"[NaN]", 400),
        (b"[" * 100 + b"]" * 100, 400),
        (b"[" * 60000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"x"', 422),
        (b"{}", 422),
        (b'{"tenant_id": "%s", "tenant_id": "%s"}' % (str(TENANT).encode(), str(TENANT).encode()), 422),
        (b'{"tenant_id": "\\ud800"}', 422),
        (b'{"tenant_id": 12345678901234567890}', 422),
        (b'{"tenant_id": "%s\\u000a", "store_id": "%s"}' % (str(TENANT).encode(), str(STORE).encode()), 400),
        (
            b'{"tenant_id": "%s", "store_id": "%s", "sequence_start": 1}'
            % (str(TENANT).encode(), str(STORE).encode()),
            400,
        ),
    ],
)
async def test_a_bad_body_is_refused_and_nothing_asked(body: bytes, status: int) -> None:
    async with serving() as house:
        async with house.client(house.api_key("write")) as client:
            answer = await client.post("/api/v1/ves/commitments", content=body, headers=JSON)
        assert answer.status_code == status, answer.text
        check_shape(answer, status, answer.headers["x-error-code"])
        assert not house.committer.asked


@pytest.mark.parametrize("reason", ["bad\u0000", "", "x" * 201, "a\nb"])
async def test_texts_that_the_database_cannot_hold_are_refused_by_name(reason: str) -> None:
    async with serving() as house, house.client(house.api_key("admin")) as client:
        body = {"tenantId": str(TENANT), "agentId": str(AGENT), "keyId": 1, "reason": reason}
        answer = await client.post("/api/v1/agents/keys/revoke", json=body)
        assert "reason" in check_shape(answer, 422, "INVALID_FIELD_VALUE")["message"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/jsonx", "multipart/form-data"])
async def test_a_body_that_is_not_json_by_name_is_415(content_type: str | None) -> None:
    async with serving() as house, house.client(house.api_key("write")) as client:
        headers = {} if content_type is None else {"content-type": content_type}
        check_shape(await client.post(INGEST, content=b"{}", headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE")
        fine = {"content-type": "Application/vnd.ves+JSON; charset=utf-8"}
        assert (await client.post(INGEST, content=b"{}", headers=fine)).status_code == 200


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (errors.MailboxFull("actor internals", retry_after_s=2.2), 503, "SERVICE_UNAVAILABLE"),
        (errors.Unavailable("x"), 503, "SERVICE_UNAVAILABLE"),
        (errors.Stopping("x"), 503, "SERVICE_UNAVAILABLE"),
        (errors.TooManyChildren("x"), 503, "SERVICE_UNAVAILABLE"),
        (JournalAway("postgres://secret-address"), 503, "SERVICE_UNAVAILABLE"),
        (errors.OutcomeUnknown("x"), 503, "OUTCOME_UNKNOWN"),
        (JournalOutcomeUnknown("x"), 503, "OUTCOME_UNKNOWN"),
        (errors.DeadlinePassed("x"), 504, "TIMEOUT"),
        (errors.CredentialRevoked("x"), 401, "INVALID_API_KEY"),
        (ZeroDivisionError("secret-address"), 500, "INTERNAL_ERROR"),
        (ExceptionGroup("g", [KeyError("secret-address")]), 500, "INTERNAL_ERROR"),
    ],
)
async def test_the_table_from_exception_to_answer(reason: Exception, status: int, code: str) -> None:
    async with serving() as house:

        async def fail(message: Any) -> Any:
            raise reason

        house.sequencer.reply = fail
        with structlog.testing.capture_logs() as logs:
            async with house.client(house.api_key("write")) as client:
                answer = await client.post(INGEST, content=b"{}", headers=JSON)
        error = check_shape(answer, status, code)
        if isinstance(reason, errors.MailboxFull):
            assert answer.headers["retry-after"] == "3"
            assert error["retry_after"] == 3
        if code == "OUTCOME_UNKNOWN":
            assert "same request again" in error["message"]
        told = [line for line in logs if line["event"] in ("internal error", "not now")]
        assert [line["request_id"] for line in told] == [error["request_id"]]


async def test_a_request_that_finds_a_full_mailbox_waits_for_room_and_is_served() -> None:
    async with serving() as house:
        serve, looks = house.sequencer.reply, 0

        async def full_at_first(message: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks <= 3:
                raise errors.MailboxFull("full")
            return await serve(message)

        house.sequencer.reply = full_at_first
        async with house.client(house.api_key("write")) as client:
            answer = await client.post(INGEST, content=b"{}", headers=JSON)
        assert (answer.status_code, looks) == (200, 4)
        assert len(house.verifiers.asked) == 1, "what was verified is not verified again"


async def test_what_is_paced_comes_evenly_and_nobody_waits_longer_than_he_wants(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace, came = Pace(per_s=10), []

    async def come(patience_s: float) -> None:
        await pace.turn(patience_s=patience_s)
        came.append(round(trio.current_time() - began, 3))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(come, 60.0)
    assert came == [0, 0.1, 0.2, 0.3]
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for _ in range(10):
            nursery.start_soon(come, 0.25)
    assert max(came[4:]) == 0.25


async def test_the_log_tells_who_and_what_but_no_key_and_no_query() -> None:
    async with serving() as house:
        key = house.api_key("read")
        with structlog.testing.capture_logs() as logs:
            async with house.client(key) as client:
                headers = {"x-request-id": "mine-1"}
                await client.get("/api/v1/ves/head", params={**STREAM, "x": "canary"}, headers=headers)
            await wait_all_tasks_blocked(0.01)
        (line,) = logs
        assert line["request_id"] == "mine-1"
        assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/ves/head", 200)
        assert line["tenant"] == str(TENANT)
        assert line["caller"].startswith("api_key:")
        assert key not in str(logs)
        assert "canary" not in str(logs)


@pytest.mark.parametrize(
    ("sent", "kept"), [("a.B_c-9", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)]
)
async def test_only_plain_request_ids_are_kept(sent: str, kept: bool) -> None:
    async with serving() as house, house.client() as client:
        answer = await client.get("/health", headers={"x-request-id": sent})
        assert (answer.headers["x-request-id"] == sent) == kept
        assert 1 <= len(answer.headers["x-request-id"]) <= 128


async def test_one_budget_covers_both_asks() -> None:
    async with serving(request_timeout_secs=0.4) as house:
        given: list[float] = []
        house.sequencer.reply = house.verifiers.reply

        async def slow(message: Any, *, deadline_s: float) -> Any:
            given.append(deadline_s)
            await trio.sleep(0.25)
            return await house.verifiers.reply(message)

        house.verifiers.ask = house.sequencer.ask = slow  # type: ignore[method-assign]
        started = trio.current_time()
        async with house.client(house.api_key("write")) as client:
            answer = await client.post(INGEST, content=b"{}", headers=JSON)
        check_shape(answer, 504, "TIMEOUT")
        assert trio.current_time() - started < 1.0
        assert given[0] <= 0.4
        assert given[1] <= 0.2
