"""What must be true after every attack, found by the independent auditor in ``tests/auditor``.

Reads a running server as a stranger would and holds it against what a ``Load`` was answered. Imports nothing
of ours, changes nothing.
"""

from __future__ import annotations

from tests.auditor.audit import audit
from tests.auditor.reading import over_http, read_stream
from tests.e2e.world import Load, Tenant


def audited(tenants: list[Tenant], load: Load) -> None:
    """Every acknowledged event is there once at its number with its receipt; no stranger is there."""
    assert not load.problems, load.problems[:3]
    known = set(load.acknowledged) | load.unknown
    for tenant in tenants:
        present = load_ids(tenant, load)
        assert present <= known | tenant.quietly_posted, "a stored event that nobody was answered about"
        evidence = read_stream(
            over_http(tenant.server.url, tenant.api_key),
            str(tenant.tenant_id),
            str(tenant.store_id),
            acknowledged=[{"receipt": r} for i, r in load.acknowledged.items() if i in present],
        )
        problems = audit(evidence)
        assert not problems, problems[:5]


def load_ids(tenant: Tenant, load: Load) -> set[str]:
    found: set[str] = set()
    start = 1
    while True:
        page = tenant.events(start)
        found |= {e["event_id"] for e in page["events"]}
        start = page["next_from"]
        if not page["has_more"]:
            return found


def acknowledged_everything(tenants: list[Tenant], load: Load) -> None:
    stored = set().union(*(load_ids(t, load) for t in tenants))
    lost = set(load.acknowledged) - stored
    assert not lost, f"{len(lost)} acknowledged events are lost"
