"""Secrets from a variable, a file or a command: exactly one of them, nothing shown, nobody else reads it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from config import secret_sources
from config.database_tls import database_address
from config.exposure import Exposed
from config.secret_sources import SECRET_BYTES_MAX, SecretsError, forget, secret_settings
from config.settings import OF_THE_HOUSE, Settings

CANARY = "canary-7d1f4e2b9a"
SECRETS = [name.upper() for name in secret_settings(Settings)]


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        for way in ("", "_FILE", "_COMMAND"):
            monkeypatch.delenv(name.upper() + way, raising=False)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o400)
    return path


def value_of(name: str) -> str:
    secret = getattr(Settings(_env_file=None), name.lower())
    assert isinstance(secret, SecretStr)
    return secret.get_secret_value()


def refusal(name: str) -> str:
    with pytest.raises(SecretsError) as refused:
        value_of(name)
    assert CANARY not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_setting_may_come_from_a_file_or_a_command(
    name: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name}_FILE", str(kept))
    assert value_of(name) == CANARY
    monkeypatch.delenv(f"{name}_FILE")
    monkeypatch.setenv(f"{name}_COMMAND", f"echo '{CANARY}'")
    assert value_of(name) == CANARY


@pytest.mark.parametrize("ways", [("", "_FILE"), ("", "_COMMAND"), ("_FILE", "_COMMAND")])
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_is_given_twice_is_refused_by_the_names_of_both(
    name: str, ways: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for way in ways:
        monkeypatch.setenv(name + way, CANARY)
    with pytest.raises(ValidationError) as refused:
        Settings()
    (error,) = refused.value.errors()
    assert error["loc"] == (name.lower(),)
    assert all(name + way in error["msg"] for way in ways)
    assert CANARY not in str(refused.value)


def test_nothing_is_read_or_run_before_its_owner_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setenv("SEQUENCER_PRIVATE_KEY_COMMAND", f"touch {ran}")
    monkeypatch.setenv("DATABASE_URL_FILE", "/nonexistent")
    settings = Settings()
    shown = repr(settings) + str(settings.model_dump())
    assert settings == Settings()
    assert hash(settings.database_url) != hash(settings.sequencer_private_key)
    assert not ran.exists()
    assert str(ran) not in shown
    assert settings.sequencer_private_key is not None
    with pytest.raises(SecretsError, match="gives nothing"):
        settings.sequencer_private_key.get_secret_value()
    assert ran.exists(), "the fixture shows nothing if the command would not have run"


def test_a_mounted_secret_that_is_a_chain_of_symlinks_is_followed_also_after_it_was_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(version: str, text: str) -> None:
        """As the kubelet does: a folder per version, ``..data`` swapped in one step."""
        folder = tmp_path / version
        folder.mkdir()
        (folder / "key").write_text(text)
        (folder / "key").chmod(0o440)
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("..2026_01", "old")
    (tmp_path / "key").symlink_to("..data/key")
    monkeypatch.setenv("SEQUENCER_PRIVATE_KEY_FILE", str(tmp_path / "key"))
    secret = Settings().sequencer_private_key
    assert secret is not None
    assert secret.get_secret_value() == "old"
    publish("..2026_02", "new")
    assert secret.get_secret_value() == "new"


@pytest.mark.parametrize(("mode", "good"), [(0o400, True), (0o640, True), (0o444, False), (0o660, False)])
def test_a_group_may_read_a_secret_file_and_nobody_else_may_anything(
    mode: int, good: bool, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.chmod(mode)
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY_FILE", str(kept))
    if good:
        assert value_of("BOOTSTRAP_ADMIN_API_KEY") == CANARY
    else:
        assert "chmod 600" in refusal("BOOTSTRAP_ADMIN_API_KEY")


def test_what_is_no_good_file_is_refused_by_the_name_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: dict[str, str] = {"nowhere": "cannot be read: No such file", "folder": "no file", "pipe": "no file"}
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    contents = {"empty": (b" \n", "nothing"), "binary": (b"\xff\xfe", "no text"), "nul": (b"a\0b", "no text")}
    contents["long"] = (b"x" * (SECRET_BYTES_MAX + 1), "no secret")
    for name, (content, says) in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        bad[name] = says
    for name, says in bad.items():
        monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / name))
        said = refusal("DATABASE_URL")
        assert says in said, said
        assert said.startswith("DATABASE_URL_FILE")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"sh -c 'echo {CANARY}; echo {CANARY} >&2; exit 3'", "ended with 3"),
        ("/nonexistent/program", "cannot be started: No such file"),
        ("echo 'unbalanced", "is no command"),
        ("   ", "set but empty"),
        ("true", "gives nothing"),
        ("sh -c 'yes | head -c 1100000'", "no secret"),
        ("sh -c 'kill -9 $$'", "ended with -9"),
    ],
)
def test_a_command_that_does_not_give_a_secret_is_refused_without_its_words(
    command: str, says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS_COMMAND", command)
    said = refusal("PAYLOAD_ENCRYPTION_KEYS")
    assert says in said
    assert said.startswith("PAYLOAD_ENCRYPTION_KEYS_COMMAND")
    assert capfd.readouterr() == ("", ""), "nothing it says gets anywhere"


@pytest.mark.parametrize("command", ["sleep 60", "sh -c 'exec >&-; sleep 60'", "sh -c 'sleep 60 & echo x'"])
def test_a_command_that_does_not_end_has_a_deadline_and_leaves_nobody_behind(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_sources, "COMMAND_DEADLINE_S", 0.5)
    monkeypatch.setenv("DATABASE_URL_COMMAND", command)
    assert "did not end within" in refusal("DATABASE_URL")
    give_up = time.monotonic() + 10
    while "sleep 60" in "".join(children_lines()):  # killed, and gone as soon as the kernel gets round to it
        assert time.monotonic() < give_up
        time.sleep(0.01)


def children_lines() -> list[str]:
    """Of processes whose environment names this test's variable: they are ours."""
    lines = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"DATABASE_URL_COMMAND=" in (entry / "environ").read_bytes():
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return lines


def test_there_is_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY_COMMAND", f"echo a; touch {tmp_path}/made && $HOME")
    assert value_of("BOOTSTRAP_ADMIN_API_KEY") == f"a; touch {tmp_path}/made && $HOME"
    assert not (tmp_path / "made").exists()


def test_a_command_finds_no_other_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VES_SEQUENCER_SIGNING_KEY", CANARY)
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example")
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY_COMMAND", "env")
    seen = value_of("BOOTSTRAP_ADMIN_API_KEY")
    assert "VAULT_ADDR=https://vault.example" in seen
    assert CANARY not in seen


def test_what_was_read_is_forgotten_by_the_environment_and_by_the_settings_of_the_house(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEY", CANARY)
    monkeypatch.setenv("payload_encryption_keys", CANARY)
    settings = Settings()
    forget(Settings.secret_names(), os.environ)
    assert CANARY not in os.environ.values()
    assert all(getattr(settings.without_secrets(), name) is None for name in OF_THE_HOUSE)
    assert settings.payload_encryption_key is not None


def test_a_fetched_database_address_is_checked_like_a_given_one(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", str(kept))
    settings = Settings()
    with pytest.raises(SecretsError, match="DATABASE_URL_FILE is no address of PostgreSQL"):
        database_address(settings, "database_url", {})
    kept.chmod(stat.S_IRUSR | stat.S_IWUSR)
    kept.write_text("postgresql://u:p@localhost/d\n")
    assert database_address(settings, "database_url", {}) == "postgresql://u:p@localhost/d"
    kept.write_text("postgresql://u:p@h/d?sslmode=require\n")
    with pytest.raises(Exposed, match="DATABASE_URL_FILE leads to h, another machine"):
        database_address(settings, "database_url", {})
