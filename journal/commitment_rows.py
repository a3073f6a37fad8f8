"""How commitments of either stream are found: by id, by a number they hold, by the page. Reads only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from ves.legacy_commitments import LegacyCommitment
from ves.records import Commitment, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

C = TypeVar("C", Commitment, LegacyCommitment)


class CommitmentRows(Generic[C]):
    """One table's. ``select`` ends before WHERE and names what ``make`` takes, in order."""

    def __init__(self, select: str, make: Callable[..., C]) -> None:
        self._select = select
        self._make: Callable[..., C] = make

    async def one(
        self,
        connection: Connection,
        batch_id: Uuid,
        tenant_id: Uuid | None,
        store_ids: tuple[Uuid, ...] | None,
    ) -> C | None:
        row = await connection.fetchrow(
            self._select + "WHERE batch_id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) "
            "AND ($3::uuid[] IS NULL OR store_id = ANY($3))",
            batch_id,
            tenant_id,
            None if store_ids is None else list(store_ids),
        )
        return None if row is None else self._make(*row)

    async def holding(
        self, connection: Connection, tenant_id: Uuid, store_id: Uuid, sequence_number: int
    ) -> C | None:
        row = await connection.fetchrow(
            self._select + "WHERE tenant_id = $1 AND store_id = $2 AND sequence_start <= $3 "
            "ORDER BY sequence_start DESC LIMIT 1",
            tenant_id,
            store_id,
            sequence_number,
        )
        if row is None:
            return None
        commitment = self._make(*row)
        return commitment if commitment.sequence_end >= sequence_number else None

    async def page(
        self,
        connection: Connection,
        tenant_id: Uuid,
        store_id: Uuid,
        from_sequence: int,
        limit: int,
        only: str = "",
    ) -> tuple[list[C], bool, int]:
        """The commitments, whether there are more, and where they begin; ``from_sequence`` is the least
        ``sequence_start``. ``only``: more conditions, a text of ours."""
        rows = await connection.fetch(
            self._select + f"WHERE tenant_id = $1 AND store_id = $2 AND sequence_start >= $3 {only} "
            "ORDER BY sequence_start LIMIT $4::bigint + 1",
            tenant_id,
            store_id,
            from_sequence,
            limit,
        )
        found = [self._make(*row) for row in rows[:limit]]
        return found, len(rows) > limit, found[-1].sequence_end + 1 if found else from_sequence
