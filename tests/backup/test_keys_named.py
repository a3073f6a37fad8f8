"""Every key that is not in a backup is named in it: without it the backup cannot be read again."""

from __future__ import annotations

import uuid

import pytest

from config.settings import Settings
from supervisor.backup_command import _given_keys

KEY, OTHER = "11" * 32, "22" * 32


def test_rings_of_single_tenants_are_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = uuid.uuid4()
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS", KEY)
    monkeypatch.setenv("PAYLOAD_ENCRYPTION_KEYS_BY_TENANT", f'{{"{tenant}": ["{OTHER}", "{KEY}"]}}')
    named = {one.setting: one.fingerprint for one in _given_keys(Settings())}
    of_ring, of_tenant = named["PAYLOAD_ENCRYPTION_KEYS"], named["PAYLOAD_ENCRYPTION_KEYS_BY_TENANT"]
    assert of_tenant.startswith(f"tenant {tenant}, key ids ")
    assert of_tenant.endswith(f", {of_ring.removeprefix('key ids ')}")
    assert KEY not in str(named)
    assert OTHER not in str(named)
