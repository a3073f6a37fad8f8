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


def _there(found: C | None) -> C:
    if found is None:
        raise ApiError(Code.BATCH_NOT_FOUND, "no such commitment")
    return found
