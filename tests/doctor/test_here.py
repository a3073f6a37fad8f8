"""Every check of settings, files and machine: passes on a good deployment, and fails for its own reason."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from config.settings import Settings
from supervisor.doctor.checks import Checklist, Finding, Verdict, passed
from supervisor.doctor.here import DAYS_LEFT_MIN, HERE, Surroundings
from tests.tls.authority import Authority

ABROAD = {"host": "10.0.0.1"}
PASSWORD = "opensesame"


class Bad(NamedTuple):
    kind: str
    evidence: str
    settings: dict[str, Any]
    spoil: Callable[[Path], None] = lambda data_dir: None
    environ: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default


BAD: dict[str, list[Bad]] = {
    "nothing is spoken in clear text to other machines": [
        Bad("FAIL", "HOST 10.0.0.1 can be reached", ABROAD),
        Bad("FAIL", "ADMIN_BIND 10.0.0.1:1 can be reached", {"admin_bind": "10.0.0.1:1"}),
    ],
    "the admin listener is not public": [
        Bad("FAIL", "whoever reaches this machine", {"admin_bind": "0.0.0.0:1"}),
        Bad("FAIL", "in clear text", {"admin_bind": "0.0.0.0:1", "admin_ip_allowlist": "10.0.0.0/8"}),
    ],
    "database credentials come from a secrets manager": [
        Bad("FAIL", "DATABASE_URL: a password", {"database_url": f"postgresql://u:{PASSWORD}@db/x"}),
        Bad("FAIL", "DATABASE_ADMIN_URL: a", {"database_admin_url": f"postgres://db/x?password={PASSWORD}"}),
        Bad("FAIL", "PGPASSWORD", {"database_url": "postgres://u@db/x"}, environ={"PGPASSWORD": PASSWORD}),
    ],
    "other secrets come from files or commands": [
        Bad("warn", "BOOTSTRAP_ADMIN_API_KEY", {"bootstrap_admin_api_key": PASSWORD}),
        Bad("warn", "PAYLOAD_ENCRYPTION_KEYS", {"payload_encryption_keys": PASSWORD}),
    ],
    "rate limiting is on": [Bad("FAIL", "RATE_LIMIT_MODE=off", {"rate_limit_mode": "off"})],
    "encryption at rest is required": [
        Bad("FAIL", "disabled", {"payload_encryption_mode": "disabled"}),
        Bad("warn", "optional", {"payload_encryption_mode": "optional"}),
    ],
    "files and keys are the server's alone": [
        Bad("FAIL", "has mode 750", {}, lambda data: data.chmod(0o750)),
        Bad("FAIL", "keys has mode 755", {}, lambda data: (data / "keys").chmod(0o755)),
        Bad("FAIL", "secret has mode 640", {}, lambda data: (data / "keys" / "secret").chmod(0o640)),
        Bad("FAIL", "spool.jsonl has mode 644", {}, lambda data: (data / "audit-spool.jsonl").chmod(0o644)),
        Bad("cannot tell", "there is no DATA_DIR", {}, shutil.rmtree),
    ],
    "no session keys are written to a file": [
        Bad("FAIL", "SSLKEYLOGFILE", {}, environ={"SSLKEYLOGFILE": "/tmp/keys"})
    ],
    "only live credentials are accepted": [
        Bad("warn", "API_KEY_MODE=test", {"api_key_mode": "test"}),
        Bad("warn", "JWT_SECRET", {"jwt_secret": PASSWORD}),
    ],
    "connections fit into the open files": [Bad("FAIL", "open files", {"connections_max": 1 << 31})],
    "key rotation is scheduled": [Bad("FAIL", "KEY_ROTATION_MODE=off", {"key_rotation_mode": "off"})],
}
ELSEWHERE = {
    "TLS certificates are valid and renewed",
    "no memory is written to disk",
    "there is room on the disk",
}
"""Failed in tests of their own below."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "keys").mkdir(parents=True)
    for path in (data, data / "keys"):
        path.chmod(0o700)
    for path in (data / "keys" / "secret", data / "audit-spool.jsonl"):
        path.touch(0o600)
    return data


def surroundings(
    data_dir: Path, given: dict[str, Any], environ: dict[str, str] | None = None
) -> Surroundings:
    secrets = {name: SecretStr(given[name]) for name in given.keys() & set(Settings.secret_names())}
    return Surroundings(Settings(data_dir=data_dir, **(given | secrets)), environ or {})


async def verdict(item: str, at: Surroundings) -> Verdict:
    [found] = [f.verdict for f in await HERE.run(at) if f.item == item]
    assert PASSWORD not in str(found)
    return found


def test_every_check_is_made_to_fail() -> None:
    items = [check.item for check in HERE]
    assert len(set(items)) == len(items)
    assert set(items) == BAD.keys() | ELSEWHERE


async def test_a_good_deployment_passes_everything(data_dir: Path) -> None:
    room = "there is room on the disk"  # not ours to promise
    found = [f for f in await HERE.run(surroundings(data_dir, {})) if f.item != room]
    assert [(f.item, f.verdict.evidence) for f in found if f.verdict.kind != "pass"] == []


@pytest.mark.parametrize(("item", "number"), [(item, n) for item in BAD for n in range(len(BAD[item]))])
async def test_a_bad_deployment_fails_for_that_reason_and_is_told_what_helps(
    item: str, number: int, data_dir: Path
) -> None:
    bad = BAD[item][number]
    bad.spoil(data_dir)
    found = await verdict(item, surroundings(data_dir, bad.settings, bad.environ))
    assert found.kind == bad.kind
    assert bad.evidence in found.evidence
    assert found.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_key_that_belongs_to_somebody_else_fails(data_dir: Path) -> None:
    os.chown(data_dir / "keys" / "secret", 1234, 1234)
    found = await verdict("files and keys are the server's alone", surroundings(data_dir, {}))
    assert found.kind == "FAIL"
    assert "belongs to uid 1234" in found.evidence


async def test_a_certificate_without_two_weeks_left_fails(data_dir: Path, tmp_path: Path) -> None:
    item = "TLS certificates are valid and renewed"
    for days, kind in ((DAYS_LEFT_MIN + 1, "pass"), (DAYS_LEFT_MIN - 1, "FAIL"), (-3, "FAIL")):
        cert, key = Authority(tmp_path).write_pair(days=days)
        at = surroundings(data_dir, {"tls_cert_file": cert, "tls_key_file": key})
        found = await verdict(item, at)
        assert found.kind == kind
        assert "days left" in found.evidence
    key.unlink()
    assert (await verdict(item, at)).kind == "FAIL", "no server starts with it"
    behind = surroundings(data_dir, ABROAD | {"tls_terminated_by_proxy": True})
    assert (await verdict(item, behind)).kind == "cannot tell"


async def test_a_server_that_may_dump_its_memory_fails_and_one_with_few_files_too(data_dir: Path) -> None:
    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard not in (resource.RLIM_INFINITY,) and hard < 4096:
        pytest.skip("this machine allows nobody a core dump")
    with subprocess.Popen(["/bin/sleep", "60"], preexec_fn=narrow) as child:  # noqa: ASYNC220
        at = Surroundings(Settings(data_dir=data_dir), {}, child.pid)
        core = await verdict("no memory is written to disk", at)
        files = await verdict("connections fit into the open files", at)
        child.kill()
    assert (core.kind, files.kind) == ("FAIL", "FAIL")
    assert "4096" in core.evidence
    assert "100 open files" in files.evidence
    gone = Surroundings(Settings(data_dir=data_dir), {}, child.pid)
    assert (await verdict("no memory is written to disk", gone)).kind == "cannot tell"


@pytest.mark.parametrize(
    ("free", "total", "kind"),
    [
        (4 << 30, 100 << 30, "FAIL"),
        (1 << 29, 2 << 30, "FAIL"),
        (10 << 30, 100 << 30, "warn"),
        (50, 100, "FAIL"),
    ],
)
async def test_a_full_disk_fails(
    free: int, total: int, kind: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free, total=total))
    found = await verdict("there is room on the disk", surroundings(data_dir, {}))
    assert found.kind == kind


async def test_a_check_that_cannot_find_out_says_so_without_what_may_be_a_value() -> None:
    checks: Checklist[None] = Checklist()

    @checks.check("Deployment", "breaks")
    def breaks(at: None) -> Verdict:
        raise OSError(PASSWORD)

    @checks.check("Operations", "fine")
    async def fine(at: None) -> Verdict:
        return passed("yes")

    assert await checks.run(None) == [
        Finding("Deployment", "breaks", Verdict("cannot tell", "OSError")),
        Finding("Operations", "fine", Verdict("pass", "yes")),
    ]
