"""Any order of what clients may do: the service and a dictionary with a few counters tell the same story.

Hypothesis writes the stories, over the public HTTP API of a real server on a real PostgreSQL, and shrinks the
ones that go wrong. ``make test-thorough`` tells more, STATE_MACHINE_SEEDS says how many: each seed tells five
stories, always the same.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.auditor.audit import audit_tenant
from tests.auditor.reading import over_http, read_stream
from tests.e2e.model import Expected, Model, Sent
from tests.e2e.world import OPENED, Agent, Server, Tenant
from tests.sweeps import some_or_all

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("STATE_MACHINE_SEEDS", "5"))
EACH_TIME = ["0", "3"]
"""Together they come to all that is worth telling."""
AGENTS_MAX = 3
TELLING = settings(
    max_examples=5,
    stateful_step_count=30,
    phases=[Phase.generate, Phase.shrink],
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Draft:
    """An event still to be signed, or (``old``) one that the agent has sent before, exactly as it was."""

    entity: int
    command: int | None
    version: str | None
    flaw: str | None
    old: int | None


WORTH_TELLING = {
    "accepted",
    "replayed",
    "replayed with a revoked key",
    "duplicate_event_id",
    "duplicate_command_id",
    "version_conflict",
    "agent_key_invalid",
    "invalid_signature",
    "invalid_payload_hash",
    "committed",
    "proven",
    "restarted",
}

STORES = st.integers(0, 1)
WHO = st.integers(0, AGENTS_MAX - 1)
DRAFTS = st.builds(
    Draft,
    entity=st.integers(0, 1),
    command=st.sampled_from([None, None, 0, 1, 2, 3]),
    version=st.sampled_from([None, "right", "right", "wrong"]),
    flaw=st.sampled_from([None] * 8 + ["invalid_signature", "invalid_payload_hash"]),
    old=st.sampled_from([None] * 12 + list(range(6))),
)
PICKS = st.integers(0, 60)


class Clients(RuleBasedStateMachine):
    server: ClassVar[Server]
    reached: ClassVar[Counter[str]]
    """How often the stories came to what; a story that never gets there tells nothing about it."""
    agreed = False
    """Nothing is open between the last answer and the model."""

    @initialize()
    def a_tenant_appears(self) -> None:
        self.tenant = Tenant(self.server)
        self.stores = [str(self.tenant.store_id), str(uuid.uuid4())]
        self.agents = [self.tenant.agent]
        self.commands = [str(uuid.uuid4()) for _ in range(4)]
        self.model = Model()
        self.agreed = True
        self.requests: list[tuple[Agent, list[Sent]]] = []

    # What clients do.

    @rule()
    def register_a_key(self) -> None:
        if len(self.agents) < AGENTS_MAX:
            self.agents.append(self.tenant.new_agent())

    @rule(who=st.integers(0, 2 * AGENTS_MAX))
    def revoke_a_key(self, who: int) -> None:
        if who >= len(self.agents):
            return  # rare: a tenant whose keys are all revoked has little to tell
        agent = self.agents[who]
        body = {"tenantId": str(self.tenant.tenant_id), "agentId": str(agent.agent_id), "keyId": agent.key_id}
        answer = self.tenant.http.post("/api/v1/agents/keys/revoke", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["alreadyRevoked"] is (str(agent.agent_id) in self.model.revoked)
        self.model.revoked.add(str(agent.agent_id))

    @rule(who=WHO, store=STORES, drafts=st.lists(DRAFTS, min_size=1, max_size=5))
    def ingest(self, who: int, store: int, drafts: list[Draft]) -> None:
        agent = self.agents[who % len(self.agents)]
        self.post(agent, [self.signed(agent, self.stores[store], draft) for draft in drafts])

    @rule(pick=PICKS)
    def resend_a_whole_request(self, pick: int) -> None:
        if self.requests:
            self.post(*self.requests[pick % len(self.requests)])

    @rule(who=WHO, store=STORES, draft=DRAFTS)
    def send_an_event_twice_in_one_request(self, who: int, store: int, draft: Draft) -> None:
        agent = self.agents[who % len(self.agents)]
        sent = self.signed(agent, self.stores[store], draft)
        self.post(agent, [sent, sent])

    @rule(who=WHO, store=STORES, pick=PICKS)
    def give_a_known_id_to_other_content(self, who: int, store: int, pick: int) -> None:
        known = [*self.model.kept]
        if known:
            agent = self.agents[who % len(self.agents)]
            thief = agent.event({"other": "content"}, event_id=known[pick % len(known)], **self.at(store))
            self.post(agent, [Sent(thief)])

    @rule(pick=PICKS, member=st.sampled_from(["base_version", "command_id"]))
    def change_what_the_signature_does_not_cover(self, pick: int, member: str) -> None:
        accepted = [(a, s) for a, r in self.requests for s in r if self.is_kept(s)]
        if accepted:
            agent, sent = accepted[pick % len(accepted)]
            value = {"base_version": 7, "command_id": str(uuid.uuid4())}[member]
            self.post(agent, [Sent(sent.event | {member: value})])

    @rule(store=STORES, pick=PICKS)
    def commit(self, store: int, pick: int) -> None:
        name = self.stores[store]
        stream = {"tenant_id": str(self.tenant.tenant_id), "store_id": name}
        answer = self.tenant.http.post("/api/v1/ves/commitments", json=stream)
        start, head = self.model.committed_through[name] + 1, self.model.head(name)
        if start > head:
            assert answer.status_code == 409, answer.text
            return
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["sequence_start"], told["sequence_end"], told["remaining"]) == (start, head, 0)
        self.model.committed_through[name] = head
        self.reached["committed"] += 1
        self.ask_for_a_proof(store, pick)

    @rule(store=STORES, start=st.integers(0, 30), limit=st.integers(1, 7))
    def pull_pages(self, store: int, start: int, limit: int) -> None:
        name = self.stores[store]
        kept = self.model.streams.get(name, [])
        at, found = start, []
        while True:
            page = self.get("/api/v1/ves/events", name, **{"from": at, "limit": limit})
            assert page["head_sequence"] == len(kept)
            found += page["events"]
            at = page["next_from"]
            if not page["has_more"]:
                break
            assert len(page["events"]) == limit
        expected = kept[max(0, start - 1) :]
        assert [e["event_id"] for e in found] == [k.sent.event_id for k in expected]
        assert [e["receipt"] for e in found] == [k.receipt for k in expected]
        assert [e["payload"] for e in found] == [k.sent.event["payload"] for k in expected]
        assert at == max(1, start, len(kept) + 1)

    @rule(store=STORES, pick=PICKS)
    def prove(self, store: int, pick: int) -> None:
        self.ask_for_a_proof(store, pick)

    def ask_for_a_proof(self, store: int, pick: int) -> None:
        """Whether it proves anything is the auditor's to say, at the end."""
        name = self.stores[store]
        number = 1 + pick % (self.model.head(name) + 1)
        params = {"tenant_id": str(self.tenant.tenant_id), "store_id": name}
        answer = self.tenant.http.get(f"/api/v1/ves/proofs/{number}", params=params)
        proven = number <= self.model.committed_through[name]
        assert answer.status_code == (200 if proven else 404)
        self.reached["proven"] += proven

    @rule(dice=st.sampled_from(range(8)))
    def kill_the_server_and_start_it_again(self, dice: int) -> None:
        if dice == 7:  # rare: it takes as long as a hundred requests
            self.server.kill_9()
            self.server.start()
            self.server.wait_ready()
            self.tenant.moved_to(self.server)
            self.reached["restarted"] += 1

    # What must be true after each of their steps.

    @invariant()
    def heads_are_the_models(self) -> None:
        for name in self.stores:
            assert self.get("/api/v1/ves/head", name)["head_sequence"] == self.model.head(name)

    def teardown(self) -> None:
        if not self.agreed:
            return  # the step that found it is the news
        get = over_http(self.server.url, self.tenant.api_key)
        streams = []
        for name in self.stores:
            kept = self.model.streams.get(name, [])
            acknowledged = [{"event": k.sent.event, "receipt": k.receipt} for k in kept]
            proofs = 1 if self.model.head(name) == self.model.committed_through[name] else 0
            streams.append(
                read_stream(
                    get,
                    str(self.tenant.tenant_id),
                    name,
                    acknowledged=acknowledged,
                    proof_every=proofs,
                )
            )
            assert streams[-1].head == self.model.head(name)
            for entity in ("e-0", "e-1"):
                seen = self.get(f"/api/v1/ves/entities/order/{entity}", name, limit=1)
                assert seen["version"] == self.model.version(name, entity)
        problems = audit_tenant(streams)
        assert not problems, problems[:5]
        while OPENED:
            OPENED.pop().http.close()

    # How it is done.

    def is_kept(self, sent: Sent) -> bool:
        kept = self.model.kept.get(sent.event_id)
        return kept is not None and kept.sent is sent

    def at(self, store: int) -> dict[str, str]:
        return {"store_id": self.stores[store]}

    def get(self, path: str, store: str, **params: Any) -> dict[str, Any]:
        stream = {"tenant_id": str(self.tenant.tenant_id), "store_id": store}
        answer = self.tenant.http.get(path, params=stream | params)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def signed(self, agent: Agent, store: str, draft: Draft) -> Sent:
        if draft.old is not None:
            mine = [
                sent
                for who, request in self.requests
                for sent in request
                if who is agent and sent.event["store_id"] == store
            ]
            if mine:
                return mine[draft.old % len(mine)]
        entity = f"e-{draft.entity}"
        changes: dict[str, Any] = {"store_id": store, "entity_id": entity}
        if draft.command is not None:
            changes["command_id"] = self.commands[draft.command]
        if draft.version is not None:
            changes["base_version"] = self.model.version(store, entity) + (draft.version == "wrong")
        event = agent.event({"n": len(self.requests), "text": "ein Wort für ✓"}, **changes)
        if draft.flaw == "invalid_payload_hash":
            event["payload"] = {"n": -1}
        elif draft.flaw == "invalid_signature":
            event["entity_id"] = f"e-{1 - draft.entity}"  # signed for the other entity
        return Sent(event, draft.flaw)

    def post(self, agent: Agent, request: list[Sent]) -> None:
        self.requests.append((agent, request))
        self.agreed = False
        answer = self.tenant.post_raw(agent.body(sent.event for sent in request))
        assert answer.status_code == 200, answer.text
        told = answer.json()
        expected = self.model.post(request)
        self.compare(told, expected, request[0].event["store_id"])
        self.agreed = True
        self.reached["accepted"] += len(expected.accepted)
        self.reached["replayed"] += len(expected.replayed)
        self.reached["replayed with a revoked key"] += sum(
            kept.sent.event["source_agent_id"] in self.model.revoked for kept in expected.replayed
        )
        self.reached.update(reason for _, reason in expected.rejections)

    def compare(self, told: dict[str, Any], expected: Expected, store: str) -> None:
        rejections = [(r["event_id"], r["reason"].partition(":")[0]) for r in told.get("rejections") or []]
        assert rejections == expected.rejections
        assert told["eventsRejected"] == len(expected.rejections)
        assert told["eventsAccepted"] == len(expected.accepted)
        assert told["eventsReplayed"] == len(expected.replayed)
        assert told["headSequence"] == self.model.head(store)
        receipts = told.get("receipts") or []
        assert [r["eventId"] for r in receipts] == [kept.sent.event_id for kept in expected.receipts]
        first = self.model.head(store) - len(expected.accepted) + 1
        for receipt, kept in zip(receipts, expected.receipts, strict=True):
            if kept.receipt:
                assert receipt == kept.receipt, "a replay was answered with another receipt"
            else:
                kept.receipt = receipt
                assert receipt["sequenceNumber"] == first
                first += 1


@pytest.mark.parametrize("seeds", some_or_all(EACH_TIME, [str(n) for n in range(SEEDS)]))
def test_the_service_and_the_model_tell_the_same_story(
    own_server: Callable[..., Server], seeds: list[str]
) -> None:
    server = own_server(COMMITMENT_INTERVAL_SECS="3600", COMMITMENT_EVENTS="65536").start()
    server.wait_ready()
    reached: Counter[str] = Counter()
    story = type("Story", (Clients,), {"server": server, "reached": reached})
    for number in seeds:
        print(f"seed {number}")  # shown when it fails
        run_state_machine_as_test(seed(int(number))(story), settings=TELLING)
    untold = WORTH_TELLING - {what for what, count in reached.items() if count}
    assert not untold, f"no story came to {untold}: {dict(reached)}"
