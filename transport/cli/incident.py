"""``sequencer incident``: what to do when a key has leaked or data may have, with a signed report at the end.

``key-compromise`` and ``report`` are handed in: they work on the house's own database and sign with its
receipt key, beside a running server or without one. ``verify`` checks a report offline, like anybody.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from hashlib import file_digest
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from transport.cli.console import Exit, Json, notice, read_file, read_trust, readably, show
from transport.client.errors import BadAnswer, ClientError
from transport.client.trust import Pins, default_path
from transport.client.wire import ReceiptKeyName, decode
from ves.constants import U32_MAX
from ves.encoding import hex_bytes, uuid_bytes
from ves.incidents import report_holds
from ves.timestamps import parse_rfc3339

REPORT = "report.json"
ENTRIES_MAX = 1_000_000
_DURATION = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60}

KeyId = Annotated[int, Parameter(name="--key", validator=Number(gte=0, lte=U32_MAX))]
When = Annotated[str | None, Parameter()]
Flag = Annotated[bool, Parameter(negative=())]
FileName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
"""Beside the report, nowhere else."""


class KeyCompromise(NamedTuple):
    """What is asked for."""

    tenant_id: bytes | None
    agent_id: bytes
    key_id: int
    since_us: int | None
    """The last moment at which the key was surely the agent's alone."""
    all_keys: bool
    dry_run: bool
    reason: str
    to: Path


class Window(NamedTuple):
    """Of an incident: from when to when, and whose."""

    title: str
    tenant_id: bytes | None
    from_us: int
    to_us: int
    to: Path


class SignedReport(msgspec.Struct):
    """The file ``report.json``."""

    report: dict[str, Any]
    sequencer_id: str
    key_version: Annotated[int, msgspec.Meta(ge=1, le=U32_MAX)]
    public_key: str
    signature: str


class ReportedFile(msgspec.Struct):
    """What the report says of a file beside it."""

    sha256: str


def incident_app(key_compromise: Callable[[KeyCompromise], int], report: Callable[[Window], int]) -> App:
    """The command with its three words."""
    app = App(name="incident", help="When a key has leaked or data may have: act, and report it signed.")

    @app.command(name="key-compromise")
    def compromised(
        *,
        agent: UUID,
        key: KeyId,
        to: Path,
        tenant: Annotated[UUID | None, Parameter(env_var="SEQUENCER_TENANT")] = None,
        since: When = None,
        all_keys: Flag = False,
        dry_run: Flag = False,
        reason: str = "suspected_compromise",
    ) -> int:
        """Revoke an agent's key and list every event that it ever signed, in a signed report.

        Run it where the server runs, with the server's DATA_DIR and DATABASE_URL; it may be run again.

        Parameters
        ----------
        agent
            Whose key.
        key
            The key's keyId.
        to
            A new folder for the report and the list of events.
        tenant
            Whose agent; only needed when several tenants have such an agent and key.
        since
            The last moment at which the key was surely its owner's alone (RFC 3339, or 3d, 12h, 30m ago):
            what was signed after it is counted apart.
        all_keys
            Revoke all keys of the agent, also those that took this one's place.
        dry_run
            Revoke nothing; report only.
        reason
            For the record. suspected_compromise raises the alert.
        """

        def ask() -> int:
            asked = KeyCompromise(
                None if tenant is None else tenant.bytes,
                agent.bytes,
                key,
                None if since is None else _moment(since, "--since"),
                all_keys,
                dry_run,
                reason,
                _new_folder(to),
            )
            return key_compromise(asked)

        return readably(ask, as_json=False)

    @app.command(name="report")
    def window(
        *,
        since: str,
        to: Path,
        until: When = None,
        tenant: Annotated[UUID | None, Parameter()] = None,
        title: str = "incident",
    ) -> int:
        """Preserve what the record says about a span of time: every audited act, sums, heads; signed.

        Parameters
        ----------
        since
            RFC 3339, or 3d, 12h, 30m ago.
        to
            A new folder for the report and the entries.
        until
            Default: now.
        tenant
            Only what concerns this tenant.
        title
            What it is about, for its reader.
        """

        def ask() -> int:
            from_us, now_us = _moment(since, "--since"), time.time_ns() // 1000
            to_us = now_us if until is None else _moment(until, "--until")
            if to_us <= from_us:
                raise ClientError("--until is not after --since")
            named = None if tenant is None else tenant.bytes
            return report(Window(title[:200], named, from_us, to_us, _new_folder(to)))

        return readably(ask, as_json=False)

    @app.command(name="verify")
    def verify(
        folder: Path,
        *,
        trust: Annotated[Path | None, Parameter()] = None,
        pins: Annotated[Path | None, Parameter(env_var="SEQUENCER_PINS")] = None,
        as_json: Json = False,
    ) -> int:
        """Is this report complete, unchanged, and signed by a sequencer we trust?

        Parameters
        ----------
        folder
            What key-compromise or report wrote.
        trust
            File with the keys to believe: a saved /.well-known/ves-sequencer.
        pins
            File of keys pinned on first use, believed when there is no --trust.
        """
        return readably(lambda: _verify(folder, trust, pins, as_json), as_json=as_json)

    return app


def _verify(folder: Path, trust: Path | None, pins: Path | None, as_json: bool) -> int:
    believed = Pins(pins or default_path()).all_keys() if trust is None else read_trust(trust).keys()
    where = folder / REPORT
    signed = decode(read_file(where), SignedReport, str(where))
    try:
        name = ReceiptKeyName(uuid_bytes(signed.sequencer_id), signed.key_version)
        shown, signature = hex_bytes(signed.public_key, 32), hex_bytes(signed.signature, 64)
        files = msgspec.convert(signed.report.get("files", {}), dict[FileName, ReportedFile])
    except ValueError as wrong:
        raise BadAnswer(f"{where}: {wrong}") from None
    problems = _problems(folder, files)
    if not report_holds(shown, name.sequencer_id, name.key_version, signed.report, signature):
        problems.insert(0, "the signature does not belong to this report")
    trusted = believed.get(name)
    if trusted is not None and trusted != shown:
        problems.append("it shows another key for its sequencer's version than the trusted one")
    if problems:
        code, verdict = Exit.FAILED, "NOT valid"
    elif trusted is None:
        code, verdict = Exit.NOT_TRUSTED, "consistent, not trusted: no trusted key of this sequencer"
    else:
        code, verdict = Exit.OK, "valid"
    text = "\n".join([*problems, f"report {signed.report.get('kind')}: {verdict}"])
    show(text, {"ok": code == Exit.OK, "problems": problems}, as_json)
    return code


def _problems(folder: Path, files: dict[str, ReportedFile]) -> list[str]:
    problems = []
    for name, listed in sorted(files.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name} is missing")
            continue
        with path.open("rb") as file:
            found, reported = file_digest(file, "sha256").hexdigest(), listed.sha256
        if found != reported:
            problems.append(f"{name} is not the file that was reported")
    return problems


def _new_folder(to: Path) -> Path:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ClientError(f"--to {to} exists and is not an empty folder: give a new one")
    return to


def _moment(text: str, option: str) -> int:
    """Microseconds since 1970."""
    ago = _DURATION.fullmatch(text)
    if ago is not None:
        return time.time_ns() // 1000 - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
    try:
        return parse_rfc3339(text)
    except ValueError:
        notice(f"{option} {text}: write 3d, 12h, 30m, or RFC 3339: 2027-01-31T12:00:00Z")
        raise ClientError(f"{option} is no moment") from None
