"""What agents send: events, their payloads, and the spellings in them."""

from __future__ import annotations

import json
import re
import string
import uuid
from typing import Any

import rfc8785

from tests.fuzz.target import Plant, Target, law, unnamed
from tests.ves.test_verify_body import ANY, KEYS, NOW_US, OWN, body_of, encrypted, plaintext
from ves import encoding, timestamps
from ves.bodies import read_body
from ves.canonical import NotCanonical, canonical_payload, parse_strictly
from ves.envelopes import read_by_events, read_request
from ves.payload_encryption import EncryptedPayloadRefused, parse_payload_encrypted
from ves.records import BodyRefused, VerifiedBatch, VerifiedEvent
from ves.verification import AwaitsKeys, verify_body

_EVENT_BODY = body_of(plaintext(1), plaintext(2, {"name": "\u00fc\u2028", "list": [1, 1.5, None, True]}))


def _event_body(data: bytes) -> None:
    """A whole ingest body: it is refused with a status and a code, or every event of it gets an outcome."""
    by_events = read_body(data, read_by_events)
    law(read_request(data) == by_events, "read event by event it is another")
    for scope in (OWN, ANY):
        answer = verify_body(data, scope, KEYS.get, now_us=NOW_US)
        if isinstance(answer, BodyRefused):
            law(answer.status in (400, 403, 413, 422), f"status {answer.status}")
            law(bool(answer.code) and bool(answer.message), "a refusal that says nothing")
        elif isinstance(answer, VerifiedBatch):
            events = json.loads(data, parse_int=_number)["events"]
            law(len(answer.outcomes) == len(events), "not one outcome per event")
            for event, outcome in zip(events, answer.outcomes, strict=True):
                if isinstance(outcome, VerifiedEvent):
                    law(event["payload_kind"] in (0, 1), "another kind")
                    law(event["created_at"].encode() in outcome.created_at.encode(), "another time")
        else:
            law(isinstance(answer, AwaitsKeys), "asks for something else")


def _number(digits: str) -> int | str:
    """Python's own reader refuses to read thousands of digits; ours leaves them to the event."""
    return int(digits) if len(digits) < 1000 else digits


def _payload(data: bytes) -> None:
    """Canonical JSON: a fixed point, equal to the slow writer's, meaning what Python's own reader reads."""
    try:
        text = canonical_payload(data)
    except NotCanonical:
        return
    law(canonical_payload(text) == text, "not a fixed point")
    law(rfc8785.dumps(parse_strictly(data)) == text, "the slow writer writes something else")
    law(json.loads(text) == json.loads(data), "another meaning")


def _payload_encrypted(data: bytes) -> None:
    """Printed and parsed again it is the same, and it says what was sent."""
    try:
        parsed = parse_payload_encrypted(data)
    except EncryptedPayloadRefused as refused:
        law(refused.field.startswith("payload_encrypted"), "names another field")
        return
    law(parse_payload_encrypted(parsed.text()) == parsed, "printed it is another")
    sent, told = json.loads(data), json.loads(parsed.text())
    for name in ("enc_version", "aead"):
        law(sent[name] == told[name], f"accepted another {name}")
    law({k: sent["hpke"][k] for k in told["hpke"]} == told["hpke"], "accepted another suite")


def _slow_uuid(text: str) -> bytes | None:
    bare = re.sub(r"\A(?i:urn:uuid:)|\A\{(?=.*\}\Z)", "", text, count=1)
    bare = bare[:-1] if text[:1] == "{" and bare[-1:] == "}" else bare
    groups = bare.split("-")
    if any(character not in string.hexdigits for group in groups for character in group):
        return None
    if [len(group) for group in groups] not in ([32], [8, 4, 4, 4, 12]):
        return None
    return uuid.UUID("".join(groups)).bytes


def _slow_hex(text: str, length: int) -> bytes | None:
    digits = text.removeprefix("0x")
    if len(digits) != 2 * length or any(digit not in string.hexdigits for digit in digits):
        return None
    return bytes(int(digits[at : at + 2], 16) for at in range(0, 2 * length, 2))


def _spellings(data: bytes) -> None:
    """UUIDs, hex and base64url: what a slow second reader reads, and one canonical spelling."""
    text = data.decode("utf-8", "surrogateescape")
    law(_read(encoding.uuid_bytes, text) == _slow_uuid(text), "another UUID")
    law(_read(encoding.hex_bytes, text, 4) == _slow_hex(text, 4), "other hex")
    strict = _read(encoding.strict_hex_bytes, text, 4)
    law(strict is None or encoding.prefixed_hex(strict) == text, "not strict")
    bare = _read(encoding.bare_hex_bytes, text, 4)
    law(bare is None or bare.hex() == text.lower(), "not bare")
    raw = _read(encoding.base64url_bytes, text)
    law(raw is None or encoding.base64url(raw) == text.rstrip("="), "another spelling of the same bytes")


def _read(reader: Any, *args: Any) -> bytes | None:
    try:
        raw: bytes = reader(*args)
    except ValueError:
        return None
    return raw


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+\-\u2212])(\d\d):(\d\d))",
    re.ASCII,
)


def _slow_time(text: str) -> int | None:
    """Without any calendar of Python's: years begin in March, days are counted from 1970."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = (31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= 12 or not 1 <= day <= days[month - 1] or hour > 23 or minute > 59 or second > 60:
        return None
    earlier = year - (month <= 2)
    era, of_era = divmod(earlier, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    since = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    us = (((since * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000
    us += int((found[7] or "")[:6].ljust(6, "0"))
    if found[8] is None:
        if int(found[10]) > 23 or int(found[11]) > 59:
            return None
        offset = (int(found[10]) * 60 + int(found[11])) * 60_000_000
        us += -offset if found[9] == "+" else offset
    return us


def _times(data: bytes) -> None:
    """RFC 3339: the number that a slow second reader gives; written and read again the same."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        us: int | None = timestamps.parse_rfc3339(text)
    except ValueError:
        us = None
    law(us == _slow_time(text), f"read as {us}")
    if us is not None and 0 <= us < 253_402_300_800_000_000:
        law(timestamps.parse_rfc3339(timestamps.zulu_text(us)) == us, "written it is another")


def _lenient_uuid(right: Any) -> Any:
    return lambda text: bytes.fromhex(text.strip("{}").replace("-", "")) if len(text) < 40 else right(text)


def _no_leap_seconds_cut(right: Any) -> Any:
    def wrong(text: str) -> int:
        us: int = right(text)
        return us + 1 if ":60" in text else us

    return wrong


TARGETS = (
    Target(
        "event-body",
        _event_body,
        [_EVENT_BODY, body_of(encrypted(3)), b'{"agentId":"x","events":[]}'],
        Plant("ves.verification", "parse_rfc3339", unnamed),
        bytes_max=16_384,
    ),
    Target(
        "payload",
        _payload,
        [
            b'{"total":99.5,"n":1,"list":[1e3,-0.0,1.25e-7,"\\u00e4\\ud83d\\ude00"],"a":{"b":null,"c":true}}',
            b'{"\\u20ac":1,"\\r":2,"1":3}',
            b"[0.1,123456789012345680000,5e-324]",
            b'"\\u003a"',
        ],
        Plant("ves.canonical", "_plain", lambda right: lambda value: True),
    ),
    Target(
        "payload-encrypted",
        _payload_encrypted,
        [json.dumps(encrypted(4)["payload_encrypted"]).encode()],
        Plant("ves.payload_encryption", "_expect", lambda right: lambda *args: None),
    ),
    Target(
        "spellings",
        _spellings,
        [
            *(
                b"6f1d3c1e-0000-4000-8000-00000000000a",
                b"{6f1d3c1e-0000-4000-8000-00000000000a}",
                b"0xdeadBEEF",
            ),
            *(
                b"urn:uuid:6f1d3c1e-0000-4000-8000-00000000000a",
                b"6f1d3c1e00004000800000000000000a",
                b"deadbeef",
            ),
            *(b"3q2-7w", b"3q2-7w==", b"_-8"),
        ],
        Plant("ves.encoding", "uuid_bytes", _lenient_uuid),
        bytes_max=64,
    ),
    Target(
        "times",
        _times,
        [
            *(
                b"2026-01-31T12:00:00.123Z",
                b"2016-12-31T23:59:60Z",
                b"0000-02-29t00:00:00+00:00",
                b"9999-12-31 23:59:59z",
            ),
            *(b"2024-02-29T23:59:59.999999999-23:59", "2026-01-01T00:00:00\u221201:00".encode()),
        ],
        Plant("ves.timestamps", "parse_rfc3339", _no_leap_seconds_cut),
        bytes_max=80,
    ),
)
