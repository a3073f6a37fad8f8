"""Schemathesis against the documents we serve: what they promise is what the doors do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.messages import Verify
from tests.http.doubles import Cardboard, serving, stored
from ves.verification import verify_body

CONFIG = """\
[checks]
# 400 too: a schema cannot say that all events of a request name one agent, or that a key is on the curve.
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429", "503", "504"]

[[operations]]
# Signed numbers are read to the letter: 1.0 is an integer to JSON Schema, but not in an event.
include-path = "/api/v1/ves/events/ingest"
checks.positive_data_acceptance.enabled = false
"""


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


async def verify(message: Verify) -> Any:
    """The real verification, knowing no key."""
    unknown: Any = Everything()
    return verify_body(
        message.body, message.scope, lambda name: None, now_us=time.time_ns() // 1000, unknown=unknown
    )


async def run_schemathesis(house: Cardboard, url: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).parent / "st"),
        "--no-color",
        "--config-file",
        str(folder / "schemathesis.toml"),
        "run",
        f"{url}/openapi.json",
        "--header",
        f"Authorization: ApiKey {house.api_key('admin')}",
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "5",
        "--max-time",
        "25",
        "--seed",
        "1",
    ]
    return await trio.run_process(command, capture_stdout=True, check=False, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("listener", ["public", "admin"])
async def test_schemathesis_finds_nothing(listener: str, tmp_path: Path) -> None:
    async with serving(patience_s=120) as house:
        house.verifiers.reply = verify
        house.journal.events = [stored(n) for n in range(1, 6)]
        house.journal.commit([b"\x01" * 32] * 5, 1)
        url = house.url if listener == "public" else house.admin_url
        outcome = await run_schemathesis(house, url, tmp_path)
        assert outcome.returncode == 0, outcome.stdout.decode()
