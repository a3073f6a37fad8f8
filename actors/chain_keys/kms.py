"""The key in AWS KMS (ECC_SECG_P256K1, SIGN_VERIFY): **contract-tested only**.

The tests hold this adapter against AWS's own description of the service (botocore's Stubber) and against
signatures of a local key; no KMS was at hand, and moto hashes a digest once more, so it proves nothing here.
Try it with ``sequencer anchor key --check`` before you rely on it. Credentials and region are found as every
AWS SDK finds them, in this process's environment or its role; they are given to no other process of ours.
"""

from __future__ import annotations

import re
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from actors.chain import SignerAway, SignerRefused
from actors.chain_signer_wire import KmsKey
from ves.secp256k1 import address_of

INSTALL = ".venv/bin/pip install --require-hashes -r requirements/kms.lock"
_TIMEOUT_S = 4
_TRIES = 2
_LATER = frozenset(
    {
        "ThrottlingException",
        "TooManyRequestsException",
        "LimitExceededException",
        "KeyUnavailableException",
        "KMSInternalException",
        "DependencyTimeoutException",
        "InternalFailure",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "RequestTimeout",
    }
)
"""What AWS calls its own trouble, or too many questions; everything else takes an operator."""


def open_kms(place: KmsKey) -> KeyInKms:
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    except ImportError:
        raise SignerRefused(f"ANCHOR_KEY=kms needs the AWS SDK: {INSTALL}") from None
    limits = Config(
        connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": _TRIES}
    )
    try:
        return KeyInKms(place.key_id, boto3.client("kms", config=limits))
    except BotoCoreError as error:
        raise SignerRefused(_unusable(error)) from None


class KeyInKms:
    def __init__(self, key_id: str, client: Any) -> None:
        """``client``: of boto3. Asks for the public key. Raises SignerRefused, SignerAway."""
        self._key_id = key_id
        self._client = client
        self._address = self._judged_address()

    def address(self) -> bytes:
        return self._address

    def sign(self, digest: bytes) -> tuple[int, int]:
        answer = self._ask("sign", Message=digest, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")
        try:
            return decode_dss_signature(answer["Signature"])
        except (KeyError, ValueError, TypeError):
            raise SignerAway("KMS answered something else than a signature") from None

    def _judged_address(self) -> bytes:
        answer = self._ask("get_public_key")
        if answer.get("KeyUsage") != "SIGN_VERIFY" or answer.get("KeySpec") != "ECC_SECG_P256K1":
            raise SignerRefused(f"KMS key {self._key_id}: ECC_SECG_P256K1 for SIGN_VERIFY is wanted")
        try:
            key = load_der_public_key(answer["PublicKey"])
        except (KeyError, ValueError, TypeError, UnsupportedAlgorithm):
            raise SignerAway("KMS answered something else than a public key") from None
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256K1):
            raise SignerRefused(f"KMS key {self._key_id} is on another curve: secp256k1 is wanted")
        return address_of(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    def _ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            CredentialRetrievalError,
            HTTPClientError,
        )

        try:
            answer: dict[str, Any] = getattr(self._client, method)(KeyId=self._key_id, **arguments)
        except ClientError as error:
            raise self._told(error) from None
        except (ConnectionError, HTTPClientError, CredentialRetrievalError) as error:
            raise SignerAway(f"KMS does not answer: {type(error).__name__}") from None
        except BotoCoreError as error:
            raise SignerRefused(_unusable(error)) from None
        return answer

    def _told(self, error: Any) -> SignerAway | SignerRefused:
        """By AWS's code alone: its sentences name accounts and roles."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        code = code if re.fullmatch(r"[A-Za-z.]{1,60}", code) else "an unknown error"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _LATER or status >= 500:
            return SignerAway(f"KMS cannot do it now: {code}")
        return SignerRefused(
            f"KMS refuses key {self._key_id}: {code}. The anchor needs kms:GetPublicKey and kms:Sign on it"
        )


def _unusable(error: Exception) -> str:
    return (
        f"the AWS SDK cannot be used ({type(error).__name__}): give region and credentials as it wants them"
    )
