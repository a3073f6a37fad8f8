"""A verifier: turns raw request bodies into verified events, one body at a time.

Owns one worker process, which parses, hashes and checks signatures; fetches what it lacks, public keys from
the registry, schemas from the journal, for which it sends the body once more. Its own answers hold nothing
it did not check the form of, and no tenant's schemas cost it one life after another. Never judges whether a
key is currently valid, and never touches the journal.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from actors.cpu_limit import EXIT_STATUS
from actors.errors import NotNow, Unavailable
from actors.faults import checkpoint
from actors.mailbox import Inbox, Letter, Ref
from actors.messages import FindKeys, Verify, VerifyLegacy
from actors.policies import PolicyBook
from actors.worker_process import WorkerDied, WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import BecomeVerifier, GiveKeys, VerifyAnswer, VerifyBody, VerifyQuestion
from journal.port import JournalAway
from ves.legacy import EmptyBatch, LegacyBatch
from ves.policy import Policy
from ves.records import (
    BodyRefused,
    KeyName,
    NeedsKeys,
    NeedsPolicy,
    NeedsSchemas,
    Scope,
    Uuid,
    VerifiedBatch,
)

CALL_DEADLINE_S = 20.0
"""An ordinary body of the largest size takes a fifth of a second, the worst one ten."""
KEYS_DEADLINE_S = 10.0

Verdict = VerifiedBatch | LegacyBatch | EmptyBatch | BodyRefused | NeedsPolicy

_answer: msgspec.msgpack.Decoder[VerifyAnswer] = msgspec.msgpack.Decoder(VerifyAnswer)


class Verifier:
    """Answers ``Verify`` and ``VerifyLegacy``."""

    def __init__(
        self,
        *,
        registry: Ref,
        policies: PolicyBook,
        become: BecomeVerifier | None = None,
        spawn: Spawn = OwnProcess,
        name: str = "verifier",
        call_deadline_s: float = CALL_DEADLINE_S,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._become = become or BecomeVerifier()
        self._spawn = spawn
        self._name = name
        self._call_deadline_s = call_deadline_s
        self._in_hand: Policy | None = None

    async def run(self, inbox: Inbox) -> None:
        process: WorkerProcess | None = None
        try:
            async with running(self._become, name=self._name, spawn=self._spawn) as process:
                inbox.ready()
                await self._serve(inbox, process)
        except WorkerDied:
            # It ended itself over somebody's schemas: the next life is not to be spent on them too.
            if process is not None and process.exit_status == EXIT_STATUS and self._in_hand is not None:
                self._policies.blame(self._in_hand)
            raise

    async def _serve(self, inbox: Inbox, worker: WorkerProcess) -> None:
        while True:
            letter: Letter[Verdict] = await inbox.take()
            if letter.abandoned:
                continue
            message = letter.message
            assert isinstance(message, Verify | VerifyLegacy)
            try:
                verified = await self._verify(worker, message, letter.remaining_s)
            except Unavailable as error:
                letter.refuse(error)
            else:
                checkpoint("verifier.verified")
                letter.answer(verified)

    async def _verify(
        self, worker: WorkerProcess, message: Verify | VerifyLegacy, remaining_s: float
    ) -> Verdict:
        """Raises Unavailable when the registry or the journal cannot say, or the tenant's schemas are held
        back; WorkerDied when the process has to be replaced."""
        policy = None if message.policy is None else self._policies.bearable(message.policy)
        self._in_hand = policy
        legacy = isinstance(message, VerifyLegacy)
        stamp = None if policy is None else policy.stamp
        request = VerifyBody(message.body, message.scope, stamp=stamp, legacy=legacy)
        answer = await self._call(worker, request)
        # In this order, each at most once: nothing of it is asked for twice by an honest worker.
        if isinstance(answer, NeedsPolicy) and policy is not None and policy.tenant_id == answer.tenant_id:
            request = replace(request, policy=policy)
            answer = await self._call(worker, request)
        if isinstance(answer, NeedsSchemas) and policy is not None:
            request = await self._with_schemas(request, policy, answer.schema_ids)
            answer = await self._call(worker, request)
        if isinstance(answer, NeedsKeys):
            found = await self._find(answer.keys, min(remaining_s, KEYS_DEADLINE_S))
            answer = await self._call(worker, GiveKeys(list(found.items())))
        if isinstance(answer, NeedsKeys | NeedsSchemas):
            worker.reject("it asks for keys or schemas it was given")
        if isinstance(answer, NeedsPolicy) and policy is not None:
            worker.reject("it asks for a policy it was given")
        if isinstance(answer, VerifiedBatch if legacy else LegacyBatch | EmptyBatch):
            worker.reject("it read the body as one of the other stream")
        if isinstance(answer, VerifiedBatch | LegacyBatch) and not _within(answer, message.scope):
            worker.reject("it verified events outside the caller's scope")
        return answer

    async def _call(self, worker: WorkerProcess, request: VerifyQuestion) -> VerifyAnswer:
        return await worker.call(request, _answer, deadline_s=self._call_deadline_s)

    async def _with_schemas(self, request: VerifyBody, policy: Policy, schema_ids: list[Uuid]) -> VerifyBody:
        try:
            return replace(request, schemas=list((await self._policies.texts(schema_ids)).items()))
        except JournalAway as error:
            why = Unavailable(f"schemas cannot be read: {error}")
        without = self._policies.unless_it_matters(policy, why)
        return replace(request, stamp=without.stamp, policy=without)

    async def _find(self, names: list[KeyName], deadline_s: float) -> dict[KeyName, bytes]:
        try:
            return await self._registry.ask(FindKeys(names), deadline_s=deadline_s)
        except NotNow as error:
            # Whatever became of the question: verifying changes nothing, so nothing was done.
            raise Unavailable(
                f"agent keys cannot be looked up: {error}", retry_after_s=error.retry_after_s
            ) from None


def _within(batch: VerifiedBatch | LegacyBatch, scope: Scope) -> bool:
    return (
        (scope.tenant_id is None or scope.tenant_id == batch.tenant_id)
        and (scope.store_ids is None or batch.store_id in scope.store_ids)
        and (scope.agent_id is None or scope.agent_id == batch.agent_id)
    )
