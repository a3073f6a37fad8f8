"""The systemd units: systemd finds nothing wrong, and the server lives under the rules that they ask for.

systemd itself does not run here: its system call filter and its memory rule are installed without it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from config.secret_sources import secret_settings
from config.settings import Settings
from tests.deploy.cell import USER, Cell
from tests.deploy.running import insiders, served, stop, wait_ready
from tests.deploy.tools import tool
from tests.e2e.world import ROOT

FOLDER = ROOT / "deploy/systemd"
UNITS = (
    "sequencer.service",
    "sequencer-backup.service",
    "sequencer-anchor.service",
    "sequencer-backup.timer",
)
EXPOSURE_MAX = 2.0
"""Of 10; systemd calls it OK up to 4.4. What is left is that the server speaks to the network."""


def unit(name: str) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in (FOLDER / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    command = [tool("systemd-analyze", "apt-get install systemd, or .ci/tools as root"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (FOLDER / name).read_text()
        # The only thing that is not here is the program.
        (tmp_path / name).write_text(text.replace("/opt/sequencer/bin/sequencer", shutil.which("true") or ""))
    said = analyze("verify", "--recursive-errors=no", *(str(tmp_path / name) for name in UNITS))
    assert (said.returncode, said.stderr) == (0, "")
    (tmp_path / UNITS[0]).write_text((tmp_path / UNITS[0]).read_text() + "\nProtectSytem=yes\n")
    assert "ProtectSytem" in analyze("verify", str(tmp_path / UNITS[0])).stderr


@pytest.mark.parametrize("name", UNITS[:3])
def test_systemd_rates_the_units_as_little_exposed(name: str) -> None:
    limit = str(int(EXPOSURE_MAX * 10))
    said = analyze("security", "--offline=true", f"--threshold={limit}", "--no-pager", str(FOLDER / name))
    assert said.returncode == 0, said.stdout[-300:]
    assert "Overall exposure level" in said.stdout


@pytest.mark.parametrize("name", UNITS[:3])
def test_secrets_come_as_credentials_and_as_files_of_settings_that_exist(name: str) -> None:
    found = unit(name)
    credentials = {one.partition(":")[0] for one in found["LoadCredential"]}
    given = dict(one.split("=", 1) for one in found["Environment"])
    secret = {f"{name.upper()}_FILE" for name in secret_settings(Settings)}
    home = "sequencer-anchor" if "anchor" in name else "sequencer"
    assert given.pop("DATA_DIR") == f"/var/lib/{home}/data"
    assert given.pop("ANCHOR", None) == ("apart" if "anchor" in name else None)
    assert set(given) <= secret
    assert {value.removeprefix("%d/") for value in given.values()} == credentials


def test_a_stop_is_given_longer_than_the_server_takes() -> None:
    (stop_s,) = unit("sequencer.service")["TimeoutStopSec"]
    settings = Settings(_env_file=None)
    assert float(stop_s) > settings.shutdown_pause_secs + settings.graceful_timeout_secs + 10


def allowed_calls() -> list[str]:
    """As systemd computes it: sets are added and taken away in the order of the lines."""
    allowed: set[str] = set()
    for line in unit("sequencer.service")["SystemCallFilter"]:
        named = expanded(line.removeprefix("~").split())
        allowed = allowed - named if line.startswith("~") else allowed | named
    return sorted(allowed)


def expanded(names: list[str]) -> set[str]:
    calls: set[str] = set()
    for name in names:
        if name.startswith("@"):
            lines = analyze("syscall-filter", name).stdout.splitlines()[1:]
            calls |= expanded([line.strip() for line in lines if re.match(r"\s+[@\w]", line)])
        else:
            calls.add(name)
    return calls


@pytest.mark.slow
def test_the_server_its_workers_and_its_database_live_under_the_units_rules(
    image: Cell, tmp_path: Path
) -> None:
    calls = allowed_calls()
    assert {"read", "prctl", "pidfd_open", "setrlimit"} <= set(calls)
    assert not {"mount", "chroot", "setuid", "bpf", "ptrace"} & set(calls)
    families = " ".join(unit("sequencer.service")["RestrictAddressFamilies"])
    (image.data / "rules").write_text(" ".join(calls) + "\n" + families)
    shutil.copy(Path(__file__).with_name("confined.py"), image.data / "confined.py")
    for name in ("rules", "confined.py"):
        (image.data / name).chmod(0o644)
    log = tmp_path / "log"
    process, told = served(image, log, ("/opt/sequencer/bin/python", "/data/confined.py", "/data/rules"))
    try:
        wait_ready(told["url"], log)
        inside = insiders(process.pid)
        assert len(inside) >= 4
        assert {facts["Seccomp"] for facts in inside} == {"2"}
        assert {facts["Uid"].split()[0] for facts in inside} == {str(USER)}
    finally:
        stop(process)
    assert "Operation not permitted" not in log.read_text()


@pytest.mark.slow
def test_the_rules_are_really_in_force_there(image: Cell, tmp_path: Path) -> None:
    (image.data / "rules").write_text(" ".join(allowed_calls()) + "\nAF_UNIX AF_INET")
    shutil.copy(Path(__file__).with_name("confined.py"), image.data / "confined.py")
    tried = {
        "mmap.mmap(-1,4096,prot=7)": "Permission denied",
        "os.chroot('/')": "Operation not permitted",
        "socket.socket(socket.AF_NETLINK)": "Operation not permitted",
    }
    python = "/opt/sequencer/bin/python"
    for words, told in tried.items():
        log = tmp_path / "log"
        log.write_text("")
        code = f'"import os,mmap,socket;{words}"'
        assert image.run([python, "/data/confined.py", "/data/rules", python, "-c", code], {}, log) != 0
        assert told in log.read_text()
