"""What the doors know of the house behind them: addresses, the journal to read from, and who we are.

Built by ``supervisor.tree``; the doors never start, stop or name an actor themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.anchor_vitals import Anchoring
from actors.at_rest_watch import AtRestWatch
from actors.audit_spool import AuditSpool
from actors.certificates import Certificates
from actors.credentials import CredentialBook
from actors.failed_attempts import FailedAttempts
from actors.key_ages import KeyAges
from actors.mailbox import Ref
from actors.policies import PolicyBook
from actors.rate_limits import RateLimits
from actors.right_of_way import RightOfWay
from actors.security_events import SecurityEvents
from actors.sequencer import Tally
from actors.small_bodies import SmallBodies
from actors.tokens import TokenBook
from actors.views import Overseer
from actors.vitals import LoopLag
from config.settings import Settings
from journal.port import Journal
from ves.records import Uuid


@dataclass
class Readiness:
    """Why the node should get no traffic now; empty means ready. SIGTERM sets it first."""

    parts: dict[str, str] = field(default_factory=dict)
    held_back: Callable[[], list[str]] = list
    """Paths in the tree that an operator drained or suspended; asked each time, nobody has to tell."""

    @property
    def reasons(self) -> dict[str, str]:
        """Name of the part -> what it waits for."""
        held_back = self.held_back()
        if not held_back:
            return dict(self.parts)
        return self.parts | {"operator": f"drained or suspended: {', '.join(held_back)}"}

    def wait_for(self, part: str, why: str) -> None:
        self.parts[part] = why

    def done(self, part: str) -> None:
        self.parts.pop(part, None)


class FrontEndView(NamedTuple):
    """One front-end process as the core sees it now."""

    number: int
    connections: int
    requests: int
    """In flight."""


@dataclass(frozen=True)
class House:
    settings: Settings
    journal: Journal
    credentials: CredentialBook
    policies: PolicyBook
    """What tenants demand of their events."""
    tokens: TokenBook
    failed_attempts: FailedAttempts
    verifiers: Ref
    schema_checker: Ref
    """Tries schemas and payloads for those who write them."""
    encryptors: Ref
    sequencer_of: Callable[[Uuid], Ref]
    """The tenant's sequencer; started on first use. Raises TooManyChildren."""
    committer: Ref
    sequencer_id: Uuid
    bootstrap_key_sha256: bytes
    readiness: Readiness
    overseer: Overseer
    """The live supervision tree, for operators."""
    audit_spool: AuditSpool
    """For the acts of operators, who must not wait for the database."""
    security: SecurityEvents
    """Counts and logs what somebody should look at."""
    rate_limits: RateLimits
    at_rest: AtRestWatch
    """How values are stored, and what was seen of stored ones."""
    certificates: Certificates
    """What the listeners show; a change of files is noticed."""
    key_ages: KeyAges
    """How many keys are over age."""
    lag: LoopLag
    tally: Tally
    """What the sequencers count together."""
    right_of_way: RightOfWay
    """Who goes first, between tenants with little and large groups."""
    strays: Callable[[], int]
    """Failures on the database driver's side that nobody waited for; not zero is worth an alert."""
    front_ends: Callable[[], Sequence[FrontEndView]] = tuple
    """The processes that keep the public door; empty: it is kept in this one."""
    anchoring: Anchoring | None = None
    """The chain as this node sees it; None: ANCHOR is off."""
    small_bodies: SmallBodies | None = None
    """Verifies what is small; None: the verifiers verify everything."""
    read_only: str | None = None
    """Why this node writes nothing, for its whole life."""
