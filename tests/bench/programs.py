"""Programs of bench/, run as a reader of the documents runs them."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.world import ROOT


def ran(*words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """``python -m`` so many words, to its end, which has to be a good one."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
