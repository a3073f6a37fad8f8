"""Where worker processes come from: one OS process with a pipe to it and a pipe from it.

Alone starts, watches and kills that process. It knows nothing of what is said over the pipes
(``actors.worker_process`` does), so a simulation can put another kind of process in its place.

Must run in the event loop's own thread: the kernel ends a worker when the *thread* that started it ends.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import trio

from actors.pipe import send_all

_REAP_DEADLINE_S = 5.0
_PIPE_BYTES = 1024 * 1024
"""The most an unprivileged process may ask for by default (pipe(7)): a usual batch in one write."""
_ENVIRONMENT_KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT", "TMPDIR")
_OF_A_DRILL = ("SEQUENCER_FAULTS", "SEQUENCER_WORKER_CRASH_AT")
_COMMAND = (sys.executable, "-m", "actors.worker")
_HOME = Path(__file__).resolve().parents[1]
"""Where ``actors`` can be imported from, whatever the server's working directory is."""


class Process(Protocol):
    """A process that runs. ``send_all`` and ``receive_some`` raise what Trio's streams raise."""

    pid: int

    async def send_all(self, data: bytes | bytearray) -> None: ...

    async def receive_some(self, bytes_max: int) -> bytes | bytearray:
        """Empty when it has closed its end."""
        ...

    async def ended(self) -> None:
        """Returns when it has ended, for whatever reason."""
        ...

    def exit_status(self) -> int | None:
        """None as long as it lives."""
        ...

    def work_done(self) -> int:
        """A number that rises while it works and stands still while it does nothing; below 0: unknown."""
        ...

    def kill(self) -> None:
        """Cannot be refused; harmless when it has ended. ``reap`` afterwards."""
        ...

    async def reap(self) -> None:
        """After ``kill``: nothing is left of it. Not cancellable, milliseconds."""
        ...


Spawn = Callable[[], Process]


class OwnProcess:
    """``python -m actors.worker``, or another program that is told its parent, tied to our life."""

    def __init__(
        self,
        command: tuple[str, ...] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        inherits: Sequence[int] = (),
    ) -> None:
        """``environment``: what it gets beside the few variables that a Python needs; ``inherits``:
        descriptors that it keeps, under the same numbers."""
        # Blocks the loop for a millisecond or two (vfork and exec), and must: not in a helper thread, whose
        # end would be taken for our own.
        self._process = subprocess.Popen(  # noqa: S603 - see above; our own argument list
            [*(command or _COMMAND), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            pass_fds=inherits,
            cwd=_HOME,
            env=_environment() | dict(environment or {}),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._seen_waiting = 0
        self._requests = _stream(self._process.stdin)
        self._answers = _stream(self._process.stdout)

    async def send_all(self, data: bytes | bytearray) -> None:
        await send_all(self._requests, data)

    async def receive_some(self, bytes_max: int) -> bytes | bytearray:
        return await self._answers.receive_some(bytes_max)

    async def ended(self) -> None:
        await trio.lowlevel.wait_readable(self._pidfd)

    def exit_status(self) -> int | None:
        return self._process.poll()

    def work_done(self) -> int:
        """Clock ticks of processor time, user and system (proc(5), fields 14 and 15); one that waits for a
        processor or a disk works too. -1 when it is gone, and where /proc is hidden: our workers cannot be
        traced, so ``hidepid`` hides them even from us."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return -1
        self._seen_waiting += fields[0] in (b"R", b"D")
        return int(fields[11]) + int(fields[12]) + self._seen_waiting

    def kill(self) -> None:
        self._process.kill()

    async def reap(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAP_DEADLINE_S):
            await self.ended()
        self._process.poll()
        for stream in (self._requests, self._answers):
            stream.close()
        os.close(self._pidfd)


def _environment() -> dict[str, str]:
    drill = _OF_A_DRILL if os.environ.get("SEQUENCER_FAULTS") == "1" else ()
    return {name: os.environ[name] for name in (*_ENVIRONMENT_KEPT, *drill) if name in os.environ}


def _stream(pipe: IO[bytes]) -> trio.lowlevel.FdStream:
    """Takes over the pipe, and enlarges it where the system allows it."""
    descriptor = os.dup(pipe.fileno())
    pipe.close()
    with suppress(PermissionError):  # the user's share of pipe memory is used up: smaller pipes work too
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return trio.lowlevel.FdStream(descriptor)
