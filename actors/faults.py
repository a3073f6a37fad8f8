"""Named points where a test, a drill or a chaos run can make things go wrong; nothing happens unless armed.

It alone knows what is armed. It never does anything in a house that was not asked for it: the environment is
read only by ``arm_from_environment``, and only with ``SEQUENCER_FAULTS=1``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import msgspec
import trio


class InjectedFault(Exception):
    """Raised at an armed point: a surprise like any other."""


class Fault(msgspec.Struct, frozen=True):
    """``crash`` raises InjectedFault, ``delay`` sleeps ``delay_s``, ``exit`` ends the process by SIGKILL:
    the ``nth`` time the point is reached (1 is the first) and the ``times - 1`` times after it."""

    what: Literal["crash", "delay", "exit"]
    nth: int = 1
    times: int = 1
    delay_s: float = 0.0


_armed: dict[str, Fault] = {}
_reached: dict[str, int] = {}


def checkpoint(name: str) -> None:
    """The point ``name`` is reached. No place where Trio switches tasks; a delay does nothing here."""
    if _armed:
        _act(name)


async def checkpoint_or_wait(name: str) -> None:
    """As ``checkpoint``, for points that can also be delayed. Trio switches tasks only if one is."""
    if _armed:
        delay_s = _act(name)
        if delay_s:
            await trio.sleep(delay_s)


def arm(name: str, fault: Fault) -> None:
    """From now on; counting starts anew."""
    _armed[name] = fault
    _reached[name] = 0


def disarm_all() -> None:
    _armed.clear()
    _reached.clear()


@contextmanager
def armed(faults: Mapping[str, Fault]) -> Iterator[None]:
    """For a test: these faults, and none afterwards."""
    try:
        for name, fault in faults.items():
            arm(name, fault)
        yield
    finally:
        disarm_all()


def reached(name: str) -> int:
    """How often an armed point was reached, so that a run can show that its faults were hit."""
    return _reached.get(name, 0)


def arm_from_environment(environ: Mapping[str, str], *, variable: str = "SEQUENCER_CRASH_AT") -> None:
    """With ``SEQUENCER_FAULTS=1``, ``SEQUENCER_CRASH_AT=name[:nth]`` kills this process there. ValueError for
    an ``nth`` that is no positive integer: a typing error must not pass for a survived crash. A worker obeys
    ``SEQUENCER_WORKER_CRASH_AT`` in the same way."""
    wanted = environ.get(variable, "")
    if environ.get("SEQUENCER_FAULTS") != "1" or not wanted:
        return
    name, _, nth = wanted.partition(":")
    count = int(nth or "1")
    if count < 1:
        raise ValueError(f"{variable}={wanted}: the count starts at 1")
    arm(name, Fault("exit", nth=count))


def _act(name: str) -> float:
    fault = _armed.get(name)
    if fault is None:
        return 0.0
    _reached[name] += 1
    if not fault.nth <= _reached[name] < fault.nth + fault.times:
        return 0.0
    if fault.what == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.what == "crash":
        raise InjectedFault(f"at {name}")
    return fault.delay_s
