"""What the documents point at exists: tests by name, files by path, and links between pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("contracts/*.md"),
    ]
)
TESTS = {
    name
    for path in (ROOT / "tests").rglob("*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}
ROOMS = (
    *("tests/", "ves/", "journal/", "actors/", "supervisor/", "transport/", "config/", "contracts/"),
    *("docs/", "bench/"),
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_file_and_link_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in re.findall(r"`(test_\w+)`", text) if name not in TESTS]
    paths = re.findall(r"`([\w./-]+(?:/|\.\w+))`", text)
    missing += [path for path in paths if path.startswith(ROOMS) and not (ROOT / path).exists()]
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (page.parent / target).exists():
            missing.append(target)
    assert not missing


def test_the_search_sees_what_is_missing() -> None:
    assert "test_the_search_sees_what_is_missing" in TESTS
    assert len(PAGES) > 8
    assert re.findall(r"`(test_\w+)`", "shown by `test_nothing_of_this_name`") == [
        "test_nothing_of_this_name"
    ]
