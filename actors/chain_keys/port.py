"""What the signing process asks of each kind of key, and how a key fails.

Every method raises ``SignerRefused`` and ``SignerAway`` of ``actors.chain``, with texts that name a variable,
a file or a device and never hold a secret.
"""

from __future__ import annotations

from typing import Protocol

from actors.chain import SignerRefused
from actors.chain_signer_wire import Secret
from config.secret_sources import FetchedSecret, SecretsError


class ChainKey(Protocol):
    """One private key on secp256k1, open."""

    def address(self) -> bytes:
        """The account's 20 bytes."""
        ...

    def sign(self, digest: bytes) -> tuple[int, int]:
        """``(r, s)`` over exactly these 32 bytes; s in either half of the order."""
        ...


class Counted(SignerRefused):
    """Refused, and the device counts such failures and locks itself after a few: not to be repeated without a
    person."""


def fetch(secret: Secret) -> str:
    """The value, without surrounding space: here and now, in this process. Raises SignerRefused."""
    if not secret.variable.endswith(("_FILE", "_COMMAND")):
        return secret.text.strip()
    try:
        # Our environment holds no secret setting that would have to be kept from a command.
        return FetchedSecret(secret.variable, secret.text, frozenset()).get_secret_value()
    except SecretsError as error:
        raise SignerRefused(str(error)) from None
