"""Lists of IP addresses and networks as an operator writes them, and whether an address is in one.

Pure: knows neither requests nor sockets. An IPv4 address that an IPv6 socket shows as ``::ffff:192.0.2.1`` is
the IPv4 address, here and everywhere, so that no list can be passed by spelling an address differently.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Networks = tuple[Network, ...]

_MAPPED_BITS = 96
"""Of ``::ffff:0:0/96``, before the IPv4 address."""


def parse_address(text: str) -> Address:
    """An address without port, brackets or zone. ValueError for anything else."""
    if "%" in text:
        raise ValueError("an address with a zone")
    return plain(ip_address(text))


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped one stands for; others as they are."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_networks(text: str) -> Networks:
    """``10.0.0.0/8, 2001:db8::1``. An empty text is no network; ValueError names the entry that is none."""
    if not text.strip():
        return ()
    return tuple(_network(entry.strip()) for entry in text.split(","))


def _network(entry: str) -> Network:
    try:
        network = ip_network(entry)
    except ValueError:
        raise ValueError(
            f"{entry!r} is no IP address or network; write 192.0.2.7, 10.0.0.0/8 (no bits beyond the prefix)"
            " or 2001:db8::/32, separated by commas"
        ) from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        if network.prefixlen < _MAPPED_BITS:
            raise ValueError(f"{entry!r} spans IPv4 and IPv6; write them as two networks")
        return ip_network((network.network_address.ipv4_mapped, network.prefixlen - _MAPPED_BITS))
    return network


def holds(networks: Networks, address: Address) -> bool:
    """Any of the networks holds it; ``address`` is a plain one."""
    return any(address in network for network in networks)
