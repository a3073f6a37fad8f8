"""A node on a restored database that nobody confirmed: it shows everything and changes nothing."""

from __future__ import annotations

from tests.http.doubles import BOOTSTRAP, TENANT, serving
from transport.http.resting import WRITES_NOTHING

READ_ONLY = "restored: read-only until confirmed"


async def test_reads_are_answered_and_writes_are_not_ready_before_anything_is_done() -> None:
    async with serving() as house, house.client(BOOTSTRAP) as client:
        object.__setattr__(house.house, "read_only", READ_ONLY)
        stream = {"tenant_id": str(TENANT), "store_id": str(TENANT)}
        head = await client.get("/api/v1/ves/head", params=stream)
        assert (head.status_code, head.json()) == (200, {"head_sequence": 0})
        for path in ("/api/v1/ves/events/ingest", "/api/v1/ves/commitments", "/api/v1/agents/keys"):
            refused = await client.post(path, json=stream)
            assert (refused.status_code, refused.headers["x-error-code"]) == (503, "NOT_READY"), path
            assert refused.headers["retry-after"] == "60"
            assert READ_ONLY in refused.json()["message"]
        assert house.journal.audits == [], "uses of the bootstrap key wait in the spool"
        assert (house.folder / "audit-spool.jsonl").read_text().count("credential.use") == 1


async def test_the_exceptions_are_routes_that_exist() -> None:
    async with serving() as house:
        routes = {rule.endpoint for rule in house.public.url_map.iter_rules()}
        assert {f"{method} {path}" for method, path in WRITES_NOTHING} <= routes
