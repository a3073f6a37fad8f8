"""One target under atheris, in a process of its own: libFuzzer ends it as it likes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

ROOMS = ["ves", "transport", "actors", "config"]
INPUT_S = 10
"""One input may take so long; then it hangs."""
WORD_BYTES_MAX = 64
"""Of libFuzzer's dictionaries."""


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def run() -> None:
    """``sys.argv``: name, «planted» or not, folder of the corpus, seconds."""
    import atheris

    _, name, how, folder, duration = sys.argv
    with atheris.instrument_imports(include=ROOMS):
        from tests.fuzz.mutator import WORDS
        from tests.fuzz.plants import planted
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    words = Path(folder).with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS if len(word) <= WORD_BYTES_MAX))
    options = [
        f"-dict={words}",
        f"-max_total_time={duration}",
        f"-timeout={INPUT_S}",
        f"-max_len={target.bytes_max}",
        f"-artifact_prefix={folder}/",
        "-len_control=0",
        "-rss_limit_mb=2048",
        "-seed=1",
        "-print_final_stats=1",
    ]
    with planted(target.plant) if how == "planted" else nullcontext():
        atheris.Setup([sys.argv[0], *options, folder], target.feed)
        atheris.Fuzz()
