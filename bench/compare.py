"""Two revisions side by side: ``make bench-compare BASE=rev``, or ``python -m bench.compare REV [--shape 100x16]``.

The other revision is checked out into a folder under ``build/`` with an environment of its own, made from its own
locks; both are gone afterwards, whatever happened. What is in this working tree, committed or not, is the other
side. Both servers run, and one at a time is asked: every shape gets its turn on both in every round, the second
round backwards, and so on, since machines drift. One load generator, ours, asks both.

A difference is called clear when no round of one side reached into the other's, likely when a rank test says that
chance would do so in less than one of twenty cases, and otherwise it is told as what it is: none that was seen.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.ingesting import Shape
from bench.machine import machine
from bench.report import describe
from bench.results import Round, Row
from bench.stage import end_in_order, say, staged
from bench.suite import Turn, ingest, revision, take_turns
from tests.e2e.world import ROOT

SHAPES = ("1x64", "100x8", "100x64")
FOLDER = Path("build/bench-compare")
LIKELY = 0.05


@contextmanager
def checked_out(rev: str) -> Iterator[tuple[Path, str]]:
    """The revision's source and the Python of its environment; both removed afterwards."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    folder = ROOT / FOLDER / commit[:12]
    source, environment = folder / "source", folder / "venv"
    if folder.exists():
        raise SystemExit(f"{folder} is there: another comparison runs, or one was killed; then remove it")
    folder.mkdir(parents=True)
    _git("worktree", "prune")
    try:
        say(f"checking out {rev} ({commit[:12]}) into {source}")
        _git("worktree", "add", "--quiet", "--detach", str(source), commit)
        say(f"its own environment, from its own locks, in {environment}")
        _run(sys.executable, "-m", "venv", str(environment))
        python = environment / "bin" / "python"
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--require-hashes", "-r", str(source / "requirements" / "run.lock"))
        _run(*pip, "--no-deps", "--no-build-isolation", "-e", str(source))
        yield source, str(python)
    finally:
        say(f"removing {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _git("worktree", "prune")


def _git(*words: str) -> str:
    ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"git {' '.join(words)}: {ran.stderr.strip() or 'there is no such revision'}")
    return ran.stdout.strip()


def _run(*words: str) -> None:
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{ran.stderr[-2000:]}")


def table(names: tuple[str, str], pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """Per shape what both reached, and what is to be thought of the difference."""
    before, after = names
    lines = [f"{'':<22}{'':<22}{before:>16}{after:>16}{'ratio':>8}"]
    for one, other in pairs:
        for label, of in _figures(one, other):
            a, b = one.median(of), other.median(of)
            verdict = judged([of(r) for r in one.rounds], [of(r) for r in other.rounds])
            ratio = f"{b / a:.2f}" if a else "-"
            lines.append(f"{one.name:<22}{label:<22}{a:>16,.1f}{b:>16,.1f}{ratio:>8}  {verdict}")
    return lines


def _figures(one: Row, other: Row) -> Iterator[tuple[str, Callable[[Round], float]]]:
    if one.mode == "closed":
        yield f"{one.unit} a second", lambda r: r.per_s
    yield "p50 ms", lambda r: r.p50_ms
    yield "p99 ms", lambda r: r.p99_ms
    for part in sorted(one.cpu().keys() | other.cpu().keys()):
        yield f"us of {part}", lambda r, part=part: r.cpu_us.get(part, 0.0)  # type: ignore[misc]


def judged(one: Sequence[float], other: Sequence[float]) -> str:
    """Whether the two differ, from few rounds each."""
    if max(one) < min(other) or max(other) < min(one):
        return (
            "clear: no round of one reached the other"
            if min(len(one), len(other)) > 2
            else "apart, but few rounds"
        )
    chance = by_chance(one, other)
    return (
        f"likely (by chance {chance:.0%})"
        if chance < LIKELY
        else f"no difference seen (by chance {chance:.0%})"
    )


def by_chance(one: Sequence[float], other: Sequence[float]) -> float:
    """Mann and Whitney's rank test, exact: how often two samples of one thing would lie at least so far apart."""
    ranks = _ranks([*one, *other])
    middle = len(one) * sum(ranks) / len(ranks)
    seen = abs(sum(ranks[: len(one)]) - middle)
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(one))]
    return sum(abs(each - middle) >= seen - 1e-9 for each in sums) / len(sums)


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [(ordered.index(value) + 1 + len(ordered) - ordered[::-1].index(value)) / 2 for value in values]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="bench.compare", description=__doc__.split("\n\n")[1])
    arguments.add_argument("base", help="any revision git knows")
    arguments.add_argument("--shape", action="append", help="events x connections [@tenants[x stores]]")
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    arguments.add_argument("--rounds", type=int, default=5, help="at most 8")
    chosen = arguments.parse_args()
    end_in_order()
    if not 1 <= chosen.rounds <= 8:
        arguments.error("--rounds is 1 to 8")
    shapes = [Shape.read(text) for text in chosen.shape or SHAPES]
    base, here = chosen.base, f"here ({revision()})"
    with ExitStack() as running:
        source, python = running.enter_context(checked_out(base))
        old = running.enter_context(staged(f"{base}: ", root=source, python=python))
        new = running.enter_context(staged("here: "))
        olds, news = ingest(shapes), ingest(shapes)
        turns: list[Turn] = []
        for before, after in zip(olds, news, strict=True):
            turns += [(old, before), (new, after)]
        take_turns(turns, chosen.rounds, chosen.seconds)
    print(describe(machine(Path.cwd())))
    pairs = [(before.row, after.row) for before, after in zip(olds, news, strict=True)]
    print(f"medians of {chosen.rounds} rounds of {chosen.seconds:g} s, in turns; right: {here}")
    print("\n".join(table((base[:16], "here"), pairs)))


if __name__ == "__main__":
    main()
