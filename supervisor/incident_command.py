"""``sequencer incident``: the house acts on a leaked key and says, signed, what the record knows.

    revoked, with its audit entry     from here on nothing is sequenced under the key, on any node
    events listed, page by page       nothing can be added to them any more
    report signed and on disk         an audit entry names its hash

Works beside a running server or without one. Every step may be done again after a crash: a revoked key stays
revoked, and a folder without ``report.json`` is no report. Alone decides what such a report holds.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import trio

from actors.faults import arm_from_environment, checkpoint
from actors.security_events import SecurityEvents
from config.files import open_private, write_whole
from config.own_keys import ReceiptSeeds
from config.secret_sources import SecretsError
from config.secrets import load_receipt_seeds
from journal.aio import open_loop
from journal.port import AgentKey, AuditEntry, AuditPlace, AuditWish, Journal, SignedEvent
from supervisor import receipt_keys
from supervisor.shell import (
    FORMATS,
    Database,
    StartRefused,
    database_beside,
    enter_journal,
    patiently,
    read_settings,
    readably,
)
from transport.cli.incident import ENTRIES_MAX, REPORT, KeyCompromise, SignedReport, Window
from ves.encoding import prefixed_hex, uuid_text
from ves.incidents import report_hash, sign_report
from ves.records import KeyName, Uuid
from ves.signatures import Signer
from ves.timestamps import utc_text

FORMAT = 1
_PAGE = 1000
_LOOKED_AT_MAX = 20_000
_REASON_ALERTED = "suspected_compromise"
_NOTE_SUCCESSORS = "a key that took the place of a leaked one may be the thief's: revoke it too (--all-keys)"
_NOTE_CREDENTIALS = "credentials of the agent are still in force: revoke those that lay beside the key"
_NOTE_RECEIPTS = "receipts and commitments prove order and content; they cannot tell who held the key"


class House:
    """What both commands work with."""

    def __init__(self, journal: Journal, sequencer_id: Uuid, seeds: ReceiptSeeds, to: Path) -> None:
        self.journal = journal
        self.sequencer_id = sequencer_id
        self._seeds = seeds
        self.to = to

    async def file(self, report: dict[str, Any], action: str, subject: str, tenant_id: Uuid | None) -> None:
        """Signed, durable, and named in the audit trail."""
        key = await patiently(partial(receipt_keys.current, self.journal, self.sequencer_id))
        signer = Signer(self._seeds.seed(key.public_key))
        signature = sign_report(signer, self.sequencer_id, key.key_version, report)
        del signer
        content = SignedReport(
            report, uuid_text(self.sequencer_id), key.key_version, key.public_key.hex(), signature.hex()
        )
        write_whole(self.to / REPORT, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        checkpoint("incident.reported")
        details: dict[str, str | int | None] = {"report": report_hash(report).hex(), "outcome": "done"}
        entry = AuditEntry("cli", action, subject, tenant_id, details)
        await patiently(lambda: self.journal.audit(entry))


def key_compromise_command(asked: KeyCompromise) -> int:
    """Revoke a key and report every event that it signed."""
    return readably(partial(_run, asked.to, partial(handle_key_compromise, asked)))


def incident_report_command(asked: Window) -> int:
    """Report what the record says about a span of time."""
    return readably(partial(_run, asked.to, partial(handle_window, asked)))


def _run(to: Path, work: Callable[[House], Awaitable[list[str]]]) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    sequencer_id, seeds = load_receipt_seeds(settings, settings.data_dir, FORMATS)
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SecretsError(f"--to {to}: {error.strerror}") from None

    async def inside(dsn: str) -> list[str]:
        async with open_loop(), AsyncExitStack() as stack:
            where = Database(dsn, None)
            journal = await patiently(partial(enter_journal, stack, settings, sequencer_id, where))
            return await work(House(journal, sequencer_id, seeds, to))

    with database_beside(settings) as dsn:
        lines = trio.run(inside, dsn)
    print("\n".join([*lines, f"report: {to / REPORT}"]))


# A leaked key.


async def handle_key_compromise(asked: KeyCompromise, house: House) -> list[str]:
    journal = house.journal
    key = await _find_key(journal, asked)
    name = key.name
    subject = f"{uuid_text(name.agent_id)}/{name.key_id}"
    if not asked.dry_run:
        key = await _revoke(house, asked, key)
        checkpoint("incident.revoked")
    streams: dict[Uuid, _Stream] = {}
    digest = await _list_events(house, name, asked.since_us, streams)
    checkpoint("incident.listed")
    others = [one for one in await _keys_of(journal, name) if one.name != name]
    credentials = await _credentials_of(journal, name)
    signed = sum(one.count for one in streams.values())
    signed_since = sum(one.since for one in streams.values())
    report = {
        "kind": "key_compromise",
        "format": FORMAT,
        "generated_at": utc_text(time.time_ns() // 1000),
        "affected_tenants": [uuid_text(name.tenant_id)],
        "agent_id": uuid_text(name.agent_id),
        "key": _key_facts(key),
        "revoked_by_this_command": not asked.dry_run,
        "suspected_since": None if asked.since_us is None else utc_text(asked.since_us),
        "events_signed": signed,
        "events_signed_since": signed_since if asked.since_us is not None else None,
        "streams": [_stream_facts(store, one) for store, one in sorted(streams.items())],
        "other_keys": [_key_facts(one) for one in others],
        "credentials_in_force": credentials,
        "notes": _notes(key, others, credentials),
        "files": {"events.jsonl": {"lines": signed, "sha256": digest}},
    }
    await house.file(report, "incident.key_compromise", subject, name.tenant_id)
    state = "NOT revoked (dry run)" if asked.dry_run else f"revoked at {report['key']['revoked_at']}"  # type: ignore[index]
    since = "" if asked.since_us is None else f", {signed_since} of them since {report['suspected_since']}"
    return [
        f"key {subject} of tenant {uuid_text(name.tenant_id)}: {state}",
        f"signed {signed} events in {len(streams)} streams{since}",
        *(
            f"  store {uuid_text(store)}: {one.count} events, numbers {one.first[0]} to {one.last[0]}, "
            f"{utc_text(one.first[1])} to {utc_text(one.last[1])}"
            for store, one in sorted(streams.items())
        ),
        *(f"note: {note}" for note in _notes(key, others, credentials)),
    ]


async def _find_key(journal: Journal, asked: KeyCompromise) -> AgentKey:
    found: list[AgentKey] = []
    after = None
    while page := await patiently(
        partial(journal.walk_agent_keys, asked.tenant_id, after=after, limit=_PAGE)
    ):
        found += [
            one for one in page if one.name.agent_id == asked.agent_id and one.name.key_id == asked.key_id
        ]
        after = page[-1].name
    if not found:
        raise StartRefused(f"no tenant has key {asked.key_id} of agent {uuid_text(asked.agent_id)}")
    if len(found) > 1:
        tenants = ", ".join(uuid_text(one.name.tenant_id) for one in found[:10])
        raise StartRefused(
            f"{len(found)} tenants have such an agent and key: name one with --tenant ({tenants})"
        )
    return found[0]


async def _revoke(house: House, asked: KeyCompromise, key: AgentKey) -> AgentKey:
    """Idempotent: whoever was first is recorded."""
    name, reason, journal = key.name, asked.reason, house.journal
    subject = f"{uuid_text(name.agent_id)}/{name.key_id}"
    details: dict[str, str | int | None] = {"reason": reason, "outcome": "done"}
    if asked.all_keys:
        entry = AuditEntry("cli", "agent_key.revoke_all", uuid_text(name.agent_id), name.tenant_id, details)
        await patiently(lambda: journal.revoke_agent_keys(name.tenant_id, name.agent_id, reason, entry))
    else:
        entry = AuditEntry("cli", "agent_key.revoke", subject, name.tenant_id, details)
        await patiently(lambda: journal.revoke_agent_key(name, reason, entry))
    if reason == _REASON_ALERTED:
        SecurityEvents().happened(
            "agent_key_compromised", tenant=uuid_text(name.tenant_id), key=subject, by="cli"
        )
    [again] = [one for one in await _keys_of(journal, name) if one.name == name]
    return again


async def _keys_of(journal: Journal, name: KeyName) -> list[AgentKey]:
    found: list[AgentKey] = []
    start = 0
    while page := await patiently(
        partial(journal.list_agent_keys, name.tenant_id, name.agent_id, from_key_id=start, limit=_PAGE)
    ):
        found += page
        start = page[-1].name.key_id + 1
    return found


async def _credentials_of(journal: Journal, name: KeyName) -> list[dict[str, Any]]:
    """The agent's API keys that are neither revoked nor expired."""
    found: list[dict[str, Any]] = []
    after: Uuid | None = None
    now_us = time.time_ns() // 1000
    while page := await patiently(
        partial(
            journal.list_agent_api_keys,
            name.tenant_id,
            name.agent_id,
            store_ids=None,
            after=after,
            limit=_PAGE,
        )
    ):
        found += [
            {"id": uuid_text(one.id), "prefix": one.prefix, "name": one.name}
            for one in page
            if one.revoked_at_us is None and (one.expires_at_us is None or one.expires_at_us > now_us)
        ]
        after = page[-1].id
    return found


class _Stream:
    """What a key signed in one store."""

    def __init__(self, first: SignedEvent) -> None:
        self.count = 0
        self.since = 0
        self.first = (first.sequence_number, first.sequenced_at_us)
        self.last = self.first

    def add(self, event: SignedEvent, since_us: int | None) -> None:
        self.count += 1
        self.since += since_us is not None and event.sequenced_at_us > since_us
        self.last = (event.sequence_number, event.sequenced_at_us)


async def _list_events(
    house: House, name: KeyName, since_us: int | None, streams: dict[Uuid, _Stream]
) -> str:
    """Writes one line per event, in the order of stores and numbers; answers the file's SHA-256."""
    path = house.to / "events.jsonl"
    digest = sha256()
    after: tuple[Uuid, int] | None = None
    with open_private(path, "wb") as out:
        while True:
            page = await patiently(
                partial(
                    house.journal.read_signed_by, name, after=after, limit=_PAGE, looked_at_max=_LOOKED_AT_MAX
                )
            )
            for event in page.events:
                streams.setdefault(event.store_id, _Stream(event)).add(event, since_us)
                line = _event_line(event, since_us)
                digest.update(line)
                out.write(line)
            after = page.next_after
            if after is None:
                break
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _event_line(event: SignedEvent, since_us: int | None) -> bytes:
    told: dict[str, Any] = {
        "store_id": uuid_text(event.store_id),
        "sequence_number": event.sequence_number,
        "event_id": uuid_text(event.event_id),
        "sequenced_at": utc_text(event.sequenced_at_us),
    }
    if since_us is not None:
        told["suspected"] = event.sequenced_at_us > since_us
    return msgspec.json.encode(told) + b"\n"


def _key_facts(key: AgentKey) -> dict[str, Any]:
    return {
        "key_id": key.name.key_id,
        "public_key": prefixed_hex(key.public_key),
        "registered_at": utc_text(key.registered_at_us),
        "revoked_at": _text(key.revoked_at_us),
        "revocation_reason": key.revocation_reason,
        "retires_at": _text(key.retires_at_us),
        "replaced_by": key.replaced_by,
    }


def _stream_facts(store_id: Uuid, stream: _Stream) -> dict[str, Any]:
    return {
        "store_id": uuid_text(store_id),
        "events": stream.count,
        "first_sequence_number": stream.first[0],
        "first_sequenced_at": utc_text(stream.first[1]),
        "last_sequence_number": stream.last[0],
        "last_sequenced_at": utc_text(stream.last[1]),
    }


def _notes(key: AgentKey, others: list[AgentKey], credentials: list[dict[str, Any]]) -> list[str]:
    notes = [_NOTE_RECEIPTS]
    if key.replaced_by is not None and any(one.revoked_at_us is None for one in others):
        notes.append(_NOTE_SUCCESSORS)
    if credentials:
        notes.append(_NOTE_CREDENTIALS)
    return notes


def _text(us: int | None) -> str | None:
    return None if us is None else utc_text(us)


# A span of time.


async def handle_window(asked: Window, house: House) -> list[str]:
    sums: Counter[tuple[str, str]] = Counter()
    lines, digest, cut = await _list_entries(house, asked, sums)
    chains = await _heads(house.journal)
    recorded = await patiently(house.journal.receipt_keys)
    report = {
        "kind": "incident",
        "format": FORMAT,
        "title": asked.title,
        "generated_at": utc_text(time.time_ns() // 1000),
        "from": utc_text(asked.from_us),
        "to": utc_text(asked.to_us),
        "tenant_id": None if asked.tenant_id is None else uuid_text(asked.tenant_id),
        "acts": [
            {"action": action, "actor": actor, "times": times}
            for (action, actor), times in sorted(sums.items())
        ],
        "complete": not cut,
        "audit_heads": chains,
        "receipt_keys": [
            {
                "sequencer_id": uuid_text(one.sequencer_id),
                "key_version": one.key_version,
                "public_key": prefixed_hex(one.public_key),
            }
            for one in recorded
        ],
        "files": {"audit.jsonl": {"lines": lines, "sha256": digest}},
    }
    checkpoint("incident.listed")
    await house.file(report, "incident.report", asked.title, asked.tenant_id)
    told = [f"{times:>8}  {action}  by {actor}" for (action, actor), times in sums.most_common(20)]
    more = [f"… and {len(sums) - 20} kinds more"] if len(sums) > 20 else []
    incomplete = [f"NOT complete: only the newest {ENTRIES_MAX} entries"] if cut else []
    span = f"{lines} audited acts from {report['from']} to {report['to']}"
    return [span, *told, *more, *incomplete]


async def _list_entries(house: House, asked: Window, sums: Counter[tuple[str, str]]) -> tuple[int, str, bool]:
    """Newest first, as they were hashed: lines, SHA-256, and whether there were too many."""
    digest, lines = sha256(), 0
    place: AuditPlace | None = None
    with open_private(house.to / "audit.jsonl", "wb") as out:
        while lines < ENTRIES_MAX:
            wish = AuditWish(tenant_id=asked.tenant_id, from_us=asked.from_us, to_us=asked.to_us, after=place)
            page = await patiently(partial(house.journal.find_audit_entries, wish, limit=_PAGE))
            if not page:
                break
            for entry in page:
                sums[entry.action, entry.actor] += 1
                told = {
                    "node_id": uuid_text(entry.node_id),
                    "entry": entry.text,
                    "prev_hash": entry.prev_hash.hex(),
                    "entry_hash": entry.entry_hash.hex(),
                }
                line = msgspec.json.encode(told) + b"\n"
                digest.update(line)
                out.write(line)
            lines += len(page)
            last = page[-1]
            place = AuditPlace(last.recorded_at_us, last.node_id, last.entry_number)
        out.flush()
        os.fsync(out.fileno())
    return lines, digest.hexdigest(), lines >= ENTRIES_MAX


async def _heads(journal: Journal) -> list[dict[str, Any]]:
    """Of every node's audit chain: for ``sequencer audit verify --heads``, and for whoever keeps them."""
    heads: list[dict[str, Any]] = []
    after: Uuid | None = None
    while page := await patiently(partial(journal.read_audit_chains, after=after, limit=_PAGE)):
        heads += [
            {
                "node_id": uuid_text(one.node_id),
                "last_number": one.last_number,
                "last_hash": one.last_hash.hex(),
            }
            for one in page
        ]
        after = page[-1].node_id
    return heads
