"""What of this machine we may use: what it has, less what somebody took away from us.

Reads the affinity mask and the limits of our control group (cgroup v2, ``cpu.max`` and ``memory.max``), once
each time it is asked; nothing else is looked at.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """At least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, allowed if quota is None else min(allowed, quota))


def _quota(cgroup: Path) -> int | None:
    """Whole cores, rounded up; None without a quota, or where it cannot be read."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else math.ceil(int(limit) / int(period))


def usable_memory(cgroup: Path = CGROUP) -> int:
    """Bytes."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(installed, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # no limit ("max"), or none that can be read
        return installed
