"""The nginx file that we hand out, in a real nginx before our own doors: TLS 1.3 only, HSTS, and the client's
address as nginx saw it, whatever the client says."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog
import trio

from tests.e2e.nodes import free_port
from tests.e2e.world import ROOT
from tests.http.doubles import INGEST, Cardboard, serving
from tests.http.test_http_serving import until
from tests.tls.authority import Authority

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
CONFIGURATION = ROOT / "deploy" / "nginx" / "sequencer.conf"
AROUND = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/sequencer.conf;
}}
"""


def require_nginx() -> None:
    if not Path(NGINX).exists():
        why = "nginx is not installed: apt-get install nginx, or .ci/tools as root"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


def configured(folder: Path, port: int, nodes: list[str], pair: tuple[Path, Path]) -> Path:
    """The file as handed out, with this test's addresses and certificate in it."""
    text = CONFIGURATION.read_text()
    live = "/etc/letsencrypt/live/sequencer.example.com"
    for written, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("    server 127.0.0.1:8080 max_fails=1 fail_timeout=5s;\n", ""),
        ("server 127.0.0.1:8180 ", "".join(f"server {node} max_fails=1 fail_timeout=5s; " for node in nodes)),
        ("fail_timeout=5s; max_fails=1 fail_timeout=5s;", "fail_timeout=5s;"),
        (f"{live}/fullchain.pem", str(pair[0])),
        (f"{live}/privkey.pem", str(pair[1])),
    ):
        assert text.count(written) == 1, written
        text = text.replace(written, here)
    (folder / "sequencer.conf").write_text(text)
    main = folder / "nginx.conf"
    main.write_text(AROUND.format(folder=folder))
    return main


@asynccontextmanager
async def behind_nginx(
    authority: Authority, folder: Path, *, trusted: str = "127.0.0.1"
) -> AsyncIterator[tuple[Cardboard, str]]:
    """The house, and the address of an nginx before it."""
    require_nginx()
    async with (
        serving(tls_terminated_by_proxy=True, trusted_proxies=trusted) as house,
        nginx_before([house.url.removeprefix("http://")], authority, folder) as url,
    ):
        yield house, url


@asynccontextmanager
async def nginx_before(nodes: list[str], authority: Authority, folder: Path) -> AsyncIterator[str]:
    """Its address."""
    require_nginx()
    port = free_port()
    main = configured(folder, port, nodes, authority.write_pair())
    command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(main)]
    process = start(command, folder / "nginx.log")
    try:
        await listens(port, process)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said)


async def listens(port: int, process: subprocess.Popen[bytes]) -> None:
    with trio.fail_after(15):
        while True:
            assert process.poll() is None, "nginx ended; nginx.log beside its configuration says why"
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.05)
            else:
                return


async def test_nginx_speaks_tls_1_3_only_and_always_says_hsts(authority: Authority, tmp_path: Path) -> None:
    async with behind_nginx(authority, tmp_path) as (house, url):
        old = authority.client_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(base_url=url, verify=old, trust_env=False) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/health")
        async with httpx.AsyncClient(
            base_url=url, verify=authority.client_context(), trust_env=False
        ) as http:
            answers = [await http.get("/health"), await http.get("/nowhere")]
            seen = answers[0].extensions["network_stream"].get_extra_info("ssl_object")
            assert seen.version() == "TLSv1.3"
            house.shutdown.set()
            with trio.fail_after(10):
                while (answer := await http.get("/health")).status_code == 200:  # noqa: ASYNC110 - it stops
                    await trio.sleep(0.05)
            answers.append(answer)
        assert [answer.status_code for answer in answers] == [200, 404, 502]
        for answer in answers:
            hsts = answer.headers.get_list("strict-transport-security")
            assert hsts == ["max-age=63072000"], answer.status_code


async def test_behind_nginx_the_client_cannot_choose_its_address(
    authority: Authority, tmp_path: Path
) -> None:
    lies = ("192.0.2.66", "127.0.0.1", "192.0.2.66, 127.0.0.1", "nonsense")
    context = authority.client_context()
    # Here the client comes from 127.0.0.2 and nginx from 127.0.0.1, which alone is trusted.
    from_elsewhere = httpx.AsyncHTTPTransport(verify=context, local_address="127.0.0.2")
    async with behind_nginx(authority, tmp_path) as (_, url):
        with structlog.testing.capture_logs() as logs:
            async with httpx.AsyncClient(base_url=url, transport=from_elsewhere) as http:
                for lie in lies:
                    await http.get("/health", headers={"x-forwarded-for": lie})
            requests: list[str] = []

            def all_told() -> bool:
                requests[:] = [line["address"] for line in logs if line["event"] == "request"]
                return len(requests) == len(lies)

            await until(all_told)
    assert requests == ["127.0.0.2"] * len(lies)


class Node:
    """What nginx takes for a node: reads a request and answers with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        self._scope = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            await trio.serve_listeners(self._answer, [listener], task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some(65536):
                await stream.send_all(f"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{self.name}".encode())

    def die(self) -> None:
        self._scope.cancel()


async def test_a_tenant_goes_to_one_node_whatever_its_credentials_and_elsewhere_when_that_node_is_gone(
    authority: Authority, tmp_path: Path
) -> None:
    tenants = [str(uuid.UUID(int=n, version=4)) for n in range(24)]
    async with trio.open_nursery() as nursery:
        nodes = [Node("a"), Node("b")]
        for node in nodes:
            await nursery.start(node.run)
        async with (
            nginx_before([node.address for node in nodes], authority, tmp_path) as url,
            httpx.AsyncClient(base_url=url, verify=authority.client_context(), trust_env=False) as http,
        ):

            async def place(credential: str, **headers: str) -> str:
                answer = await http.post(
                    INGEST, content=b"{}", headers={"authorization": f"ApiKey {credential}"} | headers
                )
                assert answer.status_code == 200
                return answer.text

            async def places(tenant: str) -> set[str]:
                """With four keys, as its agents have."""
                return {await place(f"{tenant}-{n}", **{"x-tenant-id": tenant}) for n in range(4)}

            homes = {tenant: await places(tenant) for tenant in tenants}
            assert sorted(map(len, homes.values())) == [1] * len(tenants)
            assert {name for found in homes.values() for name in found} == {"a", "b"}
            # Who says nothing goes by the credential; so does who says nonsense.
            spread = {await place(f"key-{n}") for n in range(24)}
            assert spread == {"a", "b"}
            again = [await place("key", **{"x-tenant-id": x}) for x in ("", "x" * 36, "0; drop")]
            assert set(again) == {await place("key")}
            nodes[0].die()
            moved = {tenant: await places(tenant) for tenant in tenants}
            assert set(map(frozenset, moved.values())) == {frozenset("b")}
        nursery.cancel_scope.cancel()
