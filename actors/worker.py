"""A worker process: reads a question, does it, writes the answer; one loop, no state but caches and keys.

    python -m actors.worker PARENT_PID

Runs the pure functions of ``ves`` on whole batches, away from the event loop. It holds what its first frame
brought and nothing else: no environment (but in a drill), no files, no sockets, no database. It ends when its
parent closes the pipe, and is killed by the kernel when its parent dies, even when it is stopped. Any
surprise ends it: its actor notices and starts another.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Protocol

import msgspec

from actors import freed_memory
from actors.worker_wire import (
    HEADER,
    Became,
    Become,
    BecomeChecker,
    BecomeEncryptor,
    BecomeVerifier,
    body_length,
    frame,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_DUMPABLE = 4
_PARENT_GONE = 3
_BUFFER_BYTES = 1024 * 1024
VERIFIER_NICENESS = 10
"""Added to our own: a tenth of the weight of the other processes of the node, if both want a processor."""


class Trade(Protocol):
    """What a worker does for a living."""

    public_key: bytes

    def answer(self, body: bytes) -> object: ...


def main() -> None:
    guard(parent=int(sys.argv[1]))
    freed_memory.keep_some()
    requests, answers = private_pipes()
    try:
        serve(requests, answers, _become, checkpoint=armed_checkpoint())
    except BrokenPipeError:
        os._exit(_PARENT_GONE)


def serve(
    requests: BinaryIO,
    answers: BinaryIO,
    become: Callable[[bytes], Trade],
    *,
    checkpoint: Callable[[str], None] | None = None,
) -> None:
    """Until the parent closes the pipe. ``become`` reads the first frame; ``checkpoint`` only in a drill."""
    trade: Trade | None = None
    while (received := _read_frame(requests)) is not None:
        request_id, body = received
        if trade is None:
            trade = become(body)
            reply: object = Became(os.getpid(), trade.public_key)
            gc.collect()
            gc.freeze()  # what is there now stays: no collection need look at it again
        else:
            reply = trade.answer(body)
        answer = frame(request_id, reply)
        if checkpoint is not None:
            checkpoint("worker.worked")
            half, answer = answer[: len(answer) // 2], answer[len(answer) // 2 :]
            answers.write(half)
            answers.flush()
            checkpoint("worker.half_answered")
        answers.write(answer)
        answers.flush()
        if checkpoint is not None:
            checkpoint("worker.answered")


def armed_checkpoint() -> Callable[[str], None] | None:
    """None unless a drill asked for it, in an environment that only then reaches us."""
    if "SEQUENCER_FAULTS" not in os.environ:
        return None
    from actors import faults

    faults.arm_from_environment(os.environ, variable="SEQUENCER_WORKER_CRASH_AT")
    return faults.checkpoint


def guard(*, parent: int) -> None:
    """Tie our life to the parent's, our signals to nobody, and let no memory of ours reach a disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(_PARENT_GONE)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no core, no ptrace, no /proc/self/mem for the same user
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A ctrl-C, or a stop sent to the whole process group, is for the parent: it still needs us to finish.
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)


def give_way() -> None:
    """What comes in may wait longer than what is on its way out: a node that has too much to do finishes
    events before it begins others, or its verifiers run dry while a group waits for them (ADR 43)."""
    with suppress(PermissionError):  # a sandbox may forbid it: then all are equal
        os.nice(VERIFIER_NICENESS)


def private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our pipes under numbers that nobody else writes to: a stray ``print`` goes to stderr."""
    requests = os.fdopen(os.dup(0), "rb", buffering=_BUFFER_BYTES)
    answers = os.fdopen(os.dup(1), "wb", buffering=_BUFFER_BYTES)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _read_frame(requests: BinaryIO) -> tuple[int, bytes] | None:
    header = requests.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    length, request_id = body_length(header)
    body = requests.read(length)
    return (request_id, body) if len(body) == length else None


def _become(body: bytes) -> Trade:
    what = msgspec.msgpack.decode(body, type=Become)
    # Imported here: a verifier has no need of the ciphers, an encryptor none of the parsers.
    if isinstance(what, BecomeEncryptor):
        from actors.worker_sealing import Sealing

        return Sealing(what)
    from actors import cpu_limit

    if isinstance(what, BecomeChecker):
        from actors.worker_checking import Checking

        return Checking(what)
    assert isinstance(what, BecomeVerifier)
    from actors.worker_verifying import Verifying

    give_way()
    return Verifying(what, limit_cpu=cpu_limit.arm)


if __name__ == "__main__":
    main()
