"""Two nodes in two regions, as an operator sets them up: a tenant enters and is read in its own alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.nodes import operated_postgres
from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow


def test_a_pinned_tenant_is_served_in_its_region_only_and_no_node_forgets_where_it_is(tmp_path: Path) -> None:
    with operated_postgres(tmp_path / "postgres") as database:
        here = database.node(tmp_path / "eu", REGION="eu-west-1").start()
        there = database.node(tmp_path / "us", REGION="us-east-1").start()
        try:
            tenant = Tenant(here)
            abroad = tenant.seen_from(there)
            event = tenant.agent.event({"n": 1})
            assert abroad.post(event).json()["eventsAccepted"] == 1
            told = here.command(
                "tenant-region", "set", "--tenant", str(tenant.tenant_id), "--region", "eu-west-1"
            )
            assert told.returncode == 0, told.stderr
            assert "serves it" in told.stdout
            give_up = time.monotonic() + 10
            while abroad.post(event).status_code != 421:
                assert time.monotonic() < give_up, "the other node never heard of the pin"
                time.sleep(0.1)
            refused = abroad.http.get("/api/v1/ves/head", params=tenant.stream)
            assert (refused.status_code, refused.headers["x-error-code"]) == (421, "WRONG_REGION")
            assert tenant.post(event).json()["eventsReplayed"] == 1
            listed = there.command("tenant-region", "list")
            assert str(tenant.tenant_id) in listed.stdout
            lost = database.node(tmp_path / "lost").command("serve")
            assert lost.returncode == 1
            assert "set REGION" in lost.stderr
        finally:
            here.terminate()
            there.terminate()


def test_a_region_that_is_no_name_refuses_the_start(tmp_path: Path) -> None:
    for variables, named in (
        ({"REGION": "Europe!"}, "REGION"),
        ({"TENANT_REGION_REQUIRED": "true"}, "REGION"),
    ):
        refused = Server(tmp_path / "data", **variables).command("serve")
        assert refused.returncode == 1
        assert named in refused.stderr
