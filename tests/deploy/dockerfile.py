"""The Dockerfile and .dockerignore as data, for tests that follow them without an engine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.e2e.world import ROOT

DOCKERFILE = ROOT / "deploy/container/Dockerfile"
INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return [(name, said.replace("\\\n", " ")) for name, said in INSTRUCTION.findall(text)]


def stages() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Of building, and of the image."""
    found = instructions()
    borders = [n for n, (name, _) in enumerate(found) if name == "FROM"]
    assert len(borders) == 2
    return found[: borders[1]], found[borders[1] :]


def variables() -> dict[str, str]:
    (said,) = [said for name, said in stages()[1] if name == "ENV"]
    return dict(re.findall(r'(\w+)="?([^"\s]+)"?', said))


def context(into: Path) -> None:
    """What ``COPY . .`` brings, by the rules of .dockerignore that we use."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "everything that is not named stays out"
    for rule in rules[1:]:
        if rule.startswith("!"):
            name = rule[1:].removesuffix("/**")
            place = into / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(ROOT / name, place)
