"""What may be demanded of an event beyond the protocol: entity types, size, a schema for its payload.

Pure: the tenant's policy and an engine that compares a payload with a schema come in as arguments. What comes
out are findings, which count only if the event turns out to be no replay, so that a policy narrowed later
refuses no honest resend. Never looks at signatures or at the clock, and never says what a payload holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from ves.constants import ENCRYPTED, PAYLOAD_BYTES_MAX
from ves.legacy import LegacyEvent
from ves.records import Finding, SchemaChecks, Uuid, VerifiedEvent, Warned

Judged = VerifiedEvent | LegacyEvent

SchemaMode = Literal["disabled", "warn", "enforce", "required"]
"""disabled: not looked at. warn: accepted and counted. enforce: what does not match is refused. required: so
is what has no schema, and what cannot be read because it is encrypted."""
FUTURE_US_MAX = 3600 * 1_000_000
"""How far ``created_at`` may lie ahead of our clock, unless the operator says otherwise."""
POINTER_CHARACTERS_MAX = 256
WARNED_MAX = 10


class SchemaName(NamedTuple):
    """The newest active schema of an event type."""

    event_type: str
    schema_id: Uuid
    version: int


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """What a tenant demands, the node's defaults applied."""

    tenant_id: Uuid | None = None
    """None: of everybody who demands nothing."""
    stamp: int = 0
    """Rises with each change; 0: the tenant never demanded anything."""
    entity_types: tuple[str, ...] | None = None
    """None: all."""
    schema_mode: SchemaMode = "enforce"
    schemas: tuple[SchemaName, ...] = ()
    regions: tuple[str, ...] = ()
    """Where the tenant may be served; none named: anywhere."""


class Mismatch(msgspec.Struct, frozen=True):
    """Where a payload leaves its schema. Holds no value of the payload."""

    pointer: str
    """JSON pointer into the payload."""
    keyword: str
    where: str
    """JSON pointer into the schema."""


Compare = Callable[[SchemaName, bytes], Mismatch | None]
"""Compares a payload's canonical JSON text with a schema."""
TOO_SLOW = "time"
"""The keyword of a payload that takes too long to be compared."""


class Judge:
    """A tenant's policy, applied to one request's events; counts what it does."""

    def __init__(
        self, policy: Policy, compare: Compare, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX
    ) -> None:
        self._entity_types = None if policy.entity_types is None else frozenset(policy.entity_types)
        self._mode = policy.schema_mode
        self._schemas = {name.event_type: name for name in policy.schemas} if looks(policy) else {}
        self._compare = compare
        self._payload_bytes_max = payload_bytes_max
        self._validated = self._failed = self._unread = 0
        self._warned: list[Warned] = []

    def __call__(self, event: Judged) -> tuple[Finding, ...]:
        """In the order in which they count."""
        if len(event.payload) > self._payload_bytes_max:
            return (self._too_large(event),)
        found = []
        if self._mode != "disabled" and (finding := self._of_schema(event)) is not None:
            found.append(finding)
        if self._entity_types is not None and event.entity_type not in self._entity_types:
            found.append(_ENTITY_TYPE)
        return tuple(found)

    @property
    def checks(self) -> SchemaChecks | None:
        """What was compared; None when nothing was."""
        if not (self._validated or self._failed or self._unread):
            return None
        return SchemaChecks(self._mode, self._validated, self._failed, self._unread, self._warned)

    def _of_schema(self, event: Judged) -> Finding | None:
        name = self._schemas.get(event.event_type)
        if name is None:
            if self._mode != "required":
                return None
            self._failed += 1
            text = f"No schema registered for event type '{event.event_type}'"
            return Finding("schema_validation: event_type", text)
        if _is_encrypted(event):
            return self._unreadable()
        mismatch = self._compare(name, event.payload)
        if mismatch is None:
            self._validated += 1
            return None
        self._failed += 1
        if self._mode != "warn":
            return _finding(name, mismatch)
        if len(self._warned) < WARNED_MAX:
            self._warned.append(Warned(event.event_id, name.schema_id, mismatch.keyword, mismatch.where))
        return None

    def _unreadable(self) -> Finding | None:
        self._unread += 1
        return _ENCRYPTED if self._mode == "required" else None

    def _too_large(self, event: Judged) -> Finding:
        field = "payload_encrypted" if _is_encrypted(event) else "payload"
        size, limit = len(event.payload), self._payload_bytes_max
        return Finding(f"schema_validation: {field}", f"{field} has {size} bytes, at most {limit} fit")


def _is_encrypted(event: Judged) -> bool:
    return isinstance(event, VerifiedEvent) and event.payload_kind == ENCRYPTED


def looks(policy: Policy) -> bool:
    """Whether schemas matter at all."""
    return policy.schema_mode != "disabled"


def demands_nothing(policy: Policy, *, payload_bytes_max: int) -> bool:
    """No judge is needed."""
    idle = not looks(policy) or (policy.schema_mode != "required" and not policy.schemas)
    return idle and policy.entity_types is None and payload_bytes_max >= PAYLOAD_BYTES_MAX


def wanted(policy: Policy, event_types: set[str]) -> list[SchemaName]:
    """The schemas that events of these types are compared with."""
    if not looks(policy):
        return []
    return [name for name in policy.schemas if name.event_type in event_types]


def _finding(name: SchemaName, mismatch: Mismatch) -> Finding:
    pointer = mismatch.pointer[:POINTER_CHARACTERS_MAX]
    place = f"{pointer} {mismatch.keyword}" if pointer else mismatch.keyword
    text = (
        f"Schema validation failed for event type '{name.event_type}', version {name.version}: "
        f"{pointer or 'the payload'} does not satisfy {mismatch.keyword} (#{mismatch.where} of the schema)"
    )
    if mismatch.keyword == TOO_SLOW:
        text = (
            f"Comparing this payload with version {name.version} of its schema takes too long; simplify one"
        )
    return Finding(f"schema_validation: {place}", text)


_ENTITY_TYPE = Finding(
    "schema_validation: entity_type",
    "entity_type is not on the list of allowed entity types; ask the tenant's administrator",
)
_ENCRYPTED = Finding(
    "schema_validation: payload_encrypted",
    "this tenant requires a schema for every payload, and an encrypted one cannot be compared with any",
)
