"""The file of a backup: whole or not there, and nothing that was changed or cut is taken for whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from journal import age, backup_file
from journal.backup_file import BackupError, GivenKey, Manifest, PublishedKey

PASSPHRASE = "correct horse battery staple"
MANIFEST = Manifest(
    format=1,
    version="0.1.0",
    sequencer_id="8f250666-b7db-49c0-828a-f1b4e72b889b",
    began_at="2026-01-01T00:00:00+00:00",
    ended_at="2026-01-01T00:00:05+00:00",
    postgresql="18",
    schema_version=12,
    timeline=1,
    start_lsn="0/2000028",
    streams=2,
    events=7,
    receipt_keys=[PublishedKey("8f250666-b7db-49c0-828a-f1b4e72b889b", 1, "0x00")],
    at_rest_key_ids=["0011223344556677"],
    keys_not_included=[GivenKey("PAYLOAD_ENCRYPTION_KEY", "key ids 0011223344556677")],
)


@pytest.fixture(autouse=True)
def cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age.SealingWriter.__init__, "__kwdefaults__", {"work_factor": 4})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as a copied cluster is, with keys and heads beside it."""
    cluster, keys = tmp_path / "cluster", tmp_path / "keys"
    (cluster / "base" / "1").mkdir(parents=True)
    (cluster / "pg_wal").mkdir()
    keys.mkdir()
    (keys / "receipt-signing-seed").write_text("ab" * 32)
    (keys / ".receipt-signing-seed.draft").write_text("cd" * 32)
    (tmp_path / "heads.jsonl").write_text('{"head_sequence": 3}\n')
    files = {"PG_VERSION": b"18\n", "base/1/1234": bytes(range(256)) * 1000}
    for name, content in files.items():
        (cluster / name).write_bytes(content)
    (cluster / "pg_wal" / "000000010000000000000002").write_bytes(bytes(1000))
    entries = [
        {
            "Path": name,
            "Size": len(content),
            "Checksum-Algorithm": "SHA256",
            "Checksum": hashlib.sha256(content).hexdigest(),
        }
        for name, content in files.items()
    ]
    (cluster / "backup_manifest").write_text(json.dumps({"Files": entries}))
    return tmp_path


def write(source: Path, name: str = "a.backup", passphrase: str | None = PASSPHRASE) -> Path:
    path = source / name
    backup_file.write(
        path,
        MANIFEST,
        source / "heads.jsonl",
        source / "keys",
        source / "cluster",
        passphrase,
        checkpoint=lambda name: None,
    )
    return path


def names_in(path: Path, passphrase: str | None = PASSPHRASE) -> list[str]:
    found: list[str] = []
    backup_file.read(path, passphrase, lambda name: None, found.append)  # type: ignore[arg-type]
    return found


def test_what_was_written_comes_back_and_drafts_of_keys_are_not_in_it(source: Path, tmp_path: Path) -> None:
    path, contents = write(source), {}

    def sink(name: str) -> BinaryIO:
        contents[name] = io.BytesIO()
        contents[name].close = lambda: None  # type: ignore[method-assign]
        return contents[name]

    manifest = backup_file.read(path, PASSPHRASE, lambda name: None, sink)
    assert (manifest.events, manifest.keys_not_included) == (7, MANIFEST.keys_not_included)
    assert contents["keys/receipt-signing-seed"].getvalue() == b"ab" * 32
    assert contents["postgres/base/1/1234"].getvalue() == bytes(range(256)) * 1000
    assert "keys/.receipt-signing-seed.draft" not in contents
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(path.parent.glob(".*.part"))


def test_a_key_in_it_is_nowhere_in_clear(source: Path) -> None:
    unsealed = gzip.decompress(write(source, "open", None).read_bytes())
    assert b"ab" * 32 in unsealed, "the search finds what is there"
    assert b"ab" * 32 not in write(source).read_bytes()


def test_no_backup_is_written_over_another(source: Path) -> None:
    before = write(source).read_bytes()
    with pytest.raises(BackupError, match="is there already"):
        write(source)
    assert (source / "a.backup").read_bytes() == before


def test_a_wrong_or_missing_passphrase_is_told_so(source: Path) -> None:
    path = write(source)
    with pytest.raises(BackupError, match="the passphrase is not the one"):
        names_in(path, "another passphrase that is long")
    with pytest.raises(BackupError, match="is encrypted: set BACKUP_PASSPHRASE_FILE"):
        names_in(path, None)


@pytest.mark.parametrize("passphrase", [PASSPHRASE, None], ids=["encrypted", "not-encrypted"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_not_taken_for_whole(source: Path, passphrase: str | None, kept: float) -> None:
    path = write(source, passphrase=passphrase)
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(BackupError):
        names_in(path, passphrase)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ("keys/receipt-signing-seed", "keys/receipt-signing-seed is not what its manifest says"),
        ("postgres/base/1/1234", "postgres/base/1/1234 is not what its manifest says"),
        ("heads.jsonl", "heads.jsonl is not what its manifest says"),
    ],
)
def test_a_changed_member_is_named(source: Path, changed: str, says: str) -> None:
    path = write(source, passphrase=None)
    rewritten(path, lambda name, content: content[:-1] + b"?" if name == changed else content)
    with pytest.raises(BackupError, match=says):
        names_in(path, None)


def test_a_member_that_is_missing_or_nobodys_is_named(source: Path) -> None:
    path = write(source, passphrase=None)
    whole = path.read_bytes()
    rewritten(path, lambda name, content: None if name == "postgres/PG_VERSION" else content)
    with pytest.raises(BackupError, match="postgres/PG_VERSION is missing"):
        names_in(path, None)
    path.write_bytes(whole)
    rewritten(path, lambda name, content: content, extra="postgres/base/1/9999")
    with pytest.raises(BackupError, match="postgres/base/1/9999 is in no manifest"):
        names_in(path, None)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "postgres/../../outside", "keys//etc/passwd", "keys/./seed"]
)
def test_a_name_that_leads_outside_is_refused(source: Path, name: str) -> None:
    path = write(source, passphrase=None)
    rewritten(path, lambda name, content: content, extra=name)
    with pytest.raises(BackupError, match="may not be in a backup"):
        names_in(path, None)


def test_a_header_is_not_read_into_memory_whatever_its_size(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "bomb").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(BackupError, match="a header of 1099511627776 bytes"):
        backup_file.read_manifest(tmp_path / "bomb", None)


def test_what_is_no_backup_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(BackupError, match="neither an age file nor a gzipped one"):
        names_in(tmp_path / "other")
    with pytest.raises(BackupError, match="No such file"):
        names_in(tmp_path / "nothing")


def rewritten(path: Path, change, extra: str | None = None) -> None:  # type: ignore[no-untyped-def]
    """The same archive with its members changed; None leaves one out."""
    members = []
    with tarfile.open(path, "r:gz") as tar:
        for info in tar:
            content = tar.extractfile(info)
            members.append((info, content.read() if content else None))
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, raw in members:
            new = raw if raw is None else change(info.name, raw)
            if new is not None:
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))
            elif raw is None:
                tar.addfile(info)
        if extra is not None:
            info = tarfile.TarInfo(extra)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
