"""Receipt keys of a real server: rotated while it runs and while it does not, killed between every two steps.

Afterwards old receipts verify and are replayed byte for byte, the chain of keys holds for the independent
auditor, and a client that pinned the first key follows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.auditor.audit import ReceiptKeys, audit
from tests.auditor.reading import over_http, read_stream
from tests.e2e.nodes import operated_postgres
from tests.e2e.world import Server, Tenant
from tests.sweeps import with_some

SMALL = {"VERIFIERS": "1", "ENCRYPTORS": "1", "COMMITMENT_INTERVAL_SECS": "3600"}
OF_A_ROTATION = [
    "key_file.written",
    "key_file.named",
    "rotate_receipt_key.begin",
    "rotate_receipt_key.commit_sent_before",
    "rotate_receipt_key.committed",
]


def published(server: Server) -> dict[str, Any]:
    return dict(httpx.get(server.url + "/.well-known/ves-sequencer", timeout=30).json())


def versions(server: Server) -> list[int]:
    """After checking, as the auditor does, that each was signed by the one before."""
    document = published(server)
    assert ReceiptKeys.of(document).faults == []
    return [key["key_version"] for key in document["receipt_keys"]]


class Kept:
    """A tenant, and every request of its with the receipts it got."""

    def __init__(self, server: Server) -> None:
        self.tenant = Tenant(server)
        self.posted: list[tuple[bytes, list[dict[str, Any]]]] = []
        self.first_keys = ReceiptKeys.of(published(server))

    def posts(self) -> int:
        """Answers the version that signed."""
        body = self.tenant.agent.body([self.tenant.agent.event({"n": n}) for n in range(2)])
        answer = self.tenant.post_raw(body)
        assert answer.status_code == 200, answer.text
        self.posted.append((body, answer.json()["receipts"]))
        (version,) = {receipt["sequencerKeyVersion"] for receipt in answer.json()["receipts"]}
        return int(version)

    def holds(self) -> None:
        """Everything is replayed as it was, and audited with nothing but the keys that were met first."""
        for body, receipts in self.posted:
            assert self.tenant.post_raw(body).json()["receipts"] == receipts
        get = over_http(self.tenant.server.url, self.tenant.api_key)
        stream = self.tenant.stream
        evidence = read_stream(get, stream["tenant_id"], stream["store_id"], receipt_keys=self.first_keys)
        assert not audit(evidence)
        assert evidence.head == 2 * len(self.posted)


def rotate(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return server.command("receipt-key", "rotate", *words)


def rotated(server: Server, *words: str) -> str:
    done = rotate(server, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def take_it_up(server: Server) -> None:
    done = server.command("actors", "restart", "house/encryptors", "--reason", "receipt key rotated")
    assert done.returncode == 0, done.stderr


def test_a_running_server_takes_up_a_new_receipt_key_and_the_old_receipts_stay_what_they_were(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(**SMALL).start()
    server.wait_ready()
    kept = Kept(server)
    assert kept.posts() == 1
    (tmp_path / "key").write_text(kept.tenant.api_key)
    pull = ["agent", "pull", "--tenant", kept.tenant.stream["tenant_id"]]
    pull += ["--store", kept.tenant.stream["store_id"], "--api-key-file", str(tmp_path / "key")]
    pull += ["--pins", str(tmp_path / "pins.json")]
    assert server.command(*pull).returncode == 0
    said = rotated(server, "--compromised", "--reason", "drill 7")
    assert "receipt key version 2" in said
    assert "cannot undo" in said
    assert versions(server) == [1, 2]
    assert kept.posts() == 1, "nobody signs with it before a life of an encryptor has taken it up"
    take_it_up(server)
    assert kept.posts() == 2
    kept.holds()
    pulled = server.command(*pull)
    assert pulled.returncode == 0, pulled.stderr
    assert "signed by the pinned one" in pulled.stderr
    assert len(pulled.stdout.splitlines()) == 6
    listed = server.command("receipt-key", "list")
    assert "version 2" in listed.stdout
    assert listed.returncode == 0
    assert '"receipt_key_rotated"' in server.log.read_text()
    modes = {path.stat().st_mode & 0o777 for path in (server.data_dir / "keys").iterdir()}
    assert modes == {0o600}


@pytest.mark.slow
@pytest.mark.parametrize(
    "running",
    [
        pytest.param(True, id="beside the server"),
        pytest.param(False, id="without it", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("point", with_some(OF_A_ROTATION, lambda point: point.endswith("committed")))
def test_a_rotation_that_is_killed_between_any_two_steps_leaves_a_key_that_somebody_has(
    own_server: Callable[..., Server], point: str, running: bool
) -> None:
    server = own_server(**SMALL).start()
    server.wait_ready()
    kept = Kept(server)
    assert kept.posts() == 1
    if not running:
        assert server.terminate() == 0
    dying = own_server(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point, **SMALL)
    assert rotate(dying).returncode == -signal.SIGKILL
    if running:
        server.kill_9()
    server.start()
    server.wait_ready()
    kept.tenant.moved_to(server)
    so_far = [1, 2] if point.endswith("committed") else [1]
    assert versions(server) == so_far
    assert kept.posts() == so_far[-1]
    kept.holds()
    rotated(server)
    take_it_up(server)
    assert kept.posts() == so_far[-1] + 1
    assert versions(server) == [*so_far, so_far[-1] + 1]
    kept.holds()
    assert server.terminate() == 0
    assert not [path for path in (server.data_dir / "keys").iterdir() if path.name.startswith(".")] or (
        point == "key_file.written"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    with_some((p for p in OF_A_ROTATION if p.startswith("rotate")), lambda p: p.endswith("committed")),
)
def test_a_start_with_a_new_given_key_that_is_killed_is_begun_again(
    own_server: Callable[..., Server], point: str
) -> None:
    old, new = os.urandom(32).hex(), os.urandom(32).hex()
    server = own_server(VES_SEQUENCER_SIGNING_KEY=old, **SMALL).start()
    server.wait_ready()
    kept = Kept(server)
    assert kept.posts() == 1
    assert server.terminate() == 0
    both = {"VES_SEQUENCER_SIGNING_KEY": new, "VES_SEQUENCER_SIGNING_KEY_PREVIOUS": old}
    dying = own_server(SEQUENCER_FAULTS="1", SEQUENCER_CRASH_AT=point, **both, **SMALL)
    assert dying.launch().wait(60) == -signal.SIGKILL, dying.tail()
    server = own_server(**both, **SMALL).start()
    server.wait_ready()
    kept.tenant.moved_to(server)
    assert versions(server) == [1, 2]
    assert kept.posts() == 2
    kept.holds()
    refused = rotate(server)
    assert refused.returncode == 1
    assert "VES_SEQUENCER_SIGNING_KEY_PREVIOUS" in refused.stderr
    assert new not in refused.stderr + refused.stdout + server.log.read_text()
    assert server.terminate() == 0
    later = own_server(VES_SEQUENCER_SIGNING_KEY=new, **SMALL).start()
    later.wait_ready()
    assert later.terminate() == 0
    stranger = own_server(VES_SEQUENCER_SIGNING_KEY=os.urandom(32).hex(), **SMALL)
    with pytest.raises(AssertionError, match="give it the recorded key"):
        stranger.start()


@pytest.mark.slow
def test_two_rotations_at_once_make_a_chain_and_no_key_nobody_has(own_server: Callable[..., Server]) -> None:
    server = own_server(**SMALL).start()
    server.wait_ready()
    kept = Kept(server)
    command = ["receipt-key", "rotate"]
    at_once = [server.begin(*command) for _ in range(4)]
    codes = [process.wait(60) for process in at_once]
    assert set(codes) <= {0, 1}
    assert 0 in codes
    assert versions(server) == list(range(1, codes.count(0) + 2))
    take_it_up(server)
    assert kept.posts() == codes.count(0) + 1
    kept.holds()
    server.kill_9()
    server.start()
    server.wait_ready()
    kept.tenant.moved_to(server)
    assert kept.posts() == codes.count(0) + 1


@pytest.mark.slow
def test_two_nodes_rotate_independently_and_each_shows_the_keys_of_both(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    with operated_postgres(tmp_path / "postgres") as operated:
        old, new = os.urandom(32).hex(), os.urandom(32).hex()
        a = operated.node(tmp_path / "a", VES_SEQUENCER_SIGNING_KEY=old)
        b = operated.node(tmp_path / "b")
        try:
            a.start()
            b.start()
            a.wait_ready()
            b.wait_ready()
            kept = Kept(a)
            assert kept.posts() == 1
            assert a.terminate() == 0
            a.environment |= {
                "VES_SEQUENCER_SIGNING_KEY": new,
                "VES_SEQUENCER_SIGNING_KEY_PREVIOUS": old,
            }
            a.start()
            a.wait_ready()
            kept.tenant.moved_to(a)
            assert kept.posts() == 2
            through_b = kept.tenant.seen_from(b)
            event = through_b.agent.event({"n": 1})
            (receipt,) = through_b.post(event).json()["receipts"]
            assert receipt["sequencerKeyVersion"] == 1
            shown = {(key["sequencer_id"], key["key_version"]) for key in published(b)["receipt_keys"]}
            ids = a.environment["VES_SEQUENCER_ID"], b.environment["VES_SEQUENCER_ID"]
            assert shown == {(ids[0], 1), (ids[0], 2), (ids[1], 1)}
            for body, receipts in kept.posted:
                again = through_b.post_raw(body)
                assert again.json()["receipts"] == receipts, json.dumps(again.json())
        finally:
            for node in (a, b):
                if node.process is not None:
                    node.kill_9()
