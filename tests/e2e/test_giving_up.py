"""A house whose actors die more often than its supervisors allow ends, and says why once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import httpx

from supervisor.supervisor import INTENSITY
from tests.e2e.world import Server


def test_a_house_that_gives_up_ends_the_process_with_one_readable_line(
    own_server: Callable[..., Server],
) -> None:
    server = own_server().start()
    server.wait_ready()
    assert server.process is not None
    answers = []
    give_up = time.monotonic() + 25
    with (
        httpx.Client(
            base_url=server.admin_url, headers={"authorization": f"ApiKey {server.bootstrap_key}"}, timeout=10
        ) as admin,
        suppress(httpx.TransportError),  # the last answer goes down with the house
    ):
        while time.monotonic() < give_up:
            answer = admin.post(
                "/api/v1/admin/actors/kill", json={"path": "house/registry", "reason": "one too many"}
            )
            answers.append(answer.status_code)
            time.sleep(0.05)
    assert answers.count(200) >= INTENSITY
    assert set(answers) <= {200, 409}  # 409: between two lives
    assert server.process.wait(20) == 1
    last_words = [line for line in server.log.read_text().splitlines() if line.startswith("sequencer: ")]
    assert last_words == [
        f"sequencer: house gave up: more than {INTENSITY} deaths in 30 s, the last of registry: one too many"
    ]
    assert "Traceback" not in server.log.read_text()
