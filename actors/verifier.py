"""A verifier: turns raw request bodies into verified events, one body at a time.

Owns one worker process, which parses, hashes and checks signatures; fetches the public keys it lacks from the
registry and sends the body once more. Its own answers hold nothing it did not check the form of. Never judges
whether a key is currently valid, and never touches the journal.
"""

from __future__ import annotations

import msgspec

from actors.errors import NotNow, Unavailable
from actors.faults import checkpoint
from actors.mailbox import Inbox, Letter, Ref
from actors.messages import FindKeys, Verify
from actors.worker_process import WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import BecomeVerifier, VerifyAnswer, VerifyBody
from ves.records import BodyRefused, KeyName, NeedsKeys, Scope, VerifiedBatch

CALL_DEADLINE_S = 20.0
"""An ordinary body of the largest size takes a fifth of a second, the worst one ten."""
KEYS_DEADLINE_S = 10.0

_answer: msgspec.msgpack.Decoder[VerifyAnswer] = msgspec.msgpack.Decoder(VerifyAnswer)


class Verifier:
    """Answers ``Verify``."""

    def __init__(
        self,
        *,
        registry: Ref,
        spawn: Spawn = OwnProcess,
        name: str = "verifier",
        call_deadline_s: float = CALL_DEADLINE_S,
    ) -> None:
        self._registry = registry
        self._spawn = spawn
        self._name = name
        self._call_deadline_s = call_deadline_s

    async def run(self, inbox: Inbox) -> None:
        async with running(BecomeVerifier(), name=self._name, spawn=self._spawn) as worker:
            inbox.ready()
            while True:
                letter: Letter[VerifiedBatch | BodyRefused] = await inbox.take()
                if letter.abandoned:
                    continue
                message = letter.message
                assert isinstance(message, Verify)
                try:
                    verified = await self._verify(worker, message, letter.remaining_s)
                except Unavailable as error:
                    letter.refuse(error)
                else:
                    checkpoint("verifier.verified")
                    letter.answer(verified)

    async def _verify(
        self, worker: WorkerProcess, message: Verify, remaining_s: float
    ) -> VerifiedBatch | BodyRefused:
        """Raises Unavailable when the registry cannot say; WorkerDied when the process has to be replaced."""
        answer = await self._call(worker, VerifyBody(message.body, message.scope))
        if isinstance(answer, NeedsKeys):
            found = await self._find(answer.keys, min(remaining_s, KEYS_DEADLINE_S))
            absent = [name for name in answer.keys if name not in found]
            again = VerifyBody(message.body, message.scope, list(found.items()), absent)
            answer = await self._call(worker, again)
        if isinstance(answer, NeedsKeys):
            worker.reject("it asks for keys it was given")
        if isinstance(answer, VerifiedBatch) and not _within(answer, message.scope):
            worker.reject("it verified events outside the caller's scope")
        return answer

    async def _call(self, worker: WorkerProcess, request: VerifyBody) -> VerifyAnswer:
        return await worker.call(request, _answer, deadline_s=self._call_deadline_s)

    async def _find(self, names: list[KeyName], deadline_s: float) -> dict[KeyName, bytes]:
        try:
            return await self._registry.ask(FindKeys(names), deadline_s=deadline_s)
        except NotNow as error:
            # Whatever became of the question: verifying changes nothing, so nothing was done.
            raise Unavailable(
                f"agent keys cannot be looked up: {error}", retry_after_s=error.retry_after_s
            ) from None


def _within(batch: VerifiedBatch, scope: Scope) -> bool:
    return (
        (scope.tenant_id is None or scope.tenant_id == batch.tenant_id)
        and (scope.store_ids is None or batch.store_id in scope.store_ids)
        and (scope.agent_id is None or scope.agent_id == batch.agent_id)
    )
