"""One seed is one schedule, every kind comes round, and a COMMIT is known however the bytes arrive."""

from __future__ import annotations

import struct
from itertools import islice

import pytest

from tests.chaos.schedule import ENDS, REST, SLOW, WIRE, lives, rest, wire
from tests.chaos.wire import ClientMessages, NotPostgres


def test_the_same_seed_draws_the_same_acts_and_another_seed_others() -> None:
    def drawn(seed: int) -> list[object]:
        return [*islice(lives(seed), 50), *islice(rest(seed), 50), *islice(wire(seed), 50)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_every_kind_comes_once_in_each_round() -> None:
    assert {act.kind for act in islice(lives(3), len(ENDS + SLOW))} == set(ENDS + SLOW)
    assert {act.kind for act in islice(rest(3), len(REST))} == set(REST)
    assert {act.kind for act in islice(wire(3), len(WIRE))} == set(WIRE)


def test_what_is_left_out_on_request_never_comes() -> None:
    without = frozenset({"net-reset", "kill-worker"})
    assert {act.kind for act in islice(rest(3, without=without), 100)} == set(REST) - without


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


OPENING = message(b"", struct.pack(">I", 80877103)) + message(
    b"", struct.pack(">I", 196608) + b"user\0me\0\0"
)
APPEND = [
    message(b"Q", b"BEGIN; SELECT pg_advisory_xact_lock_shared(1)\0"),
    message(b"P", b"other\0SELECT 1\0\0\0"),
    message(b"P", b"stmt_7\0SELECT moved FROM record.ves_advance_groups($1)\0\0\0"),
    message(b"B", b"\0other\0\0\0"),
    message(b"B", b"portal\0stmt_7\0\0\0"),
    message(b"Q", b'COPY "record"."ves_events"("a") FROM STDIN WITH (FORMAT binary)\0'),
    message(b"d", b"COMMIT\0"),
    message(b"c", b""),
    message(b"Q", b"COMMIT\0"),
    message(b"Q", b"BEGIN\0"),
    message(b"Q", b"COMMIT\0"),
    message(b"P", b"stmt_8\0SELECT moved FROM record.ves_append_groups($1)\0\0\0"),
    message(b"B", b"\0stmt_8\0\0\0") + message(b"E", b"\0\0\0\0\0") + message(b"S", b""),
    message(b"B", b"\0other\0\0\0"),
]
POINTS = [
    *("begin", None, None, None, "advance", "copy", None, "copied", "commit"),  # of many events
    *("begin", "commit-other"),
    *(None, "commit", None),  # of a few
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_the_points_of_an_append_are_known_however_its_bytes_are_cut(piece: int) -> None:
    said = OPENING + b"".join(APPEND)
    reader = ClientMessages()
    found = [one for at in range(0, len(said), piece) for one in reader.feed(said[at : at + piece])]
    assert b"".join(one.raw for one in found) == said
    assert [one.point for one in found[2:]] == POINTS


def test_what_is_no_message_is_not_passed_on_as_one() -> None:
    with pytest.raises(NotPostgres):
        list(ClientMessages().feed(b"GET / HTTP/1.1\r\n\r\n"))
