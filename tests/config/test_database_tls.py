"""Which addresses of PostgreSQL are accepted, and that the hosts in them are those the driver would go to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.database_tls import database_address, protected, remote_hosts, writable
from config.exposure import Exposed
from config.settings import Settings

PASSWORD = "opensesame"


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def refusal(address: str, **environ: str) -> str:
    with pytest.raises(Exposed) as caught:
        protected("DATABASE_URL", address, "verify-full", environ)
    assert PASSWORD not in str(caught.value)
    assert str(caught.value).startswith("DATABASE_URL")
    return str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql:///shop?host=/var/run/postgresql",
        "postgresql://u@/shop",
        "postgresql://u@localhost/shop",
        "postgresql://u@127.0.0.1:5433,[::1]:5434/shop?sslmode=disable",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/shop",
    ],
)
def test_on_this_machine_an_address_stays_as_it_is(address: str) -> None:
    assert protected("DATABASE_URL", address, "verify-full", {}) == address


def test_to_another_machine_the_address_demands_verification_by_itself(ca: Path) -> None:
    for address in (
        f"postgresql://u:{PASSWORD}@db/shop?sslrootcert={ca}",
        f"postgresql://u:{PASSWORD}@localhost,db/shop?sslrootcert={ca}",
        f"postgresql://u@/shop?host=db&sslrootcert={ca}",
    ):
        assert protected("DATABASE_URL", address, "verify-full", {}) == address + "&sslmode=verify-full"
    short = "postgresql://db/shop"
    named = {"PGSSLROOTCERT": str(ca)}
    assert protected("DATABASE_URL", short, "verify-full", named) == short + "?sslmode=verify-full"
    said = f"{short}?sslmode=verify-full&sslrootcert={ca}"
    assert protected("DATABASE_URL", said, "verify-full", {"PGSSLMODE": "disable"}) == said


@pytest.mark.parametrize("name", ["database_url", "database_admin_url", "anchor_database_url"])
def test_every_login_of_ours_is_held_to_it(name: Any, ca: Path) -> None:
    given = Settings(_env_file=None, **{name: f"postgresql://u:{PASSWORD}@db/shop?sslrootcert={ca}"})
    assert database_address(given, name, {}).endswith("&sslmode=verify-full")
    loose = Settings(_env_file=None, **{name: f"postgresql://u:{PASSWORD}@db/shop?sslmode=prefer"})
    with pytest.raises(Exposed, match=name.upper()):
        database_address(loose, name, {})
    with pytest.raises(ValidationError, match="postgresql://"):
        Settings(_env_file=None, **{name: f"mysql://u:{PASSWORD}@db/shop"})


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify_full"])
def test_less_than_verify_full_is_refused_wherever_it_is_said(mode: str, ca: Path) -> None:
    root = f"sslrootcert={ca}"
    for address, environ in (
        (f"postgresql://u:{PASSWORD}@db/shop?{root}&sslmode={mode}", {}),
        (f"postgresql://u:{PASSWORD}@localhost,10.1.2.3/shop?{root}&sslmode={mode}", {}),
        (f"postgresql://u:{PASSWORD}@[::1],[2001:db8::1]:5/shop?{root}&sslmode={mode}", {}),
        (f"postgresql:///shop?host=/tmp,db&user=u&password={PASSWORD}&{root}&sslmode={mode}", {}),
        (f"postgresql://u:{PASSWORD}@db/shop?{root}", {"PGSSLMODE": mode}),
        (f"postgresql:///shop?{root}&sslmode={mode}", {"PGHOST": "/tmp,db.example.com"}),
        (f"postgresql:///shop?{root}&sslmode=verify-full&sslmode={mode}", {"PGHOST": "db"}),
    ):
        assert "another machine" in refusal(address, **environ)
        assert "DATABASE_TLS=insecure-allowed" in refusal(address, **environ)
        assert protected("DATABASE_URL", address, "insecure-allowed", environ) == address


def test_what_would_weaken_or_go_round_the_verification_is_refused(ca: Path, tmp_path: Path) -> None:
    start = f"postgresql://u:{PASSWORD}@db/shop?sslmode=verify-full&"
    for version in ("TLSv1", "TLSv1.1", "SSLv3"):
        assert "TLSv1.2" in refusal(f"{start}sslrootcert={ca}&ssl_min_protocol_version={version}")
        assert "TLSv1.2" in refusal(f"{start}sslrootcert={ca}", PGSSLMINPROTOCOLVERSION=version)
    assert "hostaddr" in refusal(f"postgresql://u:{PASSWORD}@localhost/shop?hostaddr=10.0.0.1")
    assert "service" in refusal(f"postgresql://u:{PASSWORD}@localhost/shop?service=elsewhere")
    assert "%23" in refusal(f"postgresql://u:x#{PASSWORD}@db/shop?sslmode=verify-full")
    assert "ca-certificates" in refusal(start + "sslrootcert=system")
    assert "No such file" in refusal(start + f"sslrootcert={tmp_path}/missing.pem")
    assert "Is a directory" in refusal(start + f"sslrootcert={tmp_path}")
    assert "root.crt" in refusal(start[:-1], HOME=str(tmp_path))
    (tmp_path / "no.pem").write_text("hello")
    assert "PEM" in refusal(start + f"sslrootcert={tmp_path}/no.pem")
    for broken in (f"postgresql://u:{PASSWORD}@[::1/x", f"postgresql://u:{PASSWORD}@db/shop?{PASSWORD}"):
        refusal(broken)
    assert "host is empty" in refusal(f"postgresql://u:{PASSWORD}@db,/shop?sslmode=verify-full")
    assert "brackets" in refusal(f"postgresql://u:{PASSWORD}@::1/shop?sslmode=verify-full")
    assert "%40" in refusal(f"postgresql://u:p@{PASSWORD}@db/shop")
    assert "port" in refusal(f"postgresql://u:p@db:{PASSWORD}/shop")


def test_of_several_hosts_the_address_asks_for_the_one_that_takes_writes(ca: Path) -> None:
    for alone in ("postgresql://u@db/shop", "postgresql:///shop?host=/tmp", "postgresql://u,v@db/shop"):
        assert writable("X", alone, {}) == alone
    several = "postgresql://u@one:1,two/shop"
    assert writable("X", several, {}) == f"{several}?target_session_attrs=read-write"
    assert writable("X", f"{several}?a=b", {}) == f"{several}?a=b&target_session_attrs=read-write"
    for asks in ("read-write", "primary"):
        said = f"{several}?target_session_attrs={asks}"
        assert writable("X", said, {}) == said
    given = Settings(_env_file=None, database_url=f"postgresql://u@one,two/shop?sslrootcert={ca}")  # type: ignore[arg-type]
    address = database_address(given, "database_url", {})
    assert address.endswith("&target_session_attrs=read-write&sslmode=verify-full")


@pytest.mark.parametrize(
    ("address", "environ", "remedy"),
    [
        *[
            (f"postgresql://one,two/x?target_session_attrs={asks}", {}, "target_session_attrs=read-write")
            for asks in ("any", "standby", "prefer-standby", "read-only")
        ],
        ("postgresql:///x?host=one,two", {}, "before the database"),
        ("postgresql:///x", {"PGHOST": "one,two"}, "before the database"),
        ("postgresql://one,two/x?port=1,2", {}, "behind its host"),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, dict) else None,
)
def test_several_hosts_that_would_be_asked_wrongly_are_refused(
    address: str, environ: dict[str, str], remedy: str
) -> None:
    with pytest.raises(Exposed, match=remedy) as caught:
        writable("DATABASE_URL", address, environ)
    assert str(caught.value).startswith("DATABASE_URL")


HOSTS = st.sampled_from(
    ["db", "localhost", "127.0.0.1", "10.0.0.1", "[::1]", "[2001:db8::7]", "/tmp", "%2Ftmp", "d%62"]
)
SPECS = st.lists(st.tuples(HOSTS, st.sampled_from(["", ":5433"])), max_size=3).map(
    lambda hosts: ",".join(host + ("" if host.startswith("/") else port) for host, port in hosts)
)


@given(
    SPECS.filter(lambda spec: "/" not in spec),
    SPECS,
    SPECS,
    st.sampled_from(["", "u@", "u:p%40ss@"]),
)
def test_hosts_are_those_that_the_driver_goes_to(netloc: str, query: str, pghost: str, user: str) -> None:
    address = f"postgresql://{user}{netloc}/shop" + (f"?host={query}" if query else "")
    environ = {"PGHOST": pghost} if pghost else {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PGHOST", "PGPORT", "PGSSLMODE", "PGSERVICE"):
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        words = "host port user password passfile database service servicefile direct_tls server_settings"
        unset = dict.fromkeys([*words.split(), "target_session_attrs", "krbsrvname", "gsslib"])
        addresses, _ = connect_utils._parse_connect_dsn_and_args(dsn=address, ssl=False, **unset)
    over_network = {a[0] for a in addresses if not isinstance(a, str)}
    assert set(remote_hosts("X", address, environ)) == over_network - {"localhost", "127.0.0.1", "::1"}
