"""The worker's way: whole-body refusals, per-event refusals, their order, and never an exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ves import envelopes
from ves.canonical import canonical_payload
from ves.constants import EVENTS_PER_REQUEST_MAX
from ves.encoding import prefixed_hex, uuid_text
from ves.events import (
    EventHeader,
    encrypted_envelope,
    event_signing_hash,
    payload_plain_hash,
    plaintext_envelope,
    request_body,
)
from ves.payload_encryption import seal
from ves.records import (
    BodyRefused,
    KeyName,
    NeedsKeys,
    NeedsPolicy,
    NeedsSchemas,
    Refusal,
    Scope,
    VerifiedBatch,
    VerifiedEvent,
)
from ves.signatures import Signer
from ves.verification import AwaitsKeys, verify_body

AGENT = Signer(bytes(range(32)))
TENANT, STORE, AGENT_ID = b"T" * 16, b"S" * 16, b"A" * 16
KEY = KeyName(TENANT, AGENT_ID, 1)
KEYS = {KEY: AGENT.public_key}
NOW_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
ANY = Scope(None, None, None)
OWN = Scope(TENANT, (STORE,), AGENT_ID)
CREATED_AT = "2026-01-01T00:00:00.000Z"


def header(number: int = 1, **changes: Any) -> EventHeader:
    plain = EventHeader(
        TENANT,
        STORE,
        number.to_bytes(16, "big"),
        AGENT_ID,
        1,
        "order",
        f"O-{number}",
        "order.created",
        CREATED_AT,
    )
    return msgspec.structs.replace(plain, **changes)


def plaintext(number: int = 1, payload: Any = None, **changes: Any) -> dict[str, Any]:
    """A signed envelope as plain JSON values."""
    made = plaintext_envelope(
        AGENT, header(number, **changes), {"total": 99.5, "n": number} if payload is None else payload
    )
    return json.loads(msgspec.json.encode(made))  # type: ignore[no-any-return]


def encrypted(number: int = 1) -> dict[str, Any]:
    recipient = {1: bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")}
    sealed = seal(header(number), {"a": 1}, recipient, salt=b"s" * 16, dek=b"d" * 32, nonce=b"n" * 12)
    return json.loads(msgspec.json.encode(encrypted_envelope(AGENT, header(number), *sealed)))  # type: ignore[no-any-return]


def signed_raw(payload: str, plain_of: bytes = b"{}") -> str:
    """An envelope's text around any payload text, with the hash of ``plain_of``."""
    envelope = plaintext(payload={})
    envelope["payload_plain_hash"] = prefixed_hex(payload_plain_hash(plain_of))
    envelope["payload"] = "PAYLOAD"
    return json.dumps(envelope).replace('"PAYLOAD"', payload)


def body_of(*events: dict[str, Any]) -> bytes:
    return json.dumps({"agentId": uuid_text(AGENT_ID), "events": events}).encode()


def body_of_text(*events: str) -> bytes:
    return f'{{"agentId":"{uuid_text(AGENT_ID)}","events":[{",".join(events)}]}}'.encode()


def verify(body: bytes, scope: Scope = OWN) -> VerifiedBatch | BodyRefused | NeedsKeys:
    answer = verify_body(body, scope, KEYS.get, now_us=NOW_US)
    assert not isinstance(answer, NeedsPolicy | NeedsSchemas)
    return answer.needs if isinstance(answer, AwaitsKeys) else answer


def only(body: bytes, scope: Scope = OWN) -> VerifiedEvent | Refusal:
    batch = verify(body, scope)
    assert isinstance(batch, VerifiedBatch), batch
    assert len(batch.outcomes) == 1
    return batch.outcomes[0]


def reason(body: bytes) -> str:
    outcome = only(body)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.event_id == (1).to_bytes(16, "big")
    assert outcome.message
    return outcome.reason


def refused(body: bytes, scope: Scope = OWN) -> tuple[int, str, str]:
    answer = verify(body, scope)
    assert isinstance(answer, BodyRefused), answer
    return answer.status, answer.code, answer.message


# What is accepted.


def test_an_honest_request_is_verified_event_by_event_in_its_order() -> None:
    batch = verify(body_of(plaintext(3), encrypted(1), plaintext(2)))
    assert isinstance(batch, VerifiedBatch)
    assert (batch.tenant_id, batch.store_id, batch.agent_id) == (TENANT, STORE, AGENT_ID)
    assert [event.event_id[-1] for event in batch.outcomes] == [3, 1, 2]
    assert [event.payload_kind for event in batch.outcomes if isinstance(event, VerifiedEvent)] == [0, 1, 0]


def test_a_verified_event_carries_what_was_signed() -> None:
    envelope = plaintext(5, {"b": 1.0, "a": "é"})
    envelope |= {"command_id": uuid_text(b"C" * 16), "base_version": 7}
    event = only(body_of(envelope))
    assert isinstance(event, VerifiedEvent)
    plain = payload_plain_hash('{"a":"é","b":1}'.encode())
    assert event == VerifiedEvent(
        event_id=(5).to_bytes(16, "big"),
        source_agent_id=AGENT_ID,
        agent_key_id=1,
        entity_type="order",
        entity_id="O-5",
        event_type="order.created",
        created_at=CREATED_AT,
        payload_kind=0,
        payload='{"a":"é","b":1}'.encode(),
        payload_plain_hash=plain,
        payload_cipher_hash=bytes(32),
        agent_signature=bytes.fromhex(envelope["agent_signature"][2:]),
        event_signing_hash=event_signing_hash(header(5).encoded(), 0, plain, bytes(32)),
        command_id=b"C" * 16,
        base_version=7,
    )


def test_an_encrypted_event_stores_the_known_members_of_its_payload() -> None:
    envelope = encrypted()
    spelled = {"unknown": {"x": 1}, **envelope["payload_encrypted"]}
    event = only(body_of({**envelope, "payload_encrypted": spelled}))
    assert isinstance(event, VerifiedEvent)
    assert event.payload == json.dumps(envelope["payload_encrypted"], separators=(",", ":")).encode()


def _upper(envelope: dict[str, Any]) -> None:
    envelope["agent_signature"] = envelope["agent_signature"][2:].upper()
    envelope["payload_plain_hash"] = "0x" + envelope["payload_plain_hash"][2:].upper()
    envelope["event_id"] = envelope["event_id"].upper()


SPELLINGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "upper case and no 0x": _upper,
    "urn uuid": lambda e: e.update(event_id="urn:uuid:" + e["event_id"]),
    "braced uuid": lambda e: e.update(store_id="{" + e["store_id"] + "}"),
    "simple uuid": lambda e: e.update(tenant_id=e["tenant_id"].replace("-", "")),
    "null optionals": lambda e: e.update(
        command_id=None, base_version=None, agent_signature_scheme=None, payload_encrypted=None
    ),
    "scheme 0": lambda e: e.update(agent_signature_scheme=0),
    "scheme 1": lambda e: e.update(agent_signature_scheme=1, agent_signature_bundle={"a": [1, 2]}),
    "unknown members": lambda e: e.update(extra={"a:b": [":"], "a": {"a": 1e400}}, sequence_number="x"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_that_mean_the_same_are_the_same_event(name: str) -> None:
    envelope = plaintext()
    expected = only(body_of(envelope))
    SPELLINGS[name](envelope)
    for text in (json.dumps(envelope), json.dumps(envelope, indent=1), json.dumps(envelope)[::1]):
        assert only(body_of_text(text.replace("Infinity", "1e400"))) == expected
    escaped = "".join(
        f"\\u{ord(c):04x}" if c in "o:d" else c for c in json.dumps(envelope["entity_id"])[1:-1]
    )
    text = json.dumps(envelope).replace(json.dumps(envelope["entity_id"])[1:-1], escaped)
    assert only(body_of_text(text.replace("Infinity", "1e400"))) == expected


def test_names_with_colons_quotes_and_backslashes_are_names_like_others() -> None:
    for name in (':":', '\\":', "a:b:c", '"', "\\u003a", "é\u2028😀"):
        event = only(body_of(plaintext(entity_id=name, entity_type=name, event_type=name)))
        assert isinstance(event, VerifiedEvent)
        assert event.entity_id == name


def test_the_wrapper_may_have_unknown_members_and_an_odd_spelling_of_the_agent() -> None:
    expected = only(body_of(plaintext()))
    event = json.dumps(plaintext())
    for wrapper in (
        '{"x":{"events":1},"agentId":"%s","events":[%s],"y":"::"}',
        '{"agentId":"urn:uuid:%s","events":[%s]}',
        '{"agentId":"urn\\u003auuid\\u003a%s","events":[%s]}',
        ' {\n"agent\\u0049d" : "%s" , "events" : [ %s ] }\n',
    ):
        assert only((wrapper % (uuid_text(AGENT_ID), event)).encode()) == expected


# Read at once, or event by event.

PIECES = (
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        "\\",
        "\\u003a",
        "\\ud800",
        "\xe9",
        "null",
        "0",
        "-1",
        "1.0",
        "x",
        " ",
    ),
    *('"entity_id":"x",', '"payload":{},', '"command_id":null,', '"x":1,', '"events":[],', "urn:uuid:"),
    *("[" * 125 + "]" * 125, "1e400", "9007199254740993"),
)
edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.sampled_from(PIECES) | st.just("")),
    max_size=3,
)
ANY_KIND = body_of(
    plaintext(),
    {**encrypted(2), "agent_signature_scheme": 1, "agent_signature_bundle": {"a": [1]}},
    {**plaintext(3, entity_id="a:b"), "command_id": uuid_text(b"C" * 16), "base_version": 7},
).decode()


def edited(text: str, changes: list[tuple[float, int, str]]) -> bytes:
    for where, cut, piece in changes:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + cut :]
    return text.encode()


def in_front_of(member: str, piece: str) -> tuple[float, int, str]:
    return (ANY_KIND.index(f'"{member}"') + 0.5) / len(ANY_KIND), 0, piece


@given(edits)
@example([])
@example([in_front_of("entity_id", '"entity_id":"x",')])
@example([in_front_of("agent_signature_bundle", '"payload":{},')])
@example([in_front_of("entity_id", '"x":' + "[" * 126 + "]" * 126 + ",")])
def test_a_body_read_at_once_is_what_it_is_read_event_by_event(changes: list[tuple[float, int, str]]) -> None:
    body = edited(ANY_KIND, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelopes, "_whole", lambda body: None)
        expected = verify(body)
    assert verify(body) == expected


@pytest.mark.parametrize("member", ["payload", "payload_encrypted", "agent_signature_bundle"])
def test_members_that_nest_are_bounded_when_read_at_once(member: str) -> None:
    for levels, status in ((124, None), (125, 400)):
        text = json.dumps({**plaintext(), member: "DEEP"}).replace('"DEEP"', "[" * levels + "]" * levels)
        answer = verify(body_of_text(text))
        assert (answer.status if isinstance(answer, BodyRefused) else None) == status


# The whole body.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"\xff",
        b"nonsense",
        b'{"agentId":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"events":[NaN]}',
        b'{"agentId":5,"events":[01]}',
        b'{"agentId":"x","events":[{"payload":tru}]}',
        body_of(plaintext()) + b"x",
        body_of(plaintext()) + body_of(plaintext()),
        body_of(plaintext())[:-1],
        body_of_text(signed_raw('"\xff"')).replace(b"\xc3\xbf", b"\xff"),
        b'{"x":' + b"[" * 50_000,
    ],
)
def test_bytes_that_are_no_json_text_are_a_400(body: bytes) -> None:
    status, code, message = refused(body)
    assert (status, code) == (400, "INVALID_REQUEST_BODY")
    assert message


def test_nesting_is_bounded_for_the_whole_body_wherever_it_is() -> None:
    fits = "[" * 124 + "]" * 124
    assert isinstance(only(body_of_text(signed_raw(fits, fits.encode()))), Refusal)  # only its signature
    assert reason(body_of_text(signed_raw(fits, fits.encode()))) == "invalid_signature"
    deep = "[" * 125 + "]" * 125
    agent, event = uuid_text(AGENT_ID), json.dumps(plaintext())
    very = "[" * 127 + "]" * 127
    for body in (
        body_of_text(signed_raw(deep)),
        body_of_text(event[:-1] + f',"x":{deep}}}'),
        f'{{"agentId":"{agent}","events":[{event}],"x":{very}}}'.encode(),
        f'{{"agentId":"{agent}","events":[],"x":{"[" * 90_000 + "]" * 90_000}}}'.encode(),
        body_of_text("[" * 90_000 + "]" * 90_000),
    ):
        status, code, message = refused(body)
        assert (status, code) == (400, "INVALID_REQUEST_BODY")
        assert "nested deeper than 127" in message


TYPES = [
    ("events[1].event_id", {"event_id": "no"}),
    ("events[1].event_id", {"event_id": None}),
    ("events[1].tenant_id", {"tenant_id": 5}),
    ("events[1].store_id", {"store_id": "\ud800"}),
    ("events[1].source_agent_id", {"source_agent_id": ""}),
    ("events[1].command_id", {"command_id": ""}),
    ("events[1].agent_key_id", {"agent_key_id": -1}),
    ("events[1].agent_key_id", {"agent_key_id": 2**32}),
    ("events[1].agent_key_id", {"agent_key_id": 1.0}),
    ("events[1].agent_key_id", {"agent_key_id": 10**60}),
    ("events[1].ves_version", {"ves_version": "1"}),
    ("events[1].ves_version", {"ves_version": True}),
    ("events[1].payload_kind", {"payload_kind": 2}),
    ("events[1].payload_plain_hash", {"payload_plain_hash": "0X" + "00" * 32}),
    ("events[1].payload_cipher_hash", {"payload_cipher_hash": "00" * 31}),
    ("events[1].agent_signature", {"agent_signature": "0x"}),
    ("events[1].agent_signature", {"agent_signature": "g" * 128}),
    ("events[1].base_version", {"base_version": -1}),
    ("events[1].base_version", {"base_version": 1.5}),
    ("events[1].base_version", {"base_version": 2**63}),
    ("events[1].agent_signature_scheme", {"agent_signature_scheme": "1"}),
    ("events[1].entity_type", {"entity_type": 5}),
    ("events[1].created_at", {"created_at": None}),
]


@pytest.mark.parametrize(("field", "change"), TYPES)
def test_a_member_of_the_wrong_type_is_a_422_that_names_it_and_says_what_it_must_be(
    field: str, change: dict[str, Any]
) -> None:
    status, code, message = refused(body_of(plaintext(), {**plaintext(2), **change}))
    assert (status, code) == (422, "INVALID_FIELD_VALUE")
    assert message.startswith(field + " must be ")


REQUIRED = sorted(set(plaintext()) - {"payload"})


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_member_is_a_422_that_names_it(name: str) -> None:
    assert len(REQUIRED) == 14
    envelope = plaintext()
    del envelope[name]
    status, code, message = refused(body_of(envelope))
    assert (status, code) == (422, "MISSING_REQUIRED_FIELD")
    assert message.startswith(f"events[0].{name} is required: ")


@pytest.mark.parametrize("name", [*sorted(plaintext()), "command_id", "payload_encrypted"])
@pytest.mark.parametrize("form", ['%s,"%s":%s', '%s,"%s" :%s', '%s , "\\u003a":1,"%s" : %s'])
def test_a_member_given_twice_is_a_422_even_with_the_same_value(name: str, form: str) -> None:
    envelope = plaintext()
    envelope |= {"command_id": None, "payload_encrypted": None, "entity_id": "a:b:\\:"}
    text = form % (json.dumps(envelope)[:-1], name, json.dumps(envelope[name])) + "}"
    status, code, message = refused(body_of_text(text))
    assert (status, code) == (422, "INVALID_FIELD_VALUE")
    assert message == f"events[0].{name} is given twice; send it once"


def test_a_doubled_member_cannot_hide_behind_escaped_colons() -> None:
    for name, colons in (("entity_type", 1), ("created_at", 3)):
        envelope = plaintext(entity_id="x" + ":" * colons)
        text = json.dumps(envelope).replace("x" + ":" * colons, "x" + "\\u003A" * colons)[:-1]
        _, _, message = refused(body_of_text(f'{text},"{name}":{json.dumps(envelope[name])}}}'))
        assert message == f"events[0].{name} is given twice; send it once"


@pytest.mark.parametrize(
    ("body", "code", "start"),
    [
        (b"[]", "INVALID_FIELD_VALUE", "the body must be an object"),
        (b"null", "INVALID_FIELD_VALUE", "the body must be an object"),
        (b"{}", "MISSING_REQUIRED_FIELD", "agentId is required"),
        (b'{"agent_id":"x","events":[]}', "MISSING_REQUIRED_FIELD", "agentId is required"),
        (body_of().partition(b', "events"')[0] + b"}", "MISSING_REQUIRED_FIELD", "events is required"),
        (b'{"agentId":5,"events":[]}', "INVALID_FIELD_VALUE", "agentId must be a UUID"),
        (b'{"agentId":"x","events":[]}', "INVALID_FIELD_VALUE", "agentId must be a UUID"),
        (b'{"agentId":"\\ud800","events":[]}', "INVALID_FIELD_VALUE", "agentId must be a UUID"),
        (b'{"agentId":"x","events":{}}', "INVALID_FIELD_VALUE", "events must be an array"),
        (body_of_text("5"), "INVALID_FIELD_VALUE", "events[0] must be an object"),
        (body_of_text("[1]"), "INVALID_FIELD_VALUE", "events[0] must be an object"),
        (body_of_text("null"), "INVALID_FIELD_VALUE", "events[0] must be an object"),
        (body_of()[:-1] + b',"events":[]}', "INVALID_FIELD_VALUE", "events is given twice"),
        (b'{"agentId":"x",' + body_of(plaintext())[1:], "INVALID_FIELD_VALUE", "agentId is given twice"),
    ],
)
def test_a_wrong_wrapper_is_a_422(body: bytes, code: str, start: str) -> None:
    status, found, message = refused(body)
    assert (status, found) == (422, code)
    assert message.startswith(start)


def test_a_wrapper_given_twice_with_all_its_events_is_noticed() -> None:
    once = body_of(plaintext())
    twice = once[:-1] + b"," + once[1:]
    assert refused(twice)[2].endswith("is given twice; send it once")


# Scope, in the order of the wire's rows.


def test_scope_is_checked_row_by_row_before_any_hash() -> None:
    broken = {**plaintext(), "payload_plain_hash": "00" * 32}
    other_store = {**plaintext(2), "store_id": uuid_text(b"X" * 16)}
    other_agent = {**plaintext(2), "source_agent_id": uuid_text(b"X" * 16)}
    assert refused(body_of())[:2] == (400, "INVALID_FIELD_VALUE")
    assert refused(body_of())[2] == "events must not be empty"
    status, code, message = refused(body_of(broken, other_store))
    assert (status, code) == (400, "INVALID_FIELD_VALUE")
    assert "events[1] names another stream" in message
    for scope in (
        Scope(None, None, b"X" * 16),
        Scope(b"X" * 16, None, None),
        Scope(TENANT, (), AGENT_ID),
        Scope(None, (b"X" * 16,), None),
    ):
        assert refused(body_of(broken), scope)[:2] == (403, "INSUFFICIENT_PERMISSIONS")
    assert "Agent mismatch" in refused(body_of(broken, other_agent), Scope(None, None, b"X" * 16))[2]
    status, code, message = refused(body_of(broken, other_agent), Scope(b"X" * 16, None, None))
    assert (status, code, message[:25]) == (400, "INVALID_FIELD_VALUE", "events[1].source_agent_id")
    assert isinstance(only(body_of(plaintext()), ANY), VerifiedEvent)


def test_a_batch_of_one_thousand_fits_and_one_more_does_not() -> None:
    event = json.dumps({**plaintext(), "payload_plain_hash": "00" * 32})
    assert EVENTS_PER_REQUEST_MAX == 1000
    batch = verify(body_of_text(*[event] * 1000))
    assert isinstance(batch, VerifiedBatch)
    assert len(batch.outcomes) == 1000
    too_many = body_of_text(*[event] * 1001)
    assert refused(too_many)[:2] == (413, "BATCH_TOO_LARGE")
    assert refused(too_many, Scope(b"X" * 16, None, None))[0] == 403


# One event.


EVENT_REFUSALS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "version": ("unsupported_version", lambda: {**plaintext(), "ves_version": 2}),
    "empty entity_type": ("schema_validation: entity_type", lambda: plaintext(entity_type="")),
    "long entity_type": ("schema_validation: entity_type", lambda: plaintext(entity_type="x" * 129)),
    "bytes not characters": ("schema_validation: entity_id", lambda: plaintext(entity_id="é" * 257)),
    "long event_type": ("schema_validation: event_type", lambda: plaintext(event_type="x" * 257)),
    "U+0000 in entity_id": ("schema_validation: entity_id", lambda: plaintext(entity_id="a\0b")),
    "surrogate in event_type": (
        "schema_validation: event_type",
        lambda: {**plaintext(), "event_type": "\ud800"},
    ),
    "no payload": ("schema_validation: payload", lambda: {**plaintext(), "payload": None}),
    "both payloads": (
        "schema_validation: payload_encrypted",
        lambda: {**plaintext(), "payload_encrypted": {}},
    ),
    "cipher hash of plaintext": (
        "schema_validation: payload_cipher_hash",
        lambda: {**plaintext(), "payload_cipher_hash": "01" * 32},
    ),
    "payload beside encrypted": ("schema_validation: payload", lambda: {**encrypted(), "payload": {}}),
    "no payload_encrypted": (
        "schema_validation: payload_encrypted",
        lambda: {**encrypted(), "payload_encrypted": None},
    ),
    "payload_encrypted no object": (
        "schema_validation: payload_encrypted",
        lambda: {**encrypted(), "payload_encrypted": [1]},
    ),
    "nonce": (
        "schema_validation: payload_encrypted.nonce_b64u",
        lambda: {**encrypted(), "payload_encrypted": {**encrypted()["payload_encrypted"], "nonce_b64u": ""}},
    ),
    "too large": ("schema_validation: payload", lambda: plaintext(payload="x" * (2**20 - 1))),
    "created_at": ("schema_validation: created_at", lambda: plaintext(created_at="yesterday")),
    "endless created_at": (
        "schema_validation: created_at",
        lambda: plaintext(created_at="2026-01-01T00:00:00." + "0" * 60 + "Z"),
    ),
    "plain hash": ("invalid_payload_hash", lambda: {**plaintext(), "payload_plain_hash": "00" * 32}),
    "cipher hash": ("invalid_cipher_hash", lambda: {**encrypted(), "payload_cipher_hash": "00" * 32}),
    "signature": ("invalid_signature", lambda: {**plaintext(), "agent_signature": "00" * 64}),
    "scheme": ("invalid_signature", lambda: {**plaintext(), "agent_signature_scheme": 2}),
}


@pytest.mark.parametrize("name", EVENT_REFUSALS)
def test_one_bad_event_is_refused_with_its_reason_and_its_neighbour_is_not(name: str) -> None:
    expected, make = EVENT_REFUSALS[name]
    assert reason(body_of(make())) == expected
    batch = verify(body_of(plaintext(2), make()))
    assert isinstance(batch, VerifiedBatch)
    assert isinstance(batch.outcomes[0], VerifiedEvent)
    assert isinstance(batch.outcomes[1], Refusal)


@pytest.mark.parametrize(
    "payload",
    ['{"a":1,"a":1}', '{"a":[{"b":1,"b" :2}]}', "1e16", "9007199254740993", '"\\ud800"', "1e400"],
)
def test_a_payload_readers_would_read_differently_is_that_events_refusal(payload: str) -> None:
    body = body_of_text(signed_raw(payload), json.dumps(plaintext(2)))
    batch = verify(body)
    assert isinstance(batch, VerifiedBatch)
    first, second = batch.outcomes
    assert isinstance(first, Refusal)
    assert first.reason == "schema_validation: payload"
    assert isinstance(second, VerifiedEvent)


def test_half_a_surrogate_pair_is_its_own_events_fault_and_whole_pairs_are_nobodys() -> None:
    whole = json.dumps(
        plaintext(2, {"\U0001f600": "\U0001f600\U0001f601", "\\ud800": "\\"}, entity_id="\U0001f600")
    )
    assert "\\ud83d\\ude00" in whole
    assert "\\\\ud800" in whole
    for half in (
        "\\ud800",
        "\\ud800\\ud83d\\ude00",
        "\\\\\\udfff",
        "\\ud83d\\ude00\\ude00",
        "\\uD800\\uDBFF",
    ):
        name = json.dumps(plaintext()).replace('"O-1"', f'"{half}"')
        payload = signed_raw(f'{{"x":["{half}"]}}')
        member = signed_raw(f'{{"{half}":1}}')
        batch = verify(body_of_text(whole, name, payload, whole, member))
        assert isinstance(batch, VerifiedBatch)
        assert [getattr(outcome, "reason", "verified") for outcome in batch.outcomes] == [
            "verified",
            "schema_validation: entity_id",
            "schema_validation: payload",
            "verified",
            "schema_validation: payload",
        ]


def test_a_zero_byte_in_a_payload_is_fine_and_one_mebibyte_of_it_fits() -> None:
    assert isinstance(only(body_of(plaintext(payload={"a\0": "\0"}))), VerifiedEvent)
    assert isinstance(only(body_of(plaintext(payload="x" * (2**20 - 2)))), VerifiedEvent)


def test_every_signed_member_changed_after_signing_is_refused() -> None:
    changes: dict[str, Any] = {
        "event_id": uuid_text(b"X" * 16),
        "entity_type": "orders",
        "entity_id": "O-2",
        "event_type": "order.paid",
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "payload_plain_hash": "00" * 32,
        "payload": {"n": 2},
    }
    for name, value in changes.items():
        outcome = only(body_of({**plaintext(), name: value}))
        assert isinstance(outcome, Refusal), name
    other_key = verify_body(
        body_of({**plaintext(), "agent_key_id": 2}),
        OWN,
        {KEY._replace(key_id=2): AGENT.public_key}.get,
        now_us=NOW_US,
    )
    assert isinstance(other_key, VerifiedBatch)
    assert isinstance(other_key.outcomes[0], Refusal)


def test_a_time_more_than_an_hour_ahead_is_a_finding_and_no_refusal() -> None:
    for text, findings in (("2026-01-01T01:00:00.000Z", 0), ("2026-01-01T01:00:00.001Z", 1)):
        event = only(body_of(plaintext(created_at=text)))
        assert isinstance(event, VerifiedEvent)
        assert [finding.reason for finding in event.findings] == ["schema_validation: created_at"] * findings


# Keys.


def test_missing_keys_are_asked_for_all_at_once_and_only_for_events_that_need_one() -> None:
    body = body_of(
        plaintext(1),
        plaintext(2, agent_key_id=2),
        {**plaintext(3, agent_key_id=3), "payload_plain_hash": "00" * 32},
        plaintext(4, agent_key_id=2),
        plaintext(5, agent_key_id=4),
    )
    two, four = KEY._replace(key_id=2), KEY._replace(key_id=4)
    answer = verify_body(body, OWN, KEYS.get, now_us=NOW_US)
    assert isinstance(answer, AwaitsKeys)
    assert answer.needs == NeedsKeys([two, four])
    batch = answer.with_keys({two: AGENT.public_key})
    assert [getattr(outcome, "reason", "verified") for outcome in batch.outcomes] == [
        "verified",
        "verified",
        "invalid_payload_hash",
        "verified",
        "agent_key_invalid: Agent key not found",
    ]


def test_a_body_whose_every_event_is_refused_needs_no_key() -> None:
    body = body_of({**plaintext(), "payload_plain_hash": "00" * 32})
    assert isinstance(verify_body(body, OWN, {}.get, now_us=NOW_US), VerifiedBatch)


# Whatever comes in.


def _accounted_for(body: bytes) -> VerifiedBatch | BodyRefused | NeedsKeys:
    answer = verify(body, ANY)
    # It must also cross the pipe to the parent process.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=type(answer)) == answer
    return answer


@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    _accounted_for(body)


HONEST = body_of(plaintext(1, payload={"a:": [1.5, "\u003a", None], "é": {"b": True}}), encrypted(2))
FRAGMENTS = [b"", b'"', b"\\", b"\\ud800", b"\\u003a", b":", b",", b"{", b"}", b"[", b"]", b"null", b"1e400"]
FRAGMENTS += [b"\xff", b"\0", b"-", b"1.0", b'"a":1,', b"99999999999999999999", b"true", b"0x", b" ", b"NaN"]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(HONEST)), st.integers(0, 40), st.sampled_from(FRAGMENTS)),
        min_size=1,
        max_size=4,
    )
)
@example([(0, 0, b"")])
def test_no_mutation_of_an_honest_body_makes_it_raise_or_lie(
    edits: list[tuple[int, int, bytes]],
) -> None:
    body = HONEST
    for position, length, fragment in edits:
        body = body[:position] + fragment + body[position + length :]
    answer = _accounted_for(body)
    if isinstance(answer, VerifiedBatch):
        for outcome in answer.outcomes:
            if isinstance(outcome, VerifiedEvent):
                _is_signed_as_stored(outcome)


def _is_signed_as_stored(event: VerifiedEvent) -> None:
    head = EventHeader(
        TENANT,
        STORE,
        event.event_id,
        event.source_agent_id,
        event.agent_key_id,
        event.entity_type,
        event.entity_id,
        event.event_type,
        event.created_at,
    )
    digest = event_signing_hash(
        head.encoded(), event.payload_kind, event.payload_plain_hash, event.payload_cipher_hash
    )
    assert digest == event.event_signing_hash
    assert AGENT.sign(digest) == event.agent_signature
    if event.payload_kind == 0:
        assert canonical_payload(event.payload) == event.payload
        assert payload_plain_hash(event.payload) == event.payload_plain_hash


members = st.sampled_from([*plaintext(), "command_id", "base_version", "agent_signature_scheme", "x"])
values = st.sampled_from(
    [None, True, 0, 1, -1, 2**31, 2**63, 2**64, 10**50, 1.0, "", "x", "\ud800", "\0", [], [1], {}, {"a": 1}]
)


@settings(max_examples=150)
@given(st.dictionaries(members, values, max_size=3), st.sets(members, max_size=2), st.booleans())
def test_no_member_of_any_type_makes_it_raise_and_both_readers_agree(
    changes: dict[str, Any], gone: set[str], spaced: bool
) -> None:
    envelope = {name: value for name, value in {**plaintext(), **changes}.items() if name not in gone}
    fast = _accounted_for(body_of(envelope))
    # An unknown member with a colon sends the event down the slow way.
    slow = _accounted_for(body_of({**envelope, "unknown": ":"}))
    assert fast == slow


def test_what_an_agent_builds_is_what_the_sequencer_accepts() -> None:
    envelopes = [plaintext_envelope(AGENT, header(n), {"n": n}, base_version=n) for n in range(1, 4)]
    batch = verify(request_body(AGENT_ID, envelopes))
    assert isinstance(batch, VerifiedBatch)
    assert all(isinstance(outcome, VerifiedEvent) for outcome in batch.outcomes)
    for payload in (None, 2**53, float("nan"), {1: 2}, "\ud800"):
        with pytest.raises(ValueError):
            plaintext_envelope(AGENT, header(), payload)
