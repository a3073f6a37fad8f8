"""TLS to PostgreSQL against Debian's server: who answers is verified, or nothing is said to him."""

from __future__ import annotations

import itertools
import os
import secrets
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from config.database_tls import protected
from journal.aio import open_loop
from journal.connections import Limits
from journal.migrate import migrate
from journal.port import JournalAway, JournalRefused
from journal.postgres import open_journal
from tests.e2e.world import Server
from tests.tls.authority import Authority
from tests.tls.debian_postgres import ELSEWHERE, PASSWORD, DebianPostgres

pytestmark = pytest.mark.slow

USER = "shop_server"
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> DebianPostgres:
    """Not running; with our roles and two logins that have a password."""
    home = tmp_path_factory.mktemp("debian")
    home.chmod(0o700)
    server = DebianPostgres(home / "pg")
    with server.running():
        trio.run(migrated, server.local)
        server.execute(
            f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}' IN ROLE sequencer_app",
            f"CREATE ROLE shop_owner LOGIN SUPERUSER PASSWORD '{PASSWORD}'",
        )
    return server


async def migrated(address: str) -> None:
    async with open_loop():
        await migrate(address)


def speaking_tls(authority: Authority, **how: object) -> dict[str, str]:
    cert, key = authority.write_pair("postgres", **({"names": ("localhost",)} | how))  # type: ignore[arg-type]
    return {"ssl": "on", "ssl_cert_file": str(cert), "ssl_key_file": str(key)}


def address(postgres: DebianPostgres, authority: Authority, *, port: int | None = None) -> str:
    given = postgres.address(USER, f"sslrootcert={authority.file}", port=port)
    return protected("DATABASE_URL", given, "verify-full", {})


async def connects(address: str) -> str:
    """The protocol version it came to."""
    async with open_loop(), open_journal(address, node_id=os.urandom(16), as_server=True) as journal:
        ask = "SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()"
        return str(await journal._read(lambda c: c.fetchval(ask)))


async def fails(address: str) -> JournalAway:
    """With what a connection to there ends."""
    limits = Limits(unit_deadline_s=4)
    async with open_loop():
        with pytest.raises(JournalAway) as caught:
            async with open_journal(address, node_id=os.urandom(16), limits=limits):
                pass
    assert PASSWORD not in str(caught.value)
    return caught.value


def refusal(address: str) -> str:
    error = trio.run(fails, address)
    assert isinstance(error, JournalRefused), error
    return str(error)


def test_the_right_authority_and_name_are_accepted_and_nothing_else(
    postgres: DebianPostgres, authority: Authority, stranger: Authority
) -> None:
    with postgres.running(**speaking_tls(authority)):
        assert trio.run(connects, address(postgres, authority)) == "TLSv1.3"
        assert "unable to get local issuer" in refusal(address(postgres, stranger))
    with postgres.running(**speaking_tls(authority, names=("db.example.com",))):
        assert "ostname mismatch" in refusal(address(postgres, authority))
    with postgres.running(**speaking_tls(authority, days=-1)):
        assert "certificate has expired" in refusal(address(postgres, authority))
    with postgres.running(ssl="off"):
        assert "does not speak TLS (set ssl = on there)" in refusal(address(postgres, authority))


def test_a_version_older_than_1_2_is_refused(postgres: DebianPostgres, authority: Authority) -> None:
    old = {
        "ssl_min_protocol_version": "TLSv1",
        "ssl_max_protocol_version": "TLSv1.1",
        "ssl_ciphers": "ALL:@SECLEVEL=0",
    }
    with postgres.running(**speaking_tls(authority), **old):
        context = ssl.create_default_context(cafile=authority.file)
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        assert trio.run(handshake, postgres.port, context) == "TLSv1.1", "the server does not speak it at all"
        assert "no TLS of version 1.2" in refusal(address(postgres, authority))


async def handshake(port: int, context: ssl.SSLContext) -> str | None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(SSL_REQUEST)
        assert await stream.receive_some(1) == b"S"
        secured = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        await secured.do_handshake()
        return secured.version()


# Somebody on the way.


Tampering = Callable[[trio.SocketStream, list[bytes]], Awaitable[None]]


@asynccontextmanager
async def man_in_the_middle(tamper: Tampering) -> AsyncIterator[tuple[int, list[bytes]]]:
    """His port, and what he has heard."""
    heard: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                heard.append(await stream.receive_some(8))
                await tamper(stream, heard)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1], heard
        nursery.cancel_scope.cancel()


async def strips_tls(stream: trio.SocketStream, heard: list[bytes]) -> None:
    await stream.send_all(b"N")
    await listens(stream, heard)


async def stuffs_an_answer(stream: trio.SocketStream, heard: list[bytes]) -> None:
    """Clear text behind the yes, which a careless client takes for the server's word inside TLS."""
    await stream.send_all(b"S" + b"R\x00\x00\x00\x08\x00\x00\x00\x00")
    await listens(stream, heard)


async def claims_an_error(stream: trio.SocketStream, heard: list[bytes]) -> None:
    await stream.send_all(b"E\x00\x00\x00\x0aCplease\x00\x00")
    await listens(stream, heard)


async def listens(stream: trio.SocketStream, heard: list[bytes]) -> None:
    async for data in stream:
        heard.append(bytes(data))


def has_another_certificate(stranger: Authority) -> Tampering:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*stranger.write_pair("middle"))

    async def tamper(stream: trio.SocketStream, heard: list[bytes]) -> None:
        await stream.send_all(b"S")
        secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        async for data in secured:
            heard.append(bytes(data))

    return tamper


@pytest.mark.parametrize("attack", ["strip", "stuff", "error", "certificate"])
def test_a_man_in_the_middle_hears_neither_login_nor_password(
    attack: str, postgres: DebianPostgres, authority: Authority, stranger: Authority
) -> None:
    tampering: dict[str, Tampering] = {
        "strip": strips_tls,
        "stuff": stuffs_an_answer,
        "error": claims_an_error,
        "certificate": has_another_certificate(stranger),
    }

    async def attacked() -> tuple[JournalAway, list[bytes]]:
        async with man_in_the_middle(tampering[attack]) as (port, heard):
            return await fails(address(postgres, authority, port=port)), heard

    error, heard = trio.run(attacked)
    assert isinstance(error, JournalRefused) is (attack != "error"), error
    assert heard[0] == SSL_REQUEST
    everything = b"".join(heard)
    assert USER.encode() not in everything
    assert PASSWORD.encode() not in everything


def test_without_the_enforcement_the_same_man_would_hear_the_login(
    postgres: DebianPostgres, authority: Authority
) -> None:
    """What the driver does by itself with an address that says nothing: the tests above can fail."""

    async def attacked() -> list[bytes]:
        async with man_in_the_middle(strips_tls) as (port, heard):
            await fails(postgres.address(USER, "", port=port).rstrip("?"))
        return heard

    assert USER.encode() in b"".join(trio.run(attacked))


# The commands, as an operator has them.


@pytest.fixture
def server(tmp_path: Path) -> Callable[..., Server]:
    """Each on a DATA_DIR of its own."""
    made = itertools.count()
    return lambda **environment: Server(tmp_path / f"node{next(made)}", **environment)


def test_no_command_goes_to_another_machine_without_verification(
    postgres: DebianPostgres, authority: Authority, server: Callable[..., Server]
) -> None:
    weak = postgres.address(USER, f"sslmode=require&sslrootcert={authority.file}")
    own = {"VES_SEQUENCER_ID": str(uuid.uuid4()), "VES_SEQUENCER_SIGNING_KEY": secrets.token_hex(32)}
    own["VES_SEQUENCER_SIGNING_KEY_PREVIOUS"] = secrets.token_hex(32)
    for words in (["serve"], ["migrate"]):
        ended = server(DATABASE_URL=weak, **own).command(*words)
        assert ended.returncode == 1, words
        assert f"DATABASE_URL leads to {ELSEWHERE}, another machine, with sslmode=require" in ended.stderr
        assert PASSWORD not in ended.stdout + ended.stderr
    ended = server(DATABASE_ADMIN_URL=weak).command("migrate")
    assert "DATABASE_ADMIN_URL leads to" in ended.stderr


def test_a_server_serves_over_verified_tls_and_refuses_a_superuser_and_a_stranger(
    postgres: DebianPostgres, authority: Authority, stranger: Authority, server: Callable[..., Server]
) -> None:
    with postgres.running(**speaking_tls(authority)):
        query = f"sslmode=verify-full&sslrootcert={authority.file}"
        migrated = server(DATABASE_ADMIN_URL=postgres.address("shop_owner", query)).command("migrate")
        assert migrated.returncode == 0, migrated.stderr
        node = server(DATABASE_URL=postgres.address(USER, query)).start()
        try:
            node.wait_ready()
            [[ssl_on]] = postgres.execute(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                f"WHERE usename = '{USER}'"
            )[0]
            assert ssl_on is True
        finally:
            assert node.terminate() == 0
        owner = server(DATABASE_URL=postgres.address("shop_owner", query)).command("serve")
        assert owner.returncode == 1
        assert "may not work as the database role shop_owner" in owner.stderr
        assert "SUPERUSER" in owner.stderr
        wrong = postgres.address(USER, f"sslmode=verify-full&sslrootcert={stranger.file}")
        refused = server(DATABASE_URL=wrong).command("serve")
        assert refused.returncode == 1
        assert "the database's certificate was refused: unable to get local issuer" in refused.stderr
        assert PASSWORD not in owner.stderr + refused.stderr
        node.environment["DATABASE_URL"] = postgres.address(USER, "sslmode=require")
        rotated = node.command("receipt-key", "rotate")
        assert rotated.returncode == 1
        assert "DATABASE_URL leads to" in rotated.stderr
        node.environment["DATABASE_TLS"] = "insecure-allowed"
        allowed = node.start()
        allowed.wait_ready()
        assert allowed.terminate() == 0
