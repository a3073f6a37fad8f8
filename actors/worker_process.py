"""The parent's side of a worker process: one process, one question at a time over its pipe.

Alone speaks with that process. An answer that is nonsense, belongs to another question or comes late is never
used: the process is killed, because nobody can tell what it would say next, and the actor that owns it dies
with ``WorkerDied`` and is started anew with a fresh one. Never retries and never logs content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

import msgspec
import structlog
import trio

from actors.worker_spawn import OwnProcess, Process, Spawn
from actors.worker_wire import HEADER, NONSENSE, Became, FrameTooLong, body_length, frame

A = TypeVar("A")

START_DEADLINE_S = 30.0
"""A cold start takes half a second; many at once on a busy machine take longer."""
_LOOK_EVERY_S = 2.0
"""A worker that was asked something and used no processor time between two looks hangs: it is stopped, or
waits for what never comes. A slow one is given its full deadline."""
_READ_BYTES = 256 * 1024

_became: msgspec.msgpack.Decoder[Became] = msgspec.msgpack.Decoder(Became)
_log = structlog.get_logger("actors.worker_process")


class WorkerDied(Exception):
    """The worker process ended or had to be killed; what it was doing has no outcome and no effect."""


class WorkerProcess:
    """Not shared: one owner, one call at a time."""

    def __init__(self, become: msgspec.Struct, *, name: str, spawn: Spawn = OwnProcess) -> None:
        self.name = name
        self.pid: int | None = None
        self.public_key = b""
        """Of an encryptor's receipts, as the process itself computed it."""
        self.exit_status: int | None = None
        """Known once it was reaped; negative: the signal that ended it."""
        self._become: msgspec.Struct | None = become
        self._request_id = 0
        self._spawn = spawn
        self._process: Process | None = None
        self._unread = bytearray()
        self._open_question: int | None = None
        self._hung = False

    async def start(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Afterwards the process has its secrets and waits for questions. Raises WorkerDied."""
        self._process = process = self._spawn()
        self.pid = process.pid
        become, self._become = self._become, None  # the process has its secrets; here nobody needs them
        became = await self._exchange(0, become, _became, deadline_s)
        if became.process_id != process.pid:
            self.reject(f"it calls itself {became.process_id}")
        self.public_key = became.public_key

    async def call(self, request: object, answer: msgspec.msgpack.Decoder[A], *, deadline_s: float) -> A:
        """The answer, of exactly the type that ``answer`` decodes. Raises WorkerDied; then, and when it is
        cancelled, the process has been killed."""
        self._request_id += 1
        return await self._exchange(self._request_id, request, answer, deadline_s)

    def reject(self, why: str) -> NoReturn:
        """Kill it for an answer that no honest worker gives. Raises WorkerDied."""
        self.kill()
        raise self.died(why)

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended. ``reap`` afterwards."""
        if self._process is not None:
            self._process.kill()

    async def ended(self) -> None:
        """Returns when the process has ended, for whatever reason."""
        assert self._process is not None
        await self._process.ended()

    async def kill_when_hung(self) -> None:
        """Looks every few seconds whether an open question is being worked on; never returns."""
        seen: tuple[int | None, int] = (None, 0)
        while True:
            due = trio.current_time() + _LOOK_EVERY_S
            await trio.sleep_until(due)
            assert self._process is not None
            now_seen = (self._open_question, self._process.work_done())
            we_were_late = trio.current_time() - due > _LOOK_EVERY_S / 2  # then it may have been stopped too
            nothing_done = now_seen == seen and now_seen[1] >= 0
            if self._open_question is not None and nothing_done and not we_were_late:
                self._hung = True
                self.kill()
            seen = now_seen

    async def reap(self) -> None:
        """After ``kill``: no zombie and no descriptor is left. Not cancellable, milliseconds."""
        if self._process is None:
            return
        await self._process.reap()
        self.exit_status = self._process.exit_status()
        self._process = None

    async def _exchange(
        self, request_id: int, request: object, answer: msgspec.msgpack.Decoder[A], deadline_s: float
    ) -> A:
        answered = False
        self._open_question = request_id
        try:
            with trio.fail_after(deadline_s):
                body = await self._ask(request_id, request)
            value = answer.decode(body)
            answered = True
            self._open_question = None
            return value
        except trio.TooSlowError:
            raise self.died(f"no answer within {deadline_s:g} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self.died("its pipe is closed") from None
        except NONSENSE as error:
            raise self.died(f"its answer is nonsense: {error}") from None
        except FrameTooLong as error:
            raise self.died(str(error)) from None
        finally:
            if not answered:  # also when cancelled: the late answer must not meet the next question
                self.kill()

    async def _ask(self, request_id: int, request: object) -> memoryview:
        assert self._process is not None
        await self._process.send_all(frame(request_id, request))
        length, answered_id = body_length(await self._read(HEADER.size))
        if answered_id != request_id:
            self.reject(f"it answered question {answered_id}, asked was {request_id}")
        body = await self._read(length)
        if self._unread:
            self.reject("it said more than it was asked")
        return memoryview(body)

    async def _read(self, count: int) -> bytearray:
        assert self._process is not None
        while len(self._unread) < count:
            some = await self._process.receive_some(_READ_BYTES)
            if not some:
                self.reject("it has ended")
            self._unread += some
        if len(self._unread) == count:  # no copy in the usual case
            taken, self._unread = self._unread, bytearray()
        else:
            taken = self._unread[:count]
            del self._unread[:count]
        return taken

    def died(self, why: str) -> WorkerDied:
        """To be raised: with the exit status, if there is one already."""
        code = self._process.exit_status() if self._process is not None else None
        if self._hung:
            why = "it hangs: no processor time used while asked"
        status = "" if code is None else f" (exit status {code})"
        return WorkerDied(f"{self.name}, process {self.pid}: {why}{status}")


@asynccontextmanager
async def running(
    become: msgspec.Struct, *, name: str, spawn: Spawn = OwnProcess, waits_for_others: bool = False
) -> AsyncIterator[WorkerProcess]:
    """A started worker process for the time of the block, which is cancelled when the process ends by
    itself, busy or idle; then WorkerDied is raised. Afterwards the process is gone.

    ``become``: one of ``Become``, or what another program of this kind takes for its first frame.
    ``waits_for_others``: it may be asked something and use no processor; only its deadlines end it then."""
    process = WorkerProcess(become, name=name, spawn=spawn)
    del become  # or this frame would hold its secrets as long as the process lives
    try:
        await process.start()
        _log.info("worker_started", worker=name, pid=process.pid)
        async with _as_long_as_it_lives(process, waits_for_others):
            yield process
    finally:
        process.kill()
        await process.reap()


@asynccontextmanager
async def _as_long_as_it_lives(process: WorkerProcess, waits_for_others: bool) -> AsyncIterator[None]:
    died = False

    async def watch(body: trio.CancelScope) -> None:
        nonlocal died
        await process.ended()
        died = True
        body.cancel("the worker process ended")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            if not waits_for_others:
                nursery.start_soon(process.kill_when_hung)
            yield
            nursery.cancel_scope.cancel("the work is done")
    except BaseExceptionGroup as group:
        # The watcher raises nothing: whatever is in there is the body's one exception.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    if died:
        raise process.died("it has ended")
