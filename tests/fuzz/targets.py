"""All of them, by name. A parser of bytes from outside that is in no target is a hole in this list."""

from __future__ import annotations

from tests.fuzz import of_chains, of_events, of_files, of_keys, of_requests
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (of_events, of_keys, of_requests, of_files, of_chains)
    for target in room.TARGETS
}
