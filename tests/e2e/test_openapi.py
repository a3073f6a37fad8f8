"""The OpenAPI document describes the server as it is; schemathesis makes requests from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.world import Server, Tenant

CONFIG = """\
# Paths learnt from the tree would let it suspend, drain and kill those who live there.
phases.examples.extra-data-sources.responses = false
phases.coverage.extra-data-sources.responses = false
phases.fuzzing.extra-data-sources.responses = false

[auth.openapi.ApiKey]
api_key = "${API_KEY}"

[checks]
# JSON Schema cannot say that agentId is every event's source_agent_id, or that a key is a point.
positive_data_acceptance.enabled = false
# A body of the wrong shape may also be too large: 413.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429, "5xx"]

[[operations]]
# This server does not anchor, and says so; legacy commitments nobody anchors.
include-path-regex = "/anchor(/|$)"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501, 503]

[[operations]]
# The longest wait is tried twice, and is half of a whole run.
include-path = "/api/v1/ves/events"
parameters = { "query.wait_s" = 0 }

[[operations]]
include-path-regex = "/events/ingest$"
# What is wrong inside one event is that event's rejection, in an answer of 200.
checks.negative_data_rejection.enabled = false
"""


def fuzz(url: str, api_key: str, folder: Path, *, examples: int) -> None:
    # The key comes from the environment, not argv; as the scheme's, so that leaving it out is tried too.
    (folder / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", url + "/openapi.json"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", "1"),
            *("--request-timeout", "30", "--generation-database", "none", "--no-color"),
        ],
        cwd=folder,
        env={**os.environ, "API_KEY": f"ApiKey {api_key}", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_the_public_listener_is_as_its_document_says(server: Server, tmp_path: Path) -> None:
    """As the bootstrap credential, whom any tenant in a request lets pass."""
    fuzz(server.url, server.bootstrap_key, tmp_path, examples=3)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_public_listener_is_as_its_document_says_to_a_tenant(tenant: Tenant, tmp_path: Path) -> None:
    fuzz(tenant.server.url, tenant.api_key, tmp_path, examples=3)


@pytest.mark.slow
def test_the_admin_listener_is_as_its_document_says(server: Server, tmp_path: Path) -> None:
    fuzz(server.admin_url, server.bootstrap_key, tmp_path, examples=10)


def test_every_route_is_told_once_with_its_errors(server: Server) -> None:
    document = httpx.get(server.url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    ingest = document["paths"]["/api/v1/ves/events/ingest"]["post"]
    assert {"200", "400", "401", "403", "413", "415", "422", "503"} <= set(ingest["responses"])
    assert "/api/v1/admin/api-keys" not in document["paths"]
    assert "/api/v1/admin/api-keys" in httpx.get(server.admin_url + "/openapi.json").json()["paths"]
