"""The compose file: valid by the Compose specification, hardened; its PostgreSQL admits only whom it should.

There is no container engine here: the services' own arguments, files and variables are used without one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from config.secret_sources import secret_settings
from config.settings import Settings
from tests.deploy.tools import missing
from tests.e2e.nodes import free_port
from tests.e2e.world import ROOT, Server

FOLDER = ROOT / "deploy/compose"
DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")
WANTED = re.compile(r"\$\{(\w+):\?[^}]*\}")


def text() -> str:
    """As compose reads it: with the defaults in the place of the variables."""
    return WANTED.sub(str(uuid.UUID(int=1)), DEFAULT.sub(r"\2", (FOLDER / "compose.yaml").read_text()))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text())
    return loaded


def test_the_file_is_valid_by_the_compose_specification() -> None:
    import compose_spec

    found = compose_spec.PyCompose.from_json(json.dumps(compose()))
    assert set(found.service_names()) == {"postgres", "migrate", "sequencer"}
    with pytest.raises(ValueError, match="duration"):
        compose_spec.PyCompose.from_json(
            json.dumps(compose()).replace('"interval": "5s"', '"interval": "5x"')
        )


SERVICES = sorted(compose()["services"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_the_least_that_it_needs(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["healthcheck"]
    assert service["networks"]


def test_the_database_is_reached_from_a_network_without_a_way_out_and_from_no_port() -> None:
    found = compose()
    assert found["networks"]["database"] == {"internal": True}
    assert found["services"]["postgres"]["networks"] == ["database"]
    assert "ports" not in found["services"]["postgres"]
    assert found["services"]["sequencer"]["ports"] == ["443:8443"]


def test_every_secret_is_a_file_and_only_for_those_who_need_it() -> None:
    found = compose()
    secret = {name.upper() for name in secret_settings(Settings)}
    known = {name.upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in secret}
    for name in ("migrate", "sequencer"):
        service = found["services"][name]
        given = service["environment"]
        assert set(given) <= known
        assert not set(given) & secret, "a secret in a variable"
        files = {value for variable, value in given.items() if variable.endswith("_FILE")}
        mounted = {f"/run/secrets/{one}" for one in service["secrets"]}
        assert files == mounted - {"/run/secrets/database_ca"}
    server = found["services"]["sequencer"]["secrets"]
    assert not [one for one in server if "owner" in one or "admin_password" in one or "superuser" in one]
    assert set(found["secrets"]) == {
        one for service in found["services"].values() for one in service["secrets"]
    }
    assert all(one["file"].startswith("./secrets/") for one in found["secrets"].values())


def test_a_stop_is_longer_than_the_server_needs() -> None:
    service = compose()["services"]["sequencer"]
    given = service["environment"]
    needed = float(given["SHUTDOWN_PAUSE_SECS"]) + float(given["GRACEFUL_TIMEOUT_SECS"])
    assert float(service["stop_grace_period"].removesuffix("s")) >= needed + 10


class Stack(NamedTuple):
    secrets: Path
    port: int
    binaries: Path

    def file(self, name: str) -> str:
        return str(self.secrets / compose()["secrets"][name]["file"].removeprefix("./secrets/"))

    def psql(
        self, user: str, password_file: str, statement: str, **how: str
    ) -> subprocess.CompletedProcess[str]:
        given = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": self.file("database_ca")} | how
        words = " ".join(f"{name}={value}" for name, value in given.items())
        return subprocess.run(
            [
                self.binaries / "psql",
                "-XAtq",
                "-c",
                statement,
                f"{words} port={self.port} user={user} dbname=sequencer",
            ],
            env={"PGPASSWORD": (self.secrets / password_file).read_text(), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def environment(self, service: str) -> dict[str, str]:
        """Of a service, with the secrets where they are here."""
        given = compose()["services"][service]["environment"]
        return {
            name: self.file(value.removeprefix("/run/secrets/"))
            if value.startswith("/run/secrets/")
            else value
            for name, value in given.items()
        }


def binaries_with_tls() -> Path:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=str):
        if (folder / "postgres").exists() and (folder / "psql").exists():
            return folder
    missing("no PostgreSQL that speaks TLS: apt-get install postgresql, or .ci/tools as root")
    raise AssertionError


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose")
    shutil.copytree(FOLDER, folder / "compose", ignore=shutil.ignore_patterns("secrets"))
    port, made = free_port(), folder / "compose/secrets.sh"
    script = made.read_text()
    # Here the database has no name of its own, and one user plays all parts.
    for written, here in (
        ("certificate postgres postgres", "certificate postgres localhost"),
        ("@postgres:5432/", f"@localhost:{port}/"),
        ("/run/secrets/database_ca", str(folder / "compose/secrets/ca.crt")),
    ):
        assert script.count(written) == 1, written
        script = script.replace(written, here)
    made.write_text(re.sub(r"^(\[ .*exit 1; \}|chown .*)\n", "", script, flags=re.MULTILINE))
    subprocess.run(["sh", made], check=True, timeout=60, stdin=subprocess.DEVNULL)
    running = Stack(folder / "compose/secrets", port, binaries_with_tls())
    with postgres(folder, running):
        yield running


@contextmanager
def postgres(folder: Path, stack: Stack) -> Iterator[None]:
    """With the arguments, the host rules and the roles of the compose file."""
    data, sockets = folder / "data", folder / "s"
    sockets.mkdir()
    as_nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    initdb = [stack.binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run([*as_nobody, *initdb], check=True, capture_output=True, timeout=60)
    command = [
        re.sub(r"/run/secrets/(\w+)", lambda found: stack.file(found[1]), word).replace(
            "/etc/postgresql/pg_hba.conf", str(folder / "compose/pg_hba.conf")
        )
        for word in compose()["services"]["postgres"]["command"]
    ]
    hba = folder / "compose/pg_hba.conf"
    # The superuser's socket is for its own account, which a test has not.
    hba.write_text(re.sub(r"^(local .*)peer$", r"\1trust", hba.read_text(), flags=re.MULTILINE))
    here = ["-D", data, "-k", sockets, "-p", str(stack.port)]
    with (folder / "postgres.log").open("wb") as log:
        server = subprocess.Popen(
            [*as_nobody, stack.binaries / command[0], *here, *command[1:]], stdout=log, stderr=log
        )
    try:
        local = [stack.binaries / "psql", "-Xq", "-h", sockets, "-p", str(stack.port), "-U", "postgres"]
        give_up = time.monotonic() + 30
        while (
            subprocess.run([*local, "-c", "CREATE DATABASE sequencer"], capture_output=True).returncode != 0
        ):
            assert time.monotonic() < give_up, (folder / "postgres.log").read_text()
            time.sleep(0.1)
        roles = (folder / "compose/roles.sql").read_text()
        roles = re.sub(r"/run/secrets/(\w+)", lambda found: stack.file(found[1]), roles)
        subprocess.run([*local, "sequencer"], input=roles, text=True, check=True, timeout=30)
        yield
    finally:
        server.terminate()
        server.wait(30)
    told = (folder / "postgres.log").read_text()
    for name in ("database-owner-password", "database-app-password", "postgres-superuser-password"):
        assert (stack.secrets / name).read_text() not in told


@pytest.mark.slow
def test_every_secret_file_is_for_one_reader(stack: Stack) -> None:
    found = {path.name: path.stat().st_mode & 0o777 for path in stack.secrets.iterdir()}
    assert found.pop("ca.crt") == 0o644
    assert set(found.values()) == {0o600}
    assert {one["file"].removeprefix("./secrets/") for one in compose()["secrets"].values()} <= {
        *found,
        "ca.crt",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "password", "how", "why"),
    [
        ("sequencer_app_login", "database-app-password", {}, None),
        ("sequencer_app_login", "database-owner-password", {}, "password authentication failed"),
        ("sequencer_app_login", "database-app-password", {"sslmode": "disable"}, "pg_hba.conf rejects"),
        ("postgres", "postgres-superuser-password", {}, "pg_hba.conf rejects"),
        ("sequencer_app_login", "database-app-password", {"host": "127.0.0.1"}, "does not match host name"),
    ],
    ids=["the login", "another's password", "in clear text", "the superuser", "by another name"],
)
def test_the_database_admits_its_logins_over_checked_tls_and_nobody_else(
    stack: Stack, user: str, password: str, how: dict[str, str], why: str | None
) -> None:
    said = stack.psql(user, password, "SELECT 1", **how)
    if why is None:
        assert said.stdout == "1\n", said.stderr
    else:
        assert said.returncode != 0
        assert why in said.stderr


@pytest.mark.slow
def test_the_services_work_together_as_the_file_says(stack: Stack, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", **stack.environment("sequencer"), VERIFIERS="1", ENCRYPTORS="1")
    server.environment["PORT"] = str(free_port())
    assert "sequencer migrate" in server.command("serve").stderr
    owner = stack.environment("migrate") | {"DATA_DIR": str(tmp_path / "migrator")}
    migrated = Server(tmp_path / "migrator", **owner).command("migrate")
    assert migrated.returncode == 0, migrated.stderr
    refused = stack.psql("sequencer_app_login", "database-app-password", "DELETE FROM record.ves_events")
    assert "permission denied" in refused.stderr
    refused = stack.psql("sequencer_app_login", "database-app-password", "CREATE TABLE public.mine (x int)")
    assert "permission denied" in refused.stderr
    server.start()
    try:
        give_up = time.monotonic() + 30
        with httpx.Client(
            verify=ssl.create_default_context(cafile=stack.file("database_ca")),
            base_url=server.url.replace("127.0.0.1", "localhost"),
        ) as http:
            while http.get("/ready").status_code != 200:
                assert time.monotonic() < give_up, server.tail()
                time.sleep(0.1)
        assert server.command("status").returncode == 0
    finally:
        assert server.terminate() == 0
