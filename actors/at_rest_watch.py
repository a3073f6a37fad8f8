"""How a node stores values, and what its encryptors saw of stored ones: told to whoever shows it.

One per node. A value that does not open is a security event: a key is missing, or somebody changed what is
stored. Alone names it so; decides nothing, holds no key, and never takes a byte of a value.
"""

from __future__ import annotations

from actors.errors import DoesNotOpen
from actors.security_events import SecurityEvents
from config.settings import PayloadEncryptionMode


class AtRestWatch:
    """``current_key``: the fingerprint of the key that seals for all tenants without a ring of their own.
    ``unencrypted_reads``: values that were read although nobody had encrypted them."""

    def __init__(
        self,
        *,
        security: SecurityEvents | None = None,
        mode: PayloadEncryptionMode = "required",
        current_key: str = "",
        tenants_with_own_ring: int = 0,
    ) -> None:
        self._security = security or SecurityEvents()
        self.mode = mode
        self.current_key = current_key
        self.tenants_with_own_ring = tenants_with_own_ring
        self.unencrypted_reads = 0

    def read(self, *, unencrypted: int) -> None:
        self.unencrypted_reads += unencrypted

    def unopened(self, row: str, why: str) -> DoesNotOpen:
        """Counted and logged with the row and the reason; to be raised."""
        self._security.happened("stored_value_unopened", row=row, why=why)
        return DoesNotOpen(row, why)
