"""Checks of the settings, the files under DATA_DIR and the machine. Asks nobody and shows no secret."""

from __future__ import annotations

import resource
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from config.certificates import CertificateError, load
from config.exposure import (
    Exposed,
    admin_address,
    admin_certificate,
    files_of_listeners,
    is_loopback,
    refuse_clear_text,
)
from config.secret_sources import FetchedSecret
from config.settings import Settings
from supervisor.doctor.checks import Checklist, Verdict, failed, passed, unknown, warned

DAYS_LEFT_MIN = 14
"""A renewal that works has happened by then; the alert waits for the same number."""
FREE_SHARE_MIN, FREE_SHARE_GOOD = 0.05, 0.15
FREE_BYTES_MIN = 1 << 30
DESCRIPTORS_BESIDE = 256
"""Those that are no client's: the database, workers, files."""
FILES_MAX = 10_000
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Surroundings:
    """Where the server runs, or would."""

    settings: Settings
    environ: Mapping[str, str]
    """Without the secrets' variables."""
    pid: int | None = None
    """Of the server that runs on DATA_DIR."""


HERE: Checklist[Surroundings] = Checklist()


@HERE.check("Deployment", "nothing is spoken in clear text to other machines")
def clear_text(at: Surroundings) -> Verdict:
    try:
        refuse_clear_text(at.settings)
    except Exposed as error:
        return failed(str(error), "see docs/operations.md, who can reach it")
    if files_of_listeners(at.settings):
        return passed("TLS 1.3 in process")
    if at.settings.tls_terminated_by_proxy:
        return passed("TLS_TERMINATED_BY_PROXY: a proxy speaks TLS, by your word")
    return passed(f"only this machine reaches {at.settings.host}")


@HERE.check("Deployment", "TLS certificates are valid and renewed")
def certificates(at: Surroundings) -> Verdict:
    files = files_of_listeners(at.settings)
    if not files:
        if at.settings.tls_terminated_by_proxy:
            return unknown("the proxy's certificate is not ours to see", "watch it there: 14 days at least")
        return passed("no listener speaks TLS")
    try:
        found = {listener: load(pair) for listener, pair in files.items()}
    except CertificateError as error:
        return failed(str(error), "give it a pair that can be served: no server starts with this one")
    days, listener = min(
        ((one.not_after_s - time.time()) / _DAY_S, listener) for listener, one in found.items()
    )
    told = f"{listener}: {days:.0f} days left"
    if days < DAYS_LEFT_MIN:
        return failed(told, "renew it, and find out why that did not happen by itself: docs/alerts.md")
    return passed(told)


@HERE.check("Deployment", "the admin listener is not public")
def admin_listener(at: Surroundings) -> Verdict:
    host, _ = admin_address(at.settings)
    if is_loopback(host):
        return passed(f"ADMIN_BIND on {host}")
    narrowed = [
        name
        for name, value in (
            ("ADMIN_TLS_CLIENT_CA_FILE", at.settings.admin_tls_client_ca_file),
            ("ADMIN_IP_ALLOWLIST", at.settings.admin_ip_allowlist),
        )
        if value
    ]
    if not narrowed:
        return failed(
            f"ADMIN_BIND {host}: whoever reaches this machine reaches it",
            "set ADMIN_IP_ALLOWLIST or ADMIN_TLS_CLIENT_CA_FILE, or bind it to 127.0.0.1",
        )
    if admin_certificate(at.settings) is None and not at.settings.tls_terminated_by_proxy:
        return failed(f"ADMIN_BIND {host} in clear text", "set ADMIN_TLS_CERT_FILE and ADMIN_TLS_KEY_FILE")
    return passed(f"ADMIN_BIND {host}, behind {' and '.join(narrowed)}")


@HERE.check("Deployment", "database credentials come from a secrets manager")
def database_credentials(at: Surroundings) -> Verdict:
    plain = [
        name
        for name, value in _plain_secrets(at.settings)
        if name.startswith("DATABASE_") and _holds_a_password(value)
    ]
    if plain:
        return failed(
            f"{', '.join(plain)}: a password in a plain variable",
            f"give {plain[0]}_FILE or {plain[0]}_COMMAND instead, or no password (a client certificate)",
        )
    if at.settings.database_url is not None and "PGPASSWORD" in at.environ:
        return failed(
            "PGPASSWORD: a password in a plain variable, which every child inherits",
            "unset it and give DATABASE_URL_FILE or DATABASE_URL_COMMAND",
        )
    if at.settings.database_url is None:
        return passed("the embedded database has no password: only this account reaches its socket")
    return passed("from a file or a command, or without a password")


@HERE.check("Deployment", "other secrets come from files or commands")
def other_secrets(at: Surroundings) -> Verdict:
    plain = [name for name, _ in _plain_secrets(at.settings) if not name.startswith("DATABASE_")]
    if plain:
        return warned(
            f"{', '.join(plain)}: plain variables, to be seen in /proc/PID/environ",
            "give NAME_FILE or NAME_COMMAND instead",
        )
    return passed("no secret is a plain variable")


@HERE.check("Deployment", "rate limiting is on")
def rate_limits(at: Surroundings) -> Verdict:
    if at.settings.rate_limit_mode == "off":
        return failed("RATE_LIMIT_MODE=off", "unset RATE_LIMIT_MODE; docs/limits.md")
    return passed(
        "RATE_LIMIT_MODE=enforce" + (", shared by all nodes" if at.settings.rate_limit_shared else "")
    )


@HERE.check("Deployment", "encryption at rest is required")
def at_rest_mode(at: Surroundings) -> Verdict:
    mode = at.settings.payload_encryption_mode
    if mode == "disabled":
        return failed("PAYLOAD_ENCRYPTION_MODE=disabled", "set it to optional, re-encrypt, then to required")
    if mode == "optional":
        return warned(
            "PAYLOAD_ENCRYPTION_MODE=optional: rows that are not encrypted are read too",
            "re-encrypt what is left, then set it to required",
        )
    return passed("PAYLOAD_ENCRYPTION_MODE=required")


@HERE.check("Deployment", "files and keys are the server's alone")
def file_modes(at: Surroundings) -> Verdict:
    data_dir = at.settings.data_dir
    if not data_dir.is_dir():
        return unknown(f"there is no DATA_DIR {data_dir}", "run it where the server runs, as its user")
    count = 0
    owner = data_dir.stat().st_uid
    for path in _guarded(data_dir):
        count += 1
        found = path.lstat()
        # DATA_DIR may be passed through, where PostgreSQL has to run under another account.
        if found.st_mode & (0o066 if path == data_dir else 0o077):
            return failed(f"{path} has mode {stat.S_IMODE(found.st_mode):o}", f"chmod go= {path}")
        if found.st_uid != owner:
            return failed(
                f"{path} belongs to uid {found.st_uid}, DATA_DIR to {owner}", f"chown {owner} {path}"
            )
    return passed(f"{count} of them in {data_dir}: closed to others, one owner")


@HERE.check("Deployment", "no session keys are written to a file")
def tls_key_log(at: Surroundings) -> Verdict:
    if "SSLKEYLOGFILE" in at.environ:
        return failed("SSLKEYLOGFILE is set: whoever reads that file reads all TLS", "unset SSLKEYLOGFILE")
    return passed("SSLKEYLOGFILE is not set")


@HERE.check("Deployment", "only live credentials are accepted")
def live_credentials(at: Surroundings) -> Verdict:
    if at.settings.api_key_mode == "test":  # pragma: allowlist secret
        return warned("API_KEY_MODE=test", "set API_KEY_MODE=live in production")
    if at.settings.jwt_secret is not None:
        return warned(
            "JWT_SECRET: tokens of the old kind are accepted", "use JWT_JWKS_FILE, unset JWT_SECRET"
        )
    return passed("API_KEY_MODE=live, no shared token secret")


@HERE.check("Deployment", "connections fit into the open files")
def descriptors(at: Surroundings) -> Verdict:
    have = _limit_of(at.pid, "Max open files") if at.pid else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if have is None:
        return unknown("the server's limits cannot be read")
    need = at.settings.connections_max + DESCRIPTORS_BESIDE
    told = f"{have} open files, {need} needed for CONNECTIONS_MAX={at.settings.connections_max}"
    if have != resource.RLIM_INFINITY and have < need:
        return failed(told, f"ulimit -n {need} (systemd: LimitNOFILE={need}), or lower CONNECTIONS_MAX")
    return passed(told)


@HERE.check("Deployment", "no memory is written to disk")
def core_dumps(at: Surroundings) -> Verdict:
    if at.pid is None:
        return passed("the server turns core dumps off when it starts")
    limit = _limit_of(at.pid, "Max core file size")
    if limit is None:
        return unknown("the server's limits cannot be read")
    if limit != 0:
        return failed(f"process {at.pid} may write a core of {limit} bytes", "restart it; it turns them off")
    return passed(f"process {at.pid} writes no core dump")


@HERE.check("Operations", "there is room on the disk")
def disk(at: Surroundings) -> Verdict:
    place = next(p for p in (at.settings.data_dir, *at.settings.data_dir.absolute().parents) if p.exists())
    usage = shutil.disk_usage(place)
    share = usage.free / usage.total
    told = f"{usage.free / (1 << 30):.1f} GiB free of DATA_DIR's disk, {share:.0%}"
    if share < FREE_SHARE_MIN or usage.free < FREE_BYTES_MIN:
        return failed(told, "make room: a full disk ends writing")
    if share < FREE_SHARE_GOOD:
        return warned(told, "make room before it is 5%")
    return passed(told)


@HERE.check("Operations", "key rotation is scheduled")
def rotation(at: Surroundings) -> Verdict:
    if at.settings.key_rotation_mode == "off":
        return failed("KEY_ROTATION_MODE=off: nobody looks", "unset it (report), or set it to enforce")
    return passed(
        f"KEY_ROTATION_MODE={at.settings.key_rotation_mode}: agents' keys "
        f"{at.settings.agent_key_max_age_days} days, receipt keys {at.settings.sequencer_key_max_age_days}"
    )


def _plain_secrets(settings: Settings) -> Iterator[tuple[str, SecretStr]]:
    """Those that came in the variable itself."""
    for name in Settings.secret_names():
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and not isinstance(value, FetchedSecret):
            yield name.upper(), value


def _holds_a_password(address: SecretStr) -> bool:
    parts = urlsplit(address.get_secret_value())
    names = parse_qs(parts.query)
    return ":" in parts.netloc.rpartition("@")[0] or "password" in names


def _guarded(data_dir: Path) -> Iterator[Path]:
    """What must be closed: DATA_DIR itself, the keys, the spool. (PostgreSQL guards its own.)"""
    yield data_dir
    keys = data_dir / "keys"
    if keys.is_dir():
        yield keys
        yield from sorted(islice(keys.iterdir(), FILES_MAX))
    spool = data_dir / "audit-spool.jsonl"
    if spool.exists():
        yield spool


def _limit_of(pid: int, name: str) -> int | None:
    """The soft limit of a process, in bytes or files."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name):
            word = line[len(name) :].split()[0]
            return resource.RLIM_INFINITY if word == "unlimited" else int(word)
    return None
