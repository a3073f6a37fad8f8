"""The bill of materials of a release: ``python -m tests.hygiene.sbom FILE`` writes CycloneDX 1.6 as JSON.

What is in it is exactly what ``requirements/run.lock`` installs, with the hashes it is installed by.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    words = ["--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible"]
    output = ["--spec-version", "1.6", "--output-format", "JSON", "--output-file", str(file.resolve())]
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements"]
    subprocess.run([*command, "requirements/run.lock", *words, *output], cwd=ROOT, timeout=120, check=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
