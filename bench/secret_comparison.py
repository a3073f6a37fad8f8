"""Whether a wrong bootstrap key takes longer the more of it is right: ``python -m bench.secret_comparison``.

Four wrong keys, nearer and nearer to the right one, are presented to the door's own code in turn, many times;
medians and spread of each are printed. A difference that grows with the shared beginning would be a leak.
"""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import replace
from hashlib import sha256

import trio

from tests.http.doubles import Cardboard
from transport.http.asked import Asked
from transport.http.callers import authenticate
from transport.http.errors import ApiError

RIGHT = "ss_" + "k3Zq9wLx" * 6
ROUNDS = 4000


def wrong_keys() -> dict[str, str]:
    return {
        f"{shared:2d} characters right": RIGHT[:shared] + "".join("~" for _ in RIGHT[shared:])
        for shared in (3, 16, 32, len(RIGHT) - 1)
    }


async def main() -> None:
    house = Cardboard().house
    house = replace(house, bootstrap_key_sha256=sha256(RIGHT.encode()).digest())
    seen: dict[str, list[int]] = {name: [] for name in wrong_keys()}
    for _ in range(ROUNDS):
        for name, key in wrong_keys().items():
            asked = Asked(
                "GET", "/", b"", [(b"authorization", f"ApiKey {key}".encode())], "127.0.0.1", "http"
            )
            started = time.perf_counter_ns()
            try:
                await authenticate(asked, house, "127.0.0.1")
            except ApiError:
                seen[name].append(time.perf_counter_ns() - started)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {ROUNDS} rounds"
    )
    for name, times in seen.items():
        low, middle, high = statistics.quantiles(times, n=4)
        print(f"{name}: median {middle / 1000:7.2f} us, quartiles {low / 1000:.2f} to {high / 1000:.2f}")


if __name__ == "__main__":
    trio.run(main)
