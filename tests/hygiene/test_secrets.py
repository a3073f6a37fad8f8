"""The search for secrets finds one that was committed by mistake, and what it has been told to forgive."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.hygiene.secrets import looked_at, scan


def test_a_committed_secret_is_found_in_code_settings_and_documents(tmp_path: Path) -> None:
    key = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIB\n"
    files = {
        "code.py": 'aws = "AKIA' + 'Z7X3QWERTYUIOPAS"\n',
        "deploy.yaml": "password: " + '"Tr0ub4dor&3-horse"\n',
        "notes.md": key,
        "quiet.py": "harmless = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, timeout=30)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True, timeout=30)
    assert {name for name, _, _ in scan(tmp_path)} == {"code.py", "deploy.yaml", "notes.md"}


def test_what_is_forgiven_names_file_kind_and_hash_and_no_secret() -> None:
    for name, kind, digest in looked_at():
        assert name
        assert kind
        assert len(digest) == 40
        assert not name.startswith(("ves/", "actors/", "journal/", "transport/", "supervisor/")), name
