"""What other machines can reach, and whether it would pass over the network in clear text.

Decides only, from settings alone. Beyond loopback there is TLS, ours or that of a proxy somebody vouches for.
"""

from __future__ import annotations

from ipaddress import ip_address

from config.certificates import CertificateFiles, Listener
from config.settings import Settings


class Exposed(Exception):
    """Settings that do not fit together or would be insecure; the text names them and the remedy."""


def admin_address(settings: Settings) -> tuple[str, int]:
    """Host and port of the admin listener."""
    if settings.admin_bind is None:
        return "127.0.0.1", settings.port + 2 if settings.port else 0
    host, colon, port = settings.admin_bind.rpartition(":")
    if not colon or not port.isdigit():
        raise Exposed("ADMIN_BIND: give host:port, for example 127.0.0.1:8082")
    return host.strip("[]"), int(port)


def public_certificate(settings: Settings) -> CertificateFiles | None:
    cert, key = settings.tls_cert_file, settings.tls_key_file
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise Exposed("TLS_CERT_FILE and TLS_KEY_FILE: give both or neither")
    return CertificateFiles(cert, key, "TLS_CERT_FILE", "TLS_KEY_FILE")


def admin_certificate(settings: Settings) -> CertificateFiles | None:
    """Its own pair, or the public one; with the authorities that its clients must come from."""
    cert, key = settings.admin_tls_cert_file, settings.admin_tls_key_file
    client_ca = settings.admin_tls_client_ca_file
    if cert is not None and key is not None:
        return CertificateFiles(cert, key, "ADMIN_TLS_CERT_FILE", "ADMIN_TLS_KEY_FILE", client_ca)
    if cert is not None or key is not None:
        raise Exposed("ADMIN_TLS_CERT_FILE and ADMIN_TLS_KEY_FILE: give both or neither")
    public = public_certificate(settings)
    if public is not None:
        return CertificateFiles(public.cert, public.key, "TLS_CERT_FILE", "TLS_KEY_FILE", client_ca)
    if client_ca is not None:
        raise Exposed(
            "ADMIN_TLS_CLIENT_CA_FILE asks for TLS: give ADMIN_TLS_CERT_FILE and ADMIN_TLS_KEY_FILE"
        )
    return None


def files_of_listeners(settings: Settings) -> dict[Listener, CertificateFiles]:
    """Of those that speak TLS. Raises Exposed when settings do not fit together."""
    public, admin = public_certificate(settings), admin_certificate(settings)
    of_both: tuple[tuple[Listener, CertificateFiles | None], ...] = (("public", public), ("admin", admin))
    return {listener: files for listener, files in of_both if files is not None}


def refuse_clear_text(settings: Settings) -> None:
    """Raises Exposed when a listener would speak plain HTTP to other machines and nobody vouches for it."""
    vouched_for = settings.tls_terminated_by_proxy
    if not (is_loopback(settings.host) or public_certificate(settings) or vouched_for):
        raise Exposed(
            f"HOST {settings.host} can be reached by other machines, and without TLS everything passes in"
            " clear text: set TLS_CERT_FILE and TLS_KEY_FILE, or TLS_TERMINATED_BY_PROXY=true if only a"
            " proxy that speaks TLS can reach it"
        )
    vouched_for = settings.tls_terminated_by_proxy and bool(settings.admin_ip_allowlist)
    if not (is_loopback(admin_address(settings)[0]) or admin_certificate(settings) or vouched_for):
        raise Exposed(
            f"ADMIN_BIND {settings.admin_bind} can be reached by other machines without TLS: set"
            " ADMIN_TLS_CERT_FILE and ADMIN_TLS_KEY_FILE, or both TLS_TERMINATED_BY_PROXY=true and"
            " ADMIN_IP_ALLOWLIST"
        )


def is_loopback(host: str) -> bool:
    """Names other than localhost may lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
