"""Secrets in tracked files: ``python -m tests.hygiene.secrets [--accept]``.

detect-secrets searches; what it finds is compared with ``secrets.json`` beside this file: the finds somebody
has looked at, as (file, kind, hash), without line numbers, so that code may move. ``--accept`` writes them
anew: for whoever has looked. Our own key formats, which no scanner knows, are ``tests/repository``'s.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOKED_AT = Path(__file__).with_name("secrets.json")
NOT_OURS = (
    r"^requirements/.*\.lock$",
    r"^tests/vectors/",
    r"^tests/kept/v",
    r"^tests/hygiene/secrets\.json$",
)
"""Hashes of packages, published vectors, a data directory that was made to be kept with its keys."""

Find = tuple[str, str, str]


def scan(folder: Path = ROOT) -> dict[Find, int]:
    """Each find with a line it stands in."""
    excluded = [word for pattern in NOT_OURS for word in ("--exclude-files", pattern)]
    command = [sys.executable, "-m", "detect_secrets", "scan", "--no-verify", *excluded]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=True)
    return {
        (name, one["type"], one["hashed_secret"]): one["line_number"]
        for name, found in json.loads(done.stdout)["results"].items()
        for one in found
    }


def looked_at() -> set[Find]:
    return {(name, kind, digest) for name, kind, digest in json.loads(LOOKED_AT.read_text())}


def main() -> int:
    found = scan()
    if "--accept" in sys.argv[1:]:
        lines = ",\n".join(json.dumps(find) for find in sorted(found))
        LOOKED_AT.write_text(f"[\n{lines}\n]\n")
        return 0
    new = sorted(set(found) - looked_at())
    for find in new:
        print(f"{find[0]}:{found[find]}: {find[1]}")
    if new:
        print("none of anybody's? then look again, and: python -m tests.hygiene.secrets --accept")
    return int(bool(new))


if __name__ == "__main__":
    sys.exit(main())
