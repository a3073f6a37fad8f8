"""TLS at the doors, in process, on real sockets: what is spoken, who is let in, who costs whom what."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.http.doubles import BOOTSTRAP, STREAM, Cardboard, parts, read_all, serving, stored
from tests.http.test_door_refusals import check_shape
from tests.http.test_http_serving import GET_HEALTH, one_answer, post, until
from tests.tls.authority import Authority
from transport.client.errors import ClientError, InsecureUrl
from transport.client.sequencer import SequencerClient
from transport.client.tls import TlsFiles

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
HSTS = "max-age=63072000"


@pytest.fixture(params=[False, True], ids=["core", "front-end"])
def front(request: pytest.FixtureRequest) -> bool:
    """Both servers keep the same promises."""
    return bool(request.param)


@asynccontextmanager
async def tls_house(
    authority: Authority, *, mtls: bool = False, front: bool = False, **settings: Any
) -> AsyncIterator[Cardboard]:
    admin = authority.files(client_ca=authority.file if mtls else None)
    async with serving(tls={"public": authority.files(), "admin": admin}, front=front, **settings) as house:
        yield house


def client(house: Cardboard, context: ssl.SSLContext, *, admin: bool = False) -> httpx.AsyncClient:
    url = house.admin_url if admin else house.url
    return httpx.AsyncClient(base_url=url, verify=context, timeout=10, trust_env=False)


async def connect_tls(house: Cardboard, authority: Authority) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(await house.connect(), authority.client_context(), server_hostname="localhost")
    await stream.do_handshake()
    return stream


async def test_tls_1_3_is_spoken_and_every_answer_has_the_headers(authority: Authority, front: bool) -> None:
    async with tls_house(authority, front=front) as house, client(house, authority.client_context()) as http:
        for path in ("/health", "/nowhere", "/api/v1/ves/head"):
            answer = await http.get(path)
            assert answer.extensions["network_stream"].get_extra_info("ssl_object").version() == "TLSv1.3"
            assert answer.headers.items() >= (SECURITY | {"strict-transport-security": HSTS}).items()
            assert "server" not in answer.headers
        stream = await connect_tls(house, authority)
        await stream.send_all(b"no HTTP at all\r\n\r\n")
        status, headers, _ = parts(await read_all(stream))
        assert status == 400
        assert headers.items() >= (SECURITY | {"strict-transport-security": HSTS}).items()
        await stream.aclose()


@pytest.mark.parametrize("proxied", [False, True])
async def test_over_plain_http_there_is_no_hsts_unless_a_proxy_speaks_tls(proxied: bool, front: bool) -> None:
    async with serving(front=front, tls_terminated_by_proxy=proxied) as house:
        async with house.client() as http:
            answers = [dict((await http.get(path)).headers) for path in ("/health", "/nowhere")]
        stream = await house.connect()
        await stream.send_all(b"no HTTP at all\r\n\r\n")
        answers.append(parts(await read_all(stream))[1])
        await stream.aclose()
        for headers in answers:
            assert headers.items() >= SECURITY.items()
            assert headers.get("strict-transport-security") == (HSTS if proxied else None)


async def test_tls_1_2_is_refused_with_a_word(authority: Authority, front: bool) -> None:
    old = authority.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_house(authority, front=front) as house:
        async with await house.connect() as raw:
            stream = trio.SSLStream(raw, old, server_hostname="localhost")
            with pytest.raises(trio.BrokenResourceError) as refused:
                await stream.do_handshake()
        assert "ALERT_PROTOCOL_VERSION" in str(refused.value.__cause__)


async def test_plain_http_at_a_tls_port_is_told_so(authority: Authority, front: bool) -> None:
    async with tls_house(authority, front=front) as house:
        stream = await house.connect()
        await stream.send_all(GET_HEALTH)
        status, _, body = parts(await read_all(stream))
        await stream.aclose()
    assert status == 400
    assert "https" in json.loads(body)["message"]


async def test_a_large_answer_arrives_whole_and_ends_politely(authority: Authority, front: bool) -> None:
    """A client that takes the end of the connection for the end of the answer must be able to tell it from
    somebody cutting the wire."""
    async with tls_house(authority, front=front) as house:
        house.journal.events = [stored(n, b'"%s"' % (b"x" * 100_000)) for n in range(1, 40)]
        stream = await connect_tls(house, authority)
        query = f"/api/v1/ves/events?tenant_id={STREAM['tenant_id']}&store_id={STREAM['store_id']}"
        key = house.api_key("read")
        head = f"GET {query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: {key}\r\n\r\n"
        await stream.send_all(head.encode())
        status, _, body = parts(await read_until_close_notify(stream))
        assert status == 200
        assert len(json.loads(body)["events"]) == 39
        await stream.aclose()


async def read_until_close_notify(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    """Raises BrokenResourceError when the connection ends without one."""
    data = b""
    with trio.fail_after(10):
        while chunk := await stream.receive_some():
            data += chunk
    return data


async def test_a_refused_upload_gets_its_answer_under_tls(authority: Authority, front: bool) -> None:
    async with tls_house(authority, front=front, max_body_size_bytes=1000) as house:
        stream = await connect_tls(house, authority)
        await stream.send_all(post(house.api_key("write"), length=5_000_000, body=b"x" * 200_000))
        status, headers, _ = parts(await read_until_close_notify(stream))
        assert (status, headers["connection"]) == (413, "close")
        await stream.aclose()


async def test_new_handshakes_get_the_new_certificate_and_open_connections_live_on(
    authority: Authority, tmp_path: Path, front: bool
) -> None:
    async with tls_house(authority, front=front) as house:
        old = await connect_tls(house, authority)
        before = old.getpeercert(binary_form=True)
        authority.write_pair()
        house.certificates.reload()
        new = await connect_tls(house, authority)
        assert new.getpeercert(binary_form=True) != before
        for stream in (old, new):
            await stream.send_all(GET_HEALTH)
            status, _, _ = await one_answer(stream)  # type: ignore[arg-type]
            assert status == 200
            await stream.aclose()
        (tmp_path / "server.pem").write_bytes(b"broken")
        house.certificates.reload()
        third = await connect_tls(house, authority)
        assert third.getpeercert(binary_form=True) == new.getpeercert(binary_form=True)
        await third.aclose()
        assert house.security.counts["certificate_reloaded"] == 2  # of both listeners
        assert house.security.counts["certificate_refused"] == 2


async def test_the_time_left_is_a_metric(authority: Authority) -> None:
    files = {"public": authority.files("p", days=10), "admin": authority.files("a", days=100)}
    async with serving(tls=files) as house, client(house, authority.client_context(), admin=True) as http:
        text = (await http.get("/metrics", headers={"authorization": f"ApiKey {BOOTSTRAP}"})).text
    left = dict(
        line.removeprefix("sequencer_certificate_expires_seconds").split(" ")
        for line in text.splitlines()
        if line.startswith("sequencer_certificate_expires_seconds{")
    )
    assert float(left['{listener="public"}']) == pytest.approx(10 * 86_400, abs=300)
    assert float(left['{listener="admin"}']) == pytest.approx(100 * 86_400, abs=300)


# ---- client certificates


async def test_the_admin_listener_lets_in_only_certificates_of_its_authority(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").write_pair("stranger")
    friend = authority.write_pair("operator", names=("operator.example",))
    key = {"authorization": f"ApiKey {BOOTSTRAP}"}
    async with tls_house(authority, mtls=True) as house:
        for shows in (None, stranger):
            context = authority.client_context(shows=shows)
            async with client(house, context, admin=True) as http:
                with pytest.raises(httpx.TransportError) as refused:
                    await http.get("/health/detailed", headers=key)
                assert re.search("CERTIFICATE_REQUIRED|UNKNOWN_CA", str(root_of(refused.value)))
        async with client(house, authority.client_context(shows=friend), admin=True) as http:
            assert (await http.get("/health/detailed", headers=key)).status_code == 200
            assert (await http.get("/health/detailed")).status_code == 401
        async with client(house, authority.client_context()) as http:
            assert (await http.get("/health")).status_code == 200


def root_of(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


async def test_our_client_says_what_is_missing_and_does_not_try_again(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").write_pair("stranger")
    friend = authority.write_pair("operator", names=("operator.example",))
    ca, pinned, chain = authority.file, tmp_path / "server.pem", tmp_path / "chain.pem"
    chain.write_bytes(friend[0].read_bytes() + ca.read_bytes())
    files_of = partial(authority.files, names=("localhost",))
    async with serving(tls={"public": files_of(), "admin": files_of(client_ca=authority.file)}) as house:
        numeric = house.admin_url.replace("localhost", "127.0.0.1")
        for url, files, told in (
            (house.admin_url, TlsFiles(), "--ca-file"),
            (house.admin_url, TlsFiles(ca), "wants a client certificate: --client-cert-file"),
            (house.admin_url, TlsFiles(ca, None, *stranger), "does not accept our client certificate"),
            (numeric, TlsFiles(ca, None, *friend), "use a name that the certificate was made for"),
            (house.url, TlsFiles(pinned=friend[0]), "--ca-file"),
            (house.url, TlsFiles(pinned=chain), "--ca-file"),  # another's, of the same authority
        ):
            async with SequencerClient(url, tls=files) as ours:
                with pytest.raises(InsecureUrl, match=told), trio.fail_after(5):
                    await ours.ask("GET", "/health")
        for url, files in (
            (house.admin_url, TlsFiles(ca, None, *friend)),
            (numeric, TlsFiles(None, pinned, *friend)),
        ):
            async with SequencerClient(url, tls=files) as ours:
                assert b"status" in await ours.ask("GET", "/health")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (TlsFiles(client_cert=Path("c.pem")), "both a client certificate and its key"),
        (TlsFiles(client_key=Path("k.pem")), "both a client certificate and its key"),
        (TlsFiles(client_cert=Path("/no/c.pem"), client_key=Path("/no/k.pem")), "/no/c.pem"),
        (TlsFiles(ca=Path("/no/ca.pem")), "/no/ca.pem"),
    ],
)
def test_client_files_that_cannot_be_used_are_named(files: TlsFiles, told: str) -> None:
    with pytest.raises(ClientError, match=told):
        SequencerClient("https://localhost:1", tls=files)


# ---- who costs whom what


async def test_a_handshake_that_never_ends_ends_and_is_counted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, front: bool
) -> None:
    for server in ("http", "front"):
        monkeypatch.setattr(f"transport.{server}.connection.HANDSHAKE_S", 0.5)
    async with tls_house(authority, front=front, connections_max=3, connections_per_address_max=2) as house:
        silent, half = await house.connect(), await house.connect()
        await half.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        extra = await connect_tls(house, authority)
        status, headers, _ = parts(await read_until_close_notify(extra))
        assert (status, headers["retry-after"]) == (503, "1")
        assert headers["strict-transport-security"] == HSTS
        await extra.aclose()
        for stream in (silent, half):
            with trio.fail_after(5):
                assert await read_all(stream) == b""
            await stream.aclose()
        async with client(house, authority.client_context()) as http:
            assert (await http.get("/health")).status_code == 200


async def test_failed_handshakes_leave_the_others_alone(authority: Authority, front: bool) -> None:
    async with tls_house(authority, front=front) as house:
        served = await connect_tls(house, authority)
        for garbage in (b"\x00" * 100, b"\x16\x03\x01\x00\x05hello", b"\x80" * 5000, b""):
            for _ in range(5):
                stream = await house.connect()
                await stream.send_all(garbage)
                await stream.aclose()
        await served.send_all(GET_HEALTH)
        status, _, _ = await one_answer(served)  # type: ignore[arg-type]
        assert status == 200
        await served.aclose()

        async with client(house, authority.client_context()) as http:
            assert (await http.get("/health")).status_code == 200


@pytest.mark.parametrize("tls", [False, True])
async def test_nobody_can_hold_a_shutdown(authority: Authority, tls: bool, front: bool) -> None:
    """Clients that do not finish their handshake, say nothing, trickle, do not read or never close."""
    graceful_s = 0.6
    files = {"public": authority.files()} if tls else None
    async with serving(
        tls=files, front=front, graceful_timeout_secs=graceful_s, write_stall_secs=60
    ) as house:  # type: ignore[arg-type]
        house.journal.events = [stored(n, b'"%s"' % (b"x" * 1_000_000)) for n in range(1, 9)]
        query = f"/api/v1/ves/events?tenant_id={STREAM['tenant_id']}&store_id={STREAM['store_id']}"
        deaf = f"GET {query} HTTP/1.1\r\nHost: x\r\nx-api-key: {house.api_key('read')}\r\n\r\n".encode()
        said = (
            b"",
            b"GET /hea",
            GET_HEALTH,
            GET_HEALTH * 200 + b"GET",
            post(house.api_key("write"), length=50_000, body=b"x"),
            deaf,
        )
        kept: list[Any] = [await house.connect()]
        await kept[0].send_all(b"\x16\x03\x01\x02\x00" if tls else b"G")
        for first in said:
            stream: Any = await (connect_tls(house, authority) if tls else house.connect())
            kept.append(stream)
            await stream.send_all(first)
        await until(lambda: house.encryptors.asked and house.public.door.in_flight.total)
        started = trio.current_time()
        house.shutdown.set()
    assert trio.current_time() - started < graceful_s + 5  # bounded by us, not by them
    for stream in kept:
        await trio.aclose_forcefully(stream)


async def test_an_idle_connection_is_ended_politely_when_the_house_stops(
    authority: Authority, front: bool
) -> None:
    async with tls_house(authority, front=front) as house:
        stream = await connect_tls(house, authority)
        await stream.send_all(GET_HEALTH)
        await one_answer(stream)  # type: ignore[arg-type]
        house.shutdown.set()
        assert await read_until_close_notify(stream) == b""
        await stream.aclose()


# ---- the allow-list, and whom it looks at


async def test_the_admin_listener_hears_only_the_allowed() -> None:
    key = {"authorization": f"ApiKey {BOOTSTRAP}"}
    async with serving(admin_ip_allowlist="192.0.2.0/24") as house:
        async with house.client(admin=True) as http:
            for path in ("/metrics", "/health", "/nowhere", "/api/v1/admin/api-keys"):
                for headers in ({}, key):
                    check_shape(await http.get(path, headers=headers), 403, "ADMIN_IP_DENIED")
        async with house.client() as http:
            assert (await http.get("/health")).status_code == 200
        assert house.journal.lookups == 0
        assert house.security.counts["permission_denied"] == 8
    async with (
        serving(admin_ip_allowlist="192.0.2.0/24,127.0.0.1") as house,
        house.client(admin=True) as http,
    ):
        assert (await http.get("/health/detailed", headers=key)).status_code == 200
        assert (await http.get("/health/detailed")).status_code == 401


async def test_behind_a_proxy_the_list_looks_at_the_client() -> None:
    behind = {"trusted_proxies": "127.0.0.1", "admin_ip_allowlist": "192.0.2.7"}
    async with serving(**behind) as house, house.client(admin=True) as http:
        for forwarded, status in (("192.0.2.7", 200), ("192.0.2.7, 6.6.6.6", 403), ("6.6.6.6", 403)):
            answer = await http.get("/health", headers={"x-forwarded-for": forwarded})
            assert answer.status_code == status
    async with serving(admin_ip_allowlist="192.0.2.7") as house, house.client(admin=True) as http:
        answer = await http.get("/health", headers={"x-forwarded-for": "192.0.2.7"})
        check_shape(answer, 403, "ADMIN_IP_DENIED")
