"""What the standard library lacks for files that must survive a crash. Knows no path and no content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal


def sync_folder(folder: Path) -> None:
    """The names in it are durable: a file made or renamed there before is found after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Its owner's alone, complete and durable under its name, or as it was before."""
    draft = path.with_name(f".{path.name}.draft")
    with open_private(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def open_private(path: Path | str, mode: Literal["wb", "xb", "ab"]) -> BinaryIO:
    """A file that, if it is made here, is its owner's alone, whatever folder it is in."""
    return open(path, mode, opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
