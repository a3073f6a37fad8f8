"""Which receipt key is current, and the keys for an encryptor's next life.

Alone decides with which version a life signs: the newest that the journal has recorded and whose seed is
here. So a rotation that was recorded elsewhere (``sequencer receipt-key rotate``) is taken up by the next
life, and whatever was not recorded never signs. When the journal cannot be asked, the version known last
goes on: its receipts are as good as before. Holds no key itself, only asks ``OwnKeys`` for them.
"""

from __future__ import annotations

import structlog

from actors.encryptor import EncryptorKeys
from actors.security_events import SecurityEvents
from config.own_keys import OwnKeys
from config.secret_sources import SecretsError
from journal.port import Journal, JournalAway, JournalOutcomeUnknown, ReceiptKey

log = structlog.get_logger(__name__)


class ReceiptKeyInUse:
    """One per node."""

    def __init__(
        self, *, journal: Journal, keys: OwnKeys, claimed: ReceiptKey, security: SecurityEvents
    ) -> None:
        """``claimed``: what the journal had recorded when the node started."""
        self._journal = journal
        self._keys = keys
        self._known = claimed
        self._security = security

    async def for_a_life(self) -> EncryptorKeys:
        """Raises SecretsError only when even the seed of the version known last is gone."""
        newest = await self._newest()
        seed = None
        if newest.key_version > self._known.key_version:
            seed = self._seed_of_a_new(newest)
        if seed is None:
            newest, seed = self._known, self._keys.receipt_seeds.seed(self._known.public_key)
        return EncryptorKeys(
            self._keys.at_rest_ring(),
            seed,
            newest.public_key,
            newest.key_version,
            self._keys.at_rest_mode,
            self._keys.at_rest_rings_by_tenant(),
        )

    async def _newest(self) -> ReceiptKey:
        try:
            recorded = await self._journal.receipt_keys()
        except (JournalAway, JournalOutcomeUnknown):
            return self._known
        ours = [key for key in recorded if key.sequencer_id == self._known.sequencer_id]
        return ours[-1] if ours else self._known

    def _seed_of_a_new(self, newest: ReceiptKey) -> bytes | None:
        """None: recorded, but not here. Then the old version goes on, and somebody should look."""
        try:
            seed = self._keys.receipt_seeds.seed(newest.public_key)
        except SecretsError as error:
            log.error("receipt key not taken up", key_version=newest.key_version, why=str(error))
            return None
        self._known = newest
        self._security.happened(
            "receipt_key_rotated", key_version=newest.key_version, public_key=newest.public_key.hex()
        )
        return seed
