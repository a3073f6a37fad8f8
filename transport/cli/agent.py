"""``sequencer agent``: make a key, register it, post signed events, pull and verify a stream, get a proof
or the whole evidence of an event."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number
from msgspec import Raw

from transport.cli.console import (
    Exit,
    Json,
    Server,
    notice,
    read_file,
    read_trust,
    readably,
    run,
    show,
    write_file,
)
from transport.cli.drafts import sign_drafts
from transport.cli.outbox import Outbox, requests
from transport.client.agent import Agent
from transport.client.checks import StreamReport
from transport.client.errors import ClientError
from transport.client.sequencer import SequencerClient
from transport.client.wire import Acknowledgement, Envelope, IngestReply, Stream, decode, encode
from ves.constants import EVENTS_PER_REQUEST_MAX
from ves.encoding import prefixed_hex, uuid_text
from ves.evidence_file import read_evidence

app = App(name="agent", help="Be an agent: keys, signed events, receipts, proofs.")

KeyFile = Annotated[Path, Parameter(name="--key", env_var="SEQUENCER_AGENT_KEY")]
Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]
Store = Annotated[UUID, Parameter(env_var="SEQUENCER_STORE")]
KeyId = Annotated[int, Parameter(validator=Number(gte=0, lte=2**32 - 1))]
BatchSize = Annotated[int, Parameter(validator=Number(gte=1, lte=EVENTS_PER_REQUEST_MAX))]
Position = Annotated[int, Parameter(validator=Number(gte=1))]

HERE = Server()


@app.command
def keygen(
    out: Path, *, tenant: Tenant, agent: UUID | None = None, key_id: KeyId = 1, as_json: Json = False
) -> int:
    """Make a signing key and write it to a file only you can read.

    Parameters
    ----------
    out
        Where to write the key file; an existing file is never overwritten.
    tenant
        The tenant the agent belongs to.
    agent
        The agent's id; default: a new one.
    key_id
        Number of the key, when the agent has several.
    """

    def work() -> int:
        made = Agent.generate(tenant.bytes, agent.bytes if agent else None, key_id)
        made.save(out)
        names = {
            "agent_id": uuid_text(made.name.agent_id),
            "key_id": made.name.key_id,
            "public_key": prefixed_hex(made.public_key),
        }
        text = f"agent {names['agent_id']}, key {key_id}\npublic key {names['public_key']}\nwritten to {out}"
        show(text, {"ok": True, **names, "file": str(out)}, as_json)
        return Exit.OK

    return readably(work, as_json=as_json)


@app.command
def register(
    *,
    key: KeyFile,
    valid_from: str | None = None,
    valid_to: str | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Register the key with the server, with a proof that you hold it. Needs an API key with admin rights.

    Parameters
    ----------
    key
        The agent's key file.
    valid_from
        First moment events may be sequenced with this key (RFC 3339).
    valid_to
        Last moment.
    """

    async def work() -> int:
        agent = Agent.load(key)
        async with server.client() as client:
            await client.register_key(agent, valid_from=valid_from, valid_to=valid_to)
        name = f"agent {uuid_text(agent.name.agent_id)}, key {agent.name.key_id}"
        data = {"ok": True, "agent_id": uuid_text(agent.name.agent_id), "key_id": agent.name.key_id}
        show(f"{name} is registered", data, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def post(
    file: Path | None = None,
    *,
    key: KeyFile,
    store: Annotated[UUID | None, Parameter(env_var="SEQUENCER_STORE")] = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    receipts: Path | None = None,
    batch: BatchSize = 100,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Sign events and post them until each has its verdict.

    Each line of the input is one event: {"entity_type": …, "entity_id": …, "event_type": …, "payload": …},
    optionally with event_id, command_id, created_at, base_version, recipients. The signed events are on
    disk before the first is sent; if the command is interrupted, --resume sends exactly them again.

    Parameters
    ----------
    file
        JSON lines; default: stdin.
    key
        The agent's key file.
    store
        The store whose stream gets the events.
    resume
        Send the signed events of an unfinished post again instead of new ones.
    receipts
        Append every event and its receipt to this file, one JSON object per line. Keep it.
    batch
        Events per request.
    """

    async def work() -> int:
        agent, outbox = Agent.load(key), Outbox(key)
        if resume and file is not None:
            raise ClientError("--resume sends what was signed earlier; it takes no file of events")
        async with (
            server.client() as client
        ):  # a credential that is missing is noticed before anything is signed
            if resume:
                envelopes = outbox.load()
            else:
                if store is None:
                    raise ClientError("which stream? give --store or SEQUENCER_STORE")
                envelopes = sign_drafts(agent, store.bytes, read_file(file))
                outbox.fill(envelopes)
            try:
                tally = await _post_all(client, envelopes, batch, receipts)
            except ClientError:
                notice(f"the signed events wait in {outbox.path}; --resume sends exactly them again")
                raise
        outbox.clear()
        text = (
            f"{tally['accepted']} accepted, {tally['replayed']} there already, {tally['rejected']} rejected; "
            f"head {tally['head_sequence']}"
        )
        show(text, {"ok": not tally["rejected"], **tally}, as_json)
        return Exit.FAILED if tally["rejected"] else Exit.OK

    return run(work, as_json=as_json)


async def _post_all(
    client: SequencerClient, envelopes: Sequence[Envelope], batch: int, receipts: Path | None
) -> dict[str, int]:
    tally = {"accepted": 0, "replayed": 0, "rejected": 0, "head_sequence": 0}
    for some in requests(envelopes, batch):
        reply = await client.post(some)
        tally["accepted"] += reply.events_accepted
        tally["replayed"] += reply.events_replayed
        tally["rejected"] += reply.events_rejected
        tally["head_sequence"] = reply.head_sequence
        for rejection in reply.rejections:
            why = rejection.reason
            if not why.endswith(rejection.message):
                why += f": {rejection.message}"
            notice(f"event {rejection.event_id} rejected: {why}")
        if receipts is not None:
            _keep(receipts, some, reply)
    return tally


def _keep(path: Path, envelopes: Sequence[Envelope], reply: IngestReply) -> None:
    by_id = {envelope.event_id: envelope for envelope in envelopes}
    try:
        with path.open("ab") as out:
            for receipt in reply.receipts:
                out.write(encode(Acknowledgement(by_id[receipt.event_id], receipt)) + b"\n")
    except OSError as error:
        raise ClientError(f"the receipts cannot be kept in {path}: {error.strerror}") from error


@app.command
def pull(
    *,
    tenant: Tenant,
    store: Store,
    from_: Annotated[Position, Parameter(name="--from")] = 1,
    limit: Position | None = None,
    server: Server = HERE,
) -> int:
    """Print the stream's events, one JSON object per line, each verified before it is printed.

    Parameters
    ----------
    tenant, store
        The stream.
    from_
        First sequence number wanted.
    limit
        At most so many events; default: all up to the head.
    """

    async def work() -> int:
        start, left = from_, limit if limit is not None else sys.maxsize
        async with server.client() as client:
            while True:
                page = await client.pull(Stream(tenant.bytes, store.bytes), start)
                for envelope in page.events[:left]:
                    sys.stdout.buffer.write(encode(envelope) + b"\n")
                sys.stdout.flush()
                left -= min(left, len(page.events))
                if not page.has_more or not left:
                    return Exit.OK
                start = page.next_from

    return run(work, as_json=False)


@app.command
def verify(
    *,
    tenant: Tenant,
    store: Store,
    receipts: Path | None = None,
    trust: Path | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Pull the whole stream with its commitments and check every promise here, offline from there on.

    Parameters
    ----------
    tenant, store
        The stream.
    receipts
        A file of receipts you kept: each must still be in the stream.
    trust
        Believe the keys of this file (a saved /.well-known/ves-sequencer, with "agent_keys" if you like)
        instead of the pinned ones and the server's list of agent keys.
    """

    async def work() -> int:
        believed = read_trust(trust) if trust else None
        kept = _kept(receipts) if receipts else []
        async with server.client(receipt_keys=believed.keys() if believed else None) as client:
            report = await client.verify_stream(
                Stream(tenant.bytes, store.bytes),
                acknowledged=kept,
                agent_keys=believed.agents() if believed else None,
            )
        show(_told(report), {"ok": report.ok, "report": report}, as_json)
        return Exit.OK if report.ok else Exit.FAILED

    return run(work, as_json=as_json)


def _kept(path: Path) -> list[Acknowledgement]:
    lines = read_file(path).splitlines()
    return [decode(line, Acknowledgement, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]


def _told(report: StreamReport) -> str:
    lines = [f"broken: {problem}" for problem in report.problems]
    lines += [f"void after a restore: numbers {first} to {last}" for first, last in report.voided]
    lines.append(
        f"{report.events} events, {report.receipts} receipts and {report.proofs} inclusion proofs hold; "
        f"{report.commitments} commitments, {report.uncommitted} events not yet committed\n"
        f"state root {report.state_root}\n" + ("all promises hold" if report.ok else "NOT all promises hold")
    )
    return "\n".join(lines)


@app.command
def prove(
    sequence_number: Position,
    *,
    tenant: Tenant,
    store: Store,
    out: Path | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Get the inclusion proof of one event, check it, and write all it takes to check it again offline.

    Parameters
    ----------
    sequence_number
        The event's number in its stream.
    tenant, store
        The stream.
    out
        File for the proof (see: sequencer verify proof); default: stdout.
    """

    async def work() -> int:
        async with server.client() as client:
            file = await client.prove(Stream(tenant.bytes, store.bytes), sequence_number)
        if out is None:
            show(encode(file).decode(), file, as_json)
            return Exit.OK
        write_file(out, encode(file) + b"\n")
        text = f"event {sequence_number} is included in commitment {file.proof.batch_id}; proof in {out}"
        show(text, {"ok": True, "batch_id": file.proof.batch_id, "file": str(out)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def evidence(
    event_id: UUID,
    *,
    tenant: Tenant,
    store: Store,
    payload: Annotated[bool, Parameter(negative=())] = False,
    out: Path | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Get everything that proves one event, down to a block of the chain, in one file.

    Parameters
    ----------
    event_id
        The event.
    tenant, store
        Its stream.
    payload
        With the event's payload; its hashes are in the file always.
    out
        File for it (see: sequencer verify evidence); default: stdout.
    """

    async def work() -> int:
        async with server.client() as client:
            raw = await client.evidence(Stream(tenant.bytes, store.bytes), event_id.bytes, payload=payload)
        if out is None:
            show(raw.decode(), Raw(raw), as_json)
            return Exit.OK
        write_file(out, raw + b"\n")
        said = read_evidence(raw).said.anchor_state
        text = (
            f"evidence of event {event_id} in {out}; its commitment is {said}; nothing in it is checked yet"
        )
        show(text, {"ok": True, "anchor_state": said, "file": str(out)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)
