"""Rings of tenants that have their own, from the JSON of PAYLOAD_ENCRYPTION_KEYS_BY_TENANT.

    {"tenant-uuid": ["current key", "older key", …], …}

Alone knows this text. What is wrong with it is told by tenant and position; a name that is no UUID is told by
its position only, because it may be a key in the wrong place. Never shows a value.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from config.secret_sources import SecretsError

ParseRing = Callable[[list[str], str], tuple[bytes, ...]]
"""The keys of one ring, from their texts and what to call the ring. Raises SecretsError."""


class _Members(list[tuple[str, object]]):
    """An object as it was written: JSON would forget the first of two members with one name."""


def parse_rings(text: str, what: str, parse_ring: ParseRing) -> dict[bytes, tuple[bytes, ...]]:
    """By tenant_id of 16 bytes. ``what``: the variable or file. Raises SecretsError."""
    rings: dict[bytes, tuple[bytes, ...]] = {}
    for position, (name, keys) in enumerate(_members(text, what), start=1):
        tenant_id = _tenant_id(name, f"{what}: member {position}")
        ring = f"{what}: tenant {tenant_id}"
        if tenant_id.bytes in rings:
            raise SecretsError(f"{ring} is there twice; write one ring with all its keys")
        if isinstance(keys, _Members) or not isinstance(keys, list) or not all(map(_is_text, keys)):
            raise SecretsError(f'{ring} has no list of keys; write ["current key", "older key"]')
        rings[tenant_id.bytes] = parse_ring(keys, ring)
    return rings


def _members(text: str, what: str) -> _Members:
    try:
        read = json.loads(text, object_pairs_hook=_Members)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise SecretsError(f"{what} is no JSON: {where}") from None
    except (ValueError, RecursionError):  # numbers of thousands of digits, thousands of brackets
        raise SecretsError(f"{what} is no JSON of tenants and their keys") from None
    if not isinstance(read, _Members):
        raise SecretsError(f'{what} is no JSON object; write {{"tenant-uuid": ["key"]}}')
    return read


def _tenant_id(name: str, where: str) -> uuid.UUID:
    try:
        return uuid.UUID(name)
    except ValueError:
        raise SecretsError(f"{where} is not named by a tenant's UUID") from None


def _is_text(key: object) -> bool:
    return isinstance(key, str)
