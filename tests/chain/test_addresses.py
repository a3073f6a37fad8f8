"""Addresses of endpoints: which are used, and that what they keep secret is nowhere to be read."""

from __future__ import annotations

import io
import logging
import ssl
import traceback

import httpx
import pytest
import trustme

from actors.chain import Chain, ChainAway, ChainLies, ChainNotOurs
from tests.anvil import CHAIN_ID, Anvil
from tests.chain.bad_endpoint import (
    Fault,
    another_chain,
    bad_endpoint,
    closes,
    hangs,
    redirects,
    refuses,
    says_bytes,
    says_http,
)
from tests.chain.tls_server import answering
from transport.chain.addresses import Address, read_addresses
from transport.chain.opening import open_chain

KEY = "k3y-PLANTED-0123456789abcdef"  # pragma: allowlist secret
USER = "user-PLANTED-77"
QUERY = "query%2BPLANTED%2B99"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "http://rpc.example.net/v2/" + KEY,
            r"endpoint 1 \(rpc.example.net\): plain http:// is used on this",
        ),
        ("http://10.0.0.7:8545/" + KEY, "Give https://, or end a tunnel to it on 127.0.0.1"),
        ("http://127.0.0.1.example.net/" + KEY, "plain http"),
        ("http://[fe80::1]/" + KEY, "plain http"),
        ("wss://rpc.example.net/" + KEY, "give an https:// address"),
        ("file:///" + KEY, "give an https:// address"),
        (KEY, "give an https:// address"),
        ("https://", "give an https:// address"),
        ("https://rpc.example.net:70000/" + KEY, "this is no address"),
        ("https://[" + KEY, "this is no address"),
        ("", "give an https:// address"),
    ],
    ids=[
        "public",
        "private",
        "looks-local",
        "link-local",
        "websocket",
        "file",
        "word",
        "no-host",
        "port",
        "bracket",
        "empty",
    ],
)
async def test_an_address_that_is_not_used_is_refused_without_being_shown(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        async with open_chain([url], CHAIN_ID, 1.0):
            pass
    shown = "".join(traceback.format_exception(refusal.value))
    assert "L2_RPC_URL" in shown
    assert KEY not in shown


def test_no_endpoint_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="names no endpoint"):
        read_addresses([])
    with pytest.raises(ValueError, match="names 9 endpoints, at most 8"):
        read_addresses(["https://a.example"] * 9)


@pytest.mark.parametrize(
    "url",
    ["https://rpc.example.net/v3/x", "http://localhost:8545", "http://127.0.0.1:1/", "http://[::1]:8545"],
)
def test_https_is_used_and_plain_http_on_this_machine(url: str) -> None:
    (address,) = read_addresses([f" {url}"])
    assert address.name.startswith("endpoint 1 (")


def test_what_an_endpoint_says_is_shown_without_its_secrets_and_on_one_bounded_line() -> None:
    address = Address(2, httpx.URL(f"https://{USER}:pass-PLANTED@h.example/v2/{KEY}?apikey={QUERY}"))
    said = f"no credit for {KEY}\n at /v2/{KEY} ({USER}, pass-PLANTED, query+PLANTED+99) " + "x" * 1000
    shown = address.without_secrets(said)
    assert "PLANTED" not in shown
    assert shown.startswith("no credit for …  at /v2/…")
    assert len(shown) < 250
    assert "PLANTED" not in repr(address)


async def _asked_thrice(rpc: Chain) -> None:
    for _ in range(3):
        await rpc.nonce_of(bytes(20))


FAULTS: dict[str, Fault] = {
    "hangs": hangs(),
    "closes": closes(),
    "500": says_http(500),
    "403": says_http(403),
    "redirect": redirects(f"http://127.0.0.1:1/{KEY}"),
    "refuses": refuses(-32000, f"project {KEY} has no credit for /v2/{KEY}?k={QUERY}"),
    "limited": refuses(-32005, f"rate limit of {KEY}"),
    "nonsense": says_bytes(b'{"jsonrpc":"2.0","id":0,"result":"' + KEY.encode() + b'"}'),
    "foreign": another_chain(3),
}


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_the_key_in_an_address_is_in_no_error_and_in_no_line_of_any_log(
    chain: Anvil, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    # Its lines show an answer's headers, so configure() of config.logs keeps it quiet too.
    httpcore = logging.getLogger("httpcore")
    httpcore.setLevel(logging.WARNING)
    root.setLevel(logging.DEBUG)
    try:
        with bad_endpoint(chain.url, f"/v2/{KEY}?apikey={QUERY}") as bad:
            bad.does(FAULTS[fault], after=1 if fault == "foreign" else 2)
            url = bad.url.replace("http://", f"http://{USER}:pw@")
            async with open_chain([url], CHAIN_ID, 1.5) as rpc:
                await rpc.block("latest")
                bad.cut()
                with pytest.raises((ChainAway, ChainLies, ChainNotOurs)) as failure:
                    await _asked_thrice(rpc)
            assert bad.paths[0] == f"/v2/{KEY}?apikey={QUERY}"
            assert bad.headers[0]["authorization"].startswith("Basic ")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        httpcore.setLevel(logging.NOTSET)
    shown = "".join(traceback.format_exception(failure.value))
    logged = heard.getvalue() + "".join(capfd.readouterr())
    assert "HTTP Request: POST http://endpoint/" in logged  # so lines of httpx were there to look at
    for secret in (KEY, USER, QUERY, "query+PLANTED"):
        assert secret not in shown
        assert secret not in logged


async def test_a_server_that_cannot_prove_its_name_is_not_asked() -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    believed = ssl.create_default_context()
    authority.configure_trust(believed)
    with answering(stranger.issue_cert("127.0.0.1")) as url:
        async with open_chain([url], CHAIN_ID, 2.0, tls=believed) as rpc:
            with pytest.raises(ChainAway, match="certificate verify failed"):
                await rpc.block("latest")
    with answering(authority.issue_cert("127.0.0.1")) as url:
        async with open_chain([url], CHAIN_ID, 2.0, tls=believed) as rpc:
            with pytest.raises(ChainAway, match="HTTP 501"):
                await rpc.block("latest")


async def test_a_proxy_out_of_the_environment_is_not_used(
    chain: Anvil, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with open_chain([chain.url], CHAIN_ID, 2.0) as rpc:
        assert await rpc.block("latest") is not None
