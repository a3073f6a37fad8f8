"""Memory that is touched once before a measurement, so that what is measured need not wait for it.

A virtual machine may get its memory from the host page by page, when a page is first written to, and give it back
when it has not been used for a while. Then each new page in PostgreSQL's files costs a multiple of what it costs on
hardware, in stalls of tens of milliseconds, and more so the longer a benchmark goes on.
"""

from __future__ import annotations

import mmap
import os
import time

BYTES_PER_S = 256 * 1024**2
"""Of a run: two or three times what is written to files in it."""
BYTES_MAX = 2 * 1024**3
_CHUNK = 1024**2


def touch(seconds: float) -> float:
    """Touches as much free memory as a run of so many seconds may want, half of it at most, and gives it back.
    Microseconds a page, over those touched for the first time in a while and the others."""
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    wanted = min(int(BYTES_PER_S * seconds), BYTES_MAX, free // 2)
    count = max(_CHUNK, wanted // _CHUNK * _CHUNK)
    zeros = bytes(_CHUNK)
    with mmap.mmap(-1, count) as memory:
        began = time.perf_counter()
        for at in range(0, count, _CHUNK):
            memory[at : at + _CHUNK] = zeros
        spent = time.perf_counter() - began
    return 1e6 * spent / (count // mmap.PAGESIZE)
