"""A listener's certificate and key: read from their files, judged, and made into what TLS needs.

Alone decides what our TLS is: version 1.3 and nothing older, and for the admin listener on request only
clients with a certificate of a named authority. Keeps nothing, watches nothing, and shows no key.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509

from config.tls_context import server_context

_FILE_BYTES_MAX = 1024 * 1024
_NOT_OURS = 0o027
"""A group may read, as with every secret file: a pod that is not root gets its secrets by its group only."""

Listener = Literal["public", "admin"]

Signature = tuple[tuple[int, int, int, int] | None, ...]
"""What each file looks like from outside: device, inode, size, time of the last change of content or mode."""


class CertificateError(Exception):
    """A pair that cannot be used; the text names the setting, the file and the remedy, and no secret."""


@dataclass(frozen=True)
class CertificateFiles:
    """Where a listener's pair is, and which settings said so."""

    cert: Path
    key: Path
    cert_setting: str
    key_setting: str
    client_ca: Path | None = None
    """Only clients with a certificate of these authorities are let in."""

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)

    def signature(self) -> Signature:
        """Another one: some file was changed or replaced."""
        return tuple(_looks(path) for path in self.all)


@dataclass(frozen=True)
class Certificate:
    """A pair that belongs together and can be served."""

    context: ssl.SSLContext = field(repr=False)
    pem: bytes = field(repr=False)
    """The chain and the key, for a front-end that speaks TLS for us."""
    not_after_s: float
    """Seconds since 1970: when the first certificate of the chain expires."""


def load(files: CertificateFiles) -> Certificate:
    """Raises CertificateError."""
    _refuse_open_key(files)
    chain = _chain(files)
    pem = _read(files)
    return Certificate(_context(files, pem), pem, min(one.not_valid_after_utc.timestamp() for one in chain))


def _looks(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _refuse_open_key(files: CertificateFiles) -> None:
    what = f"{files.key_setting} {files.key}"
    try:
        found = files.key.stat()
    except OSError as error:
        raise CertificateError(f"{what} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise CertificateError(f"{what} is no file")
    if found.st_mode & _NOT_OURS:
        raise CertificateError(
            f"{what} is open to others: chmod 600 {files.key}, or 440 for a group of the server's "
            "(Kubernetes: defaultMode 0400 and fsGroup), and consider the key known"
        )
    if not os.access(files.key, os.R_OK):
        raise CertificateError(
            f"{what} cannot be read: it belongs to uid {found.st_uid}, we are {os.geteuid()}"
        )


def _chain(files: CertificateFiles) -> list[x509.Certificate]:
    what = f"{files.cert_setting} {files.cert}"
    try:
        with files.cert.open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise CertificateError(f"{what} cannot be read: {error.strerror}") from None
    except ValueError:
        raise CertificateError(f"{what} holds no certificate in PEM form") from None


def _read(files: CertificateFiles) -> bytes:
    """Both files, each no longer than they get."""
    parts = []
    for path in (files.cert, files.key):
        with path.open("rb") as file:
            parts.append(file.read(_FILE_BYTES_MAX))
    return b"\n".join(parts)


def _context(files: CertificateFiles, pem: bytes) -> ssl.SSLContext:
    try:
        context = server_context(pem)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(_why_no_pair(files, error)) from None
    if files.client_ca is not None:
        _ask_clients(context, files.client_ca)
    return context


def _why_no_pair(files: CertificateFiles, error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"{files.key_setting} {files.key} is not the key of the first certificate"
            f" in {files.cert_setting} {files.cert}"
        )
    return (
        f"{files.key_setting} {files.key} and {files.cert_setting} {files.cert} cannot be used:"
        " give a key in PEM form without a passphrase, and its certificate first in the chain"
    )


def _ask_clients(context: ssl.SSLContext, client_ca: Path) -> None:
    try:
        context.load_verify_locations(client_ca)
    except (ssl.SSLError, OSError):
        raise CertificateError(
            f"ADMIN_TLS_CLIENT_CA_FILE {client_ca} cannot be read or holds no certificate in PEM form"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED
