"""What a route is: how it is reached, what it takes and answers, and who handles it.

The table of routes is the one source for dispatching, for permissions and rate limits, and for the OpenAPI
document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from actors.rate_limits import RateClass
from transport.http.errors import Code
from transport.http.permissions import NEEDED
from transport.http.rate_classes import CLASS_OF
from transport.http.shapes import NoParameters
from transport.http.visit import Visit

JSON = "application/json"


class Reply(NamedTuple):
    """A finished answer. ``body`` is encoded as it is."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Visit], Awaitable[msgspec.Struct | Reply]]


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    """With ``{names}`` of path parameters."""
    handle: Handler
    summary: str
    answers: Any
    """The struct of the usual reply."""
    status: int = 200
    """Of the usual reply."""
    pending: str | None = None
    """When 202 is answered too, in the same shape: what is not done yet."""
    refuses: tuple[Code, ...] = ()
    """Its own refusals, beside those every route of its kind has."""
    path_shape: type[msgspec.Struct] = NoParameters
    query_shape: type[msgspec.Struct] = NoParameters
    body_shape: type[msgspec.Struct] | None = None
    content_type: str = JSON
    works_without_database: bool = False
    """Audit entries of its visits may wait in the spool."""
    needed: tuple[str, ...] = field(init=False)
    """Permissions, any of them; empty for public routes."""
    rate_class: RateClass = field(init=False)

    def __post_init__(self) -> None:
        try:
            needed = NEEDED[self.method, self.path]
        except KeyError:
            raise LookupError(f"{self.method} {self.path} has no row in the permission table") from None
        object.__setattr__(self, "needed", needed)
        try:
            rate_class = CLASS_OF[self.method, self.path]
        except KeyError:
            raise LookupError(f"{self.method} {self.path} has no row in the table of rate classes") from None
        if (rate_class == "public") is not (needed == ()):
            raise LookupError(f"{self.method} {self.path}: public routes, and only they, are of class public")
        object.__setattr__(self, "rate_class", rate_class)
