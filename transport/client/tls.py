"""Whom a client believes over https, and what it shows of itself.

Alone makes the client's TLS context and explains TLS failures to people. Whoever cannot be verified is not
spoken to; there is no switch for that.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from transport.client.errors import ClientError


@dataclass(frozen=True)
class TlsFiles:
    """PEM files, all optional. Without the first two the system's authorities are believed."""

    ca: Path | None = None
    """The only authorities to believe."""
    pinned: Path | None = None
    """The very certificate that the server shows, known from elsewhere: then its names do not matter."""
    client_cert: Path | None = None
    """What we show to a server that asks, its own certificate first."""
    client_key: Path | None = None


def context_of(files: TlsFiles) -> ssl.SSLContext:
    """Raises ClientError naming the file that cannot be used."""
    context = _believing(files)
    if files.client_cert is not None or files.client_key is not None:
        _show(context, files.client_cert, files.client_key)
    return context


def _believing(files: TlsFiles) -> ssl.SSLContext:
    believed = files.ca or files.pinned
    try:
        if files.ca is None and files.pinned is not None:
            return _believing_only(files.pinned)
        return ssl.create_default_context(cafile=files.ca)
    except OSError as error:
        reason = (
            error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificate in PEM form"
        )
        raise ClientError(f"the certificate file {believed} cannot be read: {reason}") from error


def _believing_only(pinned: Path) -> ssl.SSLContext:
    """The first certificate of the file, itself: not whoever else its authorities vouch for."""
    first, end, _ = pinned.read_text("ascii", "replace").partition("-----END CERTIFICATE-----")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=first + end)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate is its own anchor
    return context


def _show(context: ssl.SSLContext, cert: Path | None, key: Path | None) -> None:
    if cert is None or key is None:
        raise ClientError(
            "give both a client certificate and its key (--client-cert-file, --client-key-file)"
        )
    try:
        context.load_cert_chain(cert, key, password="")  # nosec B106
    except OSError as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) else error.reason
        raise ClientError(f"the client certificate {cert} with key {key} cannot be used: {reason}") from error


def why_refused(error: BaseException, origin: str) -> str | None:
    """What a person needs to know when TLS failed for good; None when it did not or trying again may help."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{origin}: {cause.verify_message}; {_remedy(cause)}"
        if isinstance(cause, ssl.SSLError) and cause.reason in _ALERTS:
            return f"{origin}: {_ALERTS[cause.reason]}"
        cause = cause.__cause__ or cause.__context__
    return None


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _WRONG_NAME:
        return "use a name that the certificate was made for"
    if error.verify_code in _NOBODY_VOUCHES:
        return (
            "if it is of an authority of your own, name its certificate: --ca-file (SEQUENCER_CA_FILE,"
            " ca_file=…)"
        )
    return "nothing was sent"


_WRONG_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH."""
_NOBODY_VOUCHES = frozenset({2, 18, 19, 20, 21})
"""X509_V_ERR_…: self-signed, or its issuer is not among those we believe."""
_OURS_IS_REFUSED = "the server does not accept our client certificate; another one: --client-cert-file"
_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "the server wants a client certificate: --client-cert-file and --client-key-file"
        " (SEQUENCER_CLIENT_CERT_FILE, SEQUENCER_CLIENT_KEY_FILE)"
    ),
    "TLSV1_ALERT_UNKNOWN_CA": _OURS_IS_REFUSED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _OURS_IS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _OURS_IS_REFUSED,
    "TLSV1_ALERT_PROTOCOL_VERSION": "we have no TLS version in common; the server speaks 1.3",
    "WRONG_VERSION_NUMBER": "this is no https server; maybe http",
}
