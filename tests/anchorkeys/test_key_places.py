"""From settings to where the key is: what is missing is named, nothing is fetched, bad keys are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from coincurve import PrivateKey

from actors.chain import SignerRefused
from actors.chain_key_place import key_place, where
from actors.chain_keys.accounts import Account
from actors.chain_keys.raw import open_raw
from actors.chain_keys.well_known import WELL_KNOWN
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import DeviceKey, KeystoreKey, KmsKey, RawKey, Secret, VaultKey
from config.secret_sources import SecretsError
from config.settings import Settings
from tests.anchorkeys.signing import account_of, becoming
from ves.secp256k1 import ORDER


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_each_kind_of_key_is_found_by_its_settings_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = tmp_path / ".sequencer/keys"
    place = key_place(Settings()).place
    assert place == KeystoreKey(
        str(keys / "anchor-keystore.json"), False, True, None, str(keys / "anchor-keystore-password")
    )
    monkeypatch.setenv("SEQUENCER_PRIVATE_KEY_FILE", "/nonexistent/key")
    monkeypatch.setenv("ANCHOR_PKCS11_PIN_COMMAND", "touch /nonexistent/pin")
    monkeypatch.setenv("ANCHOR_PKCS11_MODULE", "/lib/device.so")
    monkeypatch.setenv("ANCHOR_PKCS11_TOKEN", "token")
    monkeypatch.setenv("ANCHOR_KMS_KEY_ID", "alias/anchor")
    monkeypatch.setenv("ANCHOR_VAULT_ADDRESS", "https://vault:8200")
    monkeypatch.setenv("ANCHOR_VAULT_PATH", "secret/data/anchor")
    monkeypatch.setenv("ANCHOR_VAULT_TOKEN", "the-token")
    monkeypatch.setenv("ANCHOR_KEYSTORE_FILE", "key.json")
    assert key_place(Settings()).place == RawKey(Secret("SEQUENCER_PRIVATE_KEY_FILE", "/nonexistent/key"))
    places = {kind: key_place(Settings(anchor_key=kind)).place for kind in ("pkcs11", "kms", "vault")}
    pin = Secret("ANCHOR_PKCS11_PIN_COMMAND", "touch /nonexistent/pin")
    token = Secret("ANCHOR_VAULT_TOKEN", "the-token")
    assert places == {
        "pkcs11": DeviceKey("/lib/device.so", "token", "anchor", pin, False),
        "kms": KmsKey("alias/anchor"),
        "vault": VaultKey("https://vault:8200", "secret/data/anchor", token),
    }
    assert not any("the-token" in where(place) + repr(place) for place in places.values())
    named = key_place(Settings(anchor_key="keystore")).place
    by_hand = key_place(Settings(anchor_key="keystore"), by_hand=True).place
    assert isinstance(named, KeystoreKey)
    assert isinstance(by_hand, KeystoreKey)
    assert (named.path, named.may_make, by_hand.may_make) == (str(tmp_path / "key.json"), False, True)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("raw", "SEQUENCER_PRIVATE_KEY"),
        ("pkcs11", "ANCHOR_PKCS11_MODULE"),
        ("kms", "ANCHOR_KMS_KEY_ID"),
        ("vault", "ANCHOR_VAULT_ADDRESS"),
    ],
)
def test_what_a_kind_of_key_needs_is_named(kind: str, missing: str) -> None:
    with pytest.raises(SecretsError, match=f"ANCHOR_KEY={kind} needs {missing}"):
        key_place(Settings(anchor_key=kind))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("canary", "is no private key: 64 hex digits"),
        ("ab" * 31, "is no private key"),
        ("ab" * 33, "is no private key"),
        ("00" * 32, "out of range"),
        ("00" * 31 + "01", "out of range"),
        (f"{ORDER:x}", "out of range"),
        ("ff" * 32, "out of range"),
    ],
)
def test_a_text_that_is_no_key_is_refused_without_being_shown(text: str, reason: str) -> None:
    with pytest.raises(SignerRefused, match=f"SEQUENCER_PRIVATE_KEY .*{reason}") as refused:
        open_raw(RawKey(Secret("SEQUENCER_PRIVATE_KEY", text)))
    assert text not in str(refused.value)


def test_a_key_may_be_written_with_0x_capitals_and_space() -> None:
    secret = PrivateKey().secret
    for text in (secret.hex(), f"0x{secret.hex().upper()}", f"  {secret.hex()}\n"):
        held = open_raw(RawKey(Secret("SEQUENCER_PRIVATE_KEY", text)))
        assert held.address() == account_of(secret)
        assert secret.hex() not in repr(held)


async def test_an_account_of_a_development_chain_is_refused_unless_the_chain_is_one(tmp_path: Path) -> None:
    Account.enable_unaudited_hdwallet_features()
    phrase = "test test test test test test test test test test test junk"
    for n in (0, 9, 19):
        known = Account.from_mnemonic(phrase, account_path=f"m/44'/60'/0'/0/{n}")
        assert bytes.fromhex(known.address[2:]) in WELL_KNOWN
    assert len(WELL_KNOWN) == 40
    place = RawKey(Secret("SEQUENCER_PRIVATE_KEY", known.key.hex()))
    with pytest.raises(SignerRefused, match=f"{known.address} is one that development chains hand out"):
        async with SigningKey(becoming(place, tmp_path)).open():
            raise AssertionError("opened")
    async with SigningKey(becoming(place, tmp_path, development=True)).open() as signer:
        assert signer.address == bytes.fromhex(known.address[2:])
