"""A report from a stranger: whatever it is made of, the verdict is one line and names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.no_house import NO_HOUSE
from transport.cli.app import build_app

GOOD: dict[str, Any] = {
    "report": {"kind": "incident", "files": {"a.jsonl": {"lines": 0, "sha256": "00"}}},
    "sequencer_id": "8f250666-b7db-49c0-828a-f1b4e72b889b",
    "key_version": 1,
    "public_key": "00" * 32,
    "signature": "00" * 64,
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "the signature does not belong to this report"),
        ({"report": {"files": 5}}, "Expected `object`, got `int`"),
        ({"report": {"files": {"a": "b"}}}, "Expected `object`, got `str`"),
        ({"report": {"files": {"../a": {"sha256": ""}}}}, "matching regex"),
        ({"report": {"files": {"a" * 300: {"sha256": ""}}}}, "matching regex"),
        ({"signature": "zz"}, "expected 128 hex digits"),
        ({"key_version": 1 << 70}, "$.key_version"),
        ({"sequencer_id": "x"}, "not a UUID"),
    ],
    ids=["forged", "files", "file", "outside", "long", "signature", "version", "id"],
)
def test_a_strangers_report_is_judged_in_plain_words(
    changed: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(GOOD | changed))
    words = ["incident", "verify", str(tmp_path), "--pins", str(tmp_path / "no-pins")]
    with pytest.raises(SystemExit) as ended:
        build_app(NO_HOUSE)(words)
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert says in told.out + told.err


def test_a_reported_file_is_no_way_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text(json.dumps(GOOD))
    (tmp_path / "a.jsonl").symlink_to("/dev/zero")
    with pytest.raises(SystemExit):
        build_app(NO_HOUSE)(["incident", "verify", str(tmp_path), "--pins", str(tmp_path / "no-pins")])
    assert "a.jsonl is missing" in capsys.readouterr().out
