"""The command as people use it: what it prints, what it leaves on disk, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cli.conftest import API_KEY, Command, Said
from tests.client.playing import INGEST, Fails, PlayedSequencer
from transport.client.agent import Agent
from ves.encoding import uuid_bytes
from ves.records import KeyName

ADMIN_KEYS = "/api/v1/admin/api-keys"


class Desk(NamedTuple):
    """An agent's files, and the options that name its stream."""

    key: Path
    orders: Path
    receipts: Path
    to: list[str]
    stream: list[str]


@pytest.fixture
def desk(play: PlayedSequencer, tmp_path: Path) -> Desk:
    honest = play.honest
    key, orders = tmp_path / "agent.json", tmp_path / "orders.jsonl"
    name = KeyName(uuid_bytes(honest.tenant_id), uuid_bytes(honest.agent_id), 1)
    Agent(name, bytes([1]) * 32).save(key)
    drafts = [
        {"entity_type": "order", "entity_id": f"o-{n}", "event_type": "order.created", "payload": {"n": n}}
        for n in range(5)
    ]
    orders.write_text("\n".join(json.dumps(draft) for draft in drafts))
    to = ["--url", play.url, "--patience", "0.5"]
    stream = ["--tenant", honest.tenant_id, "--store", honest.store_id]
    return Desk(key, orders, tmp_path / "receipts.jsonl", to, stream)


def post(sequencer: Command, desk: Desk, *more: object) -> Said:
    return sequencer(
        "agent", "post", desk.orders, "--key", desk.key, "--store", desk.stream[3],
        "--receipts", desk.receipts, *desk.to, *more,
    )  # fmt: skip


def test_an_agents_whole_way_from_events_to_an_offline_proof(
    play: PlayedSequencer, sequencer: Command, desk: Desk, tmp_path: Path
) -> None:
    assert sequencer("agent", "register", "--key", desk.key, *desk.to).code == 0
    posted = post(sequencer, desk, "--json")
    assert posted.code == 0
    assert posted.json == {"ok": True, "accepted": 5, "replayed": 0, "rejected": 0, "head_sequence": 5}
    assert "pinned" in posted.err
    play.honest.commit()

    pulled = sequencer("agent", "pull", *desk.stream, *desk.to, "--from", 2, "--limit", 3)
    assert pulled.code == 0
    assert [json.loads(line)["payload"]["n"] for line in pulled.out.splitlines()] == [1, 2, 3]

    verified = sequencer("agent", "verify", *desk.stream, *desk.to, "--receipts", desk.receipts)
    assert verified.code == 0
    assert "all promises hold" in verified.out

    proof = tmp_path / "proof.json"
    assert sequencer("agent", "prove", 3, *desk.stream, *desk.to, "--out", proof).code == 0

    assert "5 receipts checked: valid" in sequencer("verify", "receipt", desk.receipts).out
    checked = sequencer("verify", "proof", proof, "--json")
    assert (checked.code, checked.json["ok"], checked.json["trusted"]) == (0, True, True)
    assert set(play.authorizations) == {f"ApiKey {API_KEY}"}


def test_keygen_writes_a_key_for_its_owner_alone_and_never_over_another(
    sequencer: Command, tmp_path: Path
) -> None:
    path, tenant = tmp_path / "key.json", "6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11"
    made = sequencer("agent", "keygen", path, "--tenant", tenant, "--json")
    assert made.code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["seed"] not in made.out
    assert made.json["public_key"] == json.loads(path.read_text())["public_key"]
    again = sequencer("agent", "keygen", path, "--tenant", tenant)
    assert again.code == 2
    assert "never overwritten" in again.err


def test_an_interrupted_post_is_resumed_with_the_same_signed_events(
    play: PlayedSequencer, sequencer: Command, desk: Desk
) -> None:
    play.script[INGEST].extend([Fails(lost="after"), Fails(503, retry_after="60")])
    interrupted = post(sequencer, desk)
    assert interrupted.code == 4
    assert "--resume" in interrupted.err
    outbox = desk.key.with_name("agent.json.outbox")
    assert outbox.exists()

    refused = post(sequencer, desk)
    assert refused.code == 2
    assert "--resume" in refused.err

    resumed = sequencer("agent", "post", "--resume", "--key", desk.key, "--receipts", desk.receipts, *desk.to)
    assert resumed.code == 0
    assert "0 accepted, 5 there already" in resumed.out
    assert len(set(play.bodies[INGEST])) == 1
    assert not outbox.exists()
    assert len(play.honest.events) == 5
    assert sequencer("verify", "receipt", desk.receipts).code == 0
    assert sequencer("agent", "post", "--resume", "--key", desk.key, *desk.to).code == 2


def test_rejected_events_are_named_and_make_the_command_fail(
    play: PlayedSequencer, sequencer: Command, desk: Desk
) -> None:
    def reject_last(answer: Any) -> Any:
        last = answer["receipts"].pop()
        rejection = {"event_id": last["eventId"], "reason": "invalid_signature", "message": "it is wrong"}
        return answer | {"eventsAccepted": 4, "eventsRejected": 1, "rejections": [rejection]}

    play.spoil[INGEST] = reject_last
    said = post(sequencer, desk)
    assert said.code == 1
    assert "invalid_signature" in said.err
    assert "4 accepted, 0 there already, 1 rejected" in said.out


def test_posting_goes_in_requests_of_the_size_asked_for(
    play: PlayedSequencer, sequencer: Command, desk: Desk
) -> None:
    assert post(sequencer, desk, "--batch", 2).code == 0
    assert [len(json.loads(body)["events"]) for body in play.bodies[INGEST]] == [2, 2, 1]


def test_without_a_file_the_events_come_from_stdin(
    play: PlayedSequencer, sequencer: Command, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk.orders.open() as orders:
        monkeypatch.setattr("sys.stdin", orders)
        said = sequencer("agent", "post", "--key", desk.key, "--store", desk.stream[3], *desk.to)
    assert said.code == 0
    assert len(play.honest.events) == 5


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2"),
        ('{"entity_type": "a", "entity_id": "b", "event_type": "c"}', "payload"),
        ('{"entity_type": "a", "entity_id": "b", "event_type": "c", "payload": null}', "not null"),
        (
            '{"entity_type": "a", "entity_id": "b", "event_type": "c", "payload": 1, "comand_id": 1}',
            "comand_id",
        ),
        ('{"entity_type": "a", "entity_id": "b", "event_type": "c", "payload": 9007199254740993}', "2^53"),
        ('{"entity_type": "a", "entity_id": "b", "event_type": "c", "payload": {"a": 1, "a": 2}}', "twice"),
    ],
)
def test_an_event_that_would_be_refused_is_named_before_anything_is_signed_or_sent(
    play: PlayedSequencer, sequencer: Command, desk: Desk, line: str, sentence: str
) -> None:
    desk.orders.write_text(desk.orders.read_text().splitlines()[0] + "\n" + line)
    said = post(sequencer, desk)
    assert said.code == 2
    assert "line 2" in said.err
    assert sentence in said.err
    assert play.bodies[INGEST] == []
    assert not desk.key.with_name("agent.json.outbox").exists()


def test_a_broken_stream_makes_verify_fail_and_say_where(
    play: PlayedSequencer, sequencer: Command, desk: Desk
) -> None:
    post(sequencer, desk)
    play.honest.events[2]["payload"] = {"n": 99}
    said = sequencer("agent", "verify", *desk.stream, *desk.to)
    assert said.code == 1
    assert "event 3" in said.out
    assert "NOT all promises hold" in said.out
    as_json = sequencer("agent", "verify", *desk.stream, *desk.to, "--json")
    assert as_json.json["ok"] is False
    pulled = sequencer("agent", "pull", *desk.stream, *desk.to)
    assert pulled.code == 1
    assert pulled.out == ""


# ---- offline


def test_a_receipt_nobody_we_trust_vouches_for_is_consistent_but_not_trusted(
    play: PlayedSequencer, sequencer: Command, desk: Desk, tmp_path: Path
) -> None:
    post(sequencer, desk)
    stranger = ["--pins", tmp_path / "other-pins.json"]
    said = sequencer("verify", "receipt", desk.receipts, *stranger)
    assert said.code == 3
    assert "consistent, not trusted" in said.out

    trust = tmp_path / "trust.json"
    trust.write_text(json.dumps(play.well_known()))
    assert sequencer("verify", "receipt", desk.receipts, "--trust", trust).code == 0
    key = "0x" + play.honest.agent_key.public_key().public_bytes_raw().hex()
    agent = {"tenant_id": desk.stream[1], "agent_id": play.honest.agent_id, "key_id": 1, "public_key": key}
    trust.write_text(json.dumps(play.well_known() | {"agent_keys": [agent]}))
    with_agents = sequencer("verify", "receipt", desk.receipts, "--trust", trust, "--json")
    assert with_agents.json["agent_signatures_checked"] is True
    trust.write_text(
        json.dumps(play.well_known() | {"agent_keys": [agent | {"public_key": "0x" + "ab" * 32}]})
    )
    wrong = sequencer("verify", "receipt", desk.receipts, "--trust", trust)
    assert wrong.code == 1
    assert "agent's key did not sign" in wrong.out


def test_offline_a_later_key_is_believed_if_the_trusted_one_signed_it(
    play: PlayedSequencer, sequencer: Command, desk: Desk, tmp_path: Path
) -> None:
    trust, later = tmp_path / "trust.json", tmp_path / "well-known.json"
    trust.write_text(json.dumps(play.well_known()))
    old, new = play.honest.sequencer_key, Ed25519PrivateKey.generate()
    public_key = new.public_key().public_bytes_raw()
    statement = hashlib.sha256(
        b"VES_RECEIPT_KEY_V1" + uuid.UUID(play.honest.sequencer_id).bytes + b"\0\0\0\2" + public_key
    ).digest()

    def published(signature: bytes) -> str:
        (first,) = play.well_known()["receipt_keys"]
        second = first | {"key_version": 2, "public_key": "0x" + public_key.hex()}
        second["previous_signature"] = "0x" + signature.hex()
        return json.dumps(play.well_known() | {"receipt_keys": [first, second]})

    later.write_text(published(old.sign(statement)))
    post(sequencer, desk)
    kept = json.loads(desk.receipts.read_text().splitlines()[0])
    signed = new.sign(bytes.fromhex(kept["receipt"]["receiptHash"].removeprefix("0x")))
    kept["receipt"] |= {"sequencerKeyVersion": 2, "sequencerSignature": signed.hex()}
    desk.receipts.write_text(json.dumps(kept))
    assert sequencer("verify", "receipt", desk.receipts, "--trust", trust).code == 3
    assert sequencer("verify", "receipt", desk.receipts, "--trust", trust, "--keys", later).code == 0
    later.write_text(published(new.sign(statement)))
    refused = sequencer("verify", "receipt", desk.receipts, "--trust", trust, "--keys", later)
    assert refused.code != 0
    assert "not signed by" in refused.err
    assert sequencer("verify", "receipt", desk.receipts, "--trust", later).code == 2, "a trust file neither"


def test_a_reason_that_is_no_reason_but_a_book_is_refused_before_anything_is_made(
    sequencer: Command,
) -> None:
    refused = sequencer("receipt-key", "rotate", "--reason", "x" * 501)
    assert refused.code == 2
    assert "at most 500" in refused.err
    assert sequencer("receipt-key", "rotate", "--reason", "x" * 500).code == 7


def test_the_published_receipt_keys_are_listed_and_their_chain_is_checked(
    play: PlayedSequencer, sequencer: Command
) -> None:
    listed = sequencer("receipt-key", "list", "--url", play.url)
    assert listed.code == 0
    assert "version 1" in listed.out
    (first,) = play.well_known()["receipt_keys"]
    stray = first | {"key_version": 2, "public_key": "0x" + "ab" * 32, "previous_signature": "0x" + "0" * 128}
    play.spoil["/.well-known/ves-sequencer"] = lambda shown: shown | {"receipt_keys": [first, stray]}
    listed = sequencer("receipt-key", "list", "--url", play.url)
    assert listed.code == 1
    assert "BROKEN CHAIN: version 2 is not signed by version 1" in listed.out


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("entity_id", "other"),
        ("payload", {"n": 77}),
        ("event_id", "6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11"),
        ("payload_plain_hash", "0x" + "11" * 32),
    ],
)
def test_a_receipt_for_an_altered_event_is_not_valid_trusted_or_not(
    play: PlayedSequencer, sequencer: Command, desk: Desk, tmp_path: Path, member: str, value: object
) -> None:
    post(sequencer, desk)
    kept = json.loads(desk.receipts.read_text().splitlines()[0])
    kept["event"][member] = value
    desk.receipts.write_text(json.dumps(kept, indent=2))
    for pins in ([], ["--pins", tmp_path / "none.json"]):
        said = sequencer("verify", "receipt", desk.receipts, *pins)
        assert said.code == 1
        assert "NOT valid" in said.out


def test_a_proof_that_starts_at_the_root_does_not_pass_for_an_event(
    play: PlayedSequencer, sequencer: Command, desk: Desk, tmp_path: Path
) -> None:
    post(sequencer, desk)
    play.honest.commit()
    proof = tmp_path / "proof.json"
    sequencer("agent", "prove", 3, *desk.stream, *desk.to, "--out", proof)
    kept = json.loads(proof.read_text())
    kept["proof"] |= {
        "leaf_hash": kept["proof"]["merkle_root"],
        "proof_path": [],
        "directions": [],
        "leaf_index": 0,
    }
    proof.write_text(json.dumps(kept))
    said = sequencer("verify", "proof", proof)
    assert said.code == 1
    assert "NOT valid" in said.out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"event": {}}', "\x00"])
@pytest.mark.parametrize("kind", ["receipt", "proof"])
def test_a_file_of_another_kind_is_said_to_be_one(
    sequencer: Command, tmp_path: Path, kind: str, content: str
) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    said = sequencer("verify", kind, file)
    assert said.code == 1
    assert "file.json" in said.err


def test_a_missing_file_is_named(sequencer: Command, tmp_path: Path) -> None:
    said = sequencer("verify", "receipt", tmp_path / "nothing.json")
    assert said.code == 2
    assert "nothing.json" in said.err


# ---- API keys


def test_an_api_key_is_made_with_the_bootstrap_key_of_this_machine_and_shown_once(
    play: PlayedSequencer, sequencer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "bootstrap-admin-api-key").write_text("ss_bootstrap-of-this-machine\n")
    monkeypatch.setenv("SEQUENCER_URL", "http://127.0.0.1:1")  # the public one: not where keys are made
    tenant = play.honest.tenant_id
    made = {
        "id": tenant,
        "prefix": "ss_new",
        "tenantId": tenant,
        "permissions": ["read"],
        "apiKey": "ss_new-key",
    }
    play.script[ADMIN_KEYS].extend([Fails(201, body=json.dumps(made).encode())] * 2)
    create = ["api-key", "create", "--tenant", tenant, "--permission", "read", "--permission", "write"]
    shown = sequencer(*create, "--admin-url", play.url)
    assert shown.code == 0
    assert shown.out.startswith("ss_new-key\n")
    assert json.loads(play.bodies[ADMIN_KEYS][0]) == {"tenantId": tenant, "permissions": ["read", "write"]}
    assert play.authorizations == ["ApiKey ss_bootstrap-of-this-machine"]

    out = tmp_path / "tenant-key"
    kept = sequencer(*create, "--admin-url", play.url, "--out", out)
    assert kept.code == 0
    assert "ss_new-key" not in kept.out
    assert out.read_text() == "ss_new-key\n"
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_key_of_a_role_with_an_end_and_a_rate_limit_is_asked_for(
    play: PlayedSequencer, sequencer: Command
) -> None:
    tenant = play.honest.tenant_id
    end = "2030-01-01T00:00:00+00:00"
    made = {"id": tenant, "prefix": "sk_live_abcd", "tenantId": tenant, "permissions": [], "role": "agent"}
    made |= {"apiKey": "sk_live_new-key", "expiresAt": end, "rateLimit": 60}
    play.script[ADMIN_KEYS].extend([Fails(201, body=json.dumps(made).encode())] * 2)
    create = ["api-key", "create", "--admin-url", play.url, "--tenant", tenant, "--role", "agent"]
    shown = sequencer(*create, "--expires", end, "--rate-limit", "60")
    assert shown.out.startswith("sk_live_new-key\n")
    assert f"role agent, tenant {tenant}, until {end}" in shown.out
    asked = {"tenantId": tenant, "role": "agent", "expiresAt": end, "rateLimit": 60}
    assert json.loads(play.bodies[ADMIN_KEYS][0]) == asked
    before = datetime.now(UTC)
    assert sequencer(*create, "--expires", "90d").code == 0
    ninety_days = datetime.fromisoformat(json.loads(play.bodies[ADMIN_KEYS][1])["expiresAt"]) - before
    assert timedelta(days=89, hours=23) < ninety_days < timedelta(days=90, hours=1)


@pytest.mark.parametrize("what", [[], ["--role", "agent", "--permission", "read"]])
def test_a_key_has_either_a_role_or_permissions(
    play: PlayedSequencer, sequencer: Command, what: list[str]
) -> None:
    create = ["api-key", "create", "--admin-url", play.url, "--tenant", play.honest.tenant_id]
    said = sequencer(*create, *what)
    assert said.code == 2
    assert "--role" in said.err
    assert play.bodies[ADMIN_KEYS] == []


def test_a_key_file_that_cannot_be_made_stops_before_a_key_is_made(
    play: PlayedSequencer, sequencer: Command, tmp_path: Path
) -> None:
    out = tmp_path / "there"
    out.write_text("precious")
    create = ["api-key", "create", "--tenant", play.honest.tenant_id, "--permission", "read", "--out", out]
    said = sequencer(*create, "--admin-url", play.url)
    assert said.code == 2
    assert play.bodies[ADMIN_KEYS] == []
    assert out.read_text() == "precious"


def test_a_refused_key_leaves_no_file(play: PlayedSequencer, sequencer: Command, tmp_path: Path) -> None:
    play.script[ADMIN_KEYS].append(Fails(403, body=b'{"error": {"code": "X", "message": "not you"}}'))
    out = tmp_path / "key"
    create = ["api-key", "create", "--tenant", play.honest.tenant_id, "--permission", "read", "--out", out]
    said = sequencer(*create, "--admin-url", play.url, "--json")
    assert said.code == 1
    assert said.json == {"ok": False, "error": {"code": "X", "message": "403 X: not you"}}
    assert not out.exists()


def test_api_keys_are_listed_page_by_page_and_revoked_by_id(
    play: PlayedSequencer, sequencer: Command
) -> None:
    tenant = play.honest.tenant_id
    entry = {
        "id": tenant,
        "prefix": "ss_abc",
        "tenantId": tenant,
        "permissions": ["read"],
        "createdAt": "then",
    }
    pages = [
        {"apiKeys": [entry], "count": 1, "has_more": True, "next_after": tenant},
        {"apiKeys": [entry], "count": 1, "has_more": False, "next_after": None},
    ]
    play.script[ADMIN_KEYS].extend(Fails(200, body=json.dumps(page).encode()) for page in pages)
    listed = sequencer("api-key", "list", "--admin-url", play.url, "--json")
    assert [key["prefix"] for key in listed.json["apiKeys"]] == ["ss_abc", "ss_abc"]
    ended = {"role": "reader", "expiresAt": "soon", "expired": True, "rateLimit": 60}
    play.script[ADMIN_KEYS].append(Fails(200, body=json.dumps(pages[1]).encode()))
    assert "ss_abc" in sequencer("api-key", "list", "--admin-url", play.url).out
    pages[1]["apiKeys"] = [entry | ended]
    play.script[ADMIN_KEYS].append(Fails(200, body=json.dumps(pages[1]).encode()))
    listed = sequencer("api-key", "list", "--prefix", "ss_abc", "--admin-url", play.url)
    assert "role reader" in listed.out
    assert "60 requests per minute" in listed.out
    assert "EXPIRED soon" in listed.out
    play.script[f"{ADMIN_KEYS}/{tenant}"].append(Fails(200, body=b"{}"))
    assert sequencer("api-key", "revoke", tenant, "--admin-url", play.url).code == 0
    assert sequencer("api-key", "revoke", tenant, "--admin-url", play.url).code == 1


# ---- status and usage


def test_status_tells_ready_from_not_ready_from_not_there(play: PlayedSequencer, sequencer: Command) -> None:
    ready = sequencer("status", "--url", play.url)
    assert ready.code == 0
    assert "ready" in ready.out
    assert play.honest.sequencer_id in ready.out
    play.script["/ready"].append(Fails(503, body=b'{"error": {}, "message": "the database is away"}'))
    waiting = sequencer("status", "--url", play.url, "--json")
    assert waiting.code == 1
    assert (waiting.json["ready"], waiting.json["reason"]) == (False, "the database is away")
    gone = sequencer("status", "--url", "http://127.0.0.1:9")
    assert gone.code == 4


def test_the_address_of_a_server_on_this_machine_is_found_under_its_data_dir(
    play: PlayedSequencer, sequencer: Command, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "server.json").write_text(json.dumps({"url": play.url, "admin_url": "", "pid": 1}))
    assert sequencer("status").code == 0


def test_the_bootstrap_key_goes_to_no_address_that_nobody_named(
    sequencer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[object] = []
    monkeypatch.setattr("trio.open_tcp_stream", lambda *to, **_: connected.append(to))
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "bootstrap-admin-api-key").write_text("ss_bootstrap-of-this-machine\n")
    for command in (["api-key", "list"], ["actors", "tree"]):
        said = sequencer(*command)
        assert said.code == 2
        assert f"no server runs on DATA_DIR {tmp_path / 'data'}" in said.err
    assert connected == []


def test_a_refused_credential_is_told_by_where_it_came_from(
    play: PlayedSequencer, sequencer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tenant.key"
    file.write_text("ss_a-tenants-key")
    monkeypatch.setenv("SEQUENCER_API_KEY_FILE", str(file))
    play.script[ADMIN_KEYS].append(Fails(403))
    said = sequencer("api-key", "list", "--admin-url", play.url)
    assert said.code == 1
    assert f"SEQUENCER_API_KEY_FILE={file}" in said.err


def test_a_missing_credential_is_noticed_before_anything_is_signed(
    sequencer: Command, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQUENCER_API_KEY_FILE", str(desk.key.with_name("not-there.key")))
    said = post(sequencer, desk)
    assert said.code == 2
    assert "not-there.key" in said.err
    assert not desk.key.with_name("agent.json.outbox").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["agent", "post"],
        ["agent", "pull", "--tenant", "no-uuid", "--store", "no-uuid"],
        ["agent", "pull", "--tenant", "6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11"],
        ["api-key", "create", "--tenant", "6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11", "--permission", "root"],
        ["status", "--url", "ftp://a"],
        ["status", "--url", "http://user:secret@127.0.0.1"],
    ],
)
def test_wrong_usage_is_exit_code_2(sequencer: Command, arguments: list[str]) -> None:
    assert sequencer(*arguments).code == 2


def test_a_key_for_another_machine_is_not_sent_in_clear_text(sequencer: Command) -> None:
    said = sequencer("status", "--url", "http://sequencer.example")
    assert said.code == 2
    assert "plain http" in said.err


def test_serve_and_migrate_are_the_ones_handed_in(sequencer: Command) -> None:
    assert sequencer("serve").code == 7
    assert sequencer("migrate").code == 7
    assert "serve" in sequencer("--help").out


def test_asking_for_the_anchor_takes_all_that_a_connection_takes(
    play: PlayedSequencer, sequencer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, pins = tmp_path / "tenant.key", tmp_path / "pins.json"
    key.write_text(API_KEY)
    monkeypatch.setenv("SEQUENCER_API_KEY_FILE", str(key))
    monkeypatch.setenv("SEQUENCER_PINS", str(pins))
    for command in (["status"], ["retry", str(uuid.uuid4())]):
        play.script["/api/v1/anchor/status"].append(Fails(403))
        play.script["/api/v1/ves/anchor"].append(Fails(403))
        asked = sequencer("anchor", *command, "--url", play.url)
        assert (asked.code, "403" in asked.err) == (1, True)
    assert play.authorizations == [f"ApiKey {API_KEY}"] * 2
