"""Worker processes in memory: the real trades behind a pipe that exists only here.

What is on the pipe is what a real worker would write: the house's own side of the conversation (frames, ids,
deadlines, kills) is the real one. Each process can be told to die, hang, lie or repeat itself at its n-th
question, counted over all processes of its role. It never knows what the question is about.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import msgspec
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from actors.worker_sealing import Sealing
from actors.worker_verifying import Verifying
from actors.worker_wire import HEADER, Became, Become, BecomeVerifier, body_length, frame
from tests.simulation.script import TICK_S, WorkerFault, WorkerTrouble

DELAYS_S = (0.0, 0.0, 0.0, TICK_S)
SLOW_S = 1.5
LATE_S = 25.0
"""After every deadline of the house."""

_become: msgspec.msgpack.Decoder[Become] = msgspec.msgpack.Decoder(Become)


class Machine:
    """What all processes of a run share."""

    def __init__(
        self,
        seed: int,
        faults: list[WorkerFault],
        *,
        now_us: Callable[[], int],
        on_hit: Callable[[str, str, str], None],
    ) -> None:
        self.now_us = now_us
        self.chance = random.Random(f"workers {seed}")
        self._on_hit = on_hit
        self._faults = {(fault.role, fault.nth): fault.what for fault in faults}
        self._questions: Counter[str] = Counter()
        self._pids = count(1000)

    def new_pid(self) -> int:
        return next(self._pids)

    def heal(self) -> None:
        self._faults.clear()

    def trouble_at_start(self, role: str) -> WorkerTrouble | None:
        return self._met(role, self._faults.pop((role, 0), None))

    def trouble_with_question(self, role: str) -> WorkerTrouble | None:
        self._questions[role] += 1
        return self._met(role, self._faults.get((role, self._questions[role])))

    def _met(self, role: str, what: WorkerTrouble | None) -> WorkerTrouble | None:
        if what is not None:
            self._on_hit(f"worker {what}", f"a {role}", "")
        return what


class SimulatedProcess:
    """See ``actors.worker_spawn.Process``. Lives in ``nursery``: its node's, so that it dies with it."""

    def __init__(self, machine: Machine, nursery: trio.Nursery) -> None:
        self.pid = machine.new_pid()
        self._machine = machine
        self._ended = trio.Event()
        self._hangs = False
        self._work_seen = 0
        self._scope = trio.CancelScope()
        self._to_us: MemorySendStream
        self._to_us, self._questions = memory_stream_one_way_pair()
        self._answers: MemorySendStream
        self._from_us: MemoryReceiveStream
        self._answers, self._from_us = memory_stream_one_way_pair()
        nursery.start_soon(self._live, name=f"worker {self.pid}")

    # The parent's side.

    async def send_all(self, data: bytes | bytearray) -> None:
        await self._to_us.send_all(data)

    async def receive_some(self, bytes_max: int) -> bytes | bytearray:
        data = await self._from_us.receive_some(bytes_max)
        # Also a pipe takes its time; so an answer may wake its reader at the very moment of a timer.
        await trio.sleep(self._machine.chance.choice(DELAYS_S))
        return data

    async def ended(self) -> None:
        await self._ended.wait()

    def exit_status(self) -> int | None:
        return -9 if self._ended.is_set() else None

    def work_done(self) -> int:
        """The slow ones work all the time, the hanging ones not at all."""
        self._work_seen += not self._hangs
        return self._work_seen

    def kill(self) -> None:
        self._scope.cancel("killed")

    async def reap(self) -> None:
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    # The process itself.

    async def _live(self) -> None:
        try:
            with self._scope:
                await self._serve()
        finally:
            self._answers.close()
            self._questions.close()
            self._ended.set()

    async def _serve(self) -> None:
        machine = self._machine
        _, body = await self._read_frame()
        become = _become.decode(body)
        role = "verifier" if isinstance(become, BecomeVerifier) else "encryptor"
        trade: Verifying | Sealing = (
            Verifying(become, now_us=machine.now_us)
            if isinstance(become, BecomeVerifier)
            else Sealing(become, random_bytes=machine.chance.randbytes)
        )
        reply: object = Became(self.pid, trade.public_key)
        trouble = machine.trouble_at_start(role)
        request_id = 0
        while True:
            await trio.sleep(machine.chance.choice(DELAYS_S))
            if not await self._say(request_id, reply, trouble):
                return
            request_id, body = await self._read_frame()
            trouble = machine.trouble_with_question(role)
            reply = trade.answer(body)

    async def _say(self, request_id: int, reply: object, trouble: WorkerTrouble | None) -> bool:
        """Whether it lives on."""
        answer = bytes(frame(request_id, reply))
        match trouble:
            case "dies":
                return False
            case "dies_halfway":
                await self._answers.send_all(answer[: len(answer) // 2])
                return False
            case "hangs":
                self._hangs = True
                await trio.sleep_forever()
            case "nonsense":
                answer = answer[: HEADER.size] + b"\xc1" * (len(answer) - HEADER.size)
            case "other_id":
                answer = bytes(frame(request_id + 1, reply))
            case "twice":
                answer *= 2
            case "short":
                answer = bytes(frame(request_id, reply[:-1] if isinstance(reply, list) else [reply]))
            case "slow":
                await trio.sleep(SLOW_S)
            case "late":
                await trio.sleep(LATE_S)
        await self._answers.send_all(answer)
        return True

    async def _read_frame(self) -> tuple[int, bytes]:
        length, request_id = body_length(await self._read(HEADER.size))
        return request_id, await self._read(length)

    async def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            some = await self._questions.receive_some(count - len(data))
            if not some:
                await trio.sleep_forever()  # the parent closed its end: it is about to kill us
            data += some
        return data
