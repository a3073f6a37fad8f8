"""Verifies small request bodies where they arrive, instead of in a verifier's process.

For one or two events the way to a process and back costs this process more than the check itself. The
functions are the same, and so are the answers; what needs a tenant's schemas, a policy that only the body
names, or more time than a moment is left to the verifiers. It holds no letter and no state but public keys.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.bindings import Bindings
from actors.mailbox import Ref
from actors.messages import FindKeys, Verify
from actors.worker_wire import BecomeVerifier
from ves.policy import demands_nothing
from ves.records import BodyRefused, VerifiedBatch
from ves.verification import AwaitsKeys, Demands, verify_body

KEYS_DEADLINE_S = 10.0


class SmallBodies:
    def __init__(
        self, *, registry: Ref, become: BecomeVerifier, bytes_max: int, now_us: Callable[[], int]
    ) -> None:
        """``become``: what the verifiers are told. ``bytes_max``: longer bodies are theirs; 0: all are."""
        self._registry = registry
        self._become = become
        self._bytes_max = bytes_max
        self._now_us = now_us
        self._demands = Demands(become.future_us_max)
        self._bindings = Bindings(become.bindings_max)

    async def verify(self, message: Verify, *, deadline_s: float) -> VerifiedBatch | BodyRefused | None:
        """What a verifier would answer; None: ask one. Raises what asking the registry raises."""
        policy = message.policy
        if len(message.body) > self._bytes_max or policy is None:
            return None
        if not demands_nothing(policy, payload_bytes_max=self._become.payload_bytes_max):
            return None
        answer = verify_body(
            message.body,
            message.scope,
            self._bindings.get,
            now_us=self._now_us(),
            demands_of=lambda parsed: self._demands,
        )
        if isinstance(answer, AwaitsKeys):
            question = FindKeys(answer.needs.keys)
            found = await self._registry.ask(question, deadline_s=min(deadline_s, KEYS_DEADLINE_S))
            self._bindings.learn(found.items())
            return answer.with_keys(found)
        assert isinstance(answer, VerifiedBatch | BodyRefused), "a policy that demands nothing needs nothing"
        return answer
