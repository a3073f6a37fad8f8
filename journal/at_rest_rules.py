"""Which at-rest keys a node must hold: the record of the rings, judged without a database.

A tenant with a ring of its own is served by that ring and no other. So its data may exist under every key of
every ring that ever served it, and a start whose rings lack one of them would end in answers that nobody can
give: it is refused, by fingerprint. Alone decides that; reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from journal.port import AtRestKeyMissing
from ves.encoding import uuid_text
from ves.records import Uuid


class Rings(NamedTuple):
    """Key ids by ring, as a node holds them or as they are recorded."""

    default: list[bytes]
    by_tenant: Mapping[Uuid, list[bytes]]


def new_keys(recorded: Rings, held: Rings, with_data: set[Uuid], retired: Set[bytes]) -> Rings:
    """What is to be recorded beside ``recorded``. ``with_data``: of the tenants in ``newcomers`` those that
    have data; ``retired``: keys under which there is none any more. Raises AtRestKeyMissing."""
    if missing := _missing(_still(recorded.default, retired), held.default):
        raise AtRestKeyMissing(
            f"data exists under the at-rest key {_texts(missing)}, which is not in the ring"
            f"{_only_elsewhere(missing, held)}: "
            "restore the key file or add the key to PAYLOAD_ENCRYPTION_KEYS"
        )
    new: dict[Uuid, list[bytes]] = {}
    for tenant_id in sorted({*recorded.by_tenant, *held.by_tenant}):
        known = recorded.by_tenant.get(tenant_id)
        serving = held.by_tenant.get(tenant_id, held.default)
        needed = known if known is not None else recorded.default if tenant_id in with_data else []
        if missing := _missing(_still(needed, retired), serving):
            raise AtRestKeyMissing(_of_tenant(tenant_id, missing, has_ring=tenant_id in held.by_tenant))
        new[tenant_id] = _missing(serving, known or [])
    return Rings(_missing(held.default, recorded.default), {t: keys for t, keys in new.items() if keys})


def newcomers(recorded: Rings, held: Rings) -> list[Uuid]:
    """Tenants that have a ring of their own for the first time: what data they have is under the default."""
    return sorted(set(held.by_tenant) - set(recorded.by_tenant))


def _of_tenant(tenant_id: Uuid, missing: list[bytes], *, has_ring: bool) -> str:
    data = f"tenant {uuid_text(tenant_id)} has data under the at-rest key {_texts(missing)}"
    if has_ring:
        return (
            f"{data}, which is not in its own ring: add the key behind the tenant's current one "
            "(PAYLOAD_ENCRYPTION_KEYS_BY_TENANT); the keys of other rings do not open its data"
        )
    return (
        f"{data}, and has no ring of its own now: restore its ring "
        "(PAYLOAD_ENCRYPTION_KEYS_BY_TENANT, or DATA_DIR/keys/payload-encryption-keys-by-tenant)"
    )


def _only_elsewhere(missing: list[bytes], held: Rings) -> str:
    tenants = [uuid_text(t) for t, keys in sorted(held.by_tenant.items()) if set(keys) & set(missing)]
    return f" (only in that of tenant {tenants[0]}, which serves nobody else)" if tenants else ""


def _still(recorded: list[bytes], retired: Set[bytes]) -> list[bytes]:
    return [key_id for key_id in recorded if key_id not in retired]


def _missing(needed: list[bytes], there: list[bytes]) -> list[bytes]:
    return [key_id for key_id in dict.fromkeys(needed) if key_id not in there]


def _texts(key_ids: list[bytes]) -> str:
    return ", ".join(key_id.hex() for key_id in key_ids)
