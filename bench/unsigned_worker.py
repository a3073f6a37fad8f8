"""A worker process whose signatures cost nothing: ``python -m bench.unsigned_worker PARENT_PID``.

The real worker in everything but Ed25519: every signature is believed without a look, and receipts bear 64
zeros. For ``bench.core_alone`` only, which wants to know what a node could do if processors for its workers
were never short. What such a node says proves nothing.
"""

from __future__ import annotations

from typing import Any

import ves.signatures
from actors import worker

NO_SIGNATURE = bytes(64)


def believe_everything() -> None:
    """In this process, from now on."""
    signatures: Any = ves.signatures
    signatures.crypto_sign_open = lambda signed, public_key: b""
    signatures.crypto_sign = lambda message, secret: NO_SIGNATURE + message


if __name__ == "__main__":
    believe_everything()
    worker.main()
