"""The schema checker: finds out whether a schema may be registered, and what a payload lacks of one.

Owns one worker process, started when first asked. Whatever a schema does in there, too long or too large, the
process ends and the answer is a refusal; verifiers never meet a schema that was not tried here. One question
at a time, so that registering schemas costs a node at most one processor. Never touches the journal.
"""

from __future__ import annotations

import msgspec

from actors.cpu_limit import EXIT_STATUS
from actors.mailbox import Inbox
from actors.messages import CheckPayload, CheckSchema
from actors.worker_process import WorkerDied, WorkerProcess
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import (
    BecomeChecker,
    CheckerAnswer,
    ComparePayload,
    PayloadErrors,
    SchemaFit,
    TrySchema,
    Unfitting,
)

CALL_DEADLINE_S = 10.0
"""Three seconds of work end the process; this is for a machine that has no time."""

_answer: msgspec.msgpack.Decoder[CheckerAnswer] = msgspec.msgpack.Decoder(CheckerAnswer)


class SchemaChecker:
    """Answers ``CheckSchema`` and ``CheckPayload``."""

    def __init__(self, *, become: BecomeChecker | None = None, spawn: Spawn = OwnProcess) -> None:
        self._become = become or BecomeChecker()
        self._spawn = spawn
        self._process: WorkerProcess | None = None

    async def run(self, inbox: Inbox) -> None:
        try:
            while True:
                letter = await inbox.take()
                if letter.abandoned:
                    continue
                message = letter.message
                if isinstance(message, CheckSchema):
                    letter.answer(await self._why_not(message))
                else:
                    assert isinstance(message, CheckPayload)
                    letter.answer(await self._errors(message))
        finally:
            await self._let_go()

    async def _why_not(self, message: CheckSchema) -> str | None:
        asked = TrySchema(
            message.schema_json, message.compatibility, message.previous, message.previous_version
        )
        answer = await self._ask(asked)
        if answer is None:
            return "it takes too much time or memory to compile or to compare with; simplify it"
        assert not isinstance(answer, PayloadErrors)
        return answer.why if isinstance(answer, Unfitting) else None

    async def _errors(self, message: CheckPayload) -> list[tuple[str, str]] | None:
        answer = await self._ask(ComparePayload(message.schema_json, message.payload))
        assert not isinstance(answer, SchemaFit | Unfitting)
        return None if answer is None else answer.errors

    async def _ask(self, question: TrySchema | ComparePayload) -> CheckerAnswer | None:
        """None when the process did not survive it. A kept one may have ended before, so the last word is a
        fresh one's."""
        kept = self._process
        if kept is not None:
            answer = await self._try(kept, question)
            if answer is not None or kept.exit_status == EXIT_STATUS:  # it worked on this one, and too long
                return answer
        fresh = WorkerProcess(self._become, name="schema-checker", spawn=self._spawn)
        self._process = fresh
        await fresh.start()
        return await self._try(fresh, question)

    async def _try(
        self, process: WorkerProcess, question: TrySchema | ComparePayload
    ) -> CheckerAnswer | None:
        try:
            return await process.call(question, _answer, deadline_s=CALL_DEADLINE_S)
        except WorkerDied:
            await self._let_go()
            return None

    async def _let_go(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.reap()
            self._process = None
