"""The anchor contract as it was compiled: what a deployment sends, and what stands on a chain afterwards.

``StateSetAnchor.json`` is written by ``make contract`` and never by hand; a test compiles the source again
and compares. It alone reads that file. The contract has no immutable values and no metadata hash, so its code
on any chain is exactly ``runtime_code()``.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import msgspec


class _Artefact(msgspec.Struct, frozen=True):
    abi: list[dict[str, Any]]
    creation_code: str
    runtime_code: str


@cache
def _artefact() -> _Artefact:
    file = resources.files("contracts").joinpath("StateSetAnchor.json")
    return msgspec.json.decode(file.read_bytes(), type=_Artefact)


def abi() -> list[dict[str, Any]]:
    return _artefact().abi


def creation_code() -> bytes:
    """To be sent with the constructor's argument behind it: ``ves.anchor_calls.deployment``."""
    return bytes.fromhex(_artefact().creation_code[2:])


def runtime_code() -> bytes:
    """What ``eth_getCode`` of the contract says, byte for byte."""
    return bytes.fromhex(_artefact().runtime_code[2:])
