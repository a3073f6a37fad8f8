"""What a request names by id alone: looked up within the caller's tenant and stores, or not at all.

A foreign thing is as absent as one that never was: the same 404.
"""

from __future__ import annotations

from typing import TypeVar

from transport.http.errors import ApiError, Code
from transport.http.shapes import BatchPath, OptionalStreamQuery
from transport.http.visit import Visit
from ves.legacy_commitments import LegacyCommitment
from ves.records import Commitment, Uuid

C = TypeVar("C", Commitment, LegacyCommitment)
F = TypeVar("F")


def reach(visit: Visit) -> tuple[Uuid, tuple[Uuid, ...] | None]:
    """The tenant, and the stores if not all, in which the caller may find something: his own, or what he
    narrows them to in the query. 403 for what is not his, 400 when nobody names a tenant."""
    query = visit.query(OptionalStreamQuery)
    caller = visit.who
    tenant_id = caller.tenant_named(visit.optional_uuid(query, "tenant_id"))
    if (store_id := visit.optional_uuid(query, "store_id")) is not None:
        caller.must_reach(tenant_id, store_id)
        return tenant_id, (store_id,)
    return tenant_id, caller.store_ids


async def commitment(visit: Visit) -> Commitment:
    """That of the ``batch_id`` in the path."""
    batch_id = visit.uuid(visit.path(BatchPath), "batch_id")
    tenant_id, store_ids = reach(visit)
    journal = visit.house.journal
    return _there(await journal.read_commitment(batch_id, tenant_id=tenant_id, store_ids=store_ids))


async def legacy_commitment(visit: Visit) -> LegacyCommitment:
    """The same in the legacy stream."""
    batch_id = visit.uuid(visit.path(BatchPath), "batch_id")
    tenant_id, store_ids = reach(visit)
    journal = visit.house.journal
    return _there(await journal.read_legacy_commitment(batch_id, tenant_id=tenant_id, store_ids=store_ids))


def committed(found: F | None) -> F:
    """What was found by a sequence number; 404 while no commitment holds it."""
    if found is None:
        raise ApiError(Code.BATCH_NOT_FOUND, "no commitment holds this sequence number yet")
    return found


def holding(found: C | None, sequence_number: int) -> C:
    """What was found by its id, of either stream; 404 when nothing was, 400 unless it holds the number."""
    found = _there(found)
    if not found.sequence_start <= sequence_number <= found.sequence_end:
        span = f"{found.sequence_start} to {found.sequence_end}"
        raise ApiError(Code.INVALID_FIELD_VALUE, f"sequence_number: the commitment holds {span}")
    return found


def _there(found: C | None) -> C:
    if found is None:
        raise ApiError(Code.BATCH_NOT_FOUND, "no such commitment")
    return found
