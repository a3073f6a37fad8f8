"""Pairs in files: which are refused and why, and that a change is noticed once it stands still."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import structlog
import trio
from cryptography.hazmat.primitives import serialization

from actors.certificates import LOOK_S, Certificates, CertificateWatcher
from actors.mailbox import Inbox, Mailbox
from actors.security_events import SecurityEvents
from config.certificates import CertificateError, CertificateFiles, load
from tests.tls.authority import Authority, replace


def certificates_of(files: CertificateFiles) -> tuple[Certificates, SecurityEvents]:
    security = SecurityEvents()
    return Certificates({"public": files}, security=security, now_s=time.time), security


def counted(security: SecurityEvents) -> tuple[int, int]:
    return security.counts["certificate_reloaded"], security.counts["certificate_refused"]


def spoil(files: CertificateFiles, how: str, authority: Authority) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    if how == "open":
        files.key.chmod(0o604)
    elif how == "no key file":
        files.key.unlink()
    elif how == "key is a folder":
        files.key.unlink()
        files.key.mkdir()
    elif how == "no certificate file":
        files.cert.unlink()
    elif how == "certificate is no PEM":
        files.cert.write_bytes(b"\x30\x82nonsense")
    elif how == "key is no PEM":
        replace(files.key, b"nonsense")
    elif how == "passphrase":
        kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        replace(files.key, key.private_bytes(*kind, serialization.BestAvailableEncryption(b"secret")))
    elif how == "another's key":
        replace(files.key, authority.write_pair("another")[1].read_bytes())


SPOILT = {
    "open": "TLS_KEY_FILE .* is open to others: chmod 600",
    "no key file": "TLS_KEY_FILE .* No such file",
    "key is a folder": "TLS_KEY_FILE .* is no file",
    "no certificate file": "TLS_CERT_FILE .* No such file",
    "certificate is no PEM": "TLS_CERT_FILE .* no certificate in PEM form",
    "key is no PEM": "TLS_KEY_FILE .* without a passphrase",
    "passphrase": "TLS_KEY_FILE .* without a passphrase",
    "another's key": "TLS_KEY_FILE .* is not the key of the first certificate in TLS_CERT_FILE",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_pair_that_cannot_be_used_is_refused_with_the_reason(how: str, authority: Authority) -> None:
    files = authority.files()
    load(files)
    spoil(files, how, authority)
    with pytest.raises(CertificateError, match=SPOILT[how]):
        load(files)


@pytest.mark.parametrize(("mode", "why"), [(0o440, None), (0o640, None), (0o460, "open"), (0o444, "open")])
def test_a_keys_group_may_read_it_and_do_nothing_else(
    mode: int, why: str | None, authority: Authority
) -> None:
    files = authority.files()
    files.key.chmod(mode)
    if why is None:
        load(files)
    else:
        with pytest.raises(CertificateError, match=why):
            load(files)


def test_a_client_authority_that_is_none_is_refused(authority: Authority, tmp_path: Path) -> None:
    load(authority.files(client_ca=authority.file))
    for content in (None, b"nonsense"):
        path = tmp_path / "clients.pem"
        if content:
            path.write_bytes(content)
        with pytest.raises(CertificateError, match="ADMIN_TLS_CLIENT_CA_FILE"):
            load(authority.files(client_ca=path))


@pytest.mark.parametrize("how", SPOILT)
def test_a_broken_new_pair_keeps_the_old_one_and_says_so_once(how: str, authority: Authority) -> None:
    files = authority.files()
    certificates, security = certificates_of(files)
    context = certificates.context_of("public")
    assert context is not None
    before = context()
    spoil(files, how, authority)
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            certificates.look()
    assert context() is before
    assert counted(security) == (0, 1)
    assert [line["kind"] for line in logs] == ["certificate_refused"]
    if files.key.is_dir():
        files.key.rmdir()
    authority.write_pair()
    for _ in range(3):
        certificates.look()
    assert context() is not before
    assert counted(security) == (1, 1)


def test_files_replaced_one_after_the_other_are_tried_when_both_are_there(authority: Authority) -> None:
    files = authority.files()
    certificates, security = certificates_of(files)
    cert, key = authority.write_pair("next")
    replace(files.cert, cert.read_bytes())
    certificates.look()
    replace(files.key, key.read_bytes())
    certificates.look()
    assert counted(security) == (0, 0)
    certificates.look()
    assert counted(security) == (1, 0)
    certificates.look()
    assert counted(security) == (1, 0)


def test_a_link_that_moves_to_another_file_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As certbot and Kubernetes do it."""
    names = {}
    for generation in ("one", "two"):
        names[generation] = authority.write_pair(generation)
    live = tmp_path / "live.pem", tmp_path / "live-key.pem"
    for link, target in zip(live, names["one"], strict=True):
        link.symlink_to(target)
    certificates, security = certificates_of(CertificateFiles(*live, "TLS_CERT_FILE", "TLS_KEY_FILE"))
    for link, target in zip(live, names["two"], strict=True):
        link.unlink()
        link.symlink_to(target)
    certificates.look()
    certificates.look()
    assert counted(security) == (1, 0)


def test_a_reload_reads_the_files_changed_or_not(authority: Authority) -> None:
    certificates, security = certificates_of(authority.files())
    certificates.reload()
    assert counted(security) == (1, 0)
    certificates.look()
    certificates.look()
    assert counted(security) == (1, 0)


@pytest.mark.parametrize(
    ("days", "event"),
    [(15, None), (13, "certificate expires soon"), (-1, "certificate has expired")],
)
def test_what_expires_soon_is_said_and_measured(days: float, event: str | None, authority: Authority) -> None:
    with structlog.testing.capture_logs() as logs:
        certificates, _ = certificates_of(authority.files(days=days))
    assert [line["event"] for line in logs] == ([] if event is None else [event])
    assert certificates.seconds_left()["public"] == pytest.approx(days * 86_400, abs=120)


async def test_the_watcher_looks_every_few_seconds(authority: Authority, autojump_clock: object) -> None:
    files = authority.files()
    certificates, security = certificates_of(files)
    mailbox = Mailbox("certificates", letters_max=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(CertificateWatcher(certificates).run, Inbox(mailbox))
        await trio.sleep(LOOK_S * 1.5)
        authority.write_pair()
        await trio.sleep(LOOK_S * 2)
        nursery.cancel_scope.cancel()
    assert counted(security) == (1, 0)
