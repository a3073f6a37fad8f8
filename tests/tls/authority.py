"""A certificate authority for one test, and pairs as an operator would have them in files."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import trustme

from config.certificates import CertificateFiles

NAMES = ("localhost", "127.0.0.1")


class Authority:
    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def write_pair(
        self, name: str = "server", *, names: tuple[str, ...] = NAMES, days: float = 90
    ) -> tuple[Path, Path]:
        """``name``.pem and ``name``-key.pem, replaced each in one step; valid for so many days from now."""
        now = datetime.datetime.now(datetime.UTC)
        issued = self._ca.issue_cert(
            *names,
            not_before=now - datetime.timedelta(days=400),
            not_after=now + datetime.timedelta(days=days),
        )
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        replace(cert, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        replace(key, issued.private_key_pem.bytes())
        return cert, key

    def files(self, name: str = "server", *, client_ca: Path | None = None, **how: Any) -> CertificateFiles:
        cert, key = self.write_pair(name, **how)
        return CertificateFiles(cert, key, "TLS_CERT_FILE", "TLS_KEY_FILE", client_ca)

    def client_context(self, *, shows: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.file)
        if shows is not None:
            context.load_cert_chain(*shows)
        return context


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode)
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)
