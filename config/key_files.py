"""Key files: made whole, closed to others from their first moment on, and never shown.

Alone reads and writes the files under DATA_DIR/keys. Never decides what is in them, and never puts a value
into an error: an error names the file and what helps.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from config.files import sync_folder
from config.secret_sources import SECRET_BYTES_MAX, SecretsError

Checkpoint = Callable[[str], None]
"""Called at the named points of making a file. It may end the process: a crash exactly there."""


def prepare_folder(folder: Path) -> None:
    """Afterwards it exists and is closed to others. Raises SecretsError."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SecretsError(f"{folder} cannot be made: {error.strerror}") from None
    if folder.stat().st_mode & 0o077:
        raise SecretsError(f"{folder} is open to others: chmod 700 {folder}")


def read_or_create_secret(
    path: Path, make: Callable[[], str], checkpoint: Checkpoint = lambda name: None
) -> tuple[str, bool]:
    """The file's text without surrounding space, and whether it was made just now.

    Made means: durable, whole and 0600 from its first moment on, also when two start at once: then both get
    the same. Raises SecretsError when others can read it."""
    try:
        if not path.exists():
            _create(path, make(), checkpoint)
            created = True
        else:
            created = False
        return _read(path), created
    except FileExistsError:
        return _read(path), False
    except OSError as error:
        raise SecretsError(f"{path} cannot be used: {error.strerror}") from None


def read_secret(path: Path) -> str:
    """The file's text without surrounding space. Raises SecretsError when others can read it."""
    try:
        return _read(path)
    except OSError as error:
        raise SecretsError(f"{path} cannot be used: {error.strerror}") from None


def _create(path: Path, text: str, checkpoint: Checkpoint) -> None:
    """Written aside and linked into place, so that the name never shows a half-written file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.write(descriptor, text.encode("ascii") + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        checkpoint("key_file.written")
        os.link(aside, path)  # unlike rename it never replaces what another start has just made
        checkpoint("key_file.named")
    finally:
        aside.unlink()
    sync_folder(path.parent)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SecretsError(f"{path} is no file")
        if found.st_mode & 0o077:
            raise SecretsError(f"{path} can be read by others: chmod 600 {path} and consider the key known")
        raw = os.read(descriptor, SECRET_BYTES_MAX + 1)
        if len(raw) > SECRET_BYTES_MAX:
            raise SecretsError(f"{path}: more than {SECRET_BYTES_MAX} bytes are no secret")
        try:
            text = raw.decode("ascii").strip()
        except UnicodeDecodeError:
            raise SecretsError(f"{path} is no text") from None
        if not text:
            raise SecretsError(f"{path} is empty; restore it from a backup")
        return text
    finally:
        os.close(descriptor)
