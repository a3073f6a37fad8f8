"""``DATA_DIR/server.json``: where tools on this machine find the server, while it serves.

Alone writes that file; ``transport.cli.console`` reads it. Nothing in it is secret.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import trio

from config.certificates import CertificateFiles

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - bound by the operator's wish  # nosec B104
"""All addresses of this machine: from itself it is reached through loopback."""


@dataclass(frozen=True)
class Door:
    """Where a listener is bound, how tools on this machine reach it, and the certificate they are shown."""

    bound: str
    url: str
    certificate_file: str | None


def door_of(listeners: Sequence[trio.SocketListener], certificate: CertificateFiles | None) -> Door:
    host, port = listeners[0].socket.getsockname()[:2]
    scheme = "http" if certificate is None else "https"
    shown = None if certificate is None else str(certificate.cert.absolute())
    return Door(_url(scheme, host, port), _url(scheme, ANYWHERE.get(host, host), port), shown)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextmanager
def announced(
    data_dir: Path, public: Door, admin: Door, *, development_chain: str | None = None
) -> Iterator[None]:
    path = data_dir / "server.json"
    told = {
        "url": public.url,
        "admin_url": admin.url,
        "certificate_file": public.certificate_file,
        "admin_certificate_file": admin.certificate_file,
        "development_chain": development_chain,
        "pid": os.getpid(),
        "version": version("ves-sequencer"),
    }
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(told))
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
