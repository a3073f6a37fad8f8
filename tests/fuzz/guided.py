"""One target under atheris, in a process of its own: libFuzzer ends it as it likes."""

from __future__ import annotations

import sys
from pathlib import Path

ROOMS = ["ves", "transport", "actors", "config"]
INPUT_S = 10
"""One input may take so long; then it hangs."""


def run() -> None:
    """``sys.argv``: name, «planted» or not, folder of the corpus, seconds."""
    import atheris

    _, name, how, folder, duration = sys.argv
    with atheris.instrument_imports(include=ROOMS):
        from tests.fuzz.plants import planted
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={duration}",
        f"-timeout={INPUT_S}",
        f"-max_len={target.bytes_max}",
        f"-artifact_prefix={folder}/",
        "-rss_limit_mb=2048",
        "-seed=1",
        "-print_final_stats=1",
    ]
    if how == "planted":
        planted(target.plant).__enter__()
    atheris.Setup([sys.argv[0], *options, folder], target.feed)
    atheris.Fuzz()
