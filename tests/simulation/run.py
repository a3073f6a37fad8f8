"""Runs one script: the house, its callers and what befalls them, under the seed's schedule, in virtual time.

``simulate(script)`` is all there is to it: the same script gives the same history, in any process. It decides
nothing by itself; what comes when is in the script, who runs first is in the schedule's seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgspec
import structlog
import trio
from trio.abc import Instrument

from actors.faults import Fault, arm, disarm_all, reached
from config.settings import Settings
from journal.memory import MemoryDatabase
from tests.seeded import seeded_run
from tests.simulation import script as s
from tests.simulation.agents import (
    BOOTSTRAP,
    EVERYBODY,
    STREAMS,
    Agent,
    Event,
    agent_key,
    api_key,
    body,
    signing_hash,
)
from tests.simulation.history import ENOUGH_TO_BE_LATE, History, Outcome
from tests.simulation.node import NODE, Node, Reply
from tests.simulation.oracle import judge
from tests.simulation.processes import Machine
from ves.encoding import prefixed_hex, uuid_bytes, uuid_text
from ves.receipts import receipt_hash

EPOCH_US = 1_790_000_000_000_000
STEPS_MAX = 400_000
"""Of the scheduler; a usual run takes ten thousand."""
VIRTUAL_S_MAX = 900.0
LOOK_EVERY_S = 4 * s.TICK_S
HELD_LATEST_S = 4.0
"""After the last step began: an append that could be held has come by then, or none will."""

_NOTHING_DONE = {"SERVICE_UNAVAILABLE", "NOT_READY", "RATE_LIMIT_EXCEEDED"}
_FULL = "too many requests are waiting"
_CROWDED = "too many tenants"


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
        self.behind_us = 0
        self.slow: list[float] = []
        self.calm = False
        self.scope = trio.CancelScope()
        self.database = MemoryDatabase(now_us=self.database_now_us)
        self.machine = Machine(script.seed, self._all(s.WorkerFault), now_us=self.now_us, on_hit=history.hit)
        settings = _settings(tuple(sorted(script.settings.items())))
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

    def _all(self, kind: type) -> list[Any]:
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
                for node in self.nodes:
                    await node.close()
        if self.scope.cancelled_caught:
            self.history.violation("the run did not come to its end")

    def _furnish(self) -> None:
        """What an operator did long ago: agents and API keys."""
        late = {step.agent for step in self._all(s.RegisterKey)}
        for agent in EVERYBODY:
            if agent not in late:
                self.database.agent_keys[agent.key] = agent_key(agent)
            if not agent.inspects:
                self.database.api_keys[agent.credential_id] = api_key(agent)
        for crash in self._all(s.Crash):
            arm(crash.point, Fault("crash", nth=crash.nth))

    async def _heal(self) -> None:
        """Nothing goes wrong any more; what did is counted."""
        for crash in self._all(s.Crash):
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

    def _node(self, number: int) -> Node:
        return self.nodes[number % len(self.nodes)]

    async def _Post(self, step: s.Post) -> None:
        events, who = step.named, str(step.agent)
        what = f"post {step.agent.tenant}/{step.store}: {', '.join(map(str, events))}"
        for attempt in range(step.resends + 1):
            node = self._node(step.node + attempt)
            self.history.note(who, what, f"to {node.name}" + (f", attempt {attempt + 1}" if attempt else ""))
            reply = await node.ask(
                "POST",
                "/api/v1/ves/events/ingest",
                key=step.agent.api_key,
                body=body(events),
                leaves_after_s=step.leaves_after_s if attempt == 0 else None,
            )
            told, final = posted(self.history, events, reply)
            self.history.note(who, what, told)
            if final:
                return
            await trio.sleep(step.pause_s)

    async def _Pull(self, step: s.Pull) -> None:
        known = self.history.heads[step.stream]
        start = known + 1 if step.wait_s else 1
        reply = await self._node(step.node).ask(
            "GET",
            f"/api/v1/ves/events?{step.stream.query}&from={start}&wait_s={step.wait_s}",
            key=BOOTSTRAP,
        )
        self.history.note("reader", f"pull {step.stream} from {start}", _told(reply))
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
        reply = await self._node(step.node).ask(
            "POST", "/api/v1/ves/commitments", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
        )
        self.history.note("operator", f"commit {step.stream}", _told(reply))
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
        reply = await self._node(step.node).ask(
            "POST", "/api/v1/agents/keys", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
        )
        self.history.note("operator", f"register the key of {step.agent}", _told(reply))

    async def _RevokeKey(self, step: s.RevokeKey) -> None:
        tenant, agent, key_id = step.agent.key
        wanted = {"tenantId": uuid_text(tenant), "agentId": uuid_text(agent), "keyId": key_id}
        self.history.note("operator", f"revoke the key of {step.agent}")
        reply = await self._node(step.node).ask(
            "POST", "/api/v1/agents/keys/revoke", key=BOOTSTRAP, body=msgspec.json.encode(wanted)
        )
        self._revoked("key", step.agent, reply)

    async def _RevokeApiKey(self, step: s.RevokeApiKey) -> None:
        self.history.note("operator", f"revoke the API key of {step.agent}")
        target = f"/api/v1/admin/api-keys/{uuid_text(step.agent.credential_id)}"
        reply = await self._node(step.node).ask("DELETE", target, key=BOOTSTRAP, admin=True)
        self._revoked("API key", step.agent, reply)

    def _revoked(self, what: str, agent: Agent, reply: Reply) -> None:
        self.history.note("operator", f"revoke the {what} of {agent}", _told(reply))
        if reply.status == 200:
            self.history.hits["revoked an API key" if what == "API key" else "revoked a key"] += 1
            heads = {stream: len(self.database.events[stream.ids]) for stream in STREAMS}
            self.history.no_more_of.append((str(agent), heads))

    # Trouble.

    async def _JournalFault(self, step: s.JournalFault) -> None:
        self._node(step.node).journal.fail_next(step.method, step.what)
        self.history.hit(f"journal {step.what}", f"node {step.node}", f"the next {step.method}")
        if step.what == "held":
            await self._let_go(step)

    async def _let_go(self, step: s.JournalFault) -> None:
        """Of what is held, ``for_s`` after it began to be; of nothing, if nobody appends any more."""
        with trio.move_on_at(s.HORIZON_S + HELD_LATEST_S):
            while not self.database.held:
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

    async def _Restart(self, step: s.Restart) -> None:
        node = self._node(step.node)
        self.history.hit(f"node {step.how}", node.name, f"for {step.down_s} s")
        if step.how == "killed":
            node.kill_all(down_s=step.down_s)
        else:
            await node.stop(down_s=step.down_s)


def posted(history: History, events: tuple[Event, ...], reply: Reply) -> tuple[str, bool]:
    """Take down what the answer says of each event; what to show of it, and whether it is final."""
    outcome, final = _of_all(reply)
    if reply.status == 200:
        return _each(history, events, reply), True
    for event in set(events):
        history.outcomes[event].append(outcome)
    told = _told(reply)
    if outcome == "unknown" and reply.kind != "left" and not history.troubled:
        history.violation(f"nothing went wrong, and the answer is {told}")
    if reply.status == 504 and history.slowed < ENOUGH_TO_BE_LATE:
        history.violation(f"nothing was slow, and the answer is {told}")
    if _FULL in told:
        history.hits["mailbox full"] += 1
    if _CROWDED in told:
        history.hits["too many tenants"] += 1
    return told, final


def _of_all(reply: Reply) -> tuple[Outcome, bool]:
    if reply.kind == "refused":
        return "nothing", False
    if reply.kind != "answered" or reply.status in (500, 504):
        return "unknown", False
    if reply.status >= 500:
        return ("nothing" if reply.json["error"]["code"] in _NOTHING_DONE else "unknown"), False
    return "nothing", True


def _each(history: History, events: tuple[Event, ...], reply: Reply) -> str:
    answer = reply.json
    receipts = {receipt["eventId"]: receipt for receipt in answer.get("receipts", [])}
    rejected = {one["event_id"]: one["reason"] for one in answer.get("rejections", [])}
    counted = answer["eventsAccepted"] + answer["eventsReplayed"]
    if counted != len(answer.get("receipts", [])) or counted + answer["eventsRejected"] != len(events):
        history.violation(f"{len(events)} events sent, answered {_told(reply)}")
    order = [uuid_text(event.id) for event in events]
    places = [
        order.index(name) for name in (r["eventId"] for r in answer.get("receipts", [])) if name in order
    ]
    if places != sorted(places):
        history.violation("receipts are not in request order")
    for event in dict.fromkeys(events):
        name = uuid_text(event.id)
        receipt = receipts.get(name)
        if receipt is not None:
            history.outcomes[event].append("ok")
            if receipt["receiptHash"] != _hash_of(event, receipt["sequenceNumber"]):
                history.violation(f"the receipt for event {event} of {event.agent} is another event's")
            history.acknowledge(event, receipt)
        elif name in rejected:
            history.outcomes[event].append("refused")
        else:
            history.violation(f"nothing said of event {event} of {event.agent}")
    numbers = [receipt["sequenceNumber"] for receipt in receipts.values()]
    reasons = sorted({reason.split(":")[0] for reason in rejected.values()})
    return " ".join(["200", f"numbers {numbers}" if numbers else "", ", ".join(reasons)]).strip()


@lru_cache(maxsize=4096)
def _hash_of(event: Event, number: int) -> str:
    return receipt_hash(*event.stream.ids, event.id, number, signing_hash(event)).hex()


def _told(reply: Reply) -> str:
    if reply.kind != "answered":
        return reply.kind
    if reply.status == 200:
        return "200"
    error = reply.json["error"]
    return f"{reply.status} {error['code']}: {error['message'][:60]}"


class Steps(Instrument):
    """Counts the scheduler's steps, kills at the wanted ones, and watches over single activation."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps = 0
        self._own: dict[str, list[int]] = {}
        for kill in run._all(s.Kill):
            self._own.setdefault(kill.actor, []).append(kill.nth)
        self._counts = dict.fromkeys(self._own, 0)
        self._anytime = sorted(run._all(s.KillAnytime), key=lambda kill: kill.nth)
        self._alive: dict[tuple[int, str], int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if task.name in self._own:
            self._count(task)
        if self._anytime and self._anytime[0].nth <= self._steps and not self._run.calm:
            kill = self._anytime[0]
            if self._run._node(kill.node).kill_actor(kill.actor, "killed by the simulation"):
                self._hit("kill anytime", self._anytime.pop(0).actor)
        if self._steps == STEPS_MAX:
            self._run.history.violation(f"more than {STEPS_MAX} steps: somebody goes in circles")
            self._run.scope.cancel("in circles")

    def _count(self, task: trio.lowlevel.Task) -> None:
        self._counts[task.name] += 1
        node = task.context.get(NODE)
        if self._counts[task.name] in self._own[task.name] and node is not None and not self._run.calm:
            kind = "kill sequencer" if task.name.startswith("sequencers/") else "kill actor"
            if node.kill_actor(task.name, "killed by the simulation"):
                self._hit(kind, task.name)

    def _hit(self, kind: str, actor: str) -> None:
        self._run.history.hit(kind, actor, f"at step {self._steps}")

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._count_alive(task, 1)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._count_alive(task, -1)

    def _count_alive(self, task: trio.lowlevel.Task, change: int) -> None:
        node = task.context.get(NODE)
        if node is None or not task.name.startswith("sequencers/"):
            return
        who = (node.number, task.name)
        self._alive[who] = self._alive.get(who, 0) + change
        if self._alive[who] > 1:
            self._run.history.violation(f"two incarnations of {task.name} at once on {node.name}")


@lru_cache(maxsize=64)
def _settings(chosen: tuple[tuple[str, Any], ...]) -> Settings:
    return Settings(_env_file=None, **dict(chosen))  # type: ignore[call-arg]


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
