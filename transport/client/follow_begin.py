"""How an auditor begins with a service: what is believed without proof, and what comes from outside.

Alone makes a state and changes what it trusts. A key that contradicts one that is believed is refused; what a
server shows is believed only when nothing is believed yet.
"""

from __future__ import annotations

from pathlib import Path

from transport.client.errors import BadAnswer, ClientError
from transport.client.follow_keys import WELL_KNOWN
from transport.client.follow_memory import FORMAT, Memory, State, listed_agents, listed_keys
from transport.client.sequencer import SequencerClient
from transport.client.trust import Pins
from transport.client.wire import ReceiptKeys, Stream, TrustFile, WellKnown, decode
from ves.constants import U32_MAX
from ves.encoding import prefixed_hex, uuid_text

FIRST_USE, OUTSIDE = "first use", "trust file"


async def begin(
    path: Path, client: SequencerClient, stream: Stream, trust: TrustFile | None, now: str
) -> Memory:
    """A new state, durable. Without ``trust`` the keys shown now are believed: say so to whoever reads."""
    keys = await _shown(client) if trust is None else trust.keys()
    if not keys:
        raise ClientError("there is no Ed25519 receipt key to begin with")
    agents = trust.agents() if trust is not None else None
    state = State(
        format=FORMAT,
        origin=client.origin,
        tenant_id=uuid_text(stream.tenant_id),
        store_id=uuid_text(stream.store_id),
        begun_at=now,
        trusted=FIRST_USE if trust is None else OUTSIDE,
        receipt_keys=listed_keys(keys),
        agent_keys=listed_agents(agents or {}),
        agents_from_outside=bool(agents),
    )
    return Memory.begin(path, state)


async def _shown(client: SequencerClient) -> ReceiptKeys:
    shown = decode(await client.ask("GET", WELL_KNOWN), WellKnown, WELL_KNOWN)
    try:
        keys = Pins(None).meet(client.origin, shown).keys
    except ValueError as wrong:
        raise BadAnswer(f"{WELL_KNOWN}: {wrong}") from wrong
    if any(not 0 < name.key_version <= U32_MAX for name in keys):
        raise BadAnswer(f"{WELL_KNOWN}: a key version is out of range")
    return keys


def trust_also(memory: Memory, trust: TrustFile) -> None:
    """Keys from outside are believed too, and vouch for those that were believed at first use."""
    state = memory.state
    believed, given = state.keys(), trust.keys()
    for name, key in given.items():
        if believed.get(name, key) != key:
            raise ClientError(
                f"the trust file has another key for sequencer {uuid_text(name.sequencer_id)}, version "
                f"{name.key_version}, than {memory.path}, which has {prefixed_hex(believed[name])}: one of "
                "them is wrong; ask whoever runs the service, on another way than this"
            )
    agents, known = trust.agents() or {}, state.agents()
    for agent, key in agents.items():
        if known.get(agent, key) != key:
            raise ClientError(
                f"the trust file has another key {agent.key_id} for agent {uuid_text(agent.agent_id)} than "
                f"{memory.path}: one of them is wrong"
            )
    state.receipt_keys = listed_keys(believed | given)
    if {name.sequencer_id for name in believed} <= {name.sequencer_id for name in given}:
        state.trusted = OUTSIDE
    if agents:
        state.agents_from_outside = True
        state.agent_keys = listed_agents(agents)
    memory.save()
