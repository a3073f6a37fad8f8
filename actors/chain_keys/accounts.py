"""eth_account, imported here and nowhere else, by the signing process alone.

With it comes py_ecc, which raises Python's recursion limit to 100,000 for the whole process: a text nested
that deep would then overflow the C stack of the parser that reads it. So the limit is put back.
"""

from __future__ import annotations

import sys

_before = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402

PYTHONS_OWN = 1000
"""For a process in which somebody imported py_ecc before us."""

sys.setrecursionlimit(_before if _before < 100_000 else PYTHONS_OWN)

__all__ = ["Account"]
