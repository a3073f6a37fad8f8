"""What a node answers that must not write: a database was restored, and nobody has confirmed it yet.

Reads, proofs and receipts are served; everything that would write is NOT_READY. The journal refuses writing
too (``rest_from_writing``): this only says so early and by name.
"""

from __future__ import annotations

from transport.house import House
from transport.http.errors import ApiError, Code
from transport.http.routing import Route

RETRY_S = 60.0
WRITES_NOTHING = {
    ("POST", "/api/v1/ves/proofs/verify"),
    ("POST", "/api/v1/proofs/verify"),
    ("POST", "/api/v1/schemas/validate"),
}
"""Besides GET, and besides what operators do with actors, which needs no database."""


def writes(route: Route) -> bool:
    reads = route.method == "GET" or (route.method, route.path) in WRITES_NOTHING
    return not reads and not route.works_without_database


def must_not_write(house: House, route: Route) -> None:
    """Raises ApiError when the route would write and this node must not."""
    if house.read_only is not None and writes(route):
        raise ApiError(Code.NOT_READY, f"{house.read_only}; nothing was done", retry_after_s=RETRY_S)
