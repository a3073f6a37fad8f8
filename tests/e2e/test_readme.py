"""What the README tells a newcomer to type works, word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.world import ROOT, Server


def test_the_walkthrough_of_the_readme_works(own_server: Callable[..., Server], tmp_path: Path) -> None:
    server = own_server(RATE_LIMIT_MODE="enforce").start()
    server.wait_ready()
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    script = blocks[0].replace('export PATH="$PWD/.venv/bin:$PATH"', "set -eu -o pipefail")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEQUENCER_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATA_DIR": str(server.data_dir),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "agent.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "tenant.key").stat().st_mode & 0o077 == 0
    for line in ('"total": 99.5', "order.created"):
        assert line.replace(" ", "") in done.stdout.replace(" ", ""), done.stdout
