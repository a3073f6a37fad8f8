"""What the anchor and its signing process say to each other, in the frames of ``actors.worker_wire``.

The first frame says where the key is, and is answered like every worker's. Then ``OpenKey``, then any number
of ``SignDigest``, one question at a time. A key never comes this way. A secret that opens one comes only when
its very value was in the server's environment: of a file or a command only the name comes, and the process
fetches it itself.
"""

from __future__ import annotations

import msgspec


class Secret(msgspec.Struct, frozen=True, array_like=True):
    """A secret setting as it was given: NAME and its value, NAME_FILE or NAME_COMMAND and theirs."""

    variable: str
    text: str

    def __repr__(self) -> str:
        return f"Secret({self.variable})"


class KeystoreKey(msgspec.Struct, frozen=True, array_like=True, tag="keystore"):
    path: str
    given: bool
    """By ANCHOR_KEYSTORE_FILE; else it is ours, in DATA_DIR/keys."""
    may_make: bool
    """One is made where there is none."""
    password: Secret | None
    password_path: str
    """Where it is when it is not given."""


class RawKey(msgspec.Struct, frozen=True, array_like=True, tag="raw"):
    key: Secret


class DeviceKey(msgspec.Struct, frozen=True, array_like=True, tag="pkcs11"):
    module: str
    token: str
    label: str
    pin: Secret
    after_wrong_pin: bool
    """A person says that the PIN is right now: log in although the last login failed."""


class KmsKey(msgspec.Struct, frozen=True, array_like=True, tag="kms"):
    key_id: str


class VaultKey(msgspec.Struct, frozen=True, array_like=True, tag="vault"):
    address: str
    path: str
    token: Secret


KeyPlace = KeystoreKey | RawKey | DeviceKey | KmsKey | VaultKey


class BecomeSigner(msgspec.Struct, frozen=True, array_like=True, tag="become_signer"):
    """First frame."""

    place: KeyPlace
    folder: str
    """The server's working directory, which relative names start from."""
    development: bool = False
    """The chain is one of our own on this machine: keys that everybody knows are good enough."""

    def __repr__(self) -> str:
        return f"BecomeSigner({type(self.place).__name__}, …)"


class OpenKey(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Answered with ``Opened``."""


class SignDigest(msgspec.Struct, frozen=True, array_like=True, tag="sign"):
    """Answered with ``Signed``."""

    digest: bytes


Question = OpenKey | SignDigest


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="opened"):
    address: bytes
    made: str = ""
    """The file that was made just now."""


class Signed(msgspec.Struct, frozen=True, array_like=True, tag="signed"):
    y_parity: int
    r: bytes
    s: bytes


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """In the place of either answer. ``why`` holds no secret."""

    why: str
    counted: bool = False
    """The device counts such failures and locks itself: not to be repeated without a person."""


class Away(msgspec.Struct, frozen=True, array_like=True, tag="away"):
    """In the place of either answer: ask again later."""

    why: str
