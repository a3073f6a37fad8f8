"""The firewall rules: read by the programs that would load them, and tried from the other end of a cable.

Two network namespaces and a pair of interfaces between them are the cable; nothing leaves this machine, and
its own firewall is not touched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from tests.deploy.tools import tool
from tests.e2e.world import ROOT

FOLDER = ROOT / "deploy/firewall"
RULES = FOLDER / "sequencer.nft"
HOST, ADMIN, STRANGER, MONITOR = "198.51.100.1", "198.51.100.20", "203.0.113.5", "198.51.100.9"
LISTEN = """
import socket, sys
for port in map(int, sys.argv[1:]):
    listener = socket.create_server(("0.0.0.0", port))
    globals()[port] = listener
print("listening", flush=True)
sys.stdin.read()
"""
KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0, (sys.argv[3], 0)).close()
    print("open")
except TimeoutError:
    print("dropped")
except OSError as wrong:
    print(wrong)
"""
PORTS = (22, 443, 5432, 8082)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def require_namespaces() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    tool("nft", "apt-get install nftables, or .ci/tools as root")
    tool("ip", "apt-get install iproute2, or .ci/tools as root")
    probe = f"probe-{secrets.token_hex(4)}"
    tried = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"this machine does not let us make network namespaces: {tried.stderr.strip()}")
    run("ip", "netns", "delete", probe)


def test_nftables_takes_the_rules_twice() -> None:
    require_namespaces()
    command = "nft -c -f $0 && nft -f $0 && nft -f $0 && nft list table inet sequencer"
    told = run("unshare", "--net", "sh", "-c", command, str(RULES))
    assert told.count("policy drop") == 2
    assert "tcp dport 443 accept" in told


@pytest.fixture(scope="module")
def cable() -> Iterator[str]:
    """The name of the other end's namespace; the rules are loaded at this end, where all the ports listen."""
    require_namespaces()
    name = secrets.token_hex(3)
    here, there = f"house-{name}", f"world-{name}"
    try:
        for one in (here, there):
            run("ip", "netns", "add", one)
        run("ip", "-n", here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", there)
        for one, addresses in ((here, [HOST]), (there, [ADMIN, MONITOR, STRANGER])):
            run("ip", "-n", one, "link", "set", "lo", "up")
            run("ip", "-n", one, "link", "set", "cable", "up")
            for address in addresses:
                run("ip", "-n", one, "address", "add", f"{address}/24", "dev", "cable")
        run("ip", "-n", here, "route", "add", "203.0.113.0/24", "dev", "cable")
        listen = ["ip", "netns", "exec", here, "python3", "-c", LISTEN, *map(str, PORTS)]
        with subprocess.Popen(listen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
            try:
                assert listener.stdout is not None
                assert listener.stdout.readline() == "listening\n"
                assert knock(there, 5432, STRANGER) == "open", "without rules everything is open"
                run("ip", "netns", "exec", here, "nft", "-f", str(RULES))
                assert knock(here, 5432, HOST) == "open", "the machine itself is not kept from its database"
                yield there
            finally:
                listener.kill()
    finally:
        for one in (here, there):
            subprocess.run(["ip", "netns", "delete", one], capture_output=True)


def knock(namespace: str, port: int, source: str) -> str:
    return run("ip", "netns", "exec", namespace, "python3", "-c", KNOCK, HOST, str(port), source).strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "reached"),
    [(STRANGER, {443}), (ADMIN, {443, 22}), (MONITOR, {443, 22, 8082})],
    ids=["stranger", "administrator", "monitoring"],
)
def test_each_reaches_what_is_theirs_and_nobody_the_database(
    cable: str, source: str, reached: set[int]
) -> None:
    found = {port: knock(cable, port, source) for port in PORTS}
    assert {port for port, how in found.items() if how == "open"} == reached
    assert {how for port, how in found.items() if port not in reached} == {"dropped"}


def ufw(**environment: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("ufw answers only root")
    program = tool("ufw", "apt-get install ufw, or .ci/tools as root")
    given = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "UFW": f"{program} --dry-run", **environment}
    command = ["unshare", "--net", "sh", str(FOLDER / "ufw.sh")]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_ufw_takes_every_line_of_the_script() -> None:
    require_namespaces()
    said = ufw(ADMINS="198.51.100.0/24", MONITORING=MONITOR)
    assert said.returncode == 0, said.stdout + said.stderr
    for tuple_ in (
        "allow tcp 443 0.0.0.0/0 any 0.0.0.0/0 in",
        "allow tcp 22 0.0.0.0/0 any 198.51.100.0/24 in",
        "deny tcp 5432 0.0.0.0/0 any 0.0.0.0/0 in",
        f"allow tcp 8082 0.0.0.0/0 any {MONITOR} in",
    ):
        assert f"### tuple ### {tuple_}" in said.stdout
    assert ufw(ADMINS="198.51.100.0/99").returncode != 0


def test_ufw_is_not_told_anything_while_nobody_could_log_in_afterwards() -> None:
    said = ufw()
    assert said.returncode != 0
    assert "ADMINS" in said.stderr
    assert said.stdout == ""
