"""The key as 64 hex digits in a KV version 2 store of HashiCorp Vault or OpenBao: **contract-tested only**.

The tests hold this adapter against a small HTTPS server that answers as Vault's API documentation says; no
Vault was at hand. Try it with ``sequencer anchor key --check`` before you rely on it. The key is read once
per life and then held in this process's memory: Vault's transit engine, which would sign without giving the
key away, does not know secp256k1. Where that matters, take a device (``pkcs11``) or KMS.
"""

from __future__ import annotations

import os
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

from actors.chain import SignerAway, SignerRefused
from actors.chain_keys.held import HeldKey, parse
from actors.chain_keys.port import fetch
from actors.chain_signer_wire import VaultKey

TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 65_536
DEFAULT_FIELD = "private_key"
_PATH = re.compile(r"([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+)(?:#([A-Za-z0-9_.-]{1,100}))?")
_TOKEN = re.compile(r"[!-~]{1,4096}")


def open_vault(place: VaultKey) -> HeldKey:
    url = urlsplit(place.address)
    if url.scheme != "https" or not url.hostname or url.username or url.query:
        raise SignerRefused("ANCHOR_VAULT_ADDRESS is no address of a Vault: https://HOST:8200")
    named = _PATH.fullmatch(place.path)
    if named is None or ".." in place.path:
        raise SignerRefused(
            f"ANCHOR_VAULT_PATH is no path: MOUNT/data/NAME#FIELD (#{DEFAULT_FIELD} if left out)"
        )
    path, field = named[1], named[2] or DEFAULT_FIELD
    token = fetch(place.token)
    if not _TOKEN.fullmatch(token):
        raise SignerRefused(f"{place.token.variable} holds no token")
    answer = _read(f"{place.address.rstrip('/')}/v1/{path}", token)
    return parse(_field(answer, path, field), f"field {field} of {path} (ANCHOR_VAULT_PATH)")


def _read(address: str, token: str) -> Any:
    headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
    if "VAULT_NAMESPACE" in os.environ:
        headers["X-Vault-Namespace"] = os.environ["VAULT_NAMESPACE"]
    limits = {"timeout": TIMEOUT_S, "trust_env": False, "follow_redirects": False}
    try:
        with (
            httpx.Client(verify=_authorities(), **limits) as client,  # type: ignore[arg-type]
            client.stream("GET", address, headers=headers) as response,
        ):
            _judge(response.status_code)
            body = bytearray()
            for some in response.iter_bytes():
                body += some
                if len(body) > ANSWER_BYTES_MAX:
                    raise SignerRefused("ANCHOR_VAULT_PATH: the answer is far too long for a key")
            return httpx.Response(200, content=bytes(body)).json()
    except httpx.HTTPError as error:
        reason = "its certificate is not believed" if _is_tls(error) else type(error).__name__
        raise SignerAway(f"Vault does not answer: {reason}") from None
    except ValueError:
        raise SignerAway("Vault answered something else than JSON") from None


def _judge(status: int) -> None:
    if status == 200:
        return
    if status == 403:
        raise SignerRefused("Vault refuses (403): the token must be valid and may read ANCHOR_VAULT_PATH")
    if status == 404:
        raise SignerRefused(
            "Vault has nothing at ANCHOR_VAULT_PATH (404): for KV version 2 it is MOUNT/data/NAME"
        )
    if status == 429 or status >= 500:  # 503: sealed, or in maintenance
        raise SignerAway(f"Vault cannot do it now ({status})")
    raise SignerRefused(f"Vault answers {status} for ANCHOR_VAULT_PATH")


def _field(answer: Any, path: str, field: str) -> str:
    """KV version 2 wraps the values twice."""
    try:
        value = answer["data"]["data"][field]
    except (KeyError, TypeError):
        value = None
    if not isinstance(value, str):
        raise SignerRefused(f"Vault has no text in field {field} of {path} (ANCHOR_VAULT_PATH, KV version 2)")
    return value


def _authorities() -> ssl.SSLContext:
    """The system's, or those of VAULT_CACERT, as Vault's own tools have it."""
    try:
        return ssl.create_default_context(cafile=os.environ.get("VAULT_CACERT"))
    except (OSError, ssl.SSLError):
        raise SignerRefused("VAULT_CACERT is no file of certificates") from None


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
