"""Security events: what somebody should look at, counted and said once as a structured log line.

Alone owns the list of kinds, so that metrics, log lines and alert rules speak of the same things. Decides
nothing, keeps no history (the audit log does), and never takes a secret or a payload.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

import structlog

SecurityEvent = Literal[
    "authentication_failed",
    "authentication_throttled",
    "permission_denied",
    "rate_limited",
    "signature_failed",
    "agent_key_registered",
    "agent_key_revoked",
    "agent_key_overdue",
    "receipt_key_rotated",
    "receipt_key_overdue",
    "credential_created",
    "credential_revoked",
    "audit_chain_broken",
    "certificate_reloaded",
    "certificate_refused",
    "anchor_failed",
]
KINDS: tuple[SecurityEvent, ...] = get_args(SecurityEvent)

log = structlog.get_logger("security")


class SecurityEvents:
    """One per node. ``counts`` starts with every kind at 0: an alert rule needs the series to exist."""

    def __init__(self) -> None:
        self.counts: Counter[SecurityEvent] = Counter(dict.fromkeys(KINDS, 0))

    def happened(self, kind: SecurityEvent, /, *, times: int = 1, **about: str | int | None) -> None:
        """Counted ``times`` and logged as one line ``security_event`` with ``kind`` and ``about``."""
        self.counts[kind] += times
        self.told(kind, times=times, **about)

    def told(self, kind: SecurityEvent, /, *, times: int, **about: str | int | None) -> None:
        """Logged only: what was counted one by one before."""
        log.warning("security_event", kind=kind, times=times, **about)

    def counted(self, kind: SecurityEvent) -> None:
        """Counted only: for what can happen thousands of times a second and is logged elsewhere in sum."""
        self.counts[kind] += 1
