"""``sequencer audit follow``: keeps looking at a stream, believes nothing that contradicts what it verified.

For auditors: only a credential that reads and a state file, no server. Exit codes as everywhere: 0 everything
verified; 1 a contradiction, which is in the state file with both versions, or an anchor that is late, or an
answer that is refused; 2 usage, or a state file that cannot be used; 3 signed with a key that nobody we trust
vouches for; 4 no answer in time. A contradiction ends the command, and every later one on this state until
somebody says ``--acknowledge``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from transport.cli.console import Exit, Json, Server, notice, read_trust, run, show
from transport.cli.progress import Progress
from transport.client.errors import ClientError, Unanswered
from transport.client.follow_anchors import ChainView
from transport.client.follow_begin import FIRST_USE, begin, trust_also
from transport.client.follow_memory import Memory, StateRefused
from transport.client.follow_view import PAGE, Contradicted, Look, NotVouchedFor, View
from transport.client.following import Follower
from transport.client.wire import Stream, TrustFile

HERE = Server()
ALERT_DEADLINE_S = 30.0
RPC_S = 10.0

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]
Store = Annotated[UUID, Parameter(env_var="SEQUENCER_STORE")]
Seconds = Annotated[float, Parameter(validator=Number(gte=1, lte=31_536_000))]
Flag = Annotated[bool, Parameter(negative=())]


def follow(
    *,
    tenant: Tenant,
    store: Store,
    state: Path,
    interval: Seconds = 60,
    once: Flag = False,
    trust: Path | None = None,
    sample: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    also: Annotated[list[str] | None, Parameter(negative=())] = None,
    anchor_within: Seconds | None = None,
    stale_after: Seconds = 3600,
    alert_command: str | None = None,
    rpc: Annotated[str | None, Parameter(env_var="SEQUENCER_RPC_URL")] = None,
    acknowledge: Flag = False,
    moved: Flag = False,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Verify a stream as it grows, and that nothing verified before has changed.

    The first look verifies everything from number 1 on, and says what it trusts without proof. Killed, it
    goes on where it was. docs/auditing.md says what each contradiction means and proves.

    Parameters
    ----------
    tenant
        Whose.
    store
        Its store.
    state
        File that remembers what was verified; FILE.history beside it. Made at the first look.
    interval
        Seconds between looks.
    once
        One look, and its result as exit code.
    trust
        File with the keys to believe, from outside: a saved /.well-known/ves-sequencer, with "agent_keys" if
        you like. Without it the keys shown at the first look are believed from then on.
    sample
        Verify the signatures of so many random events of each commitment, and of its last; default: of all.
        Leaves and roots are recomputed for all events in any case.
    also
        Another address of the same service, which must show the same. May be given several times.
    anchor_within
        Alert when a commitment's anchor is not final so many seconds after it was committed.
    stale_after
        Alert when nothing could be verified for so many seconds.
    alert_command
        Run for each alert, with one JSON object on stdin; no shell, no variable SEQUENCER_….
    rpc
        Addresses of JSON-RPC endpoints of the chain, with commas between: what is called final is looked up
        there. Needs "chain_id" and "contract" in the trust file. An address with a provider's key in it
        belongs into SEQUENCER_RPC_URL: other users see the command line.
    acknowledge
        Somebody has seen the contradictions in the state file. Goes on from what was verified, never from
        what contradicted it.
    moved
        The service has another address than before; keys and history must be the same.
    """

    async def work() -> int:
        believed = read_trust(trust) if trust is not None else None
        stream = Stream(tenant.bytes, store.bytes)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(server.client())
            others = [
                await stack.enter_async_context(server.connect(url, server.api_key())) for url in also or []
            ]
            kept = Memory.open(state, stream, client.origin, moved=moved)
            if kept is None:
                kept = await begin(state, client, stream, believed, _now().isoformat(timespec="seconds"))
                stack.callback(kept.close)
                _tell_first_use(kept)
            else:
                stack.callback(kept.close)
                if believed is not None:
                    trust_also(kept, believed)
            alarm = _Alarm(alert_command, as_json)
            if acknowledge:
                notice(f"{kept.acknowledge()} contradictions acknowledged; they stay in {state}")
            if kept.state.open_findings():
                return await _refuse(kept, alarm)
            with _Bar() as bar:
                view = View(client, kept)
                follower = Follower(
                    view,
                    sample=sample,
                    also=others,
                    chain=await _chain(rpc, believed, view, stack),
                    anchor_within_s=anchor_within,
                    progress=bar.is_at,
                )
                rounds = _Rounds(follower, kept, alarm, stale_after)
                while True:
                    code = await rounds.once()
                    if once or kept.state.open_findings():
                        return code
                    bar.close()
                    await trio.sleep(interval)

    code: int = Exit.OK
    try:
        code = run(work, as_json=as_json)
    except* KeyboardInterrupt:
        pass  # seen enough; what was verified is saved
    return code


async def _chain(
    rpc: str | None, trust: TrustFile | None, view: View, stack: AsyncExitStack
) -> ChainView | None:
    if rpc is None:
        return None
    named = trust.of_evidence() if trust is not None else None
    if named is None or named.chain_id is None or named.contract is None:
        raise ClientError(
            '--rpc needs --trust FILE with "chain_id" and "contract": get them from the operator'
        )
    # web3 takes most of a second to import: only who asks a chain waits for it.
    from transport.chain.opening import open_chain
    from transport.client.follow_chain import OnChain

    urls = [one.strip() for one in rpc.split(",") if one.strip()]
    try:
        chain = await stack.enter_async_context(open_chain(urls, named.chain_id, RPC_S))
    except ValueError as wrong:
        raise ClientError(f"--rpc: {wrong}") from None
    return OnChain(view, chain, named.chain_id, named.contract)


def _now() -> datetime:
    return datetime.now(UTC)


def _tell_first_use(memory: Memory) -> None:
    state = memory.state
    if state.trusted == FIRST_USE:
        keys = ", ".join(f"{key.public_key} of {key.sequencer_id}" for key in state.receipt_keys)
        notice(
            f"TRUSTED ON FIRST USE, without any proof: the receipt keys {keys}, as {state.origin} shows them "
            "now. Compare them with what the operator publishes elsewhere, or begin again with --trust FILE"
        )
    if not state.agents_from_outside:
        notice(
            "agents' keys are believed as the server lists them when they are first seen, and pinned then; "
            "--trust FILE with agent_keys says which to believe"
        )


async def _refuse(memory: Memory, alarm: _Alarm) -> int:
    for finding in memory.state.open_findings():
        await alarm.ring("contradiction", finding.kind, f"found at {finding.found_at}: {finding.text}")
    notice(
        f"{memory.path} holds what contradicts the history that was verified: nothing is followed on before "
        "somebody has looked at it and says --acknowledge"
    )
    return Exit.FAILED


class _Rounds:
    """Look after look: what each found, in words, and as an exit code."""

    def __init__(self, follower: Follower, memory: Memory, alarm: _Alarm, stale_after_s: float) -> None:
        self._follower = follower
        self._memory = memory
        self._alarm = alarm
        self._stale_after_s = stale_after_s

    async def once(self) -> int:
        try:
            found = await self._follower.look()
        except Contradicted as lie:
            await self._alarm.ring("contradiction", lie.finding.kind, lie.finding.text)
            return self._told(Exit.FAILED, "contradiction", str(lie))
        except NotVouchedFor as stranger:
            return await self._could_not(Exit.NOT_TRUSTED, "not_trusted", stranger)
        except Unanswered as silence:
            return await self._could_not(Exit.UNANSWERED, "no_answer", silence)
        except StateRefused:
            raise  # nothing more can be remembered
        except ClientError as refusal:
            return await self._could_not(Exit.FAILED, "refused", refusal)
        for text in found.notices:
            notice(text)
        for text in found.alerts:
            await self._alarm.ring("alert", *text.split(": ", 1))
        code = Exit.FAILED if found.alerts else Exit.OK
        return self._told(code, "alert" if found.alerts else "verified", self._summary(found), found)

    async def _could_not(self, code: Exit, verdict: str, why: ClientError) -> int:
        waits_s = (_now() - self._memory.state.last_look()).total_seconds()
        if waits_s > self._stale_after_s:
            text = f"nothing was verified to the end for {waits_s:.0f} s: {why}"
            await self._alarm.ring("alert", "stale", text)
        else:
            notice(str(why))
        return self._told(code, verdict, str(why))

    def _summary(self, found: Look) -> str:
        seen = self._memory.seen
        signed = f"{found.signatures} signatures" if found.signatures != found.events else "all signatures"
        text = (
            f"verified through {seen.sequence_end} of {seen.head_sequence}, {seen.count} commitments, state "
            f"root {seen.state_root.hex()}; new: {found.commitments} commitments, {found.events} events, "
            f"{signed}"
        )
        return text + "".join(f"\nNOT verified: {what}" for what in self._not_verified(found))

    def _not_verified(self, found: Look | None) -> list[str]:
        seen, state = self._memory.seen, self._memory.state
        missing = []
        if seen.head_sequence > seen.sequence_end:
            missing.append(f"the numbers from {seen.next_start()} on, which are not committed yet")
        if state.trusted == FIRST_USE:
            missing.append("whether the receipt keys that were shown first are the service's")
        if not state.agents_from_outside:
            missing.append("whether the agents' keys that were shown first are the agents'")
        if state.events_sampled:
            missing.append("the signatures of all events: --sample")
        if found is not None and found.not_on_chain:
            missing.append(
                f"whether the chain holds the {found.not_on_chain} new final anchors: the server's word"
            )
        return missing

    def _told(self, code: int, verdict: str, text: str, found: Look | None = None) -> int:
        seen = self._memory.seen
        data: dict[str, Any] = {
            "ok": code == Exit.OK,
            "verdict": verdict,
            "text": text.split("\n", 1)[0],
            "verified_through": seen.sequence_end,
            "head_sequence": seen.head_sequence,
            "commitments": seen.count,
            "state_root": seen.state_root.hex(),
            "finalized_commitments": self._memory.state.finalized_through,
            "new": found,
            "not_verified": self._not_verified(found),
        }
        show(text, data, self._alarm.as_json)
        return int(code)


class _Alarm:
    """Tells people, and a command of theirs."""

    def __init__(self, command: str | None, as_json: bool) -> None:
        self._words = shlex.split(command) if command else []
        self.as_json = as_json

    async def ring(self, severity: str, kind: str, text: str) -> None:
        notice(f"{severity.upper()} {kind}: {text}")
        if not self._words:
            return
        told = msgspec.json.encode({"severity": severity, "kind": kind, "text": text})
        try:
            with trio.fail_after(ALERT_DEADLINE_S):
                done = await trio.run_process(
                    self._words,
                    stdin=told,
                    stdout=subprocess.DEVNULL,  # ours is for results
                    env={n: v for n, v in os.environ.items() if not n.startswith("SEQUENCER_")},
                    check=False,
                )
            if done.returncode:
                notice(f"the alert command ended with {done.returncode}")
        except (OSError, trio.TooSlowError) as error:
            notice(f"the alert command did not do its work: {error or 'it took too long'}")


class _Bar:
    """Shown while more than a page is to be verified."""

    def __init__(self) -> None:
        self._shown: Progress | None = None

    def is_at(self, done: int, head: int) -> None:
        if self._shown is None and head - done > PAGE:
            self._shown = Progress("verified", head, unit="events")
            self._shown.__enter__()
        if self._shown is not None:
            self._shown.is_at(done)

    def close(self) -> None:
        if self._shown is not None:
            self._shown.__exit__(None, None, None)
            self._shown = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *how: object) -> None:
        self.close()
