"""Whose request it is behind proxies: a table of what proxies and liars write, and a law."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.networks import holds, parse_address, parse_networks
from transport.http.client_address import client_address, is_allowed

PROXIES = parse_networks("10.0.0.0/8, 2001:db8:1::/48")
PEER = "10.0.0.1"


def seen(*lines: str, peer: str = PEER) -> str:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", line.encode("latin-1")) for line in lines)]
    return client_address(peer, headers, PROXIES)


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([], PEER),
        (["192.0.2.7"], "192.0.2.7"),
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),  # what the client wrote itself stands to the left
        (["6.6.6.6", "192.0.2.7"], "192.0.2.7"),  # several lines are one list
        (["192.0.2.7", "10.9.9.9"], "192.0.2.7"),  # through two proxies
        (["6.6.6.6, 192.0.2.7 , 10.1.1.1,10.2.2.2"], "192.0.2.7"),
        (["10.1.1.1"], PEER),  # nobody but proxies
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:DB8:0:0::7"], "2001:db8::7"),
        (["2001:db8:1::9, 10.1.1.1"], PEER),
        (["192.0.2.7, 2001:db8:1::9"], "192.0.2.7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, ::ffff:10.1.1.1"], "192.0.2.7"),  # a proxy, whichever way it is written
        (["[::ffff:192.0.2.7]:80"], "192.0.2.7"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_proxy(lines: list[str], client: str) -> None:
    assert seen(*lines) == client


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.300",
        "192.0.2.07",
        "192.0.2.7:",
        "192.0.2.7:port",
        "192.0.2.7:123456",
        "192.0.2.7:²",
        "1:80",
        "[192.0.2.7]",
        "[2001:db8::7",
        "2001:db8::7]",
        "[2001:db8::7]x",
        "[2001:db8::7]80",
        "2001:db8::7%eth0",
        "fe80::1%25eth0",
        '"192.0.2.7"',
        "for=192.0.2.7",
        "192.0.2.7;by=1",
        "0x7f000001",
        "2130706433",
        "192.0.2.7\t5",
        "１９２.0.2.7".encode().decode("latin-1"),
    ],
)
def test_what_is_malformed_is_the_peer(malformed: str) -> None:
    assert seen(malformed) == PEER
    assert seen(f"192.0.2.7, {malformed}") == PEER
    assert seen("192.0.2.7", malformed) == PEER
    assert seen(f"{malformed}, 192.0.2.7") == "192.0.2.7"  # left of the answer anybody may write anything


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "127.0.0.1", "11.0.0.1"])
def test_whoever_is_no_proxy_is_not_believed(peer: str) -> None:
    assert seen("6.6.6.6", peer=peer) == peer


def test_peers_are_written_one_way() -> None:
    assert seen(peer="::ffff:192.0.2.1") == "192.0.2.1"
    assert seen("192.0.2.9", peer="::ffff:10.0.0.1") == "192.0.2.9"
    assert seen(peer="fe80::1%eth0") == "fe80::1"
    assert client_address("unknown", [], PROXIES) == "unknown"
    assert client_address(PEER, [(b"x-forwarded-for", b"6.6.6.6")], ()) == PEER


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(
    written=st.lists(st.one_of(addresses, st.text(alphabet="0123456789.:[]%, x", max_size=20)), max_size=5)
)
def test_no_client_can_choose_its_address(written: list[str]) -> None:
    """The first proxy appends whom it saw; whatever stands before it has no effect."""
    honest = seen(", ".join(["192.0.2.7", "10.1.1.1"]))
    assert seen(*written, "192.0.2.7, 10.1.1.1") == honest == "192.0.2.7"


@given(lines=st.lists(st.text(st.characters(max_codepoint=255), max_size=60), max_size=4))
def test_the_answer_is_always_an_address(lines: list[str]) -> None:
    answer = seen(*lines)
    assert str(ip_address(answer)) == answer
    assert answer == PEER or not holds(PROXIES, parse_address(answer))


def test_networks_are_read_as_written() -> None:
    networks = parse_networks(" 192.0.2.7 ,10.0.0.0/8,2001:db8::/32,::ffff:172.16.0.0/108")
    assert [str(one) for one in networks] == ["192.0.2.7/32", "10.0.0.0/8", "2001:db8::/32", "172.16.0.0/12"]
    assert parse_networks("") == parse_networks("  ") == ()
    for address in ("192.0.2.7", "10.255.0.1", "172.16.3.4", "2001:db8::5"):
        assert is_allowed(address, networks)
    for address in ("192.0.2.8", "11.0.0.1", "2001:db9::5", "unknown"):
        assert not is_allowed(address, networks)


@pytest.mark.parametrize(
    "entry",
    ["x", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8,", ",", "10.0.0.0-10.0.0.9", "::/95x", "::ffff:0:0/90"],
)
def test_a_list_with_a_bad_entry_is_no_list(entry: str) -> None:
    with pytest.raises(ValueError, match=r"no IP address|two networks"):
        parse_networks(f"192.0.2.7,{entry}")
