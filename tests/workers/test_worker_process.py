"""One worker process and its pipe: what is answered, and what happens when it is not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from signing_agent import ANYWHERE, Agent, numbered

from actors import worker_process, worker_spawn
from actors.messages import SealedPayload
from actors.worker import VERIFIER_NICENESS
from actors.worker_process import WorkerDied, WorkerProcess, running
from actors.worker_wire import (
    FRAME_BYTES_MAX,
    BecomeEncryptor,
    BecomeVerifier,
    FrameTooLong,
    GiveKeys,
    OpenAnswer,
    OpenFrames,
    SealAnswer,
    SealEvents,
    Unopened,
    VerifyAnswer,
    VerifyBody,
    body_length,
    frame,
)
from ves.receipts import receipt_hash, receipt_signature_holds
from ves.records import BodyRefused, NeedsKeys, Refusal, VerifiedBatch, VerifiedEvent
from ves.signatures import Signer

ROOT = Path(__file__).resolve().parents[2]
RING = (b"\x01" * 32,)
SEED = b"\x02" * 32
VERIFIED: msgspec.msgpack.Decoder[VerifyAnswer] = msgspec.msgpack.Decoder(VerifyAnswer)
SEALED: msgspec.msgpack.Decoder[SealAnswer] = msgspec.msgpack.Decoder(SealAnswer)
OPENED: msgspec.msgpack.Decoder[OpenAnswer] = msgspec.msgpack.Decoder(OpenAnswer)


def is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_dead(pid: int | None) -> None:
    with trio.fail_after(5):
        while is_alive(pid):  # noqa: ASYNC110 - somebody else's child tells us nothing
            await trio.sleep(0.02)


async def answer_to(
    worker: WorkerProcess, agent: Agent, body: bytes, *, deadline_s: float = 10
) -> VerifyAnswer:
    """Its key is given when the worker asks for it."""
    answer = await worker.call(VerifyBody(body, ANYWHERE), VERIFIED, deadline_s=deadline_s)
    if answer == NeedsKeys([agent.key]):
        answer = await worker.call(GiveKeys([agent.binding]), VERIFIED, deadline_s=deadline_s)
    return answer


async def verified(worker: WorkerProcess, agent: Agent, count: int) -> list[VerifiedEvent]:
    answer = await answer_to(worker, agent, agent.body(count))
    assert isinstance(answer, VerifiedBatch)
    return [event for event in answer.outcomes if isinstance(event, VerifiedEvent)]


async def test_a_verifier_asks_for_a_key_once_and_then_knows_it() -> None:
    agent = Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        body = agent.body(3)
        first = await worker.call(VerifyBody(body, ANYWHERE), VERIFIED, deadline_s=10)
        assert first == NeedsKeys([agent.key])
        assert len(await verified(worker, agent, 3)) == 3
        again = await worker.call(VerifyBody(body, ANYWHERE), VERIFIED, deadline_s=10)
        assert isinstance(again, VerifiedBatch)


async def test_absence_of_a_key_holds_for_one_call_only() -> None:
    agent = Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        body = agent.body(1)
        first = await worker.call(VerifyBody(body, ANYWHERE), VERIFIED, deadline_s=10)
        assert first == NeedsKeys([agent.key])
        refused = await worker.call(GiveKeys([]), VERIFIED, deadline_s=10)
        assert isinstance(refused, VerifiedBatch)
        assert isinstance(refused.outcomes[0], Refusal)
        assert refused.outcomes[0].reason.startswith("agent_key_invalid")
        again = await worker.call(VerifyBody(body, ANYWHERE), VERIFIED, deadline_s=10)
        assert again == NeedsKeys([agent.key])


async def test_only_the_body_asked_about_last_waits_for_keys() -> None:
    first, second = Agent(), Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        for agent in (first, second):
            asked = await worker.call(VerifyBody(agent.body(2), ANYWHERE), VERIFIED, deadline_s=10)
            assert asked == NeedsKeys([agent.key])
        answer = await worker.call(GiveKeys([first.binding, second.binding]), VERIFIED, deadline_s=10)
        assert isinstance(answer, VerifiedBatch)
        assert answer.agent_id == second.agent_id
        known = await worker.call(VerifyBody(first.body(2), ANYWHERE), VERIFIED, deadline_s=10)
        assert isinstance(known, VerifiedBatch)


@pytest.mark.parametrize("between", [False, True])
async def test_keys_that_no_body_waits_for_end_the_worker(between: bool) -> None:
    agent = Agent()

    async def life() -> None:
        async with running(BecomeVerifier(), name="verifier") as worker:
            if between:
                await worker.call(VerifyBody(agent.body(1), ANYWHERE), VERIFIED, deadline_s=10)
                await worker.call(VerifyBody(b"{", ANYWHERE), VERIFIED, deadline_s=10)
            await worker.call(GiveKeys([agent.binding]), VERIFIED, deadline_s=10)

    with pytest.raises(WorkerDied):
        await life()


async def test_bindings_are_forgotten_oldest_use_first_beyond_the_bound() -> None:
    agents = [Agent() for _ in range(3)]
    async with running(BecomeVerifier(bindings_max=2), name="verifier") as worker:
        for agent in (agents[0], agents[1], agents[0], agents[2]):
            await verified(worker, agent, 1)
        for agent, known in zip(agents, (True, False, True), strict=True):
            answer = await worker.call(VerifyBody(agent.body(1), ANYWHERE), VERIFIED, deadline_s=10)
            assert isinstance(answer, VerifiedBatch if known else NeedsKeys)


async def test_a_body_of_many_megabytes_passes_in_both_directions() -> None:
    agent = Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        answer = await answer_to(worker, agent, agent.body(9, note="x" * 1_000_000), deadline_s=20)
        assert isinstance(answer, VerifiedBatch)
        assert all(isinstance(e, VerifiedEvent) and len(e.payload) > 1_000_000 for e in answer.outcomes)
        nonsense = await worker.call(VerifyBody(b"{" * 100_000, ANYWHERE), VERIFIED, deadline_s=10)
        assert isinstance(nonsense, BodyRefused)


async def test_what_is_sealed_opens_again_and_only_at_its_own_row_and_its_receipt_verifies() -> None:
    agent = Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        events = numbered(await verified(worker, agent, 5), agent.store_id)
    async with running(BecomeEncryptor(RING, SEED), name="encryptor") as worker:
        assert worker.public_key == Signer(SEED).public_key
        sealed = await worker.call(SealEvents([(agent.tenant_id, events)]), SEALED, deadline_s=10)
        assert isinstance(sealed, list)
        assert len({one.payload_sealed[12:24] for one in sealed}) == 5, "every frame has its own nonce"
        rows = [
            SealedPayload(
                n.store_id,
                n.event.event_id,
                n.sequence_number,
                n.event.event_signing_hash,
                one.payload_sealed,
            )
            for n, one in zip(events, sealed, strict=True)
        ]
        opened = await worker.call(OpenFrames(agent.tenant_id, rows), OPENED, deadline_s=10)
        assert opened == [n.event.payload for n in events]
        moved = [msgspec.structs.replace(rows[0], sequence_number=2), rows[1]]
        assert await worker.call(OpenFrames(agent.tenant_id, moved), OPENED, deadline_s=10) == [
            Unopened("another row, or changed bytes"),
            opened[1],
        ]
        for n, one in zip(events, sealed, strict=True):
            row = (n.store_id, n.event.event_id, n.sequence_number, n.event.event_signing_hash)
            assert one.receipt_hash == receipt_hash(agent.tenant_id, *row)
            assert receipt_signature_holds(worker.public_key, one.receipt_hash, one.sequencer_signature)


async def test_a_worker_killed_while_idle_ends_the_block_at_once() -> None:
    async def life() -> None:
        async with running(BecomeVerifier(), name="verifier") as worker:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            await trio.sleep(10)

    with pytest.raises(WorkerDied, match="-9"):
        await life()


async def test_a_worker_killed_while_busy_is_told_as_its_death() -> None:
    async def life(nursery: trio.Nursery) -> None:
        async with running(BecomeVerifier(), name="verifier") as worker:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
            nursery.start_soon(kill_soon, worker.pid)
            await worker.call(VerifyBody(Agent().body(1), ANYWHERE), VERIFIED, deadline_s=10)

    async def kill_soon(pid: int) -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        os.kill(pid, signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        with pytest.raises(WorkerDied):
            await life(nursery)


async def test_a_stopped_worker_is_killed_at_the_deadline() -> None:
    pids = []

    async def life() -> None:
        async with running(BecomeVerifier(), name="verifier") as worker:
            assert worker.pid is not None
            pids.append(worker.pid)
            os.kill(worker.pid, signal.SIGSTOP)
            await worker.call(VerifyBody(Agent().body(1), ANYWHERE), VERIFIED, deadline_s=0.2)

    with pytest.raises(WorkerDied, match=r"no answer within 0\.2 s"):
        await life()
    assert not is_alive(pids[0])


async def test_a_stopped_worker_is_found_long_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_LOOK_EVERY_S", 0.2)
    agent = Agent()

    async def life() -> None:
        async with running(BecomeVerifier(), name="v") as worker:
            assert worker.pid is not None
            await verified(worker, agent, 1)
            os.kill(worker.pid, signal.SIGSTOP)
            await worker.call(VerifyBody(agent.body(1), ANYWHERE), VERIFIED, deadline_s=600)

    with trio.fail_after(20), pytest.raises(WorkerDied, match="hangs: no processor time used"):
        await life()


async def test_a_worker_that_takes_long_is_left_to_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_LOOK_EVERY_S", 0.1)
    agent = Agent()
    body = agent.body(15, note=[1e22 / 7] * 20_000)  # such numbers take the slow road to canonical form
    async with running(BecomeVerifier(), name="v") as worker:
        began = trio.current_time()
        answer = await answer_to(worker, agent, body, deadline_s=60)
        assert trio.current_time() - began > 0.3, "not long enough to have been looked at"
        assert isinstance(answer, VerifiedBatch)


async def test_where_nobody_may_look_no_worker_counts_as_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(worker_spawn.OwnProcess, "work_done", lambda self: -1)  # /proc with hidepid=2
    agent = Agent()
    async with running(BecomeVerifier(), name="v") as worker:
        assert worker.pid is not None
        async with trio.open_nursery() as nursery:
            os.kill(worker.pid, signal.SIGSTOP)
            nursery.start_soon(verified, worker, agent, 1)
            await trio.sleep(0.5)
            assert is_alive(worker.pid)
            os.kill(worker.pid, signal.SIGCONT)


async def test_a_cancelled_call_kills_the_worker_so_that_its_answer_meets_no_other_question() -> None:
    agent = Agent()
    request = VerifyBody(agent.body(1000), ANYWHERE)
    worker = WorkerProcess(BecomeVerifier(), name="verifier")
    await worker.start()
    with trio.move_on_after(0.002):
        await worker.call(request, VERIFIED, deadline_s=10)
    with pytest.raises(WorkerDied):
        await worker.call(request, VERIFIED, deadline_s=10)
    await worker.reap()
    assert not is_alive(worker.pid)


async def test_a_verifier_lets_the_others_go_first() -> None:
    def niceness(pid: int | None) -> int:
        assert pid is not None
        return os.getpriority(os.PRIO_PROCESS, pid)

    ours = niceness(os.getpid())
    async with (
        running(BecomeVerifier(), name="verifier") as verifier,
        running(BecomeEncryptor(RING, SEED), name="encryptor") as encryptor,
    ):
        assert niceness(verifier.pid) == min(19, ours + VERIFIER_NICENESS)
        assert niceness(encryptor.pid) == ours


async def test_the_exception_of_the_block_comes_out_as_it_is() -> None:
    class Ours(Exception):
        pass

    with pytest.raises(Ours):
        async with running(BecomeVerifier(), name="verifier") as worker:
            raise Ours
    assert not is_alive(worker.pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(worker.pid or 0, os.WNOHANG)  # noqa: ASYNC222 - reaped: no zombie is left


async def test_no_descriptor_is_left_after_many_lives() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with running(BecomeVerifier(), name="verifier"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_ctrl_c_and_a_terminate_for_everybody_leave_the_worker_at_its_work() -> None:
    agent = Agent()
    async with running(BecomeVerifier(), name="verifier") as worker:
        assert worker.pid is not None
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, kind)
        assert len(await verified(worker, agent, 1)) == 1


async def test_secrets_are_neither_in_arguments_nor_environment_nor_in_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VES_SEQUENCER_SIGNING_KEY", "canary")
    ring = (b"r" * 32,)
    become = BecomeEncryptor(ring, b"s" * 32)
    assert "rrr" not in repr(become)
    async with running(become, name="encryptor") as worker:
        process = Path(f"/proc/{worker.pid}")
        if os.geteuid() == 0:  # not dumpable: for others the kernel hides it altogether
            assert "canary" not in process.joinpath("environ").read_text()
        else:
            with pytest.raises(PermissionError):
                process.joinpath("environ").read_bytes()
        assert "rrr" not in process.joinpath("cmdline").read_text()
        assert worker.pid is not None
        assert resource.prlimit(worker.pid, resource.RLIMIT_CORE) == (0, 0)
        kinds = {os.readlink(link).split(":")[0] for link in process.joinpath("fd").iterdir()}
        assert "socket" not in kinds


# Liars.

LIAR = """
import os, struct, sys, time
import msgspec
def read():
    head = sys.stdin.buffer.read(12)
    n, i = struct.unpack(">IQ", head)
    sys.stdin.buffer.read(n - 8)
    return i
def say(i, body):
    sys.stdout.buffer.write(struct.pack(">IQ", len(body) + 8, i) + body)
    sys.stdout.buffer.flush()
say(read(), msgspec.msgpack.encode([os.getpid(), b""]))
i = read()
honest = msgspec.msgpack.encode(["needs", [[b"t" * 16, b"a" * 16, 1]]])
LIE
time.sleep(30)
"""

LIES = {
    "garbage": ("say(i, b'\\xc1\\xff')", "nonsense"),
    "another type": ("say(i, msgspec.msgpack.encode(['needs', 'keys']))", "nonsense"),
    "bytes after the answer": ("say(i, honest + b'\\x00')", "nonsense"),
    "another question's answer": ("say(i + 1, honest)", "asked was 1"),
    "an endless frame": ("sys.stdout.buffer.write(b'\\xff' * 64); sys.stdout.buffer.flush()", "the limit is"),
    "a frame without room for its id": (
        "sys.stdout.buffer.write(bytes(12)); sys.stdout.buffer.flush()",
        "no room",
    ),
    "half an answer": ("sys.stdout.buffer.write(b'\\0\\0'); sys.stdout.buffer.flush(); os._exit(0)", "ended"),
    "nothing": ("os._exit(0)", "ended|closed"),
    "its pipe closed": ("os.close(1)", "ended"),
    "more than asked": (
        "b = struct.pack('>IQ', len(honest) + 8, i) + honest;"
        "sys.stdout.buffer.write(b + b); sys.stdout.buffer.flush()",
        "more than it was asked",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_worker_is_killed_and_its_answer_never_used(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reason = LIES[lie]
    script = LIAR.replace("LIE", code)
    monkeypatch.setattr(worker_spawn, "_COMMAND", (sys.executable, "-c", script))
    worker = WorkerProcess(BecomeVerifier(), name="liar")
    await worker.start()
    try:
        with pytest.raises(WorkerDied, match=reason):
            await worker.call(VerifyBody(b"{}", ANYWHERE), VERIFIED, deadline_s=5)
        await until_dead(worker.pid)
    finally:
        worker.kill()
        await worker.reap()


async def test_a_worker_that_cannot_start_is_a_death_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_spawn, "_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(WorkerDied):
        async with running(BecomeVerifier(), name="verifier"):
            pass


def test_a_frame_beyond_the_limit_is_refused_before_it_is_read() -> None:
    request = frame(7, [b"x"])
    assert body_length(request[:12]) == (len(request) - 12, 7)
    with pytest.raises(FrameTooLong):
        body_length((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(8))


# The parent's end.

PARENT = """
import os, signal, sys, trio
from config.logs import configure_logs
from actors.worker_process import WorkerProcess
from actors.worker_wire import BecomeEncryptor, BecomeVerifier
configure_logs("info", "text")
async def main():
    trades = BecomeVerifier(), BecomeEncryptor((b"r" * 32,), b"s" * 32), BecomeVerifier()
    workers = [WorkerProcess(trade, name="w") for trade in trades]
    for worker in workers:
        await worker.start()
    os.kill(workers[2].pid, signal.SIGSTOP)
    print(*(worker.pid for worker in workers), flush=True)
    await trio.sleep(60)
trio.run(main)
"""


async def test_no_worker_outlives_a_server_killed_by_sigkill_not_even_a_stopped_one() -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - a process that is to die as a whole
        [sys.executable, "-c", textwrap.dedent(PARENT)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_alive, pids))
    finally:
        parent.kill()
        parent.communicate()
    for pid in pids:
        await until_dead(pid)


def test_a_worker_whose_parent_is_gone_before_it_looks_does_not_stay() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "actors.worker", "1"], cwd=ROOT, stdin=subprocess.PIPE, timeout=20, check=False
    )
    assert done.returncode == 3
