"""The picture is well-formed, the same for the same numbers, and shows what the file holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from bench.plot import drawing
from bench.results import write
from bench.svg import LEFT, RIGHT, WIDTH, Bar, Chart, document
from tests.bench.canned import results
from tests.e2e.world import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_every_row_its_numbers_and_the_limits() -> None:
    picture = ElementTree.fromstring(drawing(results()))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    for wanted in (
        "100x8",
        "8,000",
        "1,000",
        "one core verifies and signs: 16,000",
        "Hypercorn's echo: 2,000",
        "p99 20.0 at 4,000/s",
        "core",
        "PostgreSQL",
        "50,000",
    ):
        assert wanted in texts, wanted
    assert "others" not in texts, "they took nothing"
    assert drawing(results()) == drawing(results())


def test_bars_are_as_long_as_their_numbers_and_stay_within_the_picture() -> None:
    bars = [Bar("a", (10.0, 30.0), "40", (35.0, 80.0)), Bar("b & <c>", (20.0, 0.0), "20")]
    picture = ElementTree.fromstring(
        document([Chart("T", "u", bars, ("x", "y"), [("limit", 100.0)])], "made")
    )
    widths = [
        float(rect.attrib["width"]) for rect in picture.iter(f"{SVG}rect") if rect.attrib["height"] == "20.0"
    ]
    whole = WIDTH - LEFT - RIGHT
    assert widths == [whole * share for share in (0.1, 0.3, 0.2, 0.0)]
    xs = [float(line.attrib[end]) for line in picture.iter(f"{SVG}line") for end in ("x1", "x2")]
    assert max(xs) == WIDTH - RIGHT
    assert "b & <c>" in [text.text for text in picture.iter(f"{SVG}text")]


def test_it_is_drawn_from_a_file_beside_it(tmp_path: Path) -> None:
    write(results(), tmp_path / "run.json")
    ran = subprocess.run(
        [sys.executable, "-m", "bench.plot", str(tmp_path / "run.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "run.svg").read_text() == drawing(results())
