"""What PostgreSQL runs for each WAL file: it is in the archive whole, or not, and never another one's."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from journal import wal_copy

NAME = "000000010000000000000002"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", wal_copy.__file__, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_a_kept_file_is_private_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "source").write_bytes(b"wal" * 1000)
    assert run("keep", tmp_path / "source", tmp_path / "wal", NAME).returncode == 0
    assert [file.name for file in (tmp_path / "wal").iterdir()] == [NAME]
    assert stat.S_IMODE((tmp_path / "wal" / NAME).stat().st_mode) == 0o600
    assert run("fetch", tmp_path / "wal", NAME, tmp_path / "target").returncode == 0
    assert (tmp_path / "target").read_bytes() == b"wal" * 1000


def test_the_same_file_again_is_fine_and_another_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "source").write_bytes(b"one")
    for _ in range(2):
        assert run("keep", tmp_path / "source", tmp_path / "wal", NAME).returncode == 0
    (tmp_path / "source").write_bytes(b"two")
    refused = run("keep", tmp_path / "source", tmp_path / "wal", NAME)
    assert refused.returncode == 1
    assert "not overwritten" in refused.stderr
    assert (tmp_path / "wal" / NAME).read_bytes() == b"one"


def test_what_is_not_there_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"wal")
    assert run("fetch", tmp_path, NAME, tmp_path / "target").returncode == 1
    assert not (tmp_path / "target").exists()
    assert run("keep", tmp_path / "source", tmp_path / "nowhere", NAME).returncode != 0
