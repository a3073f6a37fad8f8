"""Laws of the breaker, for every order of calls and every way they end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from transport.chain.breaker import Breaker

FAILURES_MAX, WINDOW_S, PAUSE_S, PAUSE_MAX_S = 3, 10.0, 4.0, 20.0


def breaker() -> Breaker:
    return Breaker(FAILURES_MAX, WINDOW_S, PAUSE_S, PAUSE_MAX_S)


class Calls(RuleBasedStateMachine):
    """A model that knows only what it saw: which calls are under way, and when the last ones failed."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 100.0
        self.under_way = 0
        self.since_success: list[float] = []
        self.probes = 0

    @rule(step=st.floats(0, 30))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule()
    def somebody_asks(self) -> None:
        was_open = self.breaker.is_open
        allowed = self.breaker.may_ask(self.now)
        assert allowed or was_open
        if allowed:
            self.under_way += 1
            if was_open:
                assert self.probes == 0, "half open lets one call through at a time"
                self.probes = 1

    @precondition(lambda self: self.under_way)
    @rule()
    def a_call_succeeds(self) -> None:
        self.under_way -= 1
        self.breaker.succeeded()
        self.since_success, self.probes = [], 0
        assert not self.breaker.is_open

    @precondition(lambda self: self.under_way)
    @rule()
    def a_call_fails(self) -> None:
        self.under_way -= 1
        was_open = self.breaker.is_open
        self.breaker.failed(self.now)
        self.since_success.append(self.now)
        if was_open:
            assert self.breaker.is_open
            self.probes = 0 if self.probes else self.probes
        recent = [at for at in self.since_success if at > self.now - WINDOW_S]
        if self.breaker.is_open and not was_open:
            assert len(recent) >= FAILURES_MAX

    @precondition(lambda self: self.under_way)
    @rule()
    def a_caller_gives_up(self) -> None:
        self.under_way -= 1
        self.breaker.gave_up()
        self.probes = 0

    @invariant()
    def a_pause_is_bounded(self) -> None:
        assert 0 <= self.breaker.opens_in_s(self.now) <= PAUSE_MAX_S


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.lists(st.floats(0, 2.0), min_size=FAILURES_MAX, max_size=FAILURES_MAX))
def test_failures_within_the_window_open_it_for_the_pause(steps: list[float]) -> None:
    one, now = breaker(), 0.0
    for step in steps:
        assert one.may_ask(now)
        now += step
        one.failed(now)
    assert one.is_open
    assert not one.may_ask(now + PAUSE_S - 0.01)
    assert one.may_ask(now + PAUSE_S)


def test_failures_further_apart_than_the_window_never_open_it() -> None:
    one = breaker()
    for at in range(20):
        one.failed(at * WINDOW_S / (FAILURES_MAX - 1))
        assert not one.is_open


def test_a_success_among_the_failures_keeps_it_closed() -> None:
    one = breaker()
    for now in range(20):
        if now % FAILURES_MAX == 0:
            one.succeeded()
        else:
            one.failed(now / 10)
        assert not one.is_open


def test_pauses_double_up_to_the_longest_and_start_again_after_a_success() -> None:
    one, now = breaker(), 0.0
    for _ in range(FAILURES_MAX):
        one.failed(now)
    pauses = []
    for _ in range(5):
        pauses.append(one.opens_in_s(now))
        now += pauses[-1]
        assert one.may_ask(now)
        one.failed(now)
    assert pauses == [4.0, 8.0, 16.0, 20.0, 20.0]
    now += PAUSE_MAX_S
    assert one.may_ask(now)
    one.succeeded()
    for _ in range(FAILURES_MAX):
        one.failed(now)
    assert one.opens_in_s(now) == PAUSE_S
