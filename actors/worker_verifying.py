"""What a verifier's process does: whole request bodies in, verified batches out.

Remembers public keys, which never change once bound to a name; that a name has none is never remembered,
because it may be registered a moment later. Remembers tenants' policies under their stamps, and compiled
schemas, whose texts never change. Judges ``created_at`` by its own machine's clock. Asks for what it lacks;
a body that lacks nothing but keys is kept as it was read until they come, or until another body does.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from actors.bindings import Bindings
from actors.worker_comparing import Comparing
from actors.worker_wire import BecomeVerifier, GiveKeys, VerifyAnswer, VerifyBody, VerifyQuestion
from ves import envelopes, legacy_envelopes
from ves.legacy import LegacyBatch
from ves.legacy_verification import verify_legacy_body
from ves.policy import Judge, Policy, demands_nothing, wanted
from ves.records import KeyName, NeedsPolicy, NeedsSchemas, Uuid, VerifiedBatch
from ves.verification import AwaitsKeys, Demands, verify_body

AnyRequest = envelopes.Request | legacy_envelopes.Request
POLICY_WEIGHT_MAX = 50_000
"""Of the policies remembered: one each, and one for each of their event types; about 20 MB."""


def _now_us() -> int:
    return time.time_ns() // 1000


def _no_limit(seconds: float) -> None:
    pass


_question: msgspec.msgpack.Decoder[VerifyQuestion] = msgspec.msgpack.Decoder(VerifyQuestion)


class Verifying:
    """One process's memory of bindings, policies and schemas, least recently used ones forgotten."""

    public_key = b""

    def __init__(
        self,
        become: BecomeVerifier,
        *,
        now_us: Callable[[], int] = _now_us,
        limit_cpu: Callable[[float], None] = _no_limit,
    ) -> None:
        """``limit_cpu``: end this process after so many seconds of work, unless called with 0 before."""
        self._become = become
        self._now_us = now_us
        self._bindings = Bindings(become.bindings_max)
        self._policies: OrderedDict[Uuid, Policy] = OrderedDict()
        self._policy_weight = 0
        self._comparing = Comparing(limit_cpu, cpu_s=become.comparing_cpu_s)
        self._idle = Demands(become.future_us_max)
        self._waiting: AwaitsKeys | None = None
        self._nothing = demands_nothing(become.demands, payload_bytes_max=become.payload_bytes_max)
        """Of tenants with stamp 0; they should not pay for the others."""

    def answer(self, body: bytes) -> VerifyAnswer:
        question = _question.decode(body)
        waiting, self._waiting = self._waiting, None
        if isinstance(question, GiveKeys):
            answer = self._with_keys(waiting, question.found)
        else:
            if waiting is not None:
                self._comparing.tidy()
            answer = self._verified(question)
        if self._waiting is None:
            self._comparing.tidy()
        return answer

    def _verified(self, request: VerifyBody) -> VerifyAnswer:
        if request.stamp == 0 and self._nothing:
            return self._checked(request, lambda parsed: self._idle)
        if request.policy is not None and request.policy.tenant_id is not None:
            self._remember(request.policy.tenant_id, request.policy)
        with self._comparing.of_one_body(request.schemas):
            return self._compared(request)

    def _compared(self, request: VerifyBody) -> VerifyAnswer:
        judge: Judge | None = None

        def demands_of(parsed: AnyRequest) -> Demands | NeedsPolicy | NeedsSchemas:
            nonlocal judge
            policy = self._policy_of(parsed.events[0].tenant_id, request.stamp)
            if policy is None:
                return NeedsPolicy(parsed.events[0].tenant_id)
            if demands_nothing(policy, payload_bytes_max=self._become.payload_bytes_max):
                return self._idle
            names = wanted(policy, {event.wire.event_type for event in parsed.events})
            if lacking := self._comparing.lacks(names):
                return NeedsSchemas(lacking)
            judge = Judge(policy, self._comparing, payload_bytes_max=self._become.payload_bytes_max)
            return Demands(self._become.future_us_max, judge)

        answer = self._checked(request, demands_of)
        return _with_checks(answer, judge)

    def _checked(
        self, request: VerifyBody, demands_of: Callable[[AnyRequest], Demands | NeedsPolicy | NeedsSchemas]
    ) -> VerifyAnswer:
        if request.legacy:
            return verify_legacy_body(
                request.body, request.scope, now_us=self._now_us(), demands_of=demands_of
            )
        answer = verify_body(
            request.body, request.scope, self._bindings.get, now_us=self._now_us(), demands_of=demands_of
        )
        if isinstance(answer, AwaitsKeys):
            self._waiting = answer
            return answer.needs
        return answer

    def _with_keys(self, waiting: AwaitsKeys | None, found: list[tuple[KeyName, bytes]]) -> VerifyAnswer:
        """Raises ValueError when no body waits for keys."""
        if waiting is None:
            raise ValueError("keys for no body")
        self._bindings.learn(found)
        with self._comparing.of_one_body([]):
            return _with_checks(waiting.with_keys(dict(found)), waiting.demands.judge)

    def _policy_of(self, tenant_id: Uuid, stamp: int | None) -> Policy | None:
        if stamp == 0:
            return self._become.demands
        policy = self._policies.get(tenant_id)
        if policy is None or policy.stamp != stamp:
            return None
        self._policies.move_to_end(tenant_id)
        return policy

    def _remember(self, tenant_id: Uuid, policy: Policy) -> None:
        before = self._policies.pop(tenant_id, None)
        self._policies[tenant_id] = policy
        self._policy_weight += _weight(policy) - (0 if before is None else _weight(before))
        while self._policy_weight > POLICY_WEIGHT_MAX:
            _, oldest = self._policies.popitem(last=False)
            self._policy_weight -= _weight(oldest)


def _with_checks(answer: VerifyAnswer, judge: object) -> VerifyAnswer:
    if isinstance(answer, VerifiedBatch | LegacyBatch) and isinstance(judge, Judge):
        return replace(answer, checks=judge.checks)
    return answer


def _weight(policy: Policy) -> int:
    return 1 + len(policy.schemas)
