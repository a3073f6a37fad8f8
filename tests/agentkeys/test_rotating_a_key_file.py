"""The agent's side of a rotation: whatever is interrupted, a key that works is on disk."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.agentkeys.rotating import listed
from tests.cli.conftest import Command
from tests.e2e.world import Agent as Stranger
from tests.e2e.world import Tenant
from transport.client.agent import Agent
from transport.client.errors import KeyFileError
from transport.client.rotation import KeyChange


class Died(Exception):
    pass


def dies(*_: object) -> None:
    raise Died


def key_file(folder: Path) -> Path:
    path = folder / "agent.json"
    Agent.generate(uuid.uuid4().bytes).save(path)
    return path


def key_ids(folder: Path) -> dict[str, int]:
    return {path.name: Agent.load(path).name.key_id for path in folder.iterdir()}


def test_a_change_leaves_the_new_key_in_place_and_the_old_one_beside_it(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    change = KeyChange(path)
    new = change.prepare(2)
    assert key_ids(tmp_path) == {"agent.json": 1, "agent.json.next": 2}
    change.switch()
    assert key_ids(tmp_path) == {"agent.json": 2, "agent.json.old-1": 1}
    assert Agent.load(path).public_key == new.public_key
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


@pytest.mark.parametrize("call", ["link", "replace"])
def test_a_change_that_is_interrupted_anywhere_goes_on_with_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = key_file(tmp_path)
    old = Agent.load(path)
    new = KeyChange(path).prepare(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, dies)
        with pytest.raises(Died):
            KeyChange(path).switch()
    change = KeyChange(path)
    assert change.agent.public_key == old.public_key
    waiting = change.waiting()
    assert waiting is not None
    assert waiting.public_key == new.public_key == change.prepare(7).public_key
    change.switch()
    assert Agent.load(path).public_key == new.public_key
    assert Agent.load(change.old_path).public_key == old.public_key


def test_neither_a_foreign_next_key_nor_another_old_one_is_touched(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    foreign = tmp_path / "agent.json.next"
    Agent.generate(uuid.uuid4().bytes, key_id=2).save(foreign)
    with pytest.raises(KeyFileError, match="no successor"):
        KeyChange(path).prepare(2)
    foreign.unlink()
    change = KeyChange(path)
    change.prepare(2)
    change.old_path.write_text("something else")
    with pytest.raises(KeyFileError, match="move it away"):
        change.switch()
    assert Agent.load(path).name.key_id == 1
    assert change.old_path.read_text() == "something else"


def test_the_command_rotates_with_the_agents_own_credential_and_goes_on_when_interrupted(
    tenant: Tenant, sequencer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    path = folder / "agent.json"
    mine = Agent.generate(tenant.tenant_id.bytes, tenant.agent.agent_id.bytes, 2)
    mine.save(path)
    body = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 2}
    body["publicKey"] = mine.public_key.hex()
    assert tenant.http.post("/api/v1/agents/keys", json=body).status_code == 200
    own = tenant.new_api_key(["read", "write"], agentId=str(tenant.agent.agent_id))
    monkeypatch.setenv("DATA_DIR", str(tenant.server.data_dir))
    monkeypatch.setenv("SEQUENCER_API_KEY", own)

    def rotate(*more: str) -> dict[str, Any]:
        done = sequencer("agent-key", "rotate", "--key", path, "--json", *more)
        assert done.code == 0, done.err
        return dict(done.json)

    # Another key of the agent is in the way of 3: the next free id is taken.
    other = Stranger(tenant.tenant_id, tenant.store_id, tenant.agent.agent_id, 3)
    tenant.http.post("/api/v1/agents/keys", json={**body, "keyId": 3, "publicKey": other.public_key})
    waiting = KeyChange(path).prepare(4)  # as an interrupted command left it
    told = rotate("--grace-secs", "3600")
    assert (told["replaces"], told["key_id"]) == (2, 4)
    assert Agent.load(path).public_key == waiting.public_key
    keys = listed(tenant, tenant.agent)
    assert (keys[2]["replacedBy"], keys[4]["proofOfPossession"]) == (4, 2)
    assert keys[2]["rotationSignature"] is not None
    assert rotate()["key_id"] == 5
    assert key_ids(folder) == {"agent.json": 5, "agent.json.old-2": 2, "agent.json.old-4": 4}


def test_operators_list_revoke_and_look_at_what_was_signed(
    tenant: Tenant, sequencer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tenant.server.data_dir))
    monkeypatch.delenv("SEQUENCER_API_KEY")  # on the server's machine the bootstrap key is at hand
    agent = tenant.agent
    tenant.post(agent.event({"n": 1}))
    who = ["--tenant", tenant.tenant_id, "--agent", agent.agent_id]
    both = sequencer("agent-key", "revoke", *who, "--key-id", 1, "--all-keys", "--reason", "lost")
    assert both.code == 2
    assert "either --key-id or --all-keys" in both.err
    done = sequencer("agent-key", "revoke", *who, "--all-keys", "--reason", "suspected_compromise")
    assert done.code == 0, done.err
    listing = sequencer("agent-key", "list", *who[:2], "--status", "revoked")
    assert listing.code == 0, listing.err
    assert f"agent {agent.agent_id}  key 1  revoked" in listing.out
    assert "(suspected_compromise)" in listing.out
    events = sequencer("agent-key", "events", *who, "--key-id", 1)
    assert events.code == 0, events.err
    assert json.loads(events.out)["sequence_number"] == 1
