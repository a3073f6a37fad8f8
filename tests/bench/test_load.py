"""The load generator sends each request once, reads each answer to its end, and is honest about waiting."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.load import GeneratorError
from tests.bench.answering import BODY, answering, generate


@pytest.mark.parametrize("pieces", [1, 2, 20])
@pytest.mark.parametrize("connections", [1, 5])
def test_every_request_is_sent_once_and_every_answer_is_counted(
    tmp_path: Path, pieces: int, connections: int
) -> None:
    with answering(pieces=pieces) as server:
        told = generate(server, tmp_path, 20, connections=connections)
    assert sorted(server.received) == [b"%06d" % number for number in range(20)]
    assert (told["sent"], told["answered"], told["statuses"]) == (20, 20, {200: 20})
    assert (told["accepted"], told["replayed"], told["rejected"]) == (60, 40, 20)
    assert told["body_bytes"] == 20 * len(BODY)
    assert len(told["latencies_us"]) == 20
    assert told["ran_out"], "it would have had a minute for more"
    assert told["mode"] == "closed"
    assert not told["unexpected"]


def test_requests_that_may_be_repeated_do_not_run_out(tmp_path: Path) -> None:
    with answering() as server:
        told = generate(server, tmp_path, 3, repeat=True, rate=1000.0, seconds=0.02)
    assert told["sent"] == 20
    assert not told["ran_out"]
    assert server.received[:4] == [b"000000", b"000001", b"000002", b"000000"]


def test_an_open_loop_sends_as_many_as_its_schedule_has(tmp_path: Path) -> None:
    with answering() as server:
        told = generate(server, tmp_path, 100, connections=4, rate=200.0, seconds=0.25)
    assert told["mode"] == "open"
    assert told["sent"] == told["answered"] == 50
    assert told["seconds"] >= 49 / 200, "the last was not due before"


def test_an_open_loop_charges_a_stall_to_all_who_would_have_come_meanwhile(tmp_path: Path) -> None:
    with answering(stall_at=5, stall_s=0.5) as server:
        told = generate(server, tmp_path, 60, rate=100.0, seconds=0.6)
    # One connection: what was due during the half second waited for its end, 45 of them for 0.05 s or more.
    assert sum(latency >= 50_000 for latency in told["latencies_us"]) >= 45
    assert told["answered"] == 60


@pytest.mark.parametrize("body_bytes", [6, 8_000_000], ids=["all of it sent", "refused while it is sent"])
def test_what_is_refused_is_sent_again_until_it_is_accepted(tmp_path: Path, body_bytes: int) -> None:
    with answering(refuse=3) as server:
        told = generate(server, tmp_path, 6, connections=2, refusals=[429], body_bytes=body_bytes)
    assert told["statuses"] == {429: 3, 200: 6}
    assert (told["sent"], told["answered"], told["accepted"]) == (9, 9, 18)
    assert sorted(body[:6] for body in server.received) == [b"%06d" % number for number in range(6)]
    assert not told["unexpected"]


def test_a_refusal_that_is_not_expected_is_told(tmp_path: Path) -> None:
    with answering(refuse=1) as server:
        told = generate(server, tmp_path, 4)
    assert told["statuses"] == {429: 1, 200: 3}
    assert told["unexpected"].startswith("HTTP/1.1 429 Too Many")


def test_a_clock_starts_later_when_it_is_told_to(tmp_path: Path) -> None:
    with answering() as server:
        began = time.monotonic()
        told = generate(server, tmp_path, 2, rate=1000.0, seconds=0.002, after_s=0.2)
    assert time.monotonic() - began >= 0.2 + told["seconds"]


def test_a_connection_that_the_server_ends_after_an_answer_is_replaced(tmp_path: Path) -> None:
    with answering(last_after=4) as server:
        told = generate(server, tmp_path, 20, connections=2)
    assert told["answered"] == len(set(server.received)) == 20
    assert server.connections >= 5


def test_an_answer_that_is_no_success_is_kept_to_be_told(tmp_path: Path) -> None:
    with answering(status="503 Service Unavailable", body=b'{"error":"full"}') as server:
        told = generate(server, tmp_path, 2)
    assert told["statuses"] == {503: 2}
    assert "503" in told["unexpected"]
    assert '{"error":"full"}' in told["unexpected"]


def test_a_server_that_hangs_up_ends_the_run(tmp_path: Path) -> None:
    with (
        answering(cut_after=3) as server,
        pytest.raises(GeneratorError, match="closed a connection after 3 answers"),
    ):
        generate(server, tmp_path, 20)
