"""A real server over TLS, as an operator has it: refused starts, reloads, the command line, and the end."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.world import ROOT, Server
from tests.tls.authority import Authority


@pytest.fixture
def tls_server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """https at both doors; the admin's asks for a client certificate. Certificates are for another name."""
    cert, key = authority.write_pair(names=("sequencer.example",))
    server = Server(
        tmp_path / "data",
        TLS_CERT_FILE=str(cert),
        TLS_KEY_FILE=str(key),
        ADMIN_TLS_CLIENT_CA_FILE=str(authority.file),
        GRACEFUL_TIMEOUT_SECS="1",
        VERIFIERS="1",
        ENCRYPTORS="1",
    ).start()
    yield server
    server.kill_9()


def shown_by(url: str) -> bytes:
    """The certificate, whoever vouches for it."""
    address = httpx.URL(url)
    pem = ssl.get_server_certificate((address.host, address.port or 443), timeout=10)
    return ssl.PEM_cert_to_DER_cert(pem)


def until(holds: Callable[[], bool], what: str, deadline_s: float = 20) -> None:
    give_up = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


@pytest.mark.slow
def test_an_operators_day_with_tls(tls_server: Server, authority: Authority, tmp_path: Path) -> None:
    """One server, because each start costs seconds: the command line, both ways to a new certificate, a
    broken one, and clients that try to hold its end."""
    server = tls_server
    assert server.url.startswith("https://127.0.0.1:")
    assert server.admin_url.startswith("https://127.0.0.1:")
    assert f"serves {server.url}, admin {server.admin_url}" in server.log.read_text()

    # The command line on this machine believes what the server announced, whatever its names.
    until(lambda: server.command("status").returncode == 0, server.tail())
    refused = server.command("actors", "tree")
    assert (refused.returncode, "--client-cert-file" in refused.stderr) == (2, True), refused.stderr
    friend = authority.write_pair("operator", names=("operator.example",))
    shown = ("--client-cert-file", str(friend[0]), "--client-key-file", str(friend[1]))
    assert "certificates" in server.command("actors", "tree", *shown).stdout
    # Named by its address it is a stranger.
    stranger = server.command("status", "--url", server.url)
    assert (stranger.returncode, "--ca-file" in stranger.stderr) == (2, True), stranger.stderr
    wrong_name = server.command("status", "--url", server.url, "--ca-file", str(authority.file))
    assert "a name that the certificate was made for" in wrong_name.stderr

    # New files are noticed; SIGHUP is for the impatient and stops nobody.
    before = shown_by(server.url)
    authority.write_pair(names=("sequencer.example",))
    until(lambda: shown_by(server.url) != before, server.tail())
    before = shown_by(server.url)
    authority.write_pair(names=("sequencer.example",))
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: shown_by(server.url) != before, server.tail())
    before = shown_by(server.url)
    (tmp_path / "server-key.pem").chmod(0o644)
    until(lambda: "certificate_refused" in server.log.read_text(), server.tail())
    assert shown_by(server.url) == before

    # None of these can hold the end.
    port = httpx.URL(server.url).port
    assert port is not None
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    held[1].sendall(b"\x16\x03\x01\x02\x00\x01")
    context = ssl._create_unverified_context()
    held[2] = context.wrap_socket(held[2], suppress_ragged_eofs=True)
    held[2].sendall(b"GET /health HTTP/1.1\r\nHo")
    assert server.terminate(deadline_s=30) == 0, server.tail()
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"HOST": "0.0.0.0"}, "HOST 0.0.0.0 can be reached by other machines"),
        ({"TLS_CERT_FILE": "{cert}", "TLS_KEY_FILE": "{open_key}"}, "chmod 600"),
        ({"ADMIN_IP_ALLOWLIST": "10.0.0.0/8,office"}, "ADMIN_IP_ALLOWLIST: 'office' is no IP"),
    ],
)
def test_an_insecure_start_is_refused_in_one_line(
    environment: dict[str, str], told: str, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.write_pair()
    open_key = tmp_path / "open.pem"
    open_key.write_bytes(key.read_bytes())
    open_key.chmod(0o644)
    files = {"cert": str(cert), "open_key": str(open_key)}
    server = Server(tmp_path / "data", **{k: v.format(**files) for k, v in environment.items()})
    ended = server.command("serve")
    assert ended.returncode == 1
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_closed_terminal_ends_the_server_in_order(tmp_path: Path) -> None:
    """SIGHUP means reload, but not when the terminal went away with whoever started the server there."""
    main, terminal = pty.openpty()
    server = Server(tmp_path / "data", VERIFIERS="1", ENCRYPTORS="1")
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor.main", "serve"],
        cwd=ROOT,
        env=server._env(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    announced = tmp_path / "data" / "server.json"
    try:
        until(announced.exists, "the server did not start", 60)
        assert json.loads(announced.read_text())["url"].startswith("http://")
        os.kill(process.pid, signal.SIGHUP)  # an ordinary one
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
        assert process.poll() is None
        os.close(main)
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(40) == 0
        assert not announced.exists()
    finally:
        process.kill()
        process.wait()
