"""The key in a device that speaks PKCS#11: an HSM, a token, or SoftHSM2, which the tests use.

The device signs the 32 bytes as they are (CKM_ECDSA) and the key never leaves it: one that could be read or
exported is refused. A device locks itself after a few wrong PINs, so a wrong one is tried once and then never
again without a person: the device's own mark (CKF_USER_PIN_COUNT_LOW) is looked at before every login, also
after a restart, and ``sequencer anchor key --check`` is the person. A session that was lost is opened again
once per signature. Tested with SoftHSM2 2.6.1; other devices speak the same standard, and were not at hand.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag

from actors.chain import SignerAway, SignerRefused
from actors.chain_keys.port import Counted, fetch
from actors.chain_signer_wire import DeviceKey
from ves.secp256k1 import address_of

SECP256K1 = bytes.fromhex("06052b8104000a")
"""OBJECT IDENTIFIER 1.3.132.0.10, as CKA_EC_PARAMS has it."""
_LOST = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.UserNotLoggedIn,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.DeviceRemoved,
    pkcs11.DeviceError,
    pkcs11.TokenNotPresent,
)
"""Of the session, not of the key: worth one new login with the PIN that was right before."""
_WRONG = (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid)
_SPENT = (pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.UserPinNotInitialized)


class KeyInDevice:
    def __init__(self, place: DeviceKey) -> None:
        """Logs in. Raises Counted for what may not be tried again, SignerRefused, SignerAway."""
        self._place = place
        try:
            self._library = pkcs11.lib(place.module)
        except pkcs11.PKCS11Error:
            raise SignerRefused(
                f"ANCHOR_PKCS11_MODULE {place.module} is no PKCS#11 library that can be loaded here"
            ) from None
        self._session: Any = None
        self._log_in()
        self._address = self._judged_address()

    def address(self) -> bytes:
        return self._address

    def sign(self, digest: bytes) -> tuple[int, int]:
        try:
            signature = self._signature(digest)
        except _LOST:
            signature = self._signature_after_login(digest)
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None
        if len(signature) != 64:
            raise SignerRefused(f"the device answered {len(signature)} bytes for a signature of 64")
        return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")

    def _signature(self, digest: bytes) -> bytes:
        return bytes(self._private.sign(digest, mechanism=Mechanism.ECDSA))

    def _signature_after_login(self, digest: bytes) -> bytes:
        if self._session is not None:
            with suppress(pkcs11.PKCS11Error):
                self._session.close()
        try:
            self._library.reinitialize()  # some libraries do not see a device that came back otherwise
            self._log_in()
            if self._judged_address() != self._address:
                raise SignerRefused(f"the key labelled {self._place.label!r} is another one than before")
            return self._signature(digest)
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None

    def _log_in(self) -> None:
        token = self._token()
        self._refuse_risky_login(token.flags)
        variable = self._place.pin.variable
        pin = fetch(self._place.pin)
        try:
            self._session = token.open(user_pin=pin)
        except _WRONG:
            raise Counted(
                f"the device refuses the PIN of {variable}. It was tried once and is not tried again, for "
                f"devices lock themselves after a few: correct it, {_BY_HAND}"
            ) from None
        except _SPENT as error:
            raise Counted(f"the device lets no user log in ({type(error).__name__}): {_UNLOCK}") from None
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None

    def _token(self) -> Any:
        label = self._place.token
        try:
            return self._library.get_token(token_label=label)
        except pkcs11.NoSuchToken:
            there = self._labels()
            words = f"there are {', '.join(map(repr, there[:8]))}" if there else "there is none at all"
            text = f"no token is labelled {label!r} (ANCHOR_PKCS11_TOKEN): {words}"
            raise (SignerRefused if self._session is None else SignerAway)(text) from None
        except pkcs11.MultipleTokensReturned:
            raise SignerRefused(f"several tokens are labelled {label!r} (ANCHOR_PKCS11_TOKEN)") from None
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None

    def _labels(self) -> list[str]:
        try:
            slots = self._library.get_slots(token_present=True)
            return sorted({slot.get_token().label for slot in slots} - {""})
        except pkcs11.PKCS11Error:
            return []

    def _refuse_risky_login(self, flags: TokenFlag) -> None:
        """What the device itself remembers of failed logins, whoever failed."""
        if flags & TokenFlag.USER_PIN_LOCKED:
            raise Counted(f"the device has locked the user PIN: {_UNLOCK}")
        if flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise Counted("the device has one try left for its PIN: log in once with the device's own tool")
        if flags & TokenFlag.USER_PIN_COUNT_LOW and not self._place.after_wrong_pin:
            raise Counted(
                "the last login to the device failed, and devices lock themselves after a few: correct "
                f"{self._place.pin.variable} if it was ours, {_BY_HAND}"
            )

    def _judged_address(self) -> bytes:
        """Finds the pair. Raises SignerRefused unless it is one that can only be used inside the device."""
        self._private = self._only(ObjectClass.PRIVATE_KEY)
        public = self._only(ObjectClass.PUBLIC_KEY)
        named = f"the key labelled {self._place.label!r}"
        try:
            if self._private[Attribute.EC_PARAMS] != SECP256K1:
                raise SignerRefused(f"{named} is on another curve: secp256k1 is wanted")
            if self._private[Attribute.EXTRACTABLE] or not self._private[Attribute.SENSITIVE]:
                raise SignerRefused(
                    f"{named} can be taken out of the device: make one in it, sensitive and not extractable"
                )
            return address_of(_point(bytes(public[Attribute.EC_POINT])))
        except ValueError:
            raise SignerRefused(f"{named}: its public key is no point of secp256k1") from None
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None

    def _only(self, kind: ObjectClass) -> Any:
        label = self._place.label
        wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: label}
        try:
            found = list(
                self._session.get_objects(wanted)
            )  # to the end: a search left open outlives its session
        except pkcs11.PKCS11Error as error:
            raise _away(error) from None
        if len(found) != 1:
            many = "several" if found else "no"
            what = "private" if kind == ObjectClass.PRIVATE_KEY else "public"
            raise SignerRefused(
                f"token {self._place.token!r} has {many} {what} EC keys labelled {label!r} "
                "(ANCHOR_PKCS11_KEY)"
            )
        return found[0]

    def __repr__(self) -> str:
        return "KeyInDevice(…)"


_BY_HAND = "run sequencer anchor key --check, and start the anchor's server anew"
_UNLOCK = "unlock or set it with the device's own tool"


def _away(error: pkcs11.PKCS11Error) -> SignerAway:
    return SignerAway(f"the device does not do it now: {type(error).__name__}")


def _point(attribute: bytes) -> bytes:
    """CKA_EC_POINT is a DER OCTET STRING around the point; some devices give the bare point."""
    return attribute[2:] if len(attribute) == 67 and attribute[:2] == b"\x04\x41" else attribute
