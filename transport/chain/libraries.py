"""web3 and py-trie, imported here and nowhere else: a server without anchoring never waits for them.

With them comes py_ecc, which raises Python's recursion limit to 100,000 for the whole process. A text nested
that deep then overflows the C stack of whichever JSON parser reads it, and the process is gone. So the limit
is put back; modules are imported once, nobody raises it again.
"""

from __future__ import annotations

import sys

_before = sys.getrecursionlimit()

import rlp  # noqa: E402
from trie.hexary import HexaryTrie  # noqa: E402
from web3 import AsyncWeb3  # noqa: E402
from web3.providers.async_base import AsyncJSONBaseProvider  # noqa: E402

PYTHONS_OWN = 1000
"""Python's limit, for a process in which somebody imported py_ecc before us."""

sys.setrecursionlimit(_before if _before < 100_000 else PYTHONS_OWN)

__all__ = ["AsyncJSONBaseProvider", "AsyncWeb3", "HexaryTrie", "rlp"]
