"""Key files: made whole, kept closed, never shown."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
import threading
import uuid
from hashlib import sha256
from pathlib import Path

import pytest

from config.key_files import read_or_create_secret
from config.secret_sources import SecretsError
from config.secrets import Formats, Secrets, load_at_rest_keys, load_secrets, prepare_data_dir
from config.settings import Settings
from tests.keyholder import public_key_of
from ves.at_rest import key_id, parse_key

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    prepare_data_dir(tmp_path / "home")
    return tmp_path / "home"


def load(home: Path) -> Secrets:
    return load_secrets(Settings(), home, Formats(parse_key, key_id, public_key_of))


def seed_of(secrets: Secrets) -> bytes:
    seeds = secrets.keys.receipt_seeds
    return seeds.seed(seeds.public_keys()[0])


def bootstrap_of(home: Path) -> str:
    return (home / "keys/bootstrap-admin-api-key").read_text().strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_makes_everything_closed_to_others_and_a_second_one_finds_it(home: Path) -> None:
    first, second = load(home), load(home)
    assert {path.name for path in first.created} == {
        "bootstrap-admin-api-key",
        "receipt-signing-seed",
        "payload-encryption-keys",
        "sequencer-id",
    }
    assert second.created == ()
    assert (first.bootstrap_key_sha256, seed_of(first), first.sequencer_id) == (
        second.bootstrap_key_sha256,
        seed_of(second),
        second.sequencer_id,
    )
    assert first.keys.at_rest_ring() == second.keys.at_rest_ring()
    assert bootstrap_of(home).startswith("ss_")
    assert len(bootstrap_of(home)) >= 27
    assert first.bootstrap_key_sha256 == sha256(bootstrap_of(home).encode()).digest()
    assert len(seed_of(first)) == len(first.keys.at_rest_ring()[0]) == 32
    assert first.keys.at_rest_ring()[0] != seed_of(first)
    assert mode(home) == mode(home / "keys") == 0o700
    assert [mode(path) for path in (home / "keys").iterdir()] == [0o600] * 4, "and nothing else is left"


def test_two_first_starts_at_once_agree(home: Path) -> None:
    (home / "keys").mkdir(mode=0o700)
    found: list[tuple[str, bool]] = []
    gate = threading.Barrier(8)

    def start(n: int) -> None:
        gate.wait()
        found.append(read_or_create_secret(home / "keys/x", lambda: f"made-by-{n}"))

    threads = [threading.Thread(target=start, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({text for text, _ in found}) == 1
    assert sum(created for _, created in found) == 1


def test_nothing_is_made_where_the_environment_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", "ss_0123456789abcdefghijklmn")
    monkeypatch.setenv("VES_SEQUENCER_SIGNING_KEY", KEY.hex())
    monkeypatch.setenv("VES_SEQUENCER_ID", "6f1d7f0e-0000-4000-8000-000000000001")
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS", f"{OTHER.hex()},{KEY.hex()}")
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEY", "not even looked at")
    secrets = load(home)
    assert secrets.created == ()
    assert not (home / "keys").exists()
    assert secrets.bootstrap_key_sha256 == sha256(b"ss_0123456789abcdefghijklmn").digest()
    assert seed_of(secrets) == KEY
    assert secrets.sequencer_id == uuid.UUID("6f1d7f0e-0000-4000-8000-000000000001").bytes
    assert secrets.keys.at_rest_ring() == (OTHER, KEY), "the current one first"


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        "0x" + KEY.hex().upper(),
        base64.b64encode(KEY).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode().rstrip("="),
        f"  {KEY.hex()}\n",
    ],
)
def test_a_key_may_be_spelled_in_hex_base64_or_base64url(
    text: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEY", text)
    assert load(home).keys.at_rest_ring() in ((KEY,), (b"\xff" * 32,))


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("PAYLOAD_ENCRYPTION_KEYS", f"{KEY.hex()},0x{KEY.hex()}", "two keys have the same key id"),
        ("PAYLOAD_ENCRYPTION_KEYS", f"{KEY.hex()},", "key 2 is no key"),
        ("PAYLOAD_ENCRYPTION_KEY", f"{KEY.hex()},{OTHER.hex()}", "several go into PAYLOAD_ENCRYPTION_KEYS"),
        ("PAYLOAD_ENCRYPTION_KEY", KEY.hex()[2:], "is no key of 32 bytes"),
        ("VES_SEQUENCER_SIGNING_KEY", "canary", "VES_SEQUENCER_SIGNING_KEY is no key of 32 bytes"),
        ("BOOTSTRAP_ADMIN_API_KEY", "canary" * 8, "must start with ss_"),
        ("BOOTSTRAP_ADMIN_API_KEY", "ss_canary0123456789", "at least 24 random characters"),
        ("BOOTSTRAP_ADMIN_API_KEY", "ss_" + "a" * 40, "is not random"),
        ("BOOTSTRAP_ADMIN_API_KEY", "ss_canary 0123456789abcdefghij", "without spaces"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable_and_never_shown(
    variable: str, text: str, says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SecretsError, match=says) as refused:
        load(home)
    assert variable in str(refused.value)
    assert "canary" not in str(refused.value)
    assert KEY.hex()[:16] not in str(refused.value)


def test_the_same_rule_holds_for_a_key_from_a_file(home: Path) -> None:
    load(home)
    path = home / "keys/bootstrap-admin-api-key"
    path.write_text("ss_short")
    with pytest.raises(SecretsError, match=f"{path} must have at least 24"):
        load(home)


def test_a_file_that_others_can_read_is_refused_with_the_command_that_helps(home: Path) -> None:
    load(home)
    path = home / "keys/receipt-signing-seed"
    path.chmod(0o640)
    with pytest.raises(SecretsError, match=f"chmod 600 {path}"):
        load(home)
    path.chmod(0o600)
    (home / "keys").chmod(0o755)
    with pytest.raises(SecretsError, match=f"chmod 700 {home}/keys"):
        load(home)


@pytest.mark.parametrize(("content", "says"), [(b"", "is empty"), (b"\xff\xfe", "is no text")])
def test_a_damaged_file_is_refused_and_never_replaced(content: bytes, says: str, home: Path) -> None:
    load(home)
    path = home / "keys/payload-encryption-keys"
    path.write_bytes(content)
    with pytest.raises(SecretsError, match=says):
        load(home)
    assert path.read_bytes() == content


def test_a_start_makes_no_new_seed_where_a_rotated_one_is(home: Path) -> None:
    seeds = load(home).keys.receipt_seeds
    rotated = seeds.make(lambda name: None)
    (home / "keys/receipt-signing-seed").unlink()  # retired, and removed by the operator
    again = load(home)
    assert again.created == ()
    assert again.keys.receipt_seeds.public_keys() == [rotated]
    assert mode(home / f"keys/receipt-signing-seed.{rotated.hex()}") == 0o600


def test_the_ring_file_holds_several_keys_the_current_one_first(home: Path) -> None:
    load(home)
    (home / "keys/payload-encryption-keys").write_text(f"{OTHER.hex()}\n{KEY.hex()}\n")
    assert load(home).keys.at_rest_ring() == (OTHER, KEY)


def test_no_repr_shows_a_secret_and_keys_cannot_be_copied(home: Path) -> None:
    secrets = load(home)
    keys = secrets.keys
    shown = repr(secrets) + str(secrets) + repr(keys) + repr(keys.receipt_seeds)
    for secret in (seed_of(secrets), keys.at_rest_ring()[0]):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert bootstrap_of(home) not in shown
    for holder in (keys, keys.receipt_seeds):
        with pytest.raises(TypeError):
            pickle.dumps(holder)
        with pytest.raises(TypeError):
            copy.copy(holder)


def test_an_empty_data_dir_is_closed_and_a_full_open_one_is_refused(tmp_path: Path) -> None:
    fresh = tmp_path / "volume"
    fresh.mkdir(mode=0o755)
    fresh.chmod(0o755)
    prepare_data_dir(fresh)
    assert mode(fresh) == 0o700
    (fresh / "something").touch()
    fresh.chmod(0o755)
    with pytest.raises(SecretsError, match=f"chmod 700 {fresh}"):
        prepare_data_dir(fresh)
    fresh.chmod(0o711)  # may be passed through, not read
    prepare_data_dir(fresh)


def test_a_data_dir_that_is_a_file_is_refused_readably(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SecretsError, match="cannot be used"):
        prepare_data_dir(tmp_path / "file")
    with pytest.raises(SecretsError, match="cannot be used"):
        prepare_data_dir(tmp_path / "file/below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_data_dir_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(SecretsError, match="belongs to uid 65534"):
        prepare_data_dir(tmp_path)


def test_a_command_finds_the_rings_of_a_node_that_has_run_and_makes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = Formats(parse_key, key_id, public_key_of)
    with pytest.raises(SecretsError, match="no sequencer has run"):
        load_at_rest_keys(Settings(), home, formats)
    assert not (home / "keys").exists()
    secrets = load(home)
    sequencer_id, keys = load_at_rest_keys(Settings(), home, formats)
    assert (sequencer_id, keys.at_rest_ring()) == (secrets.sequencer_id, secrets.keys.at_rest_ring())
    assert keys.at_rest_current_ids == keys.at_rest_key_ids == [key_id(keys.at_rest_ring()[0])]

    (home / "keys" / "payload-encryption-keys").unlink()
    before = sorted(path.name for path in (home / "keys").iterdir())
    with pytest.raises(SecretsError, match="give this command the server's PAYLOAD_ENCRYPTION_KEYS"):
        load_at_rest_keys(Settings(), home, formats)
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS", f"{OTHER.hex()},{KEY.hex()}")
    _, keys = load_at_rest_keys(Settings(), home, formats)
    assert keys.at_rest_ring() == (OTHER, KEY)
    assert keys.at_rest_current_ids == [key_id(OTHER)]
    assert sorted(path.name for path in (home / "keys").iterdir()) == before
