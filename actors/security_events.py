"""Security events: what somebody should look at, counted and said once as a structured log line.

Alone owns the list of kinds, so that metrics, log lines and alert rules speak of the same things. A kind that
comes in floods is logged line by line up to a limit per minute, then in sum: strangers cannot fill the disk.
Decides nothing, keeps no history (the audit log does), and never takes a secret or a payload.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
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
    "agent_key_compromised",
    "agent_key_overdue",
    "receipt_key_rotated",
    "receipt_key_overdue",
    "credential_created",
    "credential_revoked",
    "audit_chain_broken",
    "stored_value_unopened",
    "certificate_reloaded",
    "certificate_refused",
    "anchor_failed",
]
KINDS: tuple[SecurityEvent, ...] = get_args(SecurityEvent)

LINES_MAX = 30
"""Log lines of one kind in one period; what comes beyond is told in sum when the period is over."""
PERIOD_S = 60.0
COMPROMISE = ("suspected_compromise", "compromised", "key_compromise")
"""Reasons of a revocation that are worth waking somebody."""

log = structlog.get_logger("security")


class SecurityEvents:
    """One per node. ``counts`` starts with every kind at 0: an alert rule needs the series to exist."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[SecurityEvent] = Counter(dict.fromkeys(KINDS, 0))
        self._now = now
        self._period_ends = now() + PERIOD_S
        self._lines: Counter[SecurityEvent] = Counter()
        self._withheld: Counter[SecurityEvent] = Counter()

    def happened(self, kind: SecurityEvent, /, *, times: int = 1, **about: str | int | None) -> None:
        """Counted ``times`` and logged as one line ``security_event`` with ``kind`` and ``about``. A key
        revoked for a ``reason`` of COMPROMISE counts as ``agent_key_compromised`` too."""
        self.counts[kind] += times
        self.told(kind, times=times, **about)
        if kind == "agent_key_revoked" and str(about.get("reason")).strip().lower() in COMPROMISE:
            self.happened("agent_key_compromised", times=times, **about)

    def told(self, kind: SecurityEvent, /, *, times: int, **about: str | int | None) -> None:
        """Logged only: what was counted one by one before."""
        self.tell_withheld()
        self._lines[kind] += 1
        if self._lines[kind] > LINES_MAX:
            self._withheld[kind] += times
        else:
            log.warning("security_event", kind=kind, times=times, **about)

    def counted(self, kind: SecurityEvent) -> None:
        """Counted only: for what can happen thousands of times a second and is logged elsewhere in sum."""
        self.counts[kind] += 1

    def tell_withheld(self) -> None:
        """Once a period is over, what it had too much of is logged in sum. Asked every second, too."""
        if self._now() < self._period_ends:
            return
        for kind, times in self._withheld.items():
            log.warning("security_event", kind=kind, times=times, summary=f"beyond {LINES_MAX} lines")
        self._lines.clear()
        self._withheld.clear()
        self._period_ends = self._now() + PERIOD_S
