"""The bill of materials lists what is installed, and the locks pin and hash all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.hygiene.audit import PINNED
from tests.hygiene.sbom import ROOT, write

LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_a_lock_is_pinned_and_hashed_and_names_no_registry(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", text))
    assert len(entries) > 10
    for entry in filter(None, map(str.strip, entries)):
        assert PINNED.match(entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in text


def test_the_bill_of_materials_is_valid_and_lists_exactly_what_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    write(file)
    text = file.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["name"] == "ves-sequencer"
    locked = set(PINNED.findall((ROOT / "requirements" / "run.lock").read_text()))
    assert {(one["name"], one["version"]) for one in bill["components"]} == locked
    assert all(one["externalReferences"][0]["hashes"] for one in bill["components"])
