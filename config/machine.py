"""What of this machine we may use: what it has, less what somebody took away from us.

Reads the affinity mask and the limits (``cpu.max`` and ``memory.max``) of our control group (cgroup v2) and
of those that it is in, once each time it is asked; nothing else is looked at. In a container ours is the top
of what we see; as a systemd unit it is further down.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """At least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    quotas = map(_quota, _limits(cgroup, membership, "cpu.max"))
    return max(1, min([allowed, *(quota for quota in quotas if quota is not None)]))


def usable_memory(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Bytes."""
    limits = _limits(cgroup, membership, "memory.max")
    return min([installed_memory(), *(int(limit) for limit in limits if limit.isdecimal())])


def installed_memory() -> int:
    """Bytes, whoever may use them."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _quota(told: str) -> int | None:
    """Whole cores, rounded up; None without a quota, or where it cannot be understood."""
    try:
        limit, period = told.split()
        return None if limit == "max" else math.ceil(int(limit) / int(period))
    except (ValueError, ArithmeticError):
        return None


def _limits(cgroup: Path, membership: Path, name: str) -> Iterator[str]:
    """What is set for our group and for each that it is in, as far as we can see them."""
    ours = _our_group(membership)
    for group in (ours, *ours.parents):
        try:
            yield (cgroup / group / name).read_text().strip()
        except (OSError, ValueError):
            continue


def _our_group(membership: Path) -> PurePosixPath:
    """Below the top of what we see; the top itself where nothing says more."""
    try:
        lines = membership.read_text().splitlines()
    except (OSError, ValueError):
        return PurePosixPath()
    for line in lines:
        number, _, rest = line.partition(":")
        _, _, path = rest.partition(":")
        group = PurePosixPath(path.lstrip("/"))
        if number == "0" and ".." not in group.parts:  # with "..", ours is above what we see
            return group
    return PurePosixPath()
