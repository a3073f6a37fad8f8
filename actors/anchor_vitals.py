"""How anchoring goes on this node, as the anchor tells it and as metrics, routes and operators read it.

The anchor writes here and nobody else does. What happened to commitments is in the journal, which all nodes
share; here is only what this process sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from actors.chain import Chain

Role = Literal["apart", "starting", "standby", "active", "stopped"]
"""apart: the anchor is not in this process; standby: another node's anchor works; stopped: it needs an
operator, ``trouble`` says why."""


@dataclass
class AnchorVitals:
    role: Role = "starting"
    trouble: str | None = None
    """Why nothing is sent now, in words for the operator; None: all is well."""
    address: bytes | None = None
    """The account's."""
    balance_wei: int | None = None
    latest_block: int | None = None
    safe_block: int | None = None
    finalized_block: int | None = None
    base_fee_per_gas: int | None = None
    spent_today_wei: int = 0
    sent: int = 0
    """Transactions given to the chain since the start, replacements among them."""
    replaced: int = 0
    reverted: int = 0
    reorganised: int = 0
    """Anchors that a reorganisation took back."""
    breaker_open: bool = False
    """The chain failed again and again, and is left alone for a while."""
    looked_at_s: float = 0.0
    """When the chain was last seen, seconds since the Unix epoch."""


@dataclass(frozen=True)
class Anchoring:
    chain: Chain
    """For looking; the anchor has its own."""
    contract: bytes
    vitals: AnchorVitals
    development_url: str | None = None
    """Where the chain is if it is our own, on this machine; else an address nobody need know."""

    @property
    def development(self) -> bool:
        """Nobody else witnesses this chain."""
        return self.development_url is not None
