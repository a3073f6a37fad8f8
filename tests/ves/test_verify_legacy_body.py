"""A legacy body on its way through a verifier's process: typed, in scope, hashed; and never an exception."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from other_rooms import legacy_text as reference_text

from ves.canonical import NotCanonical, canonical_payload
from ves.encoding import uuid_text
from ves.legacy import EmptyBatch, LegacyBatch, LegacyEvent, payload_hash
from ves.legacy_text import legacy_text
from ves.legacy_verification import verify_legacy_body
from ves.records import BodyRefused, NeedsPolicy, Refusal, Scope
from ves.timestamps import parse_loosely, parse_rfc3339, zulu_text
from ves.verification import Demands

TENANT, STORE, AGENT = b"T" * 16, b"S" * 16, b"A" * 16
NOW_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
ANY = Scope(None, None, None)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
@example({"b": 1.0, "a": -0.0, "\U0001f600": 1e16, "\uffff": 1e21}, True)
def test_the_text_is_the_reference_formatters_or_the_payload_is_refused(value: Any, ascii_only: bool) -> None:
    """Accepted is what the VES stream would accept; written is what the original hashed."""
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
    try:
        canonical_payload(raw)
    except NotCanonical:
        with pytest.raises(NotCanonical):
            legacy_text(raw)
        return
    text = legacy_text(raw)
    assert text.decode() == reference_text(value)
    assert legacy_text(text) == text


def event(**changes: Any) -> dict[str, Any]:
    plain = {
        "event_id": uuid_text(b"E" * 16),
        "tenant_id": uuid_text(TENANT),
        "store_id": uuid_text(STORE),
        "entity_type": "order",
        "entity_id": "o:1",
        "event_type": "order.created",
        "payload": {"n": 1},
        "payload_hash": payload_hash(b'{"n":1}').hex(),
        "created_at": "2026-01-01T00:00:00Z",
        "source_agent": uuid_text(AGENT),
    }
    return {**plain, **changes}


def body(*events: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"agent_id": uuid_text(AGENT), "events": events, **more}).encode()


def one(raw: bytes) -> LegacyEvent | Refusal:
    batch = verify_legacy_body(raw, ANY, now_us=NOW_US)
    assert isinstance(batch, LegacyBatch), batch
    [outcome] = batch.outcomes
    return outcome


@pytest.mark.parametrize(
    "raw",
    [body(event()), body(event(unknown={"a:b": 1}), more="x"), body(event(entity_id="o:\\1\\u003a"))],
    ids=["fast", "unknown-members", "escaped-colons"],
)
def test_both_ways_of_reading_find_the_same(raw: bytes) -> None:
    found = one(raw)
    assert isinstance(found, LegacyEvent)
    assert (found.payload, found.source_agent, found.created_at_us) == (b'{"n":1}', AGENT, NOW_US)


@pytest.mark.parametrize("where", ["payload", "entity_id"])
def test_half_a_surrogate_pair_is_one_events_fault(where: str) -> None:
    raw = body(event(**{where: "HALF"}), event()).replace(b"HALF", b"\\ud800")
    batch = verify_legacy_body(raw, ANY, now_us=NOW_US)
    assert isinstance(batch, LegacyBatch)
    bad, good = batch.outcomes
    assert isinstance(bad, Refusal)
    assert (bad.reason, bad.message) == ("SchemaValidation", f"{where} holds half of a surrogate pair")
    assert isinstance(good, LegacyEvent)


def test_an_event_from_the_future_has_a_finding_and_is_not_refused_yet() -> None:
    found = one(body(event(created_at=zulu_text(NOW_US + 3_600_000_001))))
    assert isinstance(found, LegacyEvent)
    assert [finding.reason for finding in found.findings] == ["SchemaValidation"]
    still = one(body(event(created_at=zulu_text(NOW_US + 3_600_000_000))))
    assert isinstance(still, LegacyEvent)
    assert still.findings == ()


def test_scope_comes_before_policies_and_an_empty_batch_asks_for_none() -> None:
    def needs(request: object) -> Demands | NeedsPolicy:
        return NeedsPolicy(TENANT)

    foreign = Scope(b"O" * 16, None, None)
    refused = verify_legacy_body(body(event()), foreign, now_us=0, demands_of=needs)
    assert isinstance(refused, BodyRefused)
    assert refused.status == 403
    assert verify_legacy_body(body(event()), ANY, now_us=0, demands_of=needs) == NeedsPolicy(TENANT)
    assert verify_legacy_body(body(), foreign, now_us=0, demands_of=needs) == EmptyBatch()
    other_agent = verify_legacy_body(body(), Scope(TENANT, None, b"O" * 16), now_us=0)
    assert isinstance(other_agent, BodyRefused)
    assert other_agent.status == 403


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_bytes_it_answers(raw: bytes) -> None:
    for sent in (raw, body(event()).replace(b'{"n": 1}', raw), body(event()).replace(b'"order"', raw)):
        answer = verify_legacy_body(sent, ANY, now_us=NOW_US)
        assert isinstance(answer, LegacyBatch | EmptyBatch | BodyRefused)


def test_deep_and_long_payloads_are_refused_in_time() -> None:
    for payload in ("[" * 124 + "]" * 124, "[" * sys.getrecursionlimit() + "]" * sys.getrecursionlimit()):
        sent = body(event(payload="DEEP")).replace(b'"DEEP"', payload.encode())
        answer = verify_legacy_body(sent, ANY, now_us=NOW_US)
        if isinstance(answer, LegacyBatch):
            assert payload.count("[") == 124
        else:
            assert isinstance(answer, BodyRefused)
            assert answer.status == 400
    long = one(body(event(payload="x" * (1 << 20))))
    assert isinstance(long, Refusal)
    assert long.message == "payload has 1048578 bytes, at most 1048576 fit"


@pytest.mark.parametrize(
    ("loose", "strict"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31 12:00:00 UTC", "2026-01-31T12:00:00Z"),
        (" 2026-01-31t12:00:00.25+0130 ", "2026-01-31T10:30:00.25Z"),
        ("2026-01-31T12:00:00 \u221201:30", "2026-01-31T13:30:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_read_loosely(loose: str, strict: str) -> None:
    assert parse_loosely(loose) == parse_rfc3339(strict)
    assert parse_rfc3339(zulu_text(parse_loosely(loose))) == parse_loosely(loose)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        "\u0662026-01-31T12:00:00Z",
        "",
    ],
)
def test_what_is_no_time_or_cannot_be_written_again_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="must be RFC 3339"):
        parse_loosely(text)
