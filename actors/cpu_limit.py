"""A process's own end when it works too long on one thing: the kernel sends SIGPROF, which nobody handles.

For worker processes only. Counts processor time, not the clock's, so a process that waits or is stopped does
not die of it; whoever owns it tells from its exit status why it is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_STATUS = -signal.SIGPROF


def arm(seconds: float) -> None:
    """Die after so much more processor time, unless disarmed (0) before."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    arm(seconds)
    try:
        yield
    finally:
        arm(0)
