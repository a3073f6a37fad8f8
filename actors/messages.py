"""What can be asked of whom. Each message is named after what is wanted and says what it is answered with.

Messages are frozen and carry raw bytes, not live objects, so that a letter can wait, be retried in the next
life, or be shown to an operator. ``repeatable`` messages may be handed to a second incarnation when the
first one died with the letter in hand: doing them twice is the same as once.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

import msgspec

from journal.port import Compatibility
from ves.kdf import Purpose
from ves.legacy import EmptyBatch, LegacyBatch
from ves.legacy_commitments import LegacyCommitment
from ves.policy import Policy
from ves.records import (
    BodyRefused,
    Commitment,
    CredentialId,
    KeyName,
    NeedsPolicy,
    NumberedEvent,
    Receipt,
    Refusal,
    Scope,
    SealedEvent,
    Uuid,
    VerifiedBatch,
)

A = TypeVar("A")


class Message(msgspec.Struct, Generic[A], frozen=True):
    """A letter's content; ``A`` is the type of its answer."""

    repeatable: ClassVar[bool] = False

    # For mailboxes that many tenants share.

    @property
    def lane(self) -> Uuid | None:
        """The tenant it is for; None: nobody in particular."""
        return None

    @property
    def weight(self) -> int:
        """About the microseconds of a core that it takes, at least 1."""
        return 1


LETTER_US = 100
"""To a worker process and back."""
BODY_BYTES_PER_US = 12
"""An event of a thousand bytes takes 80 µs, most of it the signature's."""
SEAL_US = 25
OPEN_US = 3
SERVE_US = 12
"""Of one event or value."""


# To the verifier pool.


class _Body(Message[A], Generic[A], frozen=True):
    """What arrived, for whom."""

    repeatable: ClassVar[bool] = True
    body: bytes
    scope: Scope
    policy: Policy | None = None
    """Of the tenant the credential belongs to, as it is now; None: it belongs to none."""

    @property
    def lane(self) -> Uuid | None:
        return self.scope.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + len(self.body) // BODY_BYTES_PER_US


class Verify(_Body[VerifiedBatch | BodyRefused | NeedsPolicy], frozen=True):
    """Answered with the request's events verified, each or refused, or with the refusal of the whole body; or
    with whose policy is needed, which only happens when it is not given."""


class VerifyLegacy(_Body[LegacyBatch | EmptyBatch | BodyRefused | NeedsPolicy], frozen=True):
    """Like Verify, for a body of the legacy stream: answered with its events checked, each or refused."""


# To the encryptor pool.


class Sealed(msgspec.Struct, frozen=True):
    """``events``: one per event asked for, in order, all signed with the receipt key of this version."""

    sequencer_key_version: int
    events: list[SealedEvent]


class Seal(Message[Sealed], frozen=True):
    """Answered with Sealed: which key signed is said by the one who signed, never believed from elsewhere."""

    repeatable: ClassVar[bool] = True
    tenant_id: Uuid
    events: list[NumberedEvent]

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + SEAL_US * len(self.events)


class SealedPayload(msgspec.Struct, frozen=True, array_like=True):
    """A frame and what binds it to its row (DECISIONS: the AAD of ``ves_events.payload_sealed``)."""

    store_id: Uuid
    event_id: Uuid
    sequence_number: int
    event_signing_hash: bytes
    payload_sealed: bytes


class Open(Message[list[bytes]], frozen=True):
    """Answered with the plaintext of each frame, in order. A frame that does not open kills nothing: it is
    an ``Unavailable`` naming the row, for the operator to see."""

    repeatable: ClassVar[bool] = True
    tenant_id: Uuid
    payloads: list[SealedPayload]

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + OPEN_US * len(self.payloads)


class ServedEvents(msgspec.Struct, frozen=True, array_like=True, tag="served"):
    """``count`` events as they are served, JSON texts with commas between them."""

    texts: bytes
    count: int
    unencrypted: int
    """So many of them were stored as they are, in an earlier mode."""


class ServePage(Message[ServedEvents], frozen=True):
    """Answered with all events of a page as they are served, opened, in order. One that does not open kills
    nothing: it is an ``Unavailable`` naming the row, for the operator to see."""

    repeatable: ClassVar[bool] = True
    tenant_id: Uuid
    packed: bytes
    """As ``journal.packed`` has them."""
    count: int

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + SERVE_US * self.count


class RowBytes(msgspec.Struct, frozen=True, array_like=True):
    """A value of any other table that is encrypted at rest."""

    name: str
    """How an operator finds the row, for errors."""
    row_hash: bytes
    """The 32 bytes that bind it to its row (``ves.at_rest``)."""
    content: bytes
    """Its plaintext, or what is stored."""


class SealAtRest(Message[list[bytes]], frozen=True):
    """Answered with what is to be stored for each value, in order: opened once more before it leaves."""

    repeatable: ClassVar[bool] = True
    purpose: Purpose
    tenant_id: Uuid
    values: list[RowBytes]

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + OPEN_US * len(self.values)


class OpenAtRest(Message[list[bytes]], frozen=True):
    """Answered with the plaintext of each stored value, in order. One that does not open kills nothing: it is
    an ``Unavailable`` naming the row, for the operator to see."""

    repeatable: ClassVar[bool] = True
    purpose: Purpose
    tenant_id: Uuid
    values: list[RowBytes]

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id

    @property
    def weight(self) -> int:
        return LETTER_US + OPEN_US * len(self.values)


# To the agent-key registry.


class FindKeys(Message[dict[KeyName, bytes]], frozen=True):
    """Answered with the public keys (32 bytes) of those that are registered; absent ones are left out."""

    repeatable: ClassVar[bool] = True
    keys: list[KeyName]


# To the schema checker.


class CheckSchema(Message["str | None"], frozen=True):
    """Answered with None when it may be registered, else with the reason, for its author."""

    repeatable: ClassVar[bool] = True
    schema_json: str
    compatibility: Compatibility
    previous: str | None
    """The schema it has to be compatible with."""
    previous_version: int


class CheckPayload(Message["list[tuple[str, str]] | None"], frozen=True):
    """Answered with (JSON pointer, message) of what does not match; None when comparing took too long."""

    repeatable: ClassVar[bool] = True
    schema_json: str
    payload: bytes


# To a tenant's sequencer.


class Append(Message["Appended"], frozen=True):
    """Answered with ``Appended`` once everything accepted is durable."""

    batch: VerifiedBatch
    credential_id: CredentialId | None
    """What the request came with; None for the bootstrap credential."""


class Appended(msgspec.Struct, frozen=True):
    """Durable. Verdicts in request order: Receipt for accepted and replayed events, else Refusal."""

    verdicts: list[Receipt | Refusal]
    events_accepted: int
    events_replayed: int
    sequence_start: int | None
    sequence_end: int | None
    head_sequence: int


class AppendLegacy(Message["AppendedLegacy"], frozen=True):
    """Answered with ``AppendedLegacy`` once everything accepted is durable."""

    batch: LegacyBatch
    credential_id: CredentialId | None


class AppendedLegacy(msgspec.Struct, frozen=True):
    """Durable. ``rejections`` in request order; what is not among them was accepted."""

    rejections: list[Refusal]
    events_accepted: int
    sequence_start: int | None
    sequence_end: int | None
    head_sequence: int


# To the committer.


class Commit(Message["Committed | NothingToCommit | RangeRefused"], frozen=True):
    """Commit a stream's events: the given range, or without one everything not yet committed, up to the
    limit of one commitment. Repeating a stored range is answered with the stored commitment."""

    tenant_id: Uuid
    store_id: Uuid
    sequence_start: int | None = None
    sequence_end: int | None = None

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id


class Committed(msgspec.Struct, frozen=True):
    """The stored commitment; ``remaining`` events of the stream stay uncommitted."""

    commitment: Commitment
    remaining: int


class CommitTogether(Message["list[Committed | NothingToCommit | RangeRefused | CommitAlone]"], frozen=True):
    """Commit small ranges of many streams, each of another one; answered in their order."""

    ranges: tuple[Commit, ...]
    """Each with its start and end, as many and as long as ``journal.port`` allows."""

    @property
    def weight(self) -> int:
        return len(self.ranges)


class CommitAlone(msgspec.Struct, frozen=True):
    """Nothing was done: what is the matter with this range shows only when it is committed by itself."""


class CommitLegacy(Message["LegacyCommitted | NothingToCommit | RangeRefused"], frozen=True):
    """The same for the legacy stream of a store."""

    tenant_id: Uuid
    store_id: Uuid
    sequence_start: int | None = None
    sequence_end: int | None = None

    @property
    def lane(self) -> Uuid | None:
        return self.tenant_id


class LegacyCommitted(msgspec.Struct, frozen=True):
    """The stored commitment; ``remaining`` events of the stream stay uncommitted."""

    commitment: LegacyCommitment
    remaining: int


class NothingToCommit(msgspec.Struct, frozen=True):
    """The stream has no uncommitted event (409)."""


class RangeRefused(msgspec.Struct, frozen=True):
    """The range cannot be committed (409 or 400); the message names the next possible start."""

    conflict: bool
    """True: it clashes with what is stored (409). False: it is no range of existing events (400)."""
    message: str
