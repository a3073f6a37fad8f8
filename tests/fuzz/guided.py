"""Targets under atheris, each in a process of its own: libFuzzer ends it as it likes.

What is under test is imported and instrumented once, by their common parent; that takes longer than a short
run does.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.target import Target

ROOMS = ["ves", "transport", "actors", "config"]
INPUT_S = 10
"""One input may take so long; then it hangs."""
WORD_BYTES_MAX = 64
"""Of libFuzzer's dictionaries."""


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def run() -> int:
    """``sys.argv``: «planted» or not, folder of the corpora, seconds for each, names. Answers whether there
    was a finding: 1 or 0."""
    import atheris

    _, how, corpora, duration, *names = sys.argv
    with atheris.instrument_imports(include=ROOMS):
        from tests.fuzz import mutator, plants
        from tests.fuzz.targets import TARGETS

        assert mutator is not plants  # both imported to be instrumented
    running: dict[int, str] = {}
    ended = 0
    waiting = [*names]
    while waiting or running:
        if waiting and len(running) < (os.cpu_count() or 1):
            name = waiting.pop(0)
            running[in_a_child(TARGETS[name], how, Path(corpora, name), duration)] = name
            continue
        child, status = os.wait()
        name, code = running.pop(child), os.waitstatus_to_exitcode(status)
        told = said(Path(corpora, name)).read_text(errors="replace")
        if code != 0:
            print(f"{told}{name}: a finding (exit code {code})", file=sys.stderr)
            waiting = []
            ended = 1
        else:
            print(f"{name}: {re.findall('^Done.*', told, re.M)[-1]}", flush=True)
    return ended


def said(folder: Path) -> Path:
    """What libFuzzer says about the target whose corpus is there."""
    return folder.with_suffix(".log")


def in_a_child(target: Target, how: str, folder: Path, duration: str) -> int:
    """Its process id; what it says goes into a file."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            with said(folder).open("wb") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            fuzz(target, how, folder, duration)
        finally:
            os._exit(1)  # libFuzzer ends the process itself
    return child


def fuzz(target: Target, how: str, folder: Path, duration: str) -> None:
    import atheris

    from tests.fuzz.mutator import WORDS
    from tests.fuzz.plants import planted

    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".words")
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
        atheris.Setup([sys.argv[0], *options, str(folder)], target.feed)
        atheris.Fuzz()
