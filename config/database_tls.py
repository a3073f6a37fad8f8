"""The address of PostgreSQL, and whether the way there is protected: decided before anybody connects.

To another machine only with ``sslmode=verify-full``: an encrypted connection to whoever answers protects from
nobody who can answer. The address that leaves here says so itself, so that every driver and program it is
given to does the same. Never connects and never shows an address: it holds a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from config.exposure import Exposed, is_loopback
from config.secret_sources import SecretsError
from config.settings import NO_ADDRESS, POSTGRESQL, DatabaseTls, Settings

_VERSIONS = ("TLSv1.2", "TLSv1.3")
_ROOT = Path(".postgresql/root.crt")
"""Below the home directory: where PostgreSQL's clients look for authorities when none are named."""
_TAKES_WRITES = ("read-write", "primary")
_NOT_UNDERSTOOD = {
    "hostaddr": "name the host before the database",
    "service": "write out here what it stands for",
}


def database_address(
    settings: Settings,
    name: Literal["database_url", "database_admin_url", "anchor_database_url"],
    environ: Mapping[str, str],
) -> str:
    """The connection string, as it may be used. SecretsError when a file or a command gives something else,
    Exposed when the way there is open to others."""
    given = getattr(settings, name)
    variable, address = getattr(given, "variable", name.upper()), given.get_secret_value()
    if not address.startswith(POSTGRESQL):
        raise SecretsError(f"{variable} {NO_ADDRESS}")
    return protected(variable, writable(variable, address, environ), settings.database_tls, environ)


def writable(variable: str, address: str, environ: Mapping[str, str]) -> str:
    """Of several hosts only the one that takes writes is any use: the address that leaves here asks for it by
    itself. Raises Exposed, naming ``variable``, when it asks for another, or the hosts stand elsewhere."""
    query = _query(variable, address)
    named = _hosts(urlsplit(address).netloc.rpartition("@")[2])
    elsewhere = _hosts(query.get("host", "")) or _hosts(environ.get("PGHOST", ""))
    if len(named or elsewhere) < 2:
        return address
    if not named:
        raise Exposed(f"{variable}: write several hosts before the database: postgresql://one,two,three/name")
    if "," in query.get("port", ""):
        raise Exposed(f"{variable}: write each port behind its host: postgresql://one:5432,two:5433/name")
    asks = query.get("target_session_attrs")
    if asks not in (None, "", *_TAKES_WRITES):
        raise Exposed(
            f"{variable} names several hosts and target_session_attrs={asks}: only the one that takes writes "
            "is any use. Write target_session_attrs=read-write, or leave it out"
        )
    if asks:
        return address
    return f"{address}{'&' if '?' in address else '?'}target_session_attrs=read-write"


def protected(variable: str, address: str, tls: DatabaseTls, environ: Mapping[str, str]) -> str:
    """Raises Exposed, naming ``variable``, when the address would reach another machine without a verified
    certificate and ``tls`` does not allow that."""
    query = _query(variable, address)
    remote = remote_hosts(variable, address, environ)
    if not remote or tls == "insecure-allowed":
        return address
    what = f"{variable} leads to {remote[0]}, another machine"
    mode = query.get("sslmode") or environ.get("PGSSLMODE")
    if mode not in (None, "", "verify-full"):
        raise Exposed(
            f"{what}, with sslmode={mode}: whoever is on the way could read or answer. Write "
            "sslmode=verify-full&sslrootcert=/path/to/ca.pem, or allow it: DATABASE_TLS=insecure-allowed"
        )
    lowest = query.get("ssl_min_protocol_version") or environ.get("PGSSLMINPROTOCOLVERSION")
    if lowest not in (None, "", *_VERSIONS):
        raise Exposed(f"{what}, and ssl_min_protocol_version allows less than TLSv1.2: leave it out")
    _check_authorities(what, query.get("sslrootcert") or environ.get("PGSSLROOTCERT"), environ)
    if query.get("sslmode"):
        return address
    return f"{address}{'&' if '?' in address else '?'}sslmode=verify-full"


def remote_hosts(variable: str, address: str, environ: Mapping[str, str]) -> list[str]:
    """The other machines it may lead to. Hosts are taken as the driver takes them: from the address, else
    from its query, else from PGHOST; without any, the unix socket or localhost. Raises Exposed."""
    query = _query(variable, address)
    hosts = [unquote(host) for host in _hosts(urlsplit(address).netloc.rpartition("@")[2])]
    hosts = hosts or _hosts(query.get("host", "")) or _hosts(environ.get("PGHOST", ""))
    if not all(hosts):
        raise Exposed(f"{variable}: a host is empty (an IPv6 address goes into brackets)")
    return [host for host in hosts if not (host.startswith("/") or is_loopback(host))]


def _query(variable: str, address: str) -> dict[str, str]:
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise Exposed(f"{variable} {NO_ADDRESS}") from None
    if "#" in address:
        raise Exposed(f"{variable}: everything after # would be overlooked; write it as %23")
    if parts.netloc.count("@") > 1:  # the driver would take what follows the first one for the host
        raise Exposed(f"{variable}: write an @ in the password as %40")
    if any(re.search(r":(?!\d+$)[^\]]*$", one) for one in parts.netloc.rpartition("@")[2].split(",")):
        raise Exposed(f"{variable}: a port is no number (an IPv6 address goes into brackets)")
    for word in _NOT_UNDERSTOOD.keys() & query.keys():
        raise Exposed(f"{variable}: {word} is not understood; {_NOT_UNDERSTOOD[word]}")
    return {name: values[-1] for name, values in query.items()}


def _hosts(spec: str) -> list[str]:
    return [_host(one) for one in spec.split(",")] if spec else []


def _host(one: str) -> str:
    if one.startswith("/"):
        return one
    bracketed = re.match(r"\[([^\]]+)\]", one)
    return bracketed[1] if bracketed else one.partition(":")[0]


def _check_authorities(what: str, named: str | None, environ: Mapping[str, str]) -> None:
    if named == "system":
        raise Exposed(
            f"{what}, and sslrootcert=system is not understood: name the file, on Debian "
            "sslrootcert=/etc/ssl/certs/ca-certificates.crt"
        )
    path = Path(named) if named else Path(environ.get("HOME", "/nonexistent")) / _ROOT
    try:
        reason = "" if b"BEGIN CERTIFICATE" in path.read_bytes() else "it holds no certificate in PEM form"
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    if reason:
        raise Exposed(
            f"{what}, whose certificate cannot be verified with {path}: {reason}. Name the authority's "
            "certificate: sslrootcert=/path/to/ca.pem in the address"
        )
