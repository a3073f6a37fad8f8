"""The container image: well written, holds what it should, and serves from a root that cannot be written to.

There is no container engine here. So hadolint reads the Dockerfile, its commands are run as they stand, and
the result is started as an engine would: as process 1, as user 10001 without capabilities, with nothing to
write to but /data and /tmp.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.deploy.cell import USER, Cell
from tests.deploy.dockerfile import DOCKERFILE, context, stages
from tests.deploy.running import GIVEN, insiders, served, stop, wait_ready
from tests.deploy.tools import tool
from tests.e2e.world import ROOT


def test_the_dockerfile_has_no_finding_of_hadolint() -> None:
    said = subprocess.run(
        [tool("hadolint"), "--no-color", "--disable-ignore-pragma", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_image_runs_as_a_number_and_is_asked_by_the_program_itself() -> None:
    last = dict(stages()[1])
    assert last["USER"] == f"{USER}:{USER}"
    assert json.loads(last["ENTRYPOINT"]) == ["/opt/sequencer/bin/sequencer"]
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2]) == ["/opt/sequencer/bin/sequencer", "status"]
    assert last["STOPSIGNAL"] == "SIGTERM"


def test_the_image_takes_only_the_environment_from_the_stage_that_builds() -> None:
    copied = [said for name, said in stages()[1] if name in ("COPY", "ADD")]
    assert copied == ["--from=build /opt/sequencer /opt/sequencer"]


def test_no_key_no_data_and_no_history_is_in_the_build_context(tmp_path: Path) -> None:
    context(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("pyproject.toml", "README.md", "LICENSE", "requirements"),
        *("actors", "config", "contracts", "journal", "supervisor", "transport", "ves"),
    }
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in found}
    assert kinds <= {".py", ".sql", ".sol", ".mjs", ".json", ".txt", ".lock", ".toml", ".md", ""}, kinds


def test_every_package_of_the_image_has_a_hash() -> None:
    (command,) = [said for name, said in stages()[0] if name == "RUN" and "${LOCK}.lock" in said]
    assert "--require-hashes" in command
    assert "--only-binary :all:" in command
    for lock in ("run.lock", "otel.lock"):
        text = (ROOT / "requirements" / lock).read_text()
        pinned = re.findall(r"^[\w.-]+==\S+.*(?:\\\n.*)+", text, re.MULTILINE)
        assert len(pinned) > 30
        assert all("--hash=sha256:" in one for one in pinned)


@pytest.mark.slow
def test_the_built_image_serves_from_a_read_only_root_as_an_unprivileged_process_1(
    image: Cell, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process, told = served(image, log)
    try:
        assert told["pid"] == 1
        assert httpx.get(f"{told['url']}/health").status_code == 200
        wait_ready(told["url"], log)
        inside = insiders(process.pid)
        assert len(inside) >= 4, "the server, its workers and its database"
        for facts in inside:
            assert facts["Uid"].split() == [str(USER)] * 4
            assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
            assert facts["NoNewPrivs"] == "1"
    finally:
        stop(process)
    assert not (image.data / "sequencer/server.json").exists(), "it stopped in order"


@pytest.mark.slow
def test_the_images_root_cannot_be_written_to_and_has_nothing_that_fetches(
    image: Cell, tmp_path: Path
) -> None:
    python, log = "/opt/sequencer/bin/python", tmp_path / "log"
    assert image.run([python, "-c", "\"open('/tmp/x','w')\""], {}, log) == 0
    contract = "from contracts.artefact import creation_code; assert creation_code()"
    assert image.run([python, "-c", f'"{contract}"'], {}, log) == 0
    for place in ("/x", "/opt/sequencer/x", "/etc/x"):
        assert image.run([python, "-c", f"\"open('{place}','w')\""], {}, log) != 0
    assert log.read_text().count("Read-only file system") + log.read_text().count("Permission denied") == 3
    packages = {path.name.partition("-")[0] for path in image.image.rglob("*.dist-info")}
    assert "ves_sequencer" in packages
    assert not packages & {"pip", "setuptools", "wheel", "pytest", "hypothesis"}


@pytest.mark.slow
def test_the_images_healthcheck_is_0_while_it_serves_and_not_0_else(image: Cell, tmp_path: Path) -> None:
    log = tmp_path / "log"
    check = json.loads(dict(stages()[1])["HEALTHCHECK"].partition("CMD ")[2])
    process, told = served(image, log)
    try:
        wait_ready(told["url"], log)
        assert image.run(check, GIVEN, log) == 0
    finally:
        stop(process)
    assert image.run(check, GIVEN, log) != 0


@pytest.mark.slow
def test_the_image_refuses_to_serve_in_clear_text_to_everybody(image: Cell, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert image.run(["/opt/sequencer/bin/sequencer", "serve"], GIVEN, log) == 1
    assert "TLS_CERT_FILE" in log.read_text()
