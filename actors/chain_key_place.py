"""From the operator's settings to where the anchoring account's key is: the signing process's first frame.

Decides which kind of key it is and says what is missing. Reads no file, runs no command, and fetches nothing.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from actors.chain_signer_wire import (
    BecomeSigner,
    DeviceKey,
    KeyPlace,
    KeystoreKey,
    KmsKey,
    RawKey,
    Secret,
    VaultKey,
)
from config.secret_sources import FetchedSecret, SecretsError
from config.settings import Settings

KEYSTORE_FILE = "anchor-keystore.json"
OPENER_FILE = "anchor-keystore-password"


def key_place(settings: Settings, *, by_hand: bool = False) -> BecomeSigner:
    """``by_hand``: a person asks, who may have a keystore made where ANCHOR_KEYSTORE_FILE says, and have a
    device tried again after a wrong PIN. Raises SecretsError, which names what is missing."""
    development = settings.anchoring == "dev"
    return BecomeSigner(_place(settings, by_hand), str(Path.cwd()), development)


def kind_of(settings: Settings) -> str:
    """A value of ANCHOR_KEY."""
    return settings.anchor_key or ("keystore" if settings.sequencer_private_key is None else "raw")


def where(place: KeyPlace) -> str:
    """For people; without secrets."""
    if isinstance(place, KeystoreKey):
        return f"keystore {place.path}"
    if isinstance(place, RawKey):
        return f"raw, from {place.key.variable}"
    if isinstance(place, DeviceKey):
        return f"pkcs11, token {place.token!r}, key {place.label!r}"
    if isinstance(place, KmsKey):
        return f"kms, key {place.key_id}"
    return f"vault, {place.path}"


def _place(settings: Settings, by_hand: bool) -> KeyPlace:
    kind = kind_of(settings)
    if kind == "keystore":
        return _keystore(settings, by_hand)
    if kind == "raw":
        return RawKey(_secret("sequencer_private_key", settings.sequencer_private_key, kind))
    if kind == "pkcs11":
        return DeviceKey(
            str(_given("anchor_pkcs11_module", settings.anchor_pkcs11_module, kind)),
            str(_given("anchor_pkcs11_token", settings.anchor_pkcs11_token, kind)),
            settings.anchor_pkcs11_key,
            _secret("anchor_pkcs11_pin", settings.anchor_pkcs11_pin, kind),
            by_hand,
        )
    if kind == "kms":
        return KmsKey(str(_given("anchor_kms_key_id", settings.anchor_kms_key_id, kind)))
    return VaultKey(
        str(_given("anchor_vault_address", settings.anchor_vault_address, kind)),
        str(_given("anchor_vault_path", settings.anchor_vault_path, kind)),
        _secret("anchor_vault_token", settings.anchor_vault_token, kind),
    )


def _keystore(settings: Settings, by_hand: bool) -> KeystoreKey:
    keys = settings.data_dir.absolute() / "keys"
    given, password = settings.anchor_keystore_file, settings.anchor_keystore_password
    return KeystoreKey(
        str(keys / KEYSTORE_FILE if given is None else given.absolute()),
        given is not None,
        # A file that was named and is not there is a mount that failed rather than a first start.
        given is None or by_hand,
        None if password is None else _named("anchor_keystore_password", password),
        str(keys / OPENER_FILE),
    )


def _secret(name: str, value: SecretStr | None, kind: str) -> Secret:
    if value is None:
        raise SecretsError(f"ANCHOR_KEY={kind} needs {name.upper()} (or {name.upper()}_FILE, …_COMMAND)")
    return _named(name, value)


def _named(name: str, value: SecretStr) -> Secret:
    if isinstance(value, FetchedSecret):
        return Secret(value.variable, value.place)
    return Secret(name.upper(), value.get_secret_value())


def _given(name: str, value: object, kind: str) -> object:
    if value is None or not str(value).strip():
        raise SecretsError(f"ANCHOR_KEY={kind} needs {name.upper()}")
    return value
