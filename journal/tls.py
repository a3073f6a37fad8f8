"""What it means when TLS to PostgreSQL does not come about: said in words an operator can act on.

Only names failures; the addresses that demand TLS are made by ``config.database_tls``, the connection by the
driver. A failure named here is no outage: waiting does not help.
"""

from __future__ import annotations

import ssl

_NO_TLS = "rejected SSL upgrade"
"""asyncpg, when the server answers the request for TLS with no, or with anything but yes."""
_VERSION_REASONS = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION"}


def _reason(error: ssl.SSLCertVerificationError) -> str:
    """OpenSSL's words; an error that it did not raise itself has none."""
    return str(getattr(error, "verify_message", error)).rstrip(".")


def why_untrusted(error: BaseException) -> str | None:
    """None: it has nothing to do with TLS, or may pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the database's certificate was refused: {_reason(error)}. Either somebody "
            "else answers, or the certificate or sslrootcert in DATABASE_URL has to be renewed"
        )
    if isinstance(error, ssl.SSLError) and error.reason in _VERSION_REASONS:
        return "the database speaks no TLS of version 1.2 or newer: set ssl_min_protocol_version there"
    if isinstance(error, ConnectionError) and _NO_TLS in str(error):
        return (
            "the database does not speak TLS (set ssl = on there), or somebody on the way pretends that; "
            "nothing was sent"
        )
    return None
