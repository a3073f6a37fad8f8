"""A request's trace goes with its letters, through actors, deaths and refusals; recorded by a real SDK."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from inhabitants import QUICK, BoomAgain, Echo, Echoer, address, alive
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors import tracing
from actors.errors import Poisoned
from actors.mailbox import Inbox, Ref
from supervisor.dynamic import DynamicSupervisor
from supervisor.supervisor import ChildSpec, Pool, Supervisor

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INCOMING = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def incoming() -> Context:
    return TraceContextTextMapPropagator().extract(INCOMING)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a recording SDK gets to see. The global provider stays untouched."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


class Relay:
    """Asks the next one for each letter; ``seen`` are the trace ids current while it works."""

    def __init__(self, next_one: Ref, seen: list[str | None]) -> None:
        self.next_one = next_one
        self.seen = seen

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            self.seen.append(tracing.trace_id_of(tracing.current_trace()))
            letter.answer(await self.next_one.ask(Echo(letter.message.n), deadline_s=5))


def relay_and_echo(seen: list[str | None]) -> tuple[Supervisor, Ref]:
    echo_box, echo = address("echo")
    relay_box, relay = address("relay")
    root = Supervisor(
        "house",
        [
            ChildSpec(name="echo", factory=Echoer, mailbox=echo_box),
            ChildSpec(name="relay", factory=lambda: Relay(echo, seen), mailbox=relay_box),
        ],
        pauses=QUICK,
    )
    return root, relay


async def test_each_handling_is_a_span_under_the_one_that_asked(spans, autojump_clock):
    seen: list[str | None] = []
    root, relay = relay_and_echo(seen)
    async with alive(root):
        with trace.use_span(trace.get_current_span(incoming())):
            assert await relay.ask(Echo(1), deadline_s=5) == 1
        assert await relay.ask(Echo(2), deadline_s=5) == 2  # nobody's trace: none is left over
    found = by_name(spans)
    assert set(found) == {"Echo relay", "Echo echo"}
    outer, inner = found["Echo relay"], found["Echo echo"]
    assert {format(span.context.trace_id, "032x") for span in (outer, inner)} == {TRACE}
    assert outer.parent is not None
    assert format(outer.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert seen == [TRACE, None]


async def test_without_an_sdk_the_ids_still_travel(autojump_clock):
    seen: list[str | None] = []
    root, relay = relay_and_echo(seen)
    async with alive(root):
        with trace.use_span(trace.get_current_span(incoming())):
            assert await relay.ask(Echo(1), deadline_s=5) == 1
    assert seen == [TRACE]


async def test_a_death_and_a_refusal_are_told_and_the_dead_letter_names_its_trace(spans, autojump_clock):
    pool = Pool("pool", 1, Echoer, 10, pauses=QUICK)
    root = Supervisor("house", [pool])
    async with alive(root):
        with trace.use_span(trace.get_current_span(incoming())), pytest.raises(Poisoned):
            await pool.ref.ask(BoomAgain(), deadline_s=5)
        assert root.look().dead_letters[0].trace_id == TRACE
    handled = spans.get_finished_spans()
    assert [span.status.status_code for span in handled] == [StatusCode.ERROR] * 2
    assert [span.status.description for span in handled] == ["life ended"] * 2


async def test_an_actor_born_of_a_traced_letter_does_not_inherit_the_trace(autojump_clock):
    seen: list[str | None] = []

    class Newborn:
        async def run(self, inbox: Inbox) -> None:
            seen.append(tracing.trace_id_of(tracing.current_trace()))
            letter = await inbox.take()
            letter.answer(1)
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                await inbox.take()
            seen.append(tracing.trace_id_of(tracing.current_trace()))

    house = DynamicSupervisor(
        "tenants", lambda key: Newborn(), children_max=2, letters_max=2, idle_s=100, pauses=QUICK
    )
    async with alive(Supervisor("root", [house])):
        with trace.use_span(trace.get_current_span(incoming())):
            assert await house.ref("a").ask(Echo(1), deadline_s=5) == 1
        await trio.sleep(5)
    assert seen[:2] == [None, None]
