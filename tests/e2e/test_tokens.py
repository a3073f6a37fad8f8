"""Signed tokens on the real server: made by the command, rotated without a restart, revoked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.world import Server, Tenant

SMALL = {"VERIFIERS": "1", "ENCRYPTORS": "1"}


def new_key(server: Server, key: Path, jwks: Path) -> None:
    made = server.command("token", "new-key", "--out", str(key), "--jwks", str(jwks))
    assert made.returncode == 0, made.stderr


def token(server: Server, key: Path, tenant: Tenant, *more: str) -> str:
    who = ["--tenant", str(tenant.tenant_id), "--agent", str(tenant.agent.agent_id)]
    scope = ["--scope", "events:write", "--scope", "events:read"]
    issued = server.command("token", "issue", "--key-file", str(key), *who, *scope, *more)
    assert issued.returncode == 0, issued.stderr
    return issued.stdout.strip()


def post(tenant: Tenant, text: str, agent: object = None) -> httpx.Response:
    signer = agent or tenant.agent
    body = signer.body([signer.event({"n": 1})])  # type: ignore[attr-defined]
    return tenant.post_raw(body, authorization=f"Bearer {text}")


def until_answered(status: int, ask: Callable[[], httpx.Response]) -> None:
    give_up = time.monotonic() + 20
    while (answer := ask()).status_code != status:
        assert time.monotonic() < give_up, answer.text
        time.sleep(0.1)


def until_logged(server: Server, text: str) -> None:
    give_up = time.monotonic() + 20
    while text not in server.log.read_text():
        assert time.monotonic() < give_up, server.tail()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_token_from_the_command_posts_rotates_and_ends(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    jwks, first, second = tmp_path / "jwks.json", tmp_path / "one.pem", tmp_path / "two.jwk"
    new_key(Server(tmp_path / "nowhere"), first, jwks)
    server = own_server(JWT_JWKS_FILE=str(jwks), **SMALL).start()
    server.wait_ready()
    tenant = Tenant(server)
    other = tenant.new_agent()
    old = token(server, first, tenant)
    assert post(tenant, old).json()["eventsAccepted"] == 1
    assert post(tenant, old, other).status_code == 403, "sub must be the agent"

    kept = jwks.read_bytes()
    new_key(server, second, jwks)
    new = token(server, second, tenant)
    until_answered(200, lambda: post(tenant, new))
    assert post(tenant, old).status_code == 200, "both keys are in the file"
    jwks.write_bytes(b"{")
    until_logged(server, "token keys not read, the last good ones stay")
    assert post(tenant, old).status_code == post(tenant, new).status_code == 200
    jwks.write_bytes(kept)
    until_answered(401, lambda: post(tenant, new))
    assert post(tenant, old).status_code == 200

    who = ["--tenant", str(tenant.tenant_id), "--agent", str(tenant.agent.agent_id)]
    revoked = server.command("token", "revoke", *who, "--reason", "drill")
    assert revoked.returncode == 0, revoked.stderr
    head = tenant.head()
    answer = post(tenant, old)
    assert (answer.status_code, answer.headers["x-error-code"]) == (401, "INVALID_TOKEN")
    assert post(tenant, token(server, first, tenant)).status_code == 401, "within the leeway"
    assert tenant.head() == head
    log = server.log.read_text()
    for text in (old, new):
        assert text.rpartition(".")[2] not in log
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"JWT_JWKS_FILE": "/nonexistent/jwks.json"}, "JWT_JWKS_FILE /nonexistent/jwks.json: No such file"),
        ({"JWT_SECRET": "x" * 64}, "JWT_SECRET is not random"),
    ],
)
def test_a_start_with_keys_that_cannot_be_used_is_refused_in_one_line(
    own_server: Callable[..., Server], environment: dict[str, str], why: str
) -> None:
    server = own_server(**environment)
    assert server.launch().wait(30) == 1
    told = server.log.read_text().strip().splitlines()
    assert len(told) == 1, told
    assert why in told[0]
    assert "x" * 64 not in told[0]
