"""The process of a front-end: ``python -m transport.front PARENT_PID``.

It holds what its first frame brought and the listening sockets it inherited; no environment, no files, no
database. It is killed by the kernel when its parent dies.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial

import trio

from actors import freed_memory
from actors.pipe import send_all
from actors.worker import guard
from transport.front.server import Front

COLLECT_AFTER = (10_000, 20, 20)


def main() -> None:
    guard(parent=int(sys.argv[1]))
    freed_memory.keep_some()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    trio.run(_front)


async def _front() -> None:
    # Under numbers that nobody else writes to: a stray ``print`` goes to stderr.
    requests, answers = trio.lowlevel.FdStream(os.dup(1)), trio.lowlevel.FdStream(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    await Front(partial(send_all, requests), answers.receive_some).run()


if __name__ == "__main__":
    main()
