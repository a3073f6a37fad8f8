"""A server that anchors, with a real chain beside it: its signing process has the key, and nobody else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.anchorkeys.memory import memory_holds, spelled
from tests.anchorkeys.signing import account_of, raw_key_in
from tests.e2e.leaks import files_below, found
from tests.e2e.world import Server, Tenant
from ves.secp256k1 import checksummed

AT_ONCE = {
    "ANCHOR": "dev",
    "ANCHOR_DEV_PORT": "0",
    "ANCHOR_BATCH_THRESHOLD": "1",
    "ANCHOR_INTERVAL_SECS": "0.2",
    "ANCHOR_POLL_SECS": "0.2",
    "COMMITMENT_EVENTS": "1",
    "COMMITMENT_SWEEP_SECS": "0.2",
    "LOG_LEVEL": "debug",
}
WAITS_S = 40.0


def uses(server: Server, action: str = "anchor.sign") -> int:
    answer = httpx.get(
        server.admin_url + "/api/v1/admin/audit",
        params={"action": action},
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return len(answer.json()["entries"])


def until(true: Callable[[], bool], server: Server) -> None:
    give_up = time.monotonic() + WAITS_S
    while not true():
        assert time.monotonic() < give_up, server.tail()
        time.sleep(0.1)


def signers(server: Server) -> list[int]:
    return [pid for pid, line in server.children() if "actors.chain_signer_process" in line]


@pytest.mark.slow
def test_a_server_that_anchors_never_has_the_key_itself_and_outlives_its_signing_process(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    place, secret = raw_key_in(tmp_path)
    server = own_server(SEQUENCER_PRIVATE_KEY_FILE=place.key.text, **AT_ONCE).start()
    server.wait_ready()
    tenant = Tenant(server)
    assert tenant.post(tenant.agent.event({"n": 1})).status_code == 200
    until(lambda: uses(server) > 0, server)
    (signer,) = signers(server)
    needles = spelled(secret)
    seen = memory_holds(server.pid, needles | {"its name": place.key.text.encode()})
    assert seen == {"its name"}, "the search finds what is there, and no key"
    if os.geteuid() == 0:
        assert "raw" in memory_holds(signer, needles), "the search would know the key"
    for pid, line in server.children():
        assert not found({"key": secret}, line.encode())
        if os.geteuid() == 0:
            assert not found({"key": secret}, Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(signer, signal.SIGKILL)
    before = uses(server)
    assert tenant.post(tenant.agent.event({"n": 2})).status_code == 200
    until(lambda: uses(server) > before, server)
    assert signers(server) not in ([], [signer])
    checked = server.command("anchor", "key", "--check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout == (
        f"{checksummed(account_of(secret))}  raw, from SEQUENCER_PRIVATE_KEY_FILE\nsigns: ok\n"
    )
    assert uses(server, "anchor.key_check") == 1
    assert server.terminate() == 0
    for path in [*files_below(server.data_dir), server.log]:
        assert not found({"key": secret}, path.read_bytes()), path
