"""What tenants demand of their events, remembered, and forgotten as soon as it is changed anywhere.

``PolicyBook`` alone holds the cache of tenants' policies and the list of those whose schemas are held back.
``PolicyPoller`` is the actor that tells it every second whose policy changed; while it cannot, the book asks
the database for every request. Compiles no schema and looks at no payload.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import structlog
import trio
from msgspec.structs import replace

from actors.errors import Unavailable
from actors.freshness import POLL_EVERY_S, Freshness
from actors.mailbox import Inbox
from journal.port import NEWS_MAX, Journal, JournalAway, JournalError, TenantPolicy
from ves.policy import Policy, SchemaMode
from ves.records import Uuid

HELD_BACK_FIRST_S = 60.0
HELD_BACK_LONGEST_S = 3600.0
HELD_BACK_MAX = 1000
"""Tenants remembered as trouble."""
_LENIENT = ("disabled", "warn")

_log = structlog.get_logger("actors.policies")


class PolicyBook:
    """Finds tenants' policies; at most ``tenants_max``, with ``names_max`` schema names, are remembered."""

    def __init__(
        self,
        *,
        journal: Journal,
        defaults: Policy | None = None,
        tenants_max: int = 20_000,
        names_max: int = 200_000,
    ) -> None:
        self._journal = journal
        self._defaults = defaults or Policy()
        self._tenants_max = tenants_max
        self._names_max = names_max
        self._names = 0
        self._by_tenant: OrderedDict[Uuid, Policy] = OrderedDict()
        self._freshness = Freshness("their tenant's policy")
        self._held_back: OrderedDict[Uuid, tuple[float, float]] = OrderedDict()
        """Until when, and how long that was."""
        self.unchecked = 0
        """Requests let through without their schemas, in mode warn."""

    async def find(self, tenant_id: Uuid) -> Policy:
        """What this tenant demands now. Raises JournalAway when the database has to be asked and is away, and
        what is demanded may be more than a warning; MailboxFull when too many wait."""
        known = self._by_tenant.get(tenant_id)
        if known is not None and self.fresh:
            self._by_tenant.move_to_end(tenant_id)
            return known
        try:
            return await self._look_up(tenant_id)
        except JournalAway:
            best = known or self._defaults
            if best.schema_mode not in _LENIENT:
                raise
            self.unchecked += 1
            return best

    async def regions(self, tenant_id: Uuid) -> tuple[str, ...]:
        """Where this tenant may be served; empty: anywhere. Raises JournalAway rather than answer for a
        tenant it knows nothing about; MailboxFull when too many wait."""
        known = self._by_tenant.get(tenant_id)
        if known is not None and self.fresh:
            return known.regions
        try:
            return (await self._look_up(tenant_id)).regions
        except JournalAway:
            if known is None:
                raise
            return known.regions

    def effective(self, tenant_id: Uuid, own: TenantPolicy) -> Policy:
        """What comes of a tenant's own choice and the node's."""
        return with_defaults(tenant_id, own, self._defaults)

    @property
    def fresh(self) -> bool:
        """The remembered policies are at most ``FRESH_S`` behind the database."""
        return bool(self._freshness)

    async def texts(self, schema_ids: list[Uuid]) -> dict[Uuid, str]:
        """Raises JournalAway."""
        return await self._journal.read_schema_texts(schema_ids)

    def forget(self, tenant_ids: Iterable[Uuid]) -> None:
        """Theirs were changed: from now on they are looked up in the database."""
        for tenant_id in tenant_ids:
            self._freshness.news()
            self._drop(tenant_id)

    def forget_all(self) -> None:
        """Nothing is known about changes since the policies were read."""
        self._freshness.news()
        self._by_tenant.clear()
        self._names = 0

    def heard(self, *, asked_at: float) -> None:
        """Everything changed before ``asked_at`` (``trio.current_time``) is forgotten."""
        self._freshness.heard(asked_at=asked_at)

    # Schemas that cost a verifier its process.

    def blame(self, policy: Policy) -> None:
        """Comparing with these schemas did not end: they are held back, longer each time."""
        if policy.tenant_id is None or not policy.schemas:
            return
        _, lasted_s = self._held_back.pop(policy.tenant_id, (0.0, HELD_BACK_FIRST_S / 2))
        lasts_s = min(2 * lasted_s, HELD_BACK_LONGEST_S)
        self._held_back[policy.tenant_id] = (trio.current_time() + lasts_s, lasts_s)
        while len(self._held_back) > HELD_BACK_MAX:
            self._held_back.popitem(last=False)
        _log.warning("schemas_held_back", tenant=policy.tenant_id.hex(), for_s=lasts_s)

    def bearable(self, policy: Policy) -> Policy:
        """The same, unless its schemas are held back: then without them when they only warn, and otherwise
        Unavailable is raised, because nothing may be accepted unchecked."""
        until, _ = self._held_back.get(policy.tenant_id or b"", (0.0, 0.0))
        remaining_s = until - trio.current_time()
        if remaining_s <= 0 or not policy.schemas:
            return policy
        text = "comparing with this tenant's schemas took too long; archive or simplify the schema"
        return self.unless_it_matters(policy, Unavailable(text, retry_after_s=remaining_s))

    def unless_it_matters(self, policy: Policy, why: Unavailable) -> Policy:
        """The policy without its schemas, which cannot be compared with now: when they only warn that is
        counted, otherwise ``why`` is raised."""
        if policy.schema_mode not in _LENIENT:
            raise why
        self.unchecked += 1
        return replace(policy, stamp=-policy.stamp, schemas=())  # a stamp that no other policy has

    # Remembering.

    async def _look_up(self, tenant_id: Uuid) -> Policy:
        own, may_stay = await self._freshness.look_up(lambda: self._journal.read_policy(tenant_id))
        policy = self.effective(tenant_id, own)
        if may_stay:
            self._remember(tenant_id, policy)
        return policy

    def _remember(self, tenant_id: Uuid, policy: Policy) -> None:
        self._drop(tenant_id)
        self._by_tenant[tenant_id] = policy
        self._names += len(policy.schemas)
        while len(self._by_tenant) > self._tenants_max or self._names > self._names_max:
            self._drop(next(iter(self._by_tenant)))

    def _drop(self, tenant_id: Uuid) -> None:
        dropped = self._by_tenant.pop(tenant_id, None)
        if dropped is not None:
            self._names -= len(dropped.schemas)


def with_defaults(tenant_id: Uuid, own: TenantPolicy, defaults: Policy) -> Policy:
    """A tenant chooses its own mode, and may narrow the node's entity types, not widen them."""
    mode: SchemaMode = own.schema_mode or defaults.schema_mode
    types = own.entity_types
    if types is None:
        types = defaults.entity_types
    elif defaults.entity_types is not None:
        types = tuple(one for one in types if one in defaults.entity_types)
    return Policy(tenant_id, own.stamp, types, mode, own.schemas, own.regions)


class PolicyPoller:
    """Reads whose policy changed since its last reading, every ``every_s``. Takes no letters."""

    def __init__(self, *, journal: Journal, book: PolicyBook, every_s: float = POLL_EVERY_S) -> None:
        self._journal = journal
        self._book = book
        self._every_s = every_s

    async def run(self, inbox: Inbox) -> None:
        # An earlier life's cursor is gone, so what was remembered under it is too.
        self._book.forget_all()
        cursor: int | None = None
        while True:
            cursor = await self._poll(cursor)
            await inbox.pause(self._every_s)

    async def _poll(self, cursor: int | None) -> int | None:
        """The new cursor, or the old one when the database did not answer."""
        asked_at = trio.current_time()
        try:
            changes = await self._journal.policy_changes_since(cursor)
        except JournalError:
            return cursor  # the book notices by itself that nobody tells it anything
        if cursor is None:
            # Policies read before there was a cursor may have been changed before it.
            self._book.forget_all()
        self._book.forget(changes.tenant_ids)
        if len(changes.tenant_ids) < NEWS_MAX:  # else there may be more
            self._book.heard(asked_at=asked_at)
        return changes.cursor
