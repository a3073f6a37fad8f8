"""Who takes part: a handful of tenants, stores and agents, always the same, and the events they can send.

An event is named by (agent, store, n) and always has the same bytes, so that bodies are signed once per
process and not once per seed, and a script needs only numbers. ``n`` says what is special about it; see
``Event``. Nothing here knows of a run.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

from journal.port import AgentKey, ApiKey
from ves.canonical import jcs
from ves.constants import PLAINTEXT, ZERO_HASH
from ves.encoding import uuid_text
from ves.events import EventHeader, event_signing_hash, payload_plain_hash, plaintext_envelope, request_body
from ves.records import KeyName, Uuid
from ves.signatures import Signer

TENANTS = 3
STORES = 2
"""Of each tenant."""
AGENTS = 3
"""Of each tenant; the last one comes with the bootstrap key and is never revoked: the inspector."""
BOOTSTRAP = "ss_" + "simulated-bootstrap-key-0123456789"

TWIN = 100
"""``n + TWIN`` has the event id of ``n`` and another payload."""
FORGED = 200
"""From here on the signature is wrong."""
FRESH = 300
"""From here on: for the oracle."""


def _id(*what: object) -> Uuid:
    return sha256(repr(what).encode()).digest()[:16]


class Agent(NamedTuple):
    tenant: int
    number: int

    @property
    def tenant_id(self) -> Uuid:
        return tenant_id(self.tenant)

    @property
    def id(self) -> Uuid:
        return _id("agent", *self)

    @property
    def key(self) -> KeyName:
        return KeyName(self.tenant_id, self.id, 1)

    @property
    def api_key(self) -> str:
        return BOOTSTRAP if self.inspects else f"ss_simulated-api-key-{self.tenant}-{self.number}"

    @property
    def credential_id(self) -> Uuid:
        return _id("credential", *self)

    @property
    def inspects(self) -> bool:
        return self.number == AGENTS - 1

    def __str__(self) -> str:
        return f"agent {self.tenant}.{self.number}"


class Stream(NamedTuple):
    tenant: int
    store: int

    @property
    def ids(self) -> tuple[Uuid, Uuid]:
        return tenant_id(self.tenant), _id("store", *self)

    @property
    def query(self) -> str:
        tenant, store = self.ids
        return f"tenant_id={uuid_text(tenant)}&store_id={uuid_text(store)}"

    def __str__(self) -> str:
        return f"stream {self.tenant}/{self.store}"


class Event(NamedTuple):
    """``n`` ending in 7 shares its command id with the other agents' event of the same ``n`` in the stream,
    ending in 8 wants to be the first of its entity: of each, one agent's at most can be accepted."""

    agent: Agent
    store: int
    n: int

    @property
    def stream(self) -> Stream:
        return Stream(self.agent.tenant, self.store)

    @property
    def id(self) -> Uuid:
        n = self.n - TWIN if TWIN <= self.n < FORGED else self.n
        return _id("event", self.agent, self.store, n)

    @property
    def is_forged(self) -> bool:
        return FORGED <= self.n < FRESH

    def __str__(self) -> str:
        return f"{self.n}"


def tenant_id(tenant: int) -> Uuid:
    return _id("tenant", tenant)


EVERYBODY = [Agent(tenant, number) for tenant in range(TENANTS) for number in range(AGENTS)]
STREAMS = [Stream(tenant, store) for tenant in range(TENANTS) for store in range(STORES)]


@cache
def signer(agent: Agent) -> Signer:
    return Signer(sha256(agent.id).digest())


@cache
def agent_key(agent: Agent) -> AgentKey:
    return AgentKey(agent.key, signer(agent).public_key, 1, None, None)


@cache
def api_key(agent: Agent) -> ApiKey:
    return ApiKey(
        id=agent.credential_id,
        key_hash=sha256(agent.api_key.encode()).digest(),
        prefix=agent.api_key[:15],
        tenant_id=agent.tenant_id,
        store_ids=None,
        agent_id=None,
        permissions=("read", "write", "admin"),
        name=None,
    )


@cache
def _signed(event: Event) -> tuple[dict[str, Any], bytes]:
    """The envelope and its signing hash."""
    agent, ending = event.agent, event.n % 10
    header = EventHeader(
        tenant_id=agent.tenant_id,
        store_id=event.stream.ids[1],
        event_id=event.id,
        source_agent_id=agent.id,
        agent_key_id=1,
        entity_type="order",
        entity_id=f"first-{event.n}" if ending == 8 else f"o-{event.n}",
        event_type="order.created",
        created_at="2026-01-02T03:04:05.678Z",
    )
    payload = {"n": event.n}
    envelope = plaintext_envelope(
        signer(agent),
        header,
        payload,
        command_id=_id("command", event.stream, event.n) if ending == 7 else None,
        base_version=0 if ending == 8 else None,
    )
    if event.is_forged:
        envelope["agent_signature"] = "0x" + "01" * 64
    plain_hash = payload_plain_hash(jcs(payload))
    return envelope, event_signing_hash(header.encoded(), PLAINTEXT, plain_hash, ZERO_HASH)


def signing_hash(event: Event) -> bytes:
    return _signed(event)[1]


@cache
def body(events: tuple[Event, ...]) -> bytes:
    """One ingest request; all of one agent and one store."""
    return request_body(events[0].agent.id, [_signed(event)[0] for event in events])
