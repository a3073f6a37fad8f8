"""Posting through failures: the same bytes again, when and as long as the table says, and never twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.auditor.audit import audit
from tests.client.playing import INGEST, Fails, PlayedSequencer, played_sequencer
from transport.client.agent import Agent
from transport.client.errors import BadAnswer, InsecureUrl, Refused, Unanswered
from transport.client.retry import RetryPolicy, retry_after_s
from transport.client.sequencer import SequencerClient, request_bytes
from transport.client.wire import Envelope, Stream
from ves.encoding import uuid_bytes
from ves.records import KeyName

QUICK = RetryPolicy(deadline_s=5, attempt_s=0.3, first_pause_s=0.01, pause_max_s=0.02)


@pytest.fixture
async def play() -> AsyncIterator[PlayedSequencer]:
    async with played_sequencer() as playing:
        yield playing


def agent_of(play: PlayedSequencer) -> Agent:
    name = KeyName(uuid_bytes(play.honest.tenant_id), uuid_bytes(play.honest.agent_id), 1)
    return Agent(name, bytes([1]) * 32)


def signed(play: PlayedSequencer, count: int = 3) -> list[Envelope]:
    store_id = uuid_bytes(play.honest.store_id)
    return [
        agent_of(play).sign(
            store_id, entity_type="order", entity_id=f"o-{n}", event_type="order.created", payload={"n": n}
        )
        for n in range(count)
    ]


FAILURES: dict[str, Fails] = {
    "429": Fails(429, retry_after="0"),
    "503 without a body": Fails(503),
    "503 with Retry-After": Fails(503, retry_after="0", body=b'{"error": {"code": "OUTCOME_UNKNOWN"}}'),
    "504": Fails(504),
    "502 of a proxy": Fails(502, body=b"<html>"),
    "connection lost before the work": Fails(lost="before"),
    "connection lost after the work was done": Fails(lost="after"),
    "connection lost halfway through the answer": Fails(lost="halfway"),
    "no answer at all": Fails(hang=True),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_after_a_failure_the_very_same_bytes_are_posted_again(play: PlayedSequencer, name: str) -> None:
    play.script[INGEST].append(FAILURES[name])
    envelopes = signed(play)
    async with SequencerClient(play.url, api_key="ss_test", retry=QUICK) as client:
        reply = await client.post(envelopes)
    assert play.bodies[INGEST] == [request_bytes(envelopes)] * 2
    assert [r.event_id for r in reply.receipts] == [e.event_id for e in envelopes]
    assert len(play.honest.events) == 3
    done_unheard = name in (
        "connection lost after the work was done",
        "connection lost halfway through the answer",
    )
    assert (reply.events_accepted, reply.events_replayed) == ((0, 3) if done_unheard else (3, 0))


async def test_many_failures_in_a_row_leave_each_event_once_at_its_number(play: PlayedSequencer) -> None:
    play.script[INGEST].extend(
        [Fails(lost="after"), Fails(503), Fails(lost="halfway"), Fails(429), Fails(504)]
    )
    async with SequencerClient(play.url, retry=QUICK) as client:
        await client.post(signed(play, 10))
        await client.commit(Stream(uuid_bytes(play.honest.tenant_id), uuid_bytes(play.honest.store_id)))
    assert len(set(play.bodies[INGEST])) == 1
    assert len(play.bodies[INGEST]) == 6
    assert audit(play.honest.evidence()) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500])
async def test_a_final_no_is_said_once_with_the_servers_own_words(play: PlayedSequencer, status: int) -> None:
    error = {
        "error": {"code": "SOME_CODE", "message": "because so", "request_id": "r-7"},
        "message": "because so",
    }
    play.script[INGEST].append(Fails(status, body=json.dumps(error).encode()))
    async with SequencerClient(play.url, retry=QUICK) as client:
        with pytest.raises(Refused, match="because so") as refused:
            await client.post(signed(play))
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (
        status,
        "SOME_CODE",
        "r-7",
    )
    assert len(play.bodies[INGEST]) == 1


async def test_when_the_deadline_passes_the_caller_is_told_that_nobody_knows(play: PlayedSequencer) -> None:
    play.script[INGEST].extend([Fails(503)] * 100)
    brief = QUICK._replace(deadline_s=0.2)
    async with SequencerClient(play.url, retry=brief) as client:
        with trio.fail_after(2), pytest.raises(Unanswered, match="503"):
            await client.post(signed(play))
    assert 2 <= len(play.bodies[INGEST]) < 100


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(play: PlayedSequencer) -> None:
    play.script[INGEST].append(Fails(429, retry_after="3600"))
    async with SequencerClient(play.url, retry=QUICK) as client:
        with trio.fail_after(1), pytest.raises(Unanswered, match="429"):
            await client.post(signed(play))


async def test_nobody_listening_is_no_answer_and_not_a_crash() -> None:
    brief = QUICK._replace(deadline_s=0.1)
    async with SequencerClient("http://127.0.0.1:9", retry=brief) as client:
        with pytest.raises(Unanswered, match="ConnectError"):
            await client.receipt_keys()


async def test_what_must_not_be_done_twice_is_repeated_only_when_certainly_not_done(
    play: PlayedSequencer,
) -> None:
    path = "/api/v1/admin/api-keys"
    async with SequencerClient(play.url, retry=QUICK) as client:
        play.script[path].extend([Fails(429), Fails(200, body=b'{"id": 1}')])
        assert await client.ask("POST", path, body={}, repeatable=False) == b'{"id": 1}'
        for failure in (Fails(503), Fails(lost="before")):
            play.script[path].append(failure)
            with pytest.raises(Unanswered):
                await client.ask("POST", path, body={}, repeatable=False)
    assert len(play.bodies[path]) == 4


async def test_retry_after_is_the_least_pause(autojump_clock: trio.testing.MockClock) -> None:
    times = []

    def answer(request: httpx.Request) -> httpx.Response:
        times.append(trio.current_time())
        if len(times) == 1:
            return httpx.Response(503, headers={"retry-after": "7"})
        return httpx.Response(200, json={"head_sequence": 4})

    transport = httpx.MockTransport(answer)
    async with SequencerClient("https://sequencer.example", transport=transport) as client:
        assert await client.head(Stream(bytes(16), bytes(16))) == 4
    assert times[1] - times[0] >= 7


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_are_jittered_and_have_a_ceiling(attempt: int, chance: float) -> None:
    policy = RetryPolicy()
    pause_s = policy.pause_s(attempt, chance, None)
    grown = min(policy.first_pause_s * 2 ** min(attempt - 1, 30), policy.pause_max_s)
    assert grown / 2 <= pause_s <= grown
    assert policy.pause_s(attempt, chance, 60.0) == 60


def test_retry_after_is_read_as_seconds_or_date_and_nonsense_is_ignored() -> None:
    now = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s("12", now) == 12
    assert retry_after_s("Tue, 24 Nov 2026 12:00:30 GMT", now) == 30
    assert retry_after_s("Tue, 24 Nov 2026 11:00:00 GMT", now) == 0
    assert retry_after_s("soon", now) is None
    assert retry_after_s(None, now) is None


@pytest.mark.parametrize(
    "spoilt",
    [
        b"not json",
        b'{"batchId": 1}',
        b"\xff\xfe",
    ],
)
async def test_an_answer_of_another_form_is_no_success(play: PlayedSequencer, spoilt: bytes) -> None:
    play.spoil[INGEST] = lambda answer: spoilt
    async with SequencerClient(play.url, retry=QUICK) as client:
        with pytest.raises(BadAnswer, match="the reply to a post"):
            await client.post(signed(play))


async def test_a_reply_that_forgets_an_event_is_no_success(play: PlayedSequencer) -> None:
    def forget(answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"receipts": answer["receipts"][:-1], "eventsAccepted": answer["eventsAccepted"] - 1}

    play.spoil[INGEST] = forget
    async with SequencerClient(play.url, retry=QUICK) as client:
        with pytest.raises(BadAnswer, match="one verdict per event"):
            await client.post(signed(play))


async def test_the_credential_is_sent_as_an_api_key_and_netrc_is_not_consulted(
    play: PlayedSequencer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with SequencerClient(play.url, api_key="ss_secret", retry=QUICK) as client:
        await client.post(signed(play, 1))
    async with SequencerClient(play.url, retry=QUICK) as client:
        await client.receipt_keys()
    assert set(play.authorizations[:-1]) == {"ApiKey ss_secret"}
    assert play.authorizations[-1] is None


async def test_a_load_balancer_is_told_where_a_post_belongs(play: PlayedSequencer) -> None:
    play.script[INGEST].append(Fails(503, retry_after="0"))
    async with SequencerClient(play.url, retry=QUICK) as client:
        await client.post(signed(play))
    assert play.tenants_named[INGEST] == [play.honest.tenant_id.encode()] * 2


@pytest.mark.parametrize("key", ["Bearer sk_live_new", "ApiKey ss_old", "Bearer eyJhbGci.eyJzdWIi.c2ln"])
async def test_each_kind_of_credential_goes_out_under_its_own_scheme(play: PlayedSequencer, key: str) -> None:
    async with SequencerClient(play.url, api_key=key.split()[1], retry=QUICK) as client:
        await client.receipt_keys()
    assert set(play.authorizations) == {key}


@pytest.mark.parametrize(
    "url", ["http://sequencer.example", "http://10.0.0.7:8080", "http://127.0.0.1.example"]
)
async def test_a_credential_is_not_sent_in_clear_text_to_another_machine(url: str) -> None:
    with pytest.raises(InsecureUrl, match="plain http"):
        SequencerClient(url, api_key="ss_secret")
    async with SequencerClient(url, api_key="ss_secret", allow_plain_http=True):
        pass
    async with SequencerClient(url):
        pass


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://a.example"]
)
async def test_loopback_and_https_may_carry_a_credential(url: str) -> None:
    async with SequencerClient(url, api_key="ss_secret"):
        pass


async def test_a_redirect_is_a_refusal_and_not_followed(play: PlayedSequencer) -> None:
    play.script["/api/v1/ves/head"].append(Fails(302, location="http://127.0.0.1:1/"))
    async with SequencerClient(play.url, api_key="ss_secret", retry=QUICK) as client:
        with pytest.raises(Refused, match="302"):
            await client.head(Stream(bytes(16), bytes(16)))


async def test_events_of_two_streams_do_not_go_into_one_request(play: PlayedSequencer) -> None:
    other = agent_of(play).sign(bytes(16), entity_type="a", entity_id="b", event_type="c", payload=1)
    async with SequencerClient(play.url, retry=QUICK) as client:
        with pytest.raises(ValueError, match="one stream"):
            await client.post([*signed(play), other])
        with pytest.raises(ValueError, match="1 to 1000"):
            await client.post([])
    assert play.bodies[INGEST] == []
