"""What the independent auditor says of a run, and under which of four words each of its sentences is counted.

Reads the server's answers and the tables beside them. Adds no rule of its own: the rules are the auditor's.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Protocol

from tests.auditor.audit import Evidence, audit_tenant
from tests.auditor.reading import over_http, read_stream
from tests.chaos.checker import Verdict
from tests.chaos.clients import Stream, Wire
from tests.chaos.history import Json
from tests.e2e.world import Server

PROOF_EVERY = 7
"""Every seventh event's inclusion proof is fetched; all events' inclusion is recomputed from the leaves."""


class Tables(Protocol):
    def psql(self, *statements: str) -> list[str]:
        """As a superuser, beside the server."""


class Home(Protocol):
    """A running house that can be asked, whatever it stands on."""

    server: Server

    @property
    def url(self) -> str: ...
    @property
    def postgres(self) -> Tables: ...
    async def new_api_key(self, tenant_id: str) -> str: ...


def audited(house: Home, wire: Wire, streams: list[Stream]) -> tuple[list[str], list[Evidence]]:
    """Blocking. The broken promises, and the evidence in the order of ``streams``."""
    evidence = [_evidence(house, wire, stream) for stream in streams]
    problems: list[str] = []
    for _, tenants in groupby(evidence, key=lambda shown: shown.tenant_id):
        problems += audit_tenant(list(tenants))
    return problems, evidence


def _evidence(house: Home, wire: Wire, stream: Stream) -> Evidence:
    shown = read_stream(
        over_http(house.url, stream.api_key),
        str(stream.tenant_id),
        str(stream.store_id),
        acknowledged=_kept(wire, stream),
        proof_every=PROOF_EVERY,
    )
    shown.rows = _rows(house, stream)
    return shown


def _kept(wire: Wire, stream: Stream) -> list[Json]:
    """Receipts with the events they were given for, as clients keep them."""
    kept = []
    for sent in wire.acknowledged.values():
        if sent.stream == stream:
            events = {event["event_id"]: event for event in sent.events}
            receipts = wire.receipts[sent.digest]
            kept += [{"event": events[r["eventId"]], "receipt": r} for r in receipts]
    return kept


def _rows(house: Home, stream: Stream) -> list[Json]:
    columns = (
        "sequence_number, event_id, source_agent_id, agent_key_id, entity_type, entity_id, event_type, "
        "created_at, payload_kind, encode(payload_plain_hash, 'hex') AS payload_plain_hash, "
        "encode(payload_cipher_hash, 'hex') AS payload_cipher_hash, "
        "encode(agent_signature, 'hex') AS agent_signature, "
        "encode(event_signing_hash, 'hex') AS event_signing_hash, command_id, base_version"
    )
    lines = house.postgres.psql(
        f"SELECT row_to_json(found) FROM (SELECT {columns} FROM record.ves_events "
        f"WHERE tenant_id = '{stream.tenant_id}' AND store_id = '{stream.store_id}') AS found"
    )
    return [json.loads(line) for line in lines]


def classified(problems: list[str]) -> Verdict:
    """The auditor's sentences by the words of the last line; what is none of the first three is invalid."""
    verdict = Verdict()
    for problem in problems:
        if "is lost" in problem or "it is now at number" in problem:
            verdict.lost.append(problem)
        elif "has two places" in problem or "is there" in problem or "and in store" in problem:
            verdict.doubled.append(problem)
        elif "is missing before" in problem or "the head says" in problem:
            verdict.gaps.append(problem)
        else:
            verdict.invalid.append(problem)
    return verdict
