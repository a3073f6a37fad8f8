"""What our TLS is: version 1.3 and nothing older. Makes contexts out of bytes, for whoever serves; reads no
file."""

from __future__ import annotations

import os
import ssl


def server_context(pem: bytes) -> ssl.SSLContext:
    """``pem``: certificate chain and private key. Raises ssl.SSLError when they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL wants a path; this file is in memory only, and gone when its descriptor is closed.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        # A passphrase is answered with "", or OpenSSL would ask for it at the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")  # nosec B106
    finally:
        os.close(descriptor)
    return context
