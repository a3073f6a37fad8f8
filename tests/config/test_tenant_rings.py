"""Rings of tenants: read from a variable, a file, a command or DATA_DIR; refused by tenant and position."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

import pytest

from config.secret_sources import SECRET_BYTES_MAX, SecretsError
from config.secrets import Formats, Secrets, load_secrets, prepare_data_dir
from config.settings import Settings
from tests.keyholder import public_key_of
from ves.at_rest import key_id, parse_key

DEFAULT, KEY, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
TENANT = uuid.UUID("6f1d7f0e-0000-4000-8000-00000000abcd")
NEXT = uuid.UUID("6f1d7f0e-0000-4000-8000-000000000002")
VARIABLE = "PAYLOAD_ENCRYPTION_KEYS_BY_TENANT"
FILE = "keys/payload-encryption-keys-by-tenant"


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


def rings(home: Path) -> dict[bytes, tuple[bytes, ...]]:
    return dict(load(home).keys.at_rest_rings_by_tenant())


def written(tenant: uuid.UUID = TENANT, *keys: bytes) -> str:
    return json.dumps({str(tenant): [key.hex() for key in keys or (KEY,)]})


def test_a_tenants_ring_is_read_in_order_and_in_every_spelling_of_a_key(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEY", DEFAULT.hex())
    given = {
        str(TENANT).upper(): [base64.b64encode(KEY).decode(), "0x" + OTHER.hex()],
        NEXT.hex: [OTHER.hex()],
    }
    monkeypatch.setenv(VARIABLE, json.dumps(given))
    keys = load(home).keys
    assert dict(keys.at_rest_rings_by_tenant()) == {TENANT.bytes: (KEY, OTHER), NEXT.bytes: (OTHER,)}
    assert keys.at_rest_ring() == (DEFAULT,), "the default ring is there all the same"
    assert keys.at_rest_key_ids == [key_id(DEFAULT)]
    assert keys.at_rest_key_ids_by_tenant == {
        TENANT.bytes: [key_id(KEY), key_id(OTHER)],
        NEXT.bytes: [key_id(OTHER)],
    }


def test_the_default_ring_is_made_and_no_tenants_is(home: Path) -> None:
    assert rings(home) == {}
    assert not (home / FILE).exists()
    assert len(load(home).keys.at_rest_ring()) == 1


@pytest.mark.parametrize("way", ["", "_FILE", "_COMMAND", "in DATA_DIR"])
def test_rings_come_from_a_variable_a_file_a_command_or_the_keys_folder(
    way: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(home)
    text = written()
    place = home / FILE if way == "in DATA_DIR" else tmp_path / "given"
    place.write_text(text + "\n")
    place.chmod(0o600)
    if way != "in DATA_DIR":
        value = {"": text, "_FILE": str(place), "_COMMAND": f"cat {place}"}[way]
        monkeypatch.setenv(VARIABLE + way, value)
    assert rings(home) == {TENANT.bytes: (KEY,)}
    if way in ("_FILE", "in DATA_DIR"):
        place.chmod(0o644)
        with pytest.raises(SecretsError, match="chmod 600"):
            load(home)


def test_what_is_given_wins_over_the_file_and_an_empty_object_means_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(home)
    (home / FILE).write_text(written())
    (home / FILE).chmod(0o600)
    monkeypatch.setenv(VARIABLE, "{}")
    assert rings(home) == {}
    monkeypatch.delenv(VARIABLE)
    assert rings(home) == {TENANT.bytes: (KEY,)}


HEX = KEY.hex()
REFUSED = {
    "no JSON": ("{" + HEX, "is no JSON: Expecting property name"),
    "cut off": (written()[:-1], "is no JSON: "),
    "no object": (f'["{HEX}"]', "is no JSON object"),
    "too deep": ("[" * 100_000, "is no JSON of tenants"),
    "a number too long": ("1" * 5000, "is no JSON of tenants"),
    "twice": (
        f'{{"{TENANT}": ["{HEX}"], "{NEXT}": ["{HEX}"], "{TENANT}": ["{OTHER.hex()}"]}}',
        f"tenant {TENANT} is there twice",
    ),
    "twice, spelled otherwise": (
        f'{{"{TENANT}": ["{HEX}"], "{str(TENANT).upper()}": ["{OTHER.hex()}"]}}',
        f"tenant {TENANT} is there twice",
    ),
    "twice, without hyphens": (
        f'{{"{TENANT}": ["{HEX}"], "{TENANT.hex}": ["{HEX}"]}}',
        f"tenant {TENANT} is there twice",
    ),
    "no UUID": (
        f'{{"{TENANT}": ["{HEX}"], "{HEX}": ["{TENANT}"]}}',
        "member 2 is not named by a tenant's UUID",
    ),
    "an empty ring": (f'{{"{TENANT}": []}}', f"tenant {TENANT} holds no key"),
    "one text": (f'{{"{TENANT}": "{HEX}"}}', f"tenant {TENANT} has no list of keys"),
    "an object": (f'{{"{TENANT}": {{"{HEX}": 1}}}}', f"tenant {TENANT} has no list of keys"),
    "a number": (f'{{"{TENANT}": ["{HEX}", 7]}}', f"tenant {TENANT} has no list of keys"),
    "null": (f'{{"{TENANT}": null}}', f"tenant {TENANT} has no list of keys"),
    "a bad key": (f'{{"{TENANT}": ["{HEX}", "{HEX[2:]}"]}}', f"tenant {TENANT}, key 2 is no key of 32 bytes"),
    "an empty key": (f'{{"{TENANT}": [""]}}', f"tenant {TENANT}, key 1 is no key of 32 bytes"),
    "two in one text": (f'{{"{TENANT}": ["{HEX},{HEX}"]}}', f"tenant {TENANT}, key 1 is no key of 32 bytes"),
    "one key twice": (
        f'{{"{NEXT}": ["{HEX}"], "{TENANT}": ["{HEX}", "0x{HEX}"]}}',
        f"tenant {TENANT}: two keys have the same key id",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_ring_is_refused_by_tenant_and_position_and_no_value_is_shown(
    what: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, says = REFUSED[what]
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(SecretsError) as refused:
        load(home)
    said = str(refused.value)
    assert said.startswith(VARIABLE)
    assert says in said
    for key in (KEY, OTHER):
        assert key.hex()[2:18] not in said
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_bad_file_is_named_and_one_that_is_too_long_is_not_read_in_part(home: Path) -> None:
    load(home)
    path = home / FILE
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(SecretsError, match=f"{path} is no JSON"):
        load(home)
    path.write_text(written() + " " * SECRET_BYTES_MAX)
    with pytest.raises(SecretsError, match=f"{path}: more than"):
        load(home)


def test_set_but_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " ")
    with pytest.raises(ValueError, match="set but empty"):
        Settings()


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        *((word, "required") for word in ("required", "on", "true", "1", " REQUIRED ")),
        ("optional", "optional"),
        *((word, "disabled") for word in ("disabled", "off", "false", "0", "Off")),
    ],
)
def test_a_mode_has_the_originals_names(word: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_MODE", word)
    assert Settings().payload_encryption_mode == mode


@pytest.mark.parametrize("word", ["", "none", "no", "enabled", "require", "2"])
def test_another_mode_is_refused_by_its_name(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_MODE", word)
    with pytest.raises(
        ValueError, match=r"(?s)payload_encryption_mode.*'required', 'optional' or 'disabled'"
    ):
        Settings()


def test_required_is_the_default() -> None:
    assert Settings().payload_encryption_mode == "required"
