"""``sequencer token``: keys and tokens that the server's own rules believe, files nobody else can read."""

from __future__ import annotations

import base64
import json
import logging
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from actors.token_keys import KeySet, parse_key_set
from actors.token_rules import Rules, Token, TokenRefused, verify
from tests.cli.conftest import Command, Said
from tests.http.doubles import BOOTSTRAP, serving
from tests.tokens.token_mint import claims, signed

TENANT = "6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11"
AGENT = "0d5c3f0f-7c1b-4c0e-9f44-6f1c1c6e2a11"
STORE = "9f44aaaa-7c1b-4c0e-9f44-6f1c1c6e2a11"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def keyring(sequencer: Command, tmp_path: Path) -> Path:
    """A folder with a private key and the key set."""
    made = sequencer("token", "new-key", "--out", tmp_path / "one.pem", "--jwks", tmp_path / "jwks.json")
    assert made.code == 0, made.err
    return tmp_path


def issue(sequencer: Command, key: Path, *more: object) -> Said:
    return sequencer(
        "token", "issue", "--key-file", key, "--tenant", TENANT, "--agent", AGENT,
        "--scope", "events:write", "--scope", "events:read", *more,
    )  # fmt: skip


def believed(text: str, jwks: Path, rules: Rules | None = None) -> Token:
    keys = KeySet(parse_key_set(jwks.read_bytes()))
    return verify(text.strip(), keys, rules or Rules(), time.time())


@pytest.mark.parametrize("name", ["two.jwk", "two.pem"])
def test_a_new_key_joins_the_set_and_its_tokens_are_believed(
    sequencer: Command, keyring: Path, name: str
) -> None:
    jwks = keyring / "jwks.json"
    before = json.loads(jwks.read_text())["keys"]
    made = sequencer("token", "new-key", "--out", keyring / name, "--jwks", jwks, "--json")
    assert made.code == 0, made.err
    assert (mode(keyring / name), mode(jwks)) == (0o600, 0o644)
    after = json.loads(jwks.read_text())["keys"]
    assert after[:-1] == before
    assert after[-1]["kid"] == made.json["kid"]
    assert "d" not in after[-1]
    assert {path.name for path in keyring.iterdir() if path.is_file()} == {"one.pem", "jwks.json", name}
    for key in (name, "one.pem"):
        token = believed(issue(sequencer, keyring / key).out, jwks)
        assert (token.tenant_id.hex(), token.agent_id) == (
            TENANT.replace("-", ""),
            uuid.UUID(AGENT).bytes,
        )
        assert token.permissions == ("events:write", "events:read")
        assert token.store_ids is None
        assert token.expires_at_s - token.issued_at_s == 3600


def test_a_named_key_is_used_by_its_name(sequencer: Command, keyring: Path) -> None:
    jwks, key = keyring / "jwks.json", keyring / "named.pem"
    assert sequencer("token", "new-key", "--out", key, "--jwks", jwks, "--kid", "2026-11").code == 0
    with pytest.raises(TokenRefused):
        believed(issue(sequencer, key).out, jwks)  # a PEM file cannot hold the name
    assert believed(issue(sequencer, key, "--kid", "2026-11").out, jwks)
    again = sequencer("token", "new-key", "--out", keyring / "x.pem", "--jwks", jwks, "--kid", "2026-11")
    assert (again.code, (keyring / "x.pem").exists()) == (2, False)
    assert "same kid" in again.err


def test_a_token_says_what_was_asked_for(sequencer: Command, keyring: Path) -> None:
    out = keyring / "token"
    more = ("--store", STORE, "--ttl", "15m", "--audience", "orders", "--issuer", "me", "--out", out)
    said = issue(sequencer, keyring / "one.pem", *more)
    assert said.code == 0
    assert mode(out) == 0o600
    text = out.read_text()
    assert text.strip() not in said.out
    token = believed(text, keyring / "jwks.json", Rules(issuer="me", audience="orders"))
    assert token.store_ids == (uuid.UUID(STORE).bytes,)
    assert token.expires_at_s - token.issued_at_s == 900
    assert issue(sequencer, keyring / "one.pem", "--out", out).code == 2, "never overwritten"
    told = issue(sequencer, keyring / "one.pem", "--json").json
    assert believed(told["token"], keyring / "jwks.json")


@pytest.mark.parametrize("ttl", ["25h", "2d", "0s", "1", "h", "-1h", "1.5h", "1w"])
def test_a_lifetime_the_server_would_refuse_is_refused_here(
    sequencer: Command, keyring: Path, ttl: str
) -> None:
    said = issue(sequencer, keyring / "one.pem", f"--ttl={ttl}")
    assert (said.code, said.out) == (2, "")


def test_a_private_key_is_never_replaced_or_used_when_others_can_read_it(
    sequencer: Command, keyring: Path
) -> None:
    key, jwks = keyring / "one.pem", keyring / "jwks.json"
    before = key.read_text(), jwks.read_text()
    again = sequencer("token", "new-key", "--out", key, "--jwks", jwks)
    assert again.code == 2
    assert "never overwritten" in again.err
    assert (key.read_text(), jwks.read_text()) == before
    key.chmod(0o640)
    said = issue(sequencer, key)
    assert said.code == 2
    assert "read by others" in said.err


def test_a_broken_key_set_is_not_written_over(sequencer: Command, tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text('{"keys": [')
    said = sequencer("token", "new-key", "--out", tmp_path / "k.pem", "--jwks", jwks)
    assert said.code == 2
    assert jwks.read_text() == '{"keys": ['
    assert not (tmp_path / "k.pem").exists()
    nowhere = sequencer("token", "new-key", "--out", tmp_path / "k.pem", "--jwks", tmp_path / "no" / "jwks")
    assert nowhere.code == 2


@pytest.mark.parametrize("content", ["", "no key", "{}", '{"kty":"OKP","crv":"Ed25519","d":"AA"}'])
def test_a_file_that_is_no_key_is_refused_without_showing_it(
    sequencer: Command, tmp_path: Path, content: str
) -> None:
    key = tmp_path / "k.pem"
    key.touch(mode=0o600)
    key.write_text(content)
    said = issue(sequencer, key)
    assert (said.code, said.out) == (2, "")
    assert "no private Ed25519 key" in said.err


def test_inspecting_shows_what_a_token_says_and_that_nobody_checked_it(
    sequencer: Command, tmp_path: Path
) -> None:
    text, file = signed(claims(exp=1_800_003_600)), tmp_path / "token"
    file.write_text(text + "\n")
    said = sequencer("token", "inspect", file)
    assert said.code == 0
    assert said.out.startswith("NOT VERIFIED")
    assert "2027-01-15T09:00:00Z" in said.out
    told = sequencer("token", "inspect", file, "--json").json
    assert told["verified"] is False
    assert told["claims"]["sub"] == claims()["sub"]
    signature = text.rpartition(".")[2]
    assert signature not in said.out
    assert base64.urlsafe_b64decode(signature + "==").hex() not in said.out
    for wrong in ("x", "a.b.c", "..", text + ".x"):
        file.write_text(wrong)
        assert sequencer("token", "inspect", file).code == 2
    file.write_text(signed({"exp": 10**40, "nbf": "soon", "sub": "\x1b[31m"}))
    assert "\x1b" not in sequencer("token", "inspect", file).out


def test_revoking_and_listing_through_the_admin_listener(
    sequencer: Command, monkeypatch: pytest.MonkeyPatch, admin_url: str
) -> None:
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", BOOTSTRAP)
    monkeypatch.setenv("SEQUENCER_ADMIN_URL", admin_url)
    assert "no token was revoked" in sequencer("token", "revocations").out
    revoke = ("token", "revoke", "--tenant", TENANT)
    assert sequencer(*revoke).code == 2
    assert sequencer(*revoke, "--agent", AGENT, "--subject", AGENT).code == 2
    said = sequencer(*revoke, "--agent", AGENT, "--reason", "lost laptop")
    assert said.code == 0, said.err
    assert AGENT in said.out
    assert sequencer(*revoke, "--subject", TENANT, "--json").json["subject"] == TENANT
    listed = sequencer("token", "revocations", "--tenant", TENANT)
    assert [line.split()[4] for line in listed.out.splitlines()] == [AGENT, TENANT]
    assert "lost laptop" in listed.out


@pytest.fixture
def admin_url() -> Iterator[str]:
    """A served house in a thread of its own, for the command brings its own event loop."""
    up, started = threading.Event(), list[Any]()

    async def live() -> None:
        async with serving() as house:
            started.extend((house.admin_url, trio.lowlevel.current_trio_token(), trio.Event()))
            up.set()
            await started[2].wait()

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    thread = threading.Thread(target=trio.run, args=(live,))
    thread.start()
    assert up.wait(5)
    yield started[0]
    structlog.reset_defaults()
    trio.from_thread.run_sync(started[2].set, trio_token=started[1])
    thread.join(10)
    assert not thread.is_alive()
