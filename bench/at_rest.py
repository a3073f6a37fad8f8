"""What sealing a payload costs: ``python -m bench.at_rest [--rounds 15]``.

Three ways in turns, for payloads of several sizes, in this process and on one core: an ``SSE1`` frame (AES-256-GCM,
the original's), an ``SSE2`` frame (AES-256-GCM-SIV under a derived key), and what the product does, an ``SSE2``
frame that is opened once more before it is stored; then opening each. Keys are ready, as in an encryptor that
knows the tenant. Prints machine, versions, medians over the rounds and their spread (lowest to highest).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

from cryptography.hazmat.backends.openssl import backend

from bench.report import this_machine
from ves.at_rest import NONCE_BYTES, AtRest, AtRestMode, Ring, RingKey, Row
from ves.kdf import Purpose

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
ROUND_S = 0.02
"""About as long as one way is measured in one round."""


def ways(size: int) -> dict[str, Callable[[], object]]:
    key = RingKey(os.urandom(32))
    at_rest = AtRest(AtRestMode.REQUIRED, Ring([key]))
    row = Row(Purpose.VES_EVENTS, os.urandom(16), os.urandom(32))
    plaintext, nonce = os.urandom(size), os.urandom(NONCE_BYTES)
    sse1, sse2 = key.seal_sse1(nonce, plaintext, row.row_hash), key.seal(row, nonce, plaintext)
    return {
        "SSE1 seal": lambda: key.seal_sse1(nonce, plaintext, row.row_hash),
        "SSE2 seal": lambda: key.seal(row, nonce, plaintext),
        "SSE2 seal + verify": lambda: at_rest.store(row, nonce, plaintext),
        "SSE1 open": lambda: at_rest.read(row, sse1),
        "SSE2 open": lambda: at_rest.read(row, sse2),
    }


def microseconds(work: Callable[[], object], times: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(times):
        work()
    return (time.perf_counter_ns() - started) / times / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(this_machine())
    print(f"cryptography {version('cryptography')}, {backend.openssl_version_text()}, {rounds} rounds")
    print(f"{'bytes':>9}  {'':20} {'median us':>10}  {'lowest to highest':>22}  {'MB/s':>7}")
    for size in SIZES:
        told: dict[str, list[float]] = {name: [] for name in ways(size)}
        work = ways(size)
        times = {name: max(1, round(ROUND_S * 1e6 / microseconds(one, 20))) for name, one in work.items()}
        for _ in range(rounds):
            for name, one in work.items():
                told[name].append(microseconds(one, times[name]))
        for name, each in told.items():
            middle = statistics.median(each)
            spread = f"{min(each):.2f} to {max(each):.2f}"
            print(f"{size:>9}  {name:20} {middle:>10.2f}  {spread:>22}  {size / middle:>7.0f}")


if __name__ == "__main__":
    main()
