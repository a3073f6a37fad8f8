"""The files of ``deploy/patroni`` are whole and keep what the page says; no report is good by accident."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.checker import Verdict
from tests.patroni.cluster import Cluster
from tests.patroni.run import Loss, Report, acknowledged, longest_silence


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path, tmp_path / "patroni", tmp_path / "bin", synchronous_mode="quorum")
    made.prepare()
    return made


def test_every_member_is_durable_speaks_tls_and_keeps_its_passwords_to_itself(cluster: Cluster) -> None:
    for machine in cluster.machines:
        path = machine.folder / "patroni.yml"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        told = yaml.safe_load(path.read_text())
        dcs = told["bootstrap"]["dcs"]
        assert dcs["synchronous_mode"] == "quorum"
        assert dcs["synchronous_mode_strict"] is True
        assert dcs["ttl"] >= dcs["loop_wait"] + 2 * dcs["retry_timeout"]
        parameters = dcs["postgresql"]["parameters"]
        for name in ("synchronous_commit", "fsync", "full_page_writes", "ssl"):
            assert parameters[name] == "on", name
        assert all(line.startswith("hostssl ") for line in told["postgresql"]["pg_hba"])
        assert all(line.endswith(" scram-sha-256") for line in told["postgresql"]["pg_hba"])
        assert all(who["sslmode"] == "verify-ca" for who in told["postgresql"]["authentication"].values())
        etcd = yaml.safe_load((machine.folder / "etcd.yml").read_text())
        assert etcd["enable-grpc-gateway"] is True
        for door in ("client-transport-security", "peer-transport-security"):
            assert etcd[door]["client-cert-auth"] is True
        assert "${" not in path.read_text()


def line(kind: str, number: int, mono: float, **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": number, "mono": mono, **more}


def test_a_gap_is_the_longest_time_without_an_acknowledged_ingest() -> None:
    receipt = {"receipts": [{"eventId": "e"}]}
    history = [
        line("invoke", 1, 0.0, op="ingest"),
        line("complete", 1, 1.0, **receipt),
        line("invoke", 2, 1.5, op="ingest"),
        line("invoke", 3, 2.0, op="replay"),
        line("complete", 3, 3.0, **receipt),  # what was stored before tells nothing about writing
        line("complete", 2, 4.0, receipts=[]),  # neither does a refusal
        line("invoke", 4, 5.0, op="ingest"),
        line("complete", 4, 9.0, **receipt),
    ]
    assert acknowledged(history, sent_after=-1) == [1.0, 9.0]
    assert acknowledged(history, sent_after=4.5) == [9.0]
    assert longest_silence([1.0, 9.0], 0.0, 10.0) == 8.0
    assert longest_silence([1.0, 2.0], 0.0, 10.0) == 8.0
    assert longest_silence([], 0.0, 10.0) == 10.0


def report(**changes: Any) -> Report:
    usual: dict[str, Any] = {
        "losses": [Loss("kill-primary", "m1", 19.7, 19.0, 17.1)],
        "verdict": Verdict(acked=5),
        "auditor": Verdict(),
        "anomalies": [],
        "answers": "5 x 200",
        "seconds": 60.0,
    }
    return Report(**{**usual, **changes})


def test_a_run_is_good_only_if_machines_were_lost_events_acknowledged_and_nothing_was_broken() -> None:
    assert report().exit_code == 0
    assert report().lines()[-1] == "acked=5 lost=0 doubled=0 gaps=0 invalid=0 losses=1 seconds=60"
    spoilt: list[dict[str, Any]] = [
        {"losses": []},
        {"verdict": Verdict()},
        {"verdict": Verdict(acked=5, lost=["x"])},
        {"auditor": Verdict(doubled=["x"])},
        {"anomalies": ["500"]},
        {"problems": ["the node ended with 1"]},
    ]
    for bad in spoilt:
        assert report(**bad).exit_code == 1, bad
