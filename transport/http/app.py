"""The two applications: what the public listener answers and what only the admin listener does.

It alone lists the routes of each. Everything that is on neither list is a 404.
"""

from __future__ import annotations

from transport.house import House
from transport.http import (
    about,
    actors,
    agent_api_keys,
    agent_keys,
    anchor_reports,
    anchoring,
    api_keys,
    audit,
    committing,
    evidence,
    ingest,
    key_reports,
    key_rotation,
    legacy_committing,
    legacy_ingest,
    legacy_reading,
    reading,
    residency,
    schemas,
    streams,
    tenant_policies,
    token_revocations,
    validity,
)
from transport.http.door import Door, FrontDoor
from transport.http.openapi import document_route
from transport.http.routing import Route

PUBLIC: list[Route] = [
    *ingest.ROUTES,
    *reading.ROUTES,
    *evidence.ROUTES,
    *streams.ROUTES,
    *legacy_ingest.ROUTES,
    *legacy_reading.ROUTES,
    *committing.ROUTES,
    *legacy_committing.ROUTES,
    *anchoring.ROUTES,
    *anchor_reports.ROUTES,
    *validity.ROUTES,
    *agent_keys.ROUTES,
    *key_rotation.ROUTES,
    *schemas.ROUTES,
    *agent_api_keys.ROUTES,
    about.WELL_KNOWN,
    about.HEALTH,
    about.READY,
]
ADMIN: list[Route] = [
    *api_keys.ROUTES,
    *key_reports.ROUTES,
    *tenant_policies.ROUTES,
    *residency.ROUTES,
    *token_revocations.ROUTES,
    *actors.ROUTES,
    *audit.ROUTES,
    about.METRICS,
    about.DETAILED_HEALTH,
    about.HEALTH,
    about.READY,
]


def create_apps(house: House) -> tuple[FrontDoor, FrontDoor]:
    """The public and the admin application, both QuartTrio; they share limits and metrics."""
    door = Door(house)
    allowed = house.settings.admin_ip_allowlist
    return (
        FrontDoor(door, [*PUBLIC, document_route(PUBLIC, "VES sequencer")]),
        FrontDoor(door, [*ADMIN, document_route(ADMIN, "VES sequencer: admin listener")], allowed=allowed),
    )
