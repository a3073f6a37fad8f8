"""A key in a real PKCS#11 device (SoftHSM2): used inside it, found or clearly missing, its PIN tried once."""

from __future__ import annotations

from pathlib import Path

import pkcs11
import pytest

from actors.chain import SignerAway, SignerRefused
from actors.chain_keys.pkcs11 import KeyInDevice
from actors.chain_keys.port import Counted
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import DeviceKey, Secret
from tests.anchorkeys.signing import DIGEST, accepted, becoming
from tests.anchorkeys.softhsm import PIN, WRONG_PIN, SoftHsm
from tests.anvil import anvil
from ves.secp256k1 import completed


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    device = SoftHsm(tmp_path / "hsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(device.configuration))
    return device


def opened(place: DeviceKey) -> KeyInDevice:
    """In this process, which begins anew with the library: a login is the whole process's."""
    pkcs11.lib(place.module).reinitialize()
    return KeyInDevice(place)


@pytest.fixture
def key(device: SoftHsm) -> SoftHsm:
    device.make_pair()
    return device


async def test_a_transaction_signed_by_a_device_is_taken_by_a_chain(key: SoftHsm, tmp_path: Path) -> None:
    async with SigningKey(becoming(key.place(), tmp_path)).open() as signer:
        with anvil() as chain:
            await accepted(signer, chain)


async def test_a_wrong_pin_is_tried_once_however_often_the_anchor_starts(
    key: SoftHsm, tmp_path: Path
) -> None:
    file = tmp_path / "pin"
    file.touch(0o600)
    file.write_text(WRONG_PIN)
    pin = Secret("ANCHOR_PKCS11_PIN_FILE", str(file))
    wrong = SigningKey(becoming(key.place(pin=pin), tmp_path))
    with pytest.raises(SignerRefused, match="refuses the PIN of ANCHOR_PKCS11_PIN_FILE") as refused:
        async with wrong.open():
            raise AssertionError("opened")
    assert WRONG_PIN not in str(refused.value)
    file.write_text(PIN)  # right, but nobody has said so: the same anchor's next life, and another server's
    with pytest.raises(SignerRefused, match="refuses the PIN"):
        async with wrong.open():
            raise AssertionError("opened")
    with pytest.raises(SignerRefused, match=r"the last login to the device failed.*key --check"):
        async with SigningKey(becoming(key.place(pin=pin), tmp_path)).open():
            raise AssertionError("opened")
    async with SigningKey(becoming(key.place(pin=pin, by_hand=True), tmp_path)).open() as signer:
        await signer.sign(DIGEST)
    async with SigningKey(becoming(key.place(pin=pin), tmp_path)).open() as signer:
        await signer.sign(DIGEST)


def test_what_is_missing_in_a_device_is_named(device: SoftHsm, tmp_path: Path) -> None:
    with pytest.raises(SignerRefused, match=r"no token is labelled 'other'.*there are 'anchor'"):
        opened(device.place(token="other"))
    with pytest.raises(SignerRefused, match=r"no private EC keys labelled 'anchor' \(ANCHOR_PKCS11_KEY\)"):
        opened(device.place())
    device.make_pair()
    opened(device.place())
    device.tool("--delete-object", "--type", "pubkey", "--label", "anchor")
    with pytest.raises(SignerRefused, match="no public EC keys labelled 'anchor'"):
        opened(device.place())
    device.make_pair()
    with pytest.raises(SignerRefused, match="several private EC keys"):
        opened(device.place())
    with pytest.raises(Counted):
        opened(device.place(pin=Secret("ANCHOR_PKCS11_PIN", WRONG_PIN)))
    nothing = tmp_path / "no.so"
    nothing.write_text("no library")
    device.module = nothing
    with pytest.raises(SignerRefused, match=r"ANCHOR_PKCS11_MODULE .*no\.so is no PKCS#11 library"):
        KeyInDevice(device.place())


def test_a_key_of_another_curve_or_one_that_can_leave_the_device_is_refused(device: SoftHsm) -> None:
    device.make_pair("p256", curve="EC:prime256v1")
    with pytest.raises(SignerRefused, match="another curve"):
        opened(device.place(label="p256"))
    device.make_pair("open", "--extractable")
    with pytest.raises(SignerRefused, match="can be taken out of the device"):
        opened(device.place(label="open"))


# A search in a session that is gone is given up by the library with a second error, in its destructor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_session_is_opened_again_once_and_a_device_that_is_gone_is_away(key: SoftHsm) -> None:
    held = opened(key.place())
    held._session.close()
    r, s = held.sign(DIGEST)
    assert completed(DIGEST, r, s, held.address()) is not None
    logins = []
    log_in = held._log_in
    held._log_in = lambda: (logins.append(1), log_in(), held._session.close())[0]  # type: ignore[method-assign]
    held._session.close()
    with pytest.raises(SignerAway):
        held.sign(DIGEST)
    assert logins == [1]
