"""What a backup says of the secrets that lie elsewhere: each that a restore needs is named, none is told."""

from __future__ import annotations

from hashlib import sha256

import pytest

from config.settings import Settings
from supervisor.backup_command import given_keys

TENANT = "8f250666-b7db-49c0-828a-f1b4e72b889b"
GIVEN = {
    "BOOTSTRAP_ADMIN_API_KEY": "ss_bootstrap_" + "1a" * 24,
    "JWT_SECRET": "2b" * 32,
    "VES_SEQUENCER_SIGNING_KEY": "3c" * 32,
    "VES_SEQUENCER_SIGNING_KEY_PREVIOUS": "4d" * 32,
    "PAYLOAD_ENCRYPTION_KEYS": f"{'5e' * 32},{'6f' * 32}",
    "PAYLOAD_ENCRYPTION_KEYS_BY_TENANT": f'{{"{TENANT}": ["{"7a" * 32}", "{"8b" * 32}"]}}',
}


def key_id(byte: str) -> str:
    return sha256(b"STATESET_ATREST_KEYID_V1" + bytes.fromhex(byte * 32)).hexdigest()[:16]


def test_every_given_secret_is_named_by_what_it_can_be_known_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    told = list(given_keys(Settings()))
    assert {one.setting for one in told} == GIVEN.keys()
    by_name = {one.setting: one.fingerprint for one in told}
    assert by_name["JWT_SECRET"] == f"sha256 {sha256(GIVEN['JWT_SECRET'].encode()).hexdigest()[:16]}"
    assert by_name["PAYLOAD_ENCRYPTION_KEYS"] == f"key ids {key_id('5e')}, {key_id('6f')}"
    rings = f"tenant {TENANT}: key ids {key_id('7a')}, {key_id('8b')}"
    assert by_name["PAYLOAD_ENCRYPTION_KEYS_BY_TENANT"] == rings
    signing = [by_name[name] for name in GIVEN if name.startswith("VES_SEQUENCER")]
    assert len(set(signing)) == 2
    everything = repr(told)
    for secret in ("1a" * 24, "2b" * 32, "3c" * 32, "4d" * 32, "5e" * 32, "6f" * 32, "7a" * 32, "8b" * 32):
        assert secret not in everything
    for name in GIVEN:
        monkeypatch.delenv(name)
    assert list(given_keys(Settings())) == []
