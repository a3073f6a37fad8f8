"""Every kind of fault that a run of many seeds must have hit."""

from __future__ import annotations

from collections import Counter

from tests.simulation.script import LEGACY_POINTS, POINTS, REVOKING_POINTS, WORKER_TROUBLES

ENOUGH_SEEDS = 500
"""From so many on every kind is expected."""

KINDS = [
    *(f"crash at {point}" for point in [*POINTS, *LEGACY_POINTS, *REVOKING_POINTS]),
    *(f"worker {trouble}" for trouble in WORKER_TROUBLES),
    *(f"journal {what}" for what in ("away", "lost", "unheard", "held")),
    "outage",
    "slow database",
    "clock falls back",
    "kill sequencer",
    "kill actor",
    "kill anytime",
    "node killed",
    "node stopped",
    "operator suspend",
    "operator drain",
    "operator restart",
    "caller left",
    "mailbox full",
    "too many tenants",
    "retired or stopped",
    "revoked key",
    "revoked API key",
]


def never_hit(hits: Counter[str], *, seeds: int) -> list[str]:
    return [kind for kind in KINDS if not hits[kind]] if seeds >= ENOUGH_SEEDS else []
