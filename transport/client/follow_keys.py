"""Whose signatures an auditor believes while he follows a stream: pinned once, from then on only led onward.

Alone changes the keys in the memory. The sequencer's are followed along the chain of their own signatures;
an agent's are believed when they are first seen, unless the trust file names agents, and never again
otherwise. A key that is shown differently later is a contradiction.
"""

from __future__ import annotations

from transport.client.checks import UNTRUSTED, AgentKeyring, verify_shown
from transport.client.errors import BadAnswer
from transport.client.follow_memory import AGENT_KEYS_MAX, listed_agents, listed_keys
from transport.client.follow_view import View
from transport.client.trust import followed
from transport.client.wire import Envelope, WellKnown, decode, encode
from ves.encoding import prefixed_hex, uuid_text
from ves.following import Contradiction
from ves.proofs import Problem
from ves.receipt_keys import BrokenChain
from ves.records import KeyName

WELL_KNOWN = "/.well-known/ves-sequencer"


class Keys:
    """The keys believed of one stream's sequencer and agents."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._state = view.memory.state
        self._agents = self._state.agents()

    async def look(self) -> None:
        """The receipt keys that are shown go on from ours."""
        raw = await self._view.client.ask("GET", WELL_KNOWN)
        believed = self._state.keys()
        try:
            keys = followed(believed, decode(raw, WellKnown, WELL_KNOWN))
        except BrokenChain as broken:
            wrong = Contradiction(
                "receipt_keys", f"receipt keys are shown that do not follow from ours: {broken}"
            )
            raise self._view.contradicted(wrong, encode(self._state.receipt_keys), raw) from broken
        except ValueError as misspelt:
            raise BadAnswer(f"{WELL_KNOWN}: {misspelt}") from misspelt
        if keys != believed:
            self._state.receipt_keys = listed_keys(keys)

    async def problems_of(self, envelope: Envelope) -> list[Problem]:
        """What is wrong with a shown event: payload, agent's signature, receipt."""
        await self.learn(envelope.signer_name())
        problems = verify_shown(envelope, self._state.keys(), self._agents)
        if any(problem.name == UNTRUSTED for problem in problems):
            await self.look()  # the sequencer may have changed its key since the look began
            problems = verify_shown(envelope, self._state.keys(), self._agents)
        return problems

    def agents(self) -> AgentKeyring:
        return self._agents

    async def learn(self, name: KeyName) -> None:
        """Believed from now on, unless it is known or only keys from outside count."""
        if name not in self._agents and not self._state.agents_from_outside:
            await self._ask_for(name)

    async def a_random_agent(self, chance: int) -> None:
        """One that was believed is still listed as it was."""
        if not self._state.agents_from_outside:
            known = self._state.agent_keys
            one = known[chance % len(known)]
            await self._ask_for(
                next(n for n in self._state.agents() if uuid_text(n.agent_id) == one.agent_id)
            )

    async def _ask_for(self, of: KeyName) -> None:
        listed = await self._view.client.agent_keys(of.tenant_id, of.agent_id)
        for name, key in self._agents.items():
            if name[:2] == of[:2] and listed.get(name) != key:
                what = "another one now" if name in listed else "not listed any more"
                text = f"key {name.key_id} of agent {uuid_text(name.agent_id)}, which was believed, is {what}"
                shown = {str(other.key_id): prefixed_hex(k) for other, k in listed.items()}
                wrong = Contradiction("agent_key_changed", text)
                raise self._view.contradicted(wrong, encode(prefixed_hex(key)), encode(shown))
        if len(self._agents) > 2 * AGENT_KEYS_MAX:
            self._agents = self._state.agents()
        new = {name: key for name, key in listed.items() if name not in self._agents}
        self._agents |= new
        room = max(0, AGENT_KEYS_MAX - len(self._state.agent_keys))
        self._state.agent_keys += listed_agents(new)[:room]
