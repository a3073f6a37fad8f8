"""The step between fork and exec of a PostgreSQL program: run as a script, it becomes that program.

    python -I -S embedded_child.py PARENT_PID SIGNAL IDENTITY PROGRAM ARGUMENT…

Alone decides under which identity PostgreSQL runs and ties its life to the thread that started it. Imports
nothing of ours and nothing slow. A program of its own instead of ``preexec_fn``, because Python code between
fork and exec is not safe in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

IDENTITY_REFUSED = 77
"""Exit code: this machine does not let us take that identity."""

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_INNER_ID = 65534
"""Any id but 0 will do; 65534 is what an unmapped id is shown as anyway."""


def main() -> None:
    parent, death_signal, identity, program, *arguments = sys.argv[1:]
    try:
        _take(identity)
    except OSError as error:
        print(f"cannot become {identity}: {error}", file=sys.stderr)  # noqa: T201 - a script's last words
        sys.exit(IDENTITY_REFUSED)
    _die_with(int(parent), int(death_signal))  # after the identity: a changed one clears it
    os.execv(program, [program, *arguments])  # noqa: S606 - the very purpose, no shell wanted


def _take(identity: str) -> None:
    """``as-is``; ``namespace``: root outside and a plain user to itself; ``account:UID:GID``."""
    if identity == "namespace":
        _enter_user_namespace()
    elif identity.startswith("account:"):
        uid, gid = map(int, identity.split(":")[1:])
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _enter_user_namespace() -> None:
    """PostgreSQL refuses uid 0. In a namespace where our uid is shown as another it sees no root, while
    every file stays the same owner's: no account to create, nothing to make readable for others."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, text in (
        ("setgroups", "deny"),  # first, or gid_map is not ours to write (user_namespaces(7))
        ("uid_map", f"{_INNER_ID} {uid} 1"),
        ("gid_map", f"{_INNER_ID} {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def _die_with(parent: int, death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
