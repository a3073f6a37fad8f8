"""A run that measured something else is no number: each check speaks up."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ingesting import all_new
from bench.playing import must_be_a_measurement

GOOD: dict[str, Any] = {
    "sent": 2000,
    "answered": 2000,
    "accepted": 20_000,
    "replayed": 0,
    "rejected": 0,
    "statuses": {200: 2000},
    "unexpected": "",
}
SPENT = {"core": 1.0, "front-ends": 0.0, "workers": 0.0}


def test_a_run_as_it_should_be_is_a_number() -> None:
    must_be_a_measurement(GOOD, SPENT)
    must_be_a_measurement(GOOD, {"core": 0.0, "front-ends": 1.0})
    assert all_new(GOOD, 10) == 20_000
    assert all_new(GOOD | {"sent": 2003, "statuses": {200: 2000, 503: 3}}, 10) == 20_000, (
        "refused, sent again"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unexpected": "HTTP/1.1 503", "statuses": {503: 1}}, "the first that was not 200: HTTP/1.1 503"),
        ({"answered": 1999}, "2000 requests were sent, 1999 answered"),
        ({"sent": 0, "answered": 0}, "0 requests were sent"),
    ],
)
def test_requests_without_a_good_answer_end_the_benchmark(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        must_be_a_measurement(GOOD | changes, SPENT)


def test_a_server_that_did_nothing_was_not_the_one_that_answered() -> None:
    with pytest.raises(SystemExit, match="another program answered"):
        must_be_a_measurement(GOOD, {"core": 0.001, "front-ends": 0.0, "workers": 5.0})


@pytest.mark.parametrize(
    "changes",
    [
        {"accepted": 19_990, "replayed": 10},
        {"accepted": 19_999, "rejected": 1},
        {"accepted": 19_999},
        {"replayed": 1},
    ],
)
def test_events_that_were_not_all_new_and_accepted_end_the_benchmark(changes: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match="of requests of 10 fresh events"):
        all_new(GOOD | changes, 10)
