"""The audit trail, on the admin listener: looking through it, its chains and commitments, inclusion proofs.

A tenant's administrator sees the entries of its own tenant, an operator all. Reads only; what is written and
committed is decided elsewhere. A proof is checked before it leaves.
"""

from __future__ import annotations

from journal.port import AuditChain, AuditPlace, AuditWish
from transport.http.audit_shapes import (
    AuditChainReply,
    AuditCommitmentReply,
    AuditCommitmentsReply,
    AuditEntryReply,
    AuditHeadReply,
    AuditHeadsReply,
    AuditProofReply,
    AuditQuery,
    AuditReply,
    EntryPath,
    HeadsQuery,
    NodePath,
    NumbersQuery,
)
from transport.http.errors import ApiError, Code
from transport.http.routing import Route
from transport.http.visit import Visit
from ves.audit import AuditCommitment, AuditRecord, inclusion_path, is_included, leaf_hash
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.timestamps import parse_rfc3339, utc_text, zulu_text

AUDIT = "/api/v1/admin/audit"


class TrailCorrupt(Exception):
    """Stored entries do not lead to the stored root. An operator must look at the database."""


async def find(visit: Visit) -> AuditReply:
    query = visit.query(AuditQuery)
    wish = AuditWish(
        tenant_id=_readable_tenant(visit, visit.optional_uuid(query, "tenant_id")),
        node_id=visit.optional_uuid(query, "node_id"),
        actor=query.actor,
        action=query.action,
        from_us=_time(query.from_, "from"),
        to_us=_time(query.to, "to"),
        after=None if query.after is None else _place(query.after),
    )
    found = await visit.house.journal.find_audit_entries(wish, limit=query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    return AuditReply([_entry(one) for one in page], len(page), more, _cursor(page[-1]) if more else None)


def _readable_tenant(visit: Visit, named: Uuid | None) -> Uuid | None:
    """The tenant whose entries the caller may see; None: everybody's. 403 for credentials that are bound to
    some stores or one agent: entries speak of the whole tenant."""
    caller = visit.who
    tenant_id = caller.tenant_id if named is None else named
    if tenant_id is not None:
        caller.must_administer(tenant_id, "read the audit trail")
    return tenant_id


def _time(text: str | None, name: str) -> int | None:
    try:
        return None if text is None else parse_rfc3339(text)
    except ValueError as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{name}: {wrong}") from None


def _place(cursor: str) -> AuditPlace:
    time_us, node_id, number = cursor.split(".")
    return AuditPlace(int(time_us), bytes.fromhex(node_id), int(number))


def _cursor(record: AuditRecord) -> str:
    return f"{record.recorded_at_us}.{record.node_id.hex()}.{record.entry_number}"


async def heads(visit: Visit) -> AuditHeadsReply:
    query = visit.query(HeadsQuery)
    found = await visit.house.journal.read_audit_chains(
        after=visit.optional_uuid(query, "after"), limit=query.limit + 1
    )
    page, more = [_head(one) for one in found[: query.limit]], len(found) > query.limit
    return AuditHeadsReply(page, len(page), more, page[-1].node_id if more else None)


async def chain(visit: Visit) -> AuditChainReply:
    node_id = visit.uuid(visit.path(NodePath), "node_id")
    query = visit.query(NumbersQuery)
    start = max(1, query.from_)
    async with visit.door.pages:
        found = await visit.house.journal.read_audit_chain(node_id, from_number=start, limit=query.limit + 1)
    page, more = [_entry(one) for one in found[: query.limit]], len(found) > query.limit
    return AuditChainReply(page, len(page), more, page[-1].entry_number + 1 if page else start)


async def commitments(visit: Visit) -> AuditCommitmentsReply:
    node_id = visit.uuid(visit.path(NodePath), "node_id")
    query = visit.query(NumbersQuery)
    start = max(1, query.from_)
    found = await visit.house.journal.list_audit_commitments(
        node_id, from_number=start, limit=query.limit + 1
    )
    page, more = [_commitment(one) for one in found[: query.limit]], len(found) > query.limit
    return AuditCommitmentsReply(page, len(page), more, page[-1].entry_end + 1 if page else start)


async def prove(visit: Visit) -> AuditProofReply:
    wanted = visit.path(EntryPath)
    node_id, number = visit.uuid(wanted, "node_id"), wanted.entry_number
    tenant_id = _readable_tenant(visit, None)
    journal = visit.house.journal
    entry = next(iter(await journal.read_audit_chain(node_id, from_number=number, limit=1)), None)
    if entry is None or entry.entry_number != number or tenant_id not in (None, entry.tenant_id):
        raise ApiError(Code.RESOURCE_NOT_FOUND, "no such audit entry")
    held = next(iter(await journal.list_audit_commitments(node_id, from_number=number, limit=1)), None)
    if held is None or held.entry_start > number:
        raise ApiError(Code.BATCH_NOT_FOUND, "no commitment holds this entry yet; it comes within a minute")
    path = await _path(visit, held, entry)
    leaf = leaf_hash(node_id, number, entry.entry_hash)
    return AuditProofReply(
        _entry(entry), _commitment(held), leaf.hex(), number - held.entry_start, [one.hex() for one in path]
    )


async def _path(visit: Visit, held: AuditCommitment, entry: AuditRecord) -> list[bytes]:
    async with visit.door.pages:
        found = await visit.house.journal.read_audit_chain(
            held.node_id, from_number=held.entry_start, limit=held.leaf_count
        )
    leaves = [leaf_hash(one.node_id, one.entry_number, one.entry_hash) for one in found]
    if len(leaves) == held.leaf_count:
        path = inclusion_path(leaves, entry.entry_number - held.entry_start)
        if is_included(held, entry.entry_number, entry.entry_hash, path):
            return path
    raise TrailCorrupt(f"{held.node_id.hex()}: entries from {held.entry_start} do not lead to their root")


def _entry(record: AuditRecord) -> AuditEntryReply:
    return AuditEntryReply(
        uuid_text(record.node_id),
        record.entry_number,
        utc_text(record.recorded_at_us),
        record.recorded_at_us,
        None if record.tenant_id is None else uuid_text(record.tenant_id),
        record.actor,
        record.action,
        record.subject,
        record.text,
        record.prev_hash.hex(),
        record.entry_hash.hex(),
    )


def _head(found: AuditChain) -> AuditHeadReply:
    return AuditHeadReply(
        uuid_text(found.node_id),
        found.last_number,
        found.last_hash.hex(),
        found.committed_through,
        found.state_root.hex(),
    )


def _commitment(found: AuditCommitment) -> AuditCommitmentReply:
    return AuditCommitmentReply(
        uuid_text(found.node_id),
        found.entry_start,
        found.entry_end,
        found.leaf_count,
        found.merkle_root.hex(),
        found.prev_state_root.hex(),
        found.new_state_root.hex(),
        zulu_text(found.committed_at_us),
    )


ROUTES = [
    Route("GET", AUDIT, find, "Audit entries, newest first", AuditReply, query_shape=AuditQuery),
    Route(
        "GET",
        f"{AUDIT}/heads",
        heads,
        "Where each node's audit chain and its commitments stand: keep it, to notice later changes",
        AuditHeadsReply,
        query_shape=HeadsQuery,
    ),
    Route(
        "GET",
        f"{AUDIT}/chains/{{node_id}}",
        chain,
        "A node's audit chain by entry number",
        AuditChainReply,
        path_shape=NodePath,
        query_shape=NumbersQuery,
    ),
    Route(
        "GET",
        f"{AUDIT}/commitments/{{node_id}}",
        commitments,
        "A node's audit commitments, from the one that holds entry `from` on",
        AuditCommitmentsReply,
        path_shape=NodePath,
        query_shape=NumbersQuery,
    ),
    Route(
        "GET",
        f"{AUDIT}/proofs/{{node_id}}/{{entry_number}}",
        prove,
        "The inclusion proof of one audit entry",
        AuditProofReply,
        path_shape=EntryPath,
        refuses=(Code.RESOURCE_NOT_FOUND, Code.BATCH_NOT_FOUND),
    ),
]
