"""Runs one script: the house, its callers and what befalls them, under the seed's schedule, in virtual time.

``simulate(script)`` is all there is to it: the same script gives the same history, in any process. It decides
nothing by itself; what comes when is in the script, who runs first is in the schedule's seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from actors.faults import Fault, arm, disarm_all, reached
from config.settings import Settings
from journal.memory import MemoryDatabase
from tests.seeded import seeded_run
from tests.simulation import script as s
from tests.simulation import unsigned
from tests.simulation.agents import (
    BOOTSTRAP,
    EVERYBODY,
    STREAMS,
    agent_key,
    api_key,
    body,
)
from tests.simulation.answers import Answers, shown
from tests.simulation.history import History
from tests.simulation.node import Node
from tests.simulation.oracle import judge
from tests.simulation.processes import Machine
from tests.simulation.watch import Steps
from ves.encoding import prefixed_hex, uuid_bytes, uuid_text

EPOCH_US = 1_790_000_000_000_000
NOWHERE = Path("/nonexistent/simulated")
"""No file is read or written in a run, and settings are the defaults, whatever the environment says."""
VIRTUAL_S_MAX = 900.0
LOOK_EVERY_S = 4 * s.TICK_S
OPERATOR_TRIES = 4
OPERATOR_PAUSE_S = 16 * s.TICK_S
HELD_LATEST_S = 4.0
"""After the last step began: an append that could be held has come by then, or none will."""


def simulate(script: s.Script) -> History:
    """The history of this script, judged."""
    history = History()
    run = Run(script, history)
    with _listening(history):
        try:
            seeded_run(run.live, script.seed, instruments=[Steps(run)])
        except Exception as error:
            history.violations.append(f"the run ended with {error!r}")
        finally:
            disarm_all()
    return history


class Run:
    def __init__(self, script: s.Script, history: History) -> None:
        self.script = script
        self.history = history
        self.answers = Answers(script, history)
        self.behind_us = 0
        self.slow: list[float] = []
        self.calm = False
        self.scope = trio.CancelScope()
        self.database = MemoryDatabase(now_us=self.database_now_us)
        self.machine = Machine(
            script.seed, self.all_of(s.WorkerFault), now_us=self.now_us, on_hit=history.hit
        )
        settings = Settings.model_construct(data_dir=NOWHERE, **script.settings)
        self.nodes = [
            Node(
                number,
                seed=script.seed,
                settings=settings,
                database=self.database,
                machine=self.machine,
                history=history,
                now_us=self.now_us,
                slow=self.slow,
            )
            for number in range(script.nodes)
        ]

    def now_us(self) -> int:
        return EPOCH_US + round(trio.current_time() * 1e6)

    def database_now_us(self) -> int:
        return self.now_us() - self.behind_us

    def all_of(self, kind: type) -> list[Any]:
        return [step for step in self.script.steps if isinstance(step, kind)]

    async def live(self) -> None:
        self._furnish()
        with trio.move_on_after(VIRTUAL_S_MAX) as self.scope:
            async with trio.open_nursery() as everything:
                for node in self.nodes:
                    everything.start_soon(node.live)
                for node in self.nodes:
                    await node.up.wait()
                async with trio.open_nursery() as steps:
                    for step in self.script.steps:
                        if hasattr(step, "at"):
                            steps.start_soon(self._do_in_time, step)
                await self._heal()
                await judge(self.history, self.nodes, self.database)
                unsigned.judge_unsigned(self.history, self.database)
                for node in self.nodes:
                    await node.close()
        if self.scope.cancelled_caught:
            self.history.violation("the run did not come to its end")

    def _furnish(self) -> None:
        """What an operator did long ago: agents and API keys."""
        late = {step.agent for step in self.all_of(s.RegisterKey)}
        for agent in EVERYBODY:
            if agent not in late:
                self.database.agent_keys[agent.key] = agent_key(agent)
            if not agent.inspects:
                self.database.api_keys[agent.credential_id] = api_key(agent)
        for crash in self.all_of(s.Crash):
            arm(crash.point, Fault("crash", nth=crash.nth))

    async def _heal(self) -> None:
        """Nothing goes wrong any more; what did is counted."""
        for crash in self.all_of(s.Crash):
            if reached(crash.point) >= crash.nth:
                self.history.hit(f"crash at {crash.point}", "faults")
        disarm_all()
        self.calm = True
        self.database.release(commit=False)
        for node in self.nodes:
            for _method, what in node.journal.heal():
                self.history.hits[f"journal {what}"] -= 1
        self.machine.heal()
        for node in self.nodes:
            await node.up.wait()
        self.history.note("oracle", "all is healed")

    # Steps.

    async def _do_in_time(self, step: Any) -> None:
        await trio.sleep_until(step.at)
        await getattr(self, f"_{type(step).__name__}")(step)

    def node(self, number: int) -> Node:
        return self.nodes[number % len(self.nodes)]

    async def _Post(self, step: s.Post) -> None:
        events, who = step.named, str(step.agent)
        what = f"post {step.agent.tenant}/{step.store}: {', '.join(map(str, events))}"
        for attempt in range(step.resends + 1):
            node = self.node(step.node + attempt)
            self.history.note(who, what, f"to {node.name}" + (f", attempt {attempt + 1}" if attempt else ""))
            reply = await node.ask(
                "POST",
                "/api/v1/ves/events/ingest",
                key=step.agent.api_key,
                body=body(events),
                leaves_after_s=step.leaves_after_s if attempt == 0 else None,
            )
            told, final = self.answers.posted(events, reply)
            self.history.note(who, what, told)
            if final:
                return
            await trio.sleep(step.pause_s)

    async def _PostUnsigned(self, step: s.PostUnsigned) -> None:
        events, who = step.named, str(step.agent)
        what = f"post unsigned {step.agent.tenant}/{step.store}: {', '.join(map(str, events))}"
        for attempt in range(step.resends + 1):
            node = self.node(step.node + attempt)
            reply = await node.ask(
                "POST", unsigned.INGEST, key=step.agent.api_key, body=unsigned.body(events)
            )
            final = unsigned.take_down(self.history, events, reply)
            self.history.note(who, what, f"{reply.kind} {reply.status}")
            if final:
                return
            await trio.sleep(s.TICK_S)

    async def _Pull(self, step: s.Pull) -> None:
        known = self.history.heads[step.stream]
        start = known + 1 if step.wait_s else 1
        reply = await self.node(step.node).ask(
            "GET",
            f"/api/v1/ves/events?{step.stream.query}&from={start}&wait_s={step.wait_s}",
            key=BOOTSTRAP,
        )
        self.history.note("reader", f"pull {step.stream} from {start}", shown(reply))
        if reply.status != 200:
            return
        page = reply.json
        if page["head_sequence"] < known:
            self.history.violation(
                f"a reader saw head {page['head_sequence']} after {known} was acknowledged"
            )
        numbers = [event["sequence_number"] for event in page["events"]]
        if numbers != [*range(start, start + len(numbers))]:
            self.history.violation(f"a reader saw the numbers {numbers} from {start} on")

    async def _CommitUpTo(self, step: s.CommitUpTo) -> None:
        tenant, store = step.stream.ids
        wanted = {"tenant_id": uuid_text(tenant), "store_id": uuid_text(store)}
        reply = await self.node(step.node).ask(
            "POST", "/api/v1/ves/commitments", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
        )
        self.history.note("operator", f"commit {step.stream}", shown(reply))
        if reply.status == 200 and uuid_bytes(reply.json["batch_id"]) not in self.database.commitments:
            self.history.violation(f"a commitment of {step.stream} was acknowledged and is not there")

    async def _RegisterKey(self, step: s.RegisterKey) -> None:
        tenant, agent, key_id = step.agent.key
        wanted = {
            "tenantId": uuid_text(tenant),
            "agentId": uuid_text(agent),
            "keyId": key_id,
            "publicKey": prefixed_hex(agent_key(step.agent).public_key),
        }
        reply = await self.node(step.node).ask(
            "POST", "/api/v1/agents/keys", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
        )
        self.history.note("operator", f"register the key of {step.agent}", shown(reply))

    async def _RevokeKey(self, step: s.RevokeKey) -> None:
        tenant, agent, key_id = step.agent.key
        wanted = {"tenantId": uuid_text(tenant), "agentId": uuid_text(agent), "keyId": key_id}
        body = msgspec.json.encode(wanted)
        await self._revoke("key", step, "POST", "/api/v1/agents/keys/revoke", body=body)

    async def _RevokeApiKey(self, step: s.RevokeApiKey) -> None:
        target = f"/api/v1/admin/api-keys/{uuid_text(step.agent.credential_id)}"
        await self._revoke("API key", step, "DELETE", target, admin=True)

    async def _revoke(self, what: str, step: Any, method: str, target: str, **asked: Any) -> None:
        """Until it is acknowledged: an operator does not give up at the first 503."""
        for attempt in range(OPERATOR_TRIES):
            self.history.note("operator", f"revoke the {what} of {step.agent}")
            reply = await self.node(step.node + attempt).ask(method, target, key=BOOTSTRAP, **asked)
            self.history.note("operator", f"revoke the {what} of {step.agent}", shown(reply))
            if reply.status == 200:
                heads = {stream: len(self.database.events[stream.ids]) for stream in STREAMS}
                self.history.no_more_of.append((str(step.agent), heads))
                self.history.hits[f"revoked {what}"] += 1
                return
            await trio.sleep(OPERATOR_PAUSE_S)

    # Trouble.

    async def _JournalFault(self, step: s.JournalFault) -> None:
        self.node(step.node).journal.fail_next(step.method, step.what)
        self.history.hit(f"journal {step.what}", f"node {step.node}", f"the next {step.method}")
        if step.what == "held":
            await self._let_go(step)

    async def _let_go(self, step: s.JournalFault) -> None:
        """Of what is held, ``for_s`` after it began to be; of nothing, if nobody appends any more."""
        with trio.move_on_at(s.HORIZON_S + HELD_LATEST_S):
            while not self.database.held:  # noqa: ASYNC110 - the database tells nobody
                await trio.sleep(LOOK_EVERY_S)
            await trio.sleep(step.for_s)
        if self.database.held:
            self.history.note("database", "what was held", "commits" if step.commits else "is undone")
            self.database.release(commit=step.commits)

    async def _Outage(self, step: s.Outage) -> None:
        self.history.hit("outage", "database", f"for {step.for_s} s")
        self.database.reachable = False
        await trio.sleep(step.for_s)
        self.database.reachable = True
        self.history.note("database", "is back")

    async def _SlowDatabase(self, step: s.SlowDatabase) -> None:
        self.history.hit("slow database", "database", f"{step.latency_s} s a unit for {step.for_s} s")
        self.slow.append(step.latency_s)
        await trio.sleep(step.for_s)
        self.slow.remove(step.latency_s)

    async def _ClockFallsBack(self, step: s.ClockFallsBack) -> None:
        self.history.hit("clock falls back", "database", f"by {step.by_s} s")
        self.behind_us += int(step.by_s * 1e6)

    async def _Operate(self, step: s.Operate) -> None:
        node = self.node(step.node)
        if await node.operate(step.action, step.actor):
            self.history.hit(f"operator {step.action}", step.actor, f"on {node.name}, for {step.for_s} s")
            await trio.sleep(step.for_s)
            await node.operate("resume" if step.action == "suspend" else "restart", step.actor)

    async def _Restart(self, step: s.Restart) -> None:
        node = self.node(step.node)
        self.history.hit(f"node {step.how}", node.name, f"for {step.down_s} s")
        if step.how == "killed":
            node.kill_all(down_s=step.down_s)
        else:
            await node.stop(down_s=step.down_s)


@contextmanager
def _listening(history: History) -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(
        processors=[history.listen],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
