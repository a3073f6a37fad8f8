"""What the C library does with memory that was freed: keeps some of it for the next message.

Pages, bodies and frames are buffers of a megabyte that come and go. glibc gives each back to the kernel at
once and asks for it anew, and the kernel clears every 4 KiB of it again: for a page of a thousand events that
costs more than all our copying. Alone knows ``mallopt``; on a C library without it nothing is done.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES_MAX = 16 * 1024 * 1024
"""So much freed memory at the end of the heap stays ours."""
_OWN_MAPPING_BYTES = 8 * 1024 * 1024
"""What is larger than this is mapped by itself, and unmapped when it is freed."""
_ARENAS = 1
"""Threads of ours wait, or do one thing at a time: they need no heaps of their own."""


def keep_some() -> None:
    """For this process, from now on."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX)
        mallopt(_M_ARENA_MAX, _ARENAS)
