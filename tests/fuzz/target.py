"""What a fuzz target is: bytes go in, and only what it promises comes out.

``feed`` returns when the bytes were taken or refused by name, and raises ``Broken`` when a law does not hold.
Any other exception is a finding as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class Broken(AssertionError):
    """What was accepted does not do what its parser promises."""


def law(holds: bool, text: str) -> None:
    if not holds:
        raise Broken(text)


@dataclass(frozen=True)
class Plant:
    """A mistake to be made on purpose: the target has to find it, or it would find nothing else either."""

    module: str
    name: str
    """Dotted, below the module."""
    mistake: Callable[[Any], Any]
    """From the right function to the wrong one."""


@dataclass(frozen=True)
class Target:
    name: str
    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]
    plant: Plant
    bytes_max: int = 4096


class Unnamed(LookupError):
    """An exception that no reader names."""


def unnamed(right: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a refusal that nobody expects."""

    def wrong(*args: Any, **kwargs: Any) -> Any:
        try:
            return right(*args, **kwargs)
        except Exception as refusal:
            raise Unnamed(str(refusal)) from refusal

    return wrong
