"""PostgreSQL's archive_command and restore_command: copies one WAL file so that it is there whole, or not.

    python -I -S wal_copy.py keep  SOURCE FOLDER NAME     into the archive
    python -I -S wal_copy.py fetch FOLDER NAME TARGET     out of it; exit code 1 when it is not there

Alone knows how a file gets into the archive: written beside, synced, and linked to its name, which never
replaces a file that is there. The same file once more is fine, as PostgreSQL asks for after a crash; another
content under the same name is refused. Imports nothing of ours: it starts for every segment of WAL.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys

USAGE = 2


def main() -> int:
    match sys.argv[1:]:
        case ["keep", source, folder, name]:
            return _keep(source, folder, name)
        case ["fetch", folder, name, target]:
            return _fetch(os.path.join(folder, name), target)
    return USAGE


def _keep(source: str, folder: str, name: str) -> int:
    target = os.path.join(folder, name)
    if os.path.exists(target):
        return _same(source, target)
    draft = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with open(source, "rb") as reading, open(draft, "xb", opener=_private) as writing:
            shutil.copyfileobj(reading, writing, 1024 * 1024)
            writing.flush()
            os.fsync(writing.fileno())
        os.link(draft, target)
    except FileExistsError:
        return _same(source, target)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
    return 0


def _same(source: str, target: str) -> int:
    if filecmp.cmp(source, target, shallow=False):
        return 0
    print(f"{target} is there with another content: not overwritten", file=sys.stderr)  # noqa: T201 - to PostgreSQL's log
    return 1


def _fetch(source: str, target: str) -> int:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return 1
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


if __name__ == "__main__":
    sys.exit(main())
