"""Rate limits as callers meet them: which bucket, in which order, with which headers, and what is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
import trio
import trio.testing
from msgspec.structs import replace

from actors.buckets import Limit
from actors.messages import Verify, VerifyLegacy
from actors.rate_limits import CLASSES, OWN, RateLimits
from actors.security_events import SecurityEvents
from tests.http.doubles import (
    AGENT,
    BOOTSTRAP,
    INGEST,
    JSON,
    OTHER_TENANT,
    STORE,
    STREAM,
    TENANT,
    batch,
    parts,
    read_all,
    serving,
    until,
)
from transport.client.retry import RetryPolicy
from transport.client.sequencer import SequencerClient
from transport.client.wire import Stream
from transport.http import rate_classes
from transport.http.app import ADMIN, PUBLIC
from transport.http.callers import Caller
from transport.http.errors import ApiError
from transport.http.patience import TOLD_TOO_MANY_AFTER_S
from transport.http.permissions import NEEDED
from transport.http.rates import EVENT_BYTES, RateCheck, network
from transport.http.routing import Route
from ves.legacy import LegacyBatch
from ves.records import Refusal, VerifiedBatch

HEAD = "/api/v1/ves/head"
RATE_HEADERS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
SLOWLY: dict[str, Any] = {"rate_limit_events_read_per_second": 0.05, "rate_limit_events_read_burst": 3}


def told(answer: httpx.Response) -> tuple[int, ...]:
    return tuple(int(answer.headers[name]) for name in RATE_HEADERS)


def check_429(answer: httpx.Response, rate_class: str) -> int:
    """The seconds to wait, after everything else of the answer was looked at."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["numeric_code"]) == ("RATE_LIMIT_EXCEEDED", 2001)
    assert error["details"]["class"] == rate_class
    assert rate_class in error["message"]
    limit, remaining, reset = told(answer)
    assert (limit, remaining) == (error["details"]["burst"], 0)
    assert f"{limit} at once" in error["message"]
    assert error["retry_after"] == int(answer.headers["retry-after"]) == reset >= 1
    return reset


async def answer_to_head(house: Any, key: str, lines: str) -> tuple[int, dict[str, str]]:
    """Of an ingest whose body never comes."""
    async with await house.connect() as stream:
        head = f"POST {INGEST} HTTP/1.1\r\nhost: x\r\nauthorization: ApiKey {key}\r\n{lines}\r\n\r\n"
        await stream.send_all(head.encode())
        with trio.fail_after(5):
            status, headers, _ = parts(await read_all(stream))
    return status, headers


# The table.


def test_every_route_has_exactly_one_class_and_the_table_no_row_too_many() -> None:
    routes = {(route.method, route.path) for route in (*PUBLIC, *ADMIN)} | {("GET", "/openapi.json")}
    assert routes == set(rate_classes.CLASS_OF) == set(NEEDED)
    assert set(rate_classes.CLASS_OF.values()) | {"failed"} == set(CLASSES)


def test_a_route_without_a_class_or_of_the_wrong_kind_keeps_the_node_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handle(visit: Any) -> Any:
        raise AssertionError

    def route(method: str, path: str) -> Route:
        return Route(method, path, handle, "A test's", dict)

    monkeypatch.setitem(NEEDED, ("GET", "/new"), ("events:read",))
    with pytest.raises(LookupError, match="rate classes"):
        route("GET", "/new")
    monkeypatch.setitem(rate_classes.CLASS_OF, ("GET", "/new"), "public")
    with pytest.raises(LookupError, match="public"):
        route("GET", "/new")
    monkeypatch.setitem(rate_classes.CLASS_OF, ("GET", "/health"), "admin")
    with pytest.raises(LookupError, match="public"):
        route("GET", "/health")


# By credential.


async def test_each_credential_gets_its_burst_and_then_is_told_when_to_come_back() -> None:
    async with serving(**SLOWLY) as house:
        async with house.client(house.api_key("read")) as one, house.client(house.api_key("read")) as other:
            answers = [await one.get(HEAD, params=STREAM) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert [told(answer) for answer in answers[:3]] == [(3, 2, 20), (3, 1, 40), (3, 0, 60)]
            assert check_429(answers[3], "events_read") == 20
            assert "3 requests a minute" in answers[3].json()["message"]
            assert (await other.get(HEAD, params=STREAM)).status_code == 200
            # Another class has another bucket, whatever became of this one.
            assert (await one.get("/api/v1/ves/commitments", params=STREAM)).status_code == 200
        assert house.house.security.counts["rate_limited"] == 1


async def test_every_answer_of_a_limited_route_carries_the_limit() -> None:
    async with (
        serving() as house,
        house.client(house.api_key("read")) as client,
        house.client() as nobody,
        house.client("ss_" + "x" * 30) as stranger,
    ):
        for answer, status in (
            (await client.get(HEAD, params=STREAM), 200),
            (await client.get(HEAD), 400),
            (await client.get(HEAD, params=STREAM | {"tenant_id": str(OTHER_TENANT)}), 403),
            (await client.get("/api/v1/ves/proofs/1", params=STREAM), 404),
            (await client.post(INGEST, json={}), 403),
            (await nobody.get(HEAD), 401),
            (await stranger.get(HEAD), 401),
            (await nobody.get("/health"), 200),
            (await nobody.get("/nowhere"), 404),
            (await nobody.put("/health"), 405),
        ):
            assert answer.status_code == status, answer.text
            limit, remaining, _ = told(answer)
            assert 0 <= remaining < limit


async def test_a_request_over_its_limit_is_refused_before_its_body_is_read() -> None:
    async with serving(rate_limit_events_ingest_burst=1, rate_limit_events_ingest_per_second=0.05) as house:
        key = house.api_key("write")
        async with house.client(key) as client:
            assert (await client.post(INGEST, content=b"{}", headers=JSON)).status_code != 429
        status, headers = await answer_to_head(house, key, "content-length: 9000000")
        assert (status, headers["ratelimit-remaining"]) == (429, "0")
        assert len(house.verifiers.asked) == 1


@pytest.mark.parametrize("path", [INGEST, "/api/v1/events/ingest"])
async def test_a_tenant_over_its_events_is_refused_before_its_body_is_read_whatever_its_credential(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit: dict[str, Any] = {
        "rate_limit_tenant_events_burst": 4,
        "rate_limit_tenant_events_per_second": 0.05,
    }
    async with serving(**limit) as house:
        house.verifiers.reply = _five if path == INGEST else _five_unsigned
        monkeypatch.setattr(house.journal, "read_legacy_head", _no_head, raising=False)
        async with (
            house.client(house.api_key("write")) as client,
            house.client(house.api_key("write")) as second,
            house.client(house.api_key("read")) as reader,
            house.client(house.api_key("write", tenant=OTHER_TENANT)) as stranger,
        ):
            first = await client.post(path, content=b"{}", headers=JSON)
            assert first.status_code == 200, first.text
            assert int(first.headers["ratelimit-limit"]) == 500, "of the credential"
            refused = await second.post(path, content=b"{}", headers=JSON)
            assert check_429(refused, "tenant_events") == 40, "one is owed, and one is needed"
            assert "3 events a minute, 4 at once; nothing was done" in refused.json()["message"]
            assert len(house.verifiers.asked) == 1
            assert (await reader.get(HEAD, params=STREAM)).status_code == 200
            long = b"{}" + b" " * (10 * EVENT_BYTES)
            assert (await stranger.post(path, content=long, headers=JSON)).status_code == 200
            refused = await stranger.post(path, content=b"{}", headers=JSON)
            assert check_429(refused, "tenant_events") == 140, "it counted as ten"
        assert house.house.rate_limits.refused["tenant_events"] == 2


async def test_a_body_that_only_claims_to_be_long_costs_no_more_than_the_longest() -> None:
    limit: dict[str, Any] = {"rate_limit_tenant_events_burst": 3, "rate_limit_tenant_events_per_second": 1}
    async with serving(**limit, max_body_size_bytes=20 * EVENT_BYTES) as house:
        key = house.api_key("write")
        claim = "content-type: application/json\r\ncontent-length: 900000000000"
        status, _ = await answer_to_head(house, key, claim)
        assert status == 413
        async with house.client(key) as client:
            refused = await client.post(INGEST, content=b"{}", headers=JSON)
            assert check_429(refused, "tenant_events") in (17, 18), "of the three twenty were taken"


async def _five(message: Verify) -> VerifiedBatch:
    """All of them refused: they count too."""
    refusals = [Refusal(bytes([n]) * 16, "invalid_signature", "a test's") for n in range(5)]
    return replace(batch(*refusals), tenant_id=message.scope.tenant_id or TENANT.bytes)


async def _five_unsigned(message: VerifyLegacy) -> LegacyBatch:
    refusals = [Refusal(bytes([n]) * 16, "schema_validation", "a test's") for n in range(5)]
    return LegacyBatch(message.scope.tenant_id or TENANT.bytes, STORE.bytes, AGENT.bytes, refusals)


async def _no_head(tenant_id: bytes, store_id: bytes) -> int:
    return 0


async def test_who_may_not_is_told_so_and_pays_with_the_address_not_with_the_class() -> None:
    async with (
        serving(
            rate_limit_events_ingest_burst=1, rate_limit_failed_burst=2, rate_limit_failed_per_second=0.05
        ) as house,
        house.client(house.api_key("read")) as reader,
        house.client(house.api_key("write")) as ok,
    ):
        answers = [await reader.post(INGEST, json={}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [403, 403, 429]
        check_429(answers[2], "failed")
        assert (await reader.get(HEAD, params=STREAM)).status_code == 200
        assert (await ok.post(INGEST, content=b"{}", headers=JSON)).status_code != 429


async def test_a_refused_use_of_the_bootstrap_key_is_no_use_and_leaves_no_audit_entry() -> None:
    async with (
        serving(rate_limit_admin_burst=1, rate_limit_admin_per_second=0.05) as house,
        house.client(BOOTSTRAP, admin=True) as client,
    ):
        assert (await client.get("/health/detailed")).status_code == 200
        written = len(house.journal.audits)
        check_429(await client.get("/health/detailed"), "admin")
        assert len(house.journal.audits) == written


async def test_who_is_over_a_limit_hears_of_it_a_little_later_and_nobody_else_waits() -> None:
    limit: dict[str, Any] = {"rate_limit_failed_burst": 1, "rate_limit_failed_per_second": 0.05}
    async with (
        serving(**SLOWLY, **limit) as house,
        house.client(house.api_key("read")) as hasty,
        house.client(house.api_key("read")) as other,
    ):
        for _ in range(3):
            assert (await hasty.get(HEAD, params=STREAM)).status_code == 200
        assert (await hasty.get("/nowhere")).status_code == 404
        heard: list[str] = []

        async def refused(path: str) -> None:
            began = trio.current_time()
            answer = await hasty.get(path, params=STREAM)
            assert answer.status_code == 429
            assert trio.current_time() - began >= TOLD_TOO_MANY_AFTER_S[0]
            heard.append(path)

        async with trio.open_nursery() as nursery:
            for path in (HEAD, "/nowhere"):
                nursery.start_soon(refused, path)
            await until(lambda: house.house.rate_limits.refused.total() == 2)
            assert not heard
            assert (await other.get(HEAD, params=STREAM)).status_code == 200
        assert sorted(heard) == [HEAD, "/nowhere"]


# By address.


async def test_failures_are_limited_by_address_and_neither_probes_nor_good_credentials_pay_for_them() -> None:
    async with (
        serving(rate_limit_failed_burst=5, rate_limit_failed_per_second=0.05) as house,
        house.client() as nobody,
        house.client(house.api_key("read")) as good,
    ):
        answers = [await nobody.get(HEAD, headers={"x-api-key": f"ss_{n:030}"}) for n in range(4)]
        answers += [await nobody.get("/nowhere"), await nobody.get("/nowhere"), await nobody.get(HEAD)]
        assert [answer.status_code for answer in answers] == [401] * 4 + [404, 429, 429]
        assert check_429(answers[5], "failed") == 20
        assert (await nobody.get("/health")).status_code == 200
        assert (await good.get(HEAD, params=STREAM)).status_code == 200


async def test_public_routes_are_limited_by_address_generously() -> None:
    async with serving() as house, house.client() as nobody:
        assert told(await nobody.get("/health"))[0] == 500
    async with (
        serving(rate_limit_public_burst=2, rate_limit_public_per_second=0.05) as house,
        house.client() as nobody,
    ):
        answers = [await nobody.get(path) for path in ("/health", "/ready", "/openapi.json")]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        check_429(answers[2], "public")


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_of_an_ipv6_address_the_network_counts(address: str, whose: str) -> None:
    assert network(address) == whose


# What is told of it.


def a_visit(caller: Caller | None, address: str = "192.0.2.1") -> Any:
    return SimpleNamespace(caller=caller, address=address, rate_verdict=None)


def a_caller(own: int | None = None) -> Caller:
    return Caller(b"i" * 16, b"t" * 16, None, None, frozenset(), own)


def refused(check: RateCheck, visit: Any, rate_class: str = "events_read") -> str | None:
    try:
        if visit.caller is None:
            check.unknown(visit)
        else:
            check.known(visit, visit.caller, rate_class)
    except ApiError as refusal:
        return refusal.message
    return None


async def test_a_credentials_own_limit_replaces_the_classes_and_is_named() -> None:
    check = RateCheck(RateLimits(dict.fromkeys(CLASSES, Limit(1, 1)), sharing=None), SecurityEvents())
    visit = a_visit(a_caller(own=61))
    said = [refused(check, visit, of) for of in ("events_read", "commitments", "events_ingest", "admin") * 3]
    assert said[:10] == [None] * 10
    assert said[10] == "this credential's own limit is 61 requests a minute, 10 at once; nothing was done"
    assert visit.rate_verdict.of == OWN


async def test_every_refusal_is_counted_and_each_offender_named_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    security = SecurityEvents()
    check = RateCheck(RateLimits(dict.fromkeys(CLASSES, Limit(1, 1)), sharing=None), security)
    offenders = [a_visit(a_caller()), a_visit(None, "2001:db8::1"), a_visit(None, "2001:db8::2")]
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            for _ in range(20):
                for visit in offenders:
                    refused(check, visit, "commitments")
            await trio.sleep(30)
            for visit in offenders:
                refused(check, visit, "commitments")
            await trio.sleep(30)
    events = [line for line in lines if line["event"] == "security_event"]
    assert len(events) == 6, "two offenders, three minutes"
    assert {(e["kind"], e["caller"], e["rate_class"], e["limit"]) for e in events} == {
        ("rate_limited", a_caller().name, "commitments", "1 request a minute, 1 at once"),
        ("rate_limited", "address:2001:db8::/64", "failed", "1 request a minute, 1 at once"),
    }
    assert security.counts["rate_limited"] == 3 * 21 * 3 - 2 * 3, "all but the one a minute that passed"


async def test_numbers_and_mode_are_seen_by_the_operator() -> None:
    async with serving(**SLOWLY) as house:
        async with house.client(house.api_key("read")) as client:
            for _ in range(5):
                await client.get(HEAD, params=STREAM)
        async with house.client(BOOTSTRAP, admin=True) as operator:
            lines = (await operator.get("/metrics")).text.splitlines()
            assert 'sequencer_rate_limited_total{rate_class="events_read"} 2.0' in lines
            assert 'sequencer_rate_limited_total{rate_class="own"} 0.0' in lines
            assert "sequencer_rate_limit_enforced 1.0" in lines
            assert "sequencer_rate_limit_buckets 2.0" in lines
            assert "sequencer_rate_limit_alone 0.0" in lines
            assert "sequencer_rate_limit_sharing_failures_total 0.0" in lines
            seen = (await operator.get("/health/detailed")).json()["rate_limits"]
            assert (seen["mode"], seen["sharing"], seen["refused"]["events_read"]) == ("enforce", "off", 2)


async def test_off_is_said_at_start_and_visible_and_limits_nothing() -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(rate_limit_mode="off", rate_limit_public_burst=1) as house:
            assert any("rate limits are off" in line["event"] for line in lines)
            async with house.client() as nobody, house.client(BOOTSTRAP, admin=True) as operator:
                for _ in range(5):
                    answer = await nobody.get("/health")
                    assert answer.status_code == 200
                    assert not any(name in answer.headers for name in RATE_HEADERS)
                assert (await operator.get("/health/detailed")).json()["rate_limits"]["mode"] == "off"
                assert "sequencer_rate_limit_enforced 0.0" in (await operator.get("/metrics")).text


# The client.


async def test_a_client_over_the_limit_waits_as_told_and_loses_nothing() -> None:
    notices: list[str] = []
    stream = Stream(TENANT.bytes, STORE.bytes)
    async with serving(rate_limit_events_read_burst=2, rate_limit_events_read_per_second=3) as house:
        retry = RetryPolicy(first_pause_s=0.001)
        key = house.api_key("read")
        async with SequencerClient(house.url, api_key=key, retry=retry, notice=notices.append) as client:
            assert [await client.head(stream) for _ in range(4)] == [0, 0, 0, 0]
    assert len(notices) == house.house.rate_limits.refused["events_read"] == 1
    assert "class events_read" in notices[0]
    assert notices[0].endswith("again in 1.0 s")


async def test_an_agent_rotates_its_own_key_a_few_times_a_minute_with_however_many_credentials() -> None:
    agent = UUID("55555555-5555-4555-8555-555555555555")
    body: dict[str, Any] = {"tenantId": str(TENANT), "agentId": str(agent), "keyId": 2, "replaces": 1}
    body |= {"publicKey": "aa" * 32, "proofOfPossession": "aa" * 64, "previousSignature": "aa" * 64}
    async with serving() as house, house.client() as client:
        owns = [{"authorization": f"Bearer {house.api_key('write', agent=agent)}"} for _ in range(2)]
        answers = [
            await client.post("/api/v1/agents/keys/rotate", json=body, headers=owns[n % 2]) for n in range(12)
        ]
        assert [answer.status_code == 429 for answer in answers] == [False] * 10 + [True] * 2
        administers = {"authorization": f"Bearer {house.api_key('admin')}"}
        other = await client.post("/api/v1/agents/keys/rotate", json=body, headers=administers)
        assert other.status_code == 400, "an administrator has the limits of its class"
