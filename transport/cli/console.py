"""What every command shares: where the server is, which credential, how results and failures are shown.

Exit codes: 0 done and true; 1 refused, or something does not hold; 2 wrong usage or a local file or setting
is wrong; 3 consistent but nobody we trust vouches for it; 4 no answer in time, nobody knows, try again.
With ``--json`` exactly one JSON object goes to stdout (commands that list print one per line); notices and
errors for people go to stderr. A credential is never read from the command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio
from cyclopts import Parameter
from pydantic import ValidationError

from config.secret_sources import SecretsError
from config.settings import Settings
from transport.client.errors import BadAnswer, ClientError, NotVerified, PinMismatch, Refused, Unanswered
from transport.client.retry import RetryPolicy
from transport.client.sequencer import SequencerClient
from transport.client.tls import TlsFiles
from transport.client.trust import Pins, default_path
from transport.client.wire import UNREADABLE, ReceiptKeys, TrustFile, decode


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_TRUSTED = 3
    UNANSWERED = 4


Json = Annotated[bool, Parameter(name="--json", negative=(), help="One JSON object instead of text.")]


@dataclass(frozen=True)
class Connection:
    """How to talk to a server, whichever. The API key (or a token): SEQUENCER_API_KEY or --api-key-file."""

    api_key_file: Annotated[Path | None, Parameter(env_var="SEQUENCER_API_KEY_FILE")] = None
    """File that holds the API key; wins over SEQUENCER_API_KEY."""
    ca_file: Annotated[Path | None, Parameter(env_var="SEQUENCER_CA_FILE")] = None
    """PEM file of the only authorities to believe for https; default: the system's."""
    client_cert_file: Annotated[Path | None, Parameter(env_var="SEQUENCER_CLIENT_CERT_FILE")] = None
    """PEM file of our own certificate, for a server that asks for one."""
    client_key_file: Annotated[Path | None, Parameter(env_var="SEQUENCER_CLIENT_KEY_FILE")] = None
    """PEM file of its key."""
    allow_plain_http: Annotated[bool, Parameter(negative=())] = False
    """Send the API key over plain http to another machine."""
    pins: Annotated[Path | None, Parameter(env_var="SEQUENCER_PINS")] = None
    """File of the receipt keys pinned on first use; default ~/.config/ves-sequencer/pins.json."""
    patience: float = 120.0
    """Seconds to keep trying while there is no final answer."""

    def connect(
        self,
        url: str,
        api_key: str | None,
        *,
        receipt_keys: ReceiptKeys | None = None,
        shown: str | None = None,
    ) -> SequencerClient:
        """``shown``: the certificate file of a server on this machine, as its announcement names it."""
        return SequencerClient(
            url,
            api_key=api_key,
            pins=Pins(self.pins or default_path()),
            receipt_keys=receipt_keys,
            retry=RetryPolicy(deadline_s=self.patience),
            allow_plain_http=self.allow_plain_http,
            tls=TlsFiles(
                self.ca_file, Path(shown) if shown else None, self.client_cert_file, self.client_key_file
            ),
            notice=notice,
        )

    def api_key(self) -> str | None:
        if self.api_key_file is not None:
            return read_secret(self.api_key_file)
        return os.environ.get("SEQUENCER_API_KEY") or None


@Parameter(name="*")
@dataclass(frozen=True)
class Server(Connection):
    url: Annotated[str | None, Parameter(env_var="SEQUENCER_URL")] = None
    """Address of the server; default: the one running on DATA_DIR, else http://127.0.0.1:8080."""

    def client(self, *, receipt_keys: ReceiptKeys | None = None) -> SequencerClient:
        if self.url is not None:
            return self.connect(self.url, self.api_key(), receipt_keys=receipt_keys)
        here = announcement()
        url = here.url if here else "http://127.0.0.1:8080"
        shown = here.certificate_file if here else None
        return self.connect(url, self.api_key(), receipt_keys=receipt_keys, shown=shown)


@Parameter(name="*")
@dataclass(frozen=True)
class Operated(Connection):
    """A server asked by its operator: on this machine with its bootstrap key, unless another is named."""

    url: Annotated[str | None, Parameter(env_var="SEQUENCER_URL")] = None
    """Address of the server; default: the one running on DATA_DIR."""
    patience: float = 30.0
    """Seconds to keep trying while there is no final answer."""

    def client(self) -> SequencerClient:
        if self.url is not None:
            return self.connect(self.url, self.api_key())
        here = announcement()
        if here is None:
            raise ClientError(
                "no server runs on DATA_DIR: start it, set DATA_DIR to another, or name one: --url"
            )
        api_key = self.api_key() if self.api_key_file else bootstrap_key() or self.api_key()
        return self.connect(here.url, api_key, shown=here.certificate_file)


@Parameter(name="*")
@dataclass(frozen=True)
class AdminListener(Connection):
    admin_url: Annotated[str | None, Parameter(env_var="SEQUENCER_ADMIN_URL")] = None
    """Address of the admin listener; default: that of the server running on DATA_DIR."""

    def client(self) -> SequencerClient:
        """With the key of --api-key-file, else this machine's bootstrap key, else SEQUENCER_API_KEY. Never to
        an address that nobody named: whoever listens there would be given the key."""
        api_key = self.api_key() if self.api_key_file else bootstrap_key() or self.api_key()
        if self.admin_url is not None:
            return self.connect(self.admin_url, api_key)
        here = announcement()
        if here is None:
            raise ClientError(
                f"no server runs on DATA_DIR {settings().data_dir}: start it, set DATA_DIR to another, "
                "or name an admin listener with --admin-url"
            )
        return self.connect(here.admin_url, api_key, shown=here.admin_certificate_file)


@Parameter(name="*")
@dataclass(frozen=True)
class ImpatientAdmin(AdminListener):
    """For an operator who wants to know now."""

    patience: float = 30.0
    """Seconds to keep trying while there is no final answer; an act may take 20 of them."""


def settings() -> Settings:
    try:
        return Settings()
    except ValidationError as wrong:
        names = ", ".join(str(problem["loc"][0]).upper() for problem in wrong.errors())
        raise ClientError(f"these settings are not usable: {names}") from None


def bootstrap_key() -> str | None:
    """The bootstrap key of a server on this machine: from the environment, else its file under DATA_DIR."""
    chosen = settings()
    if chosen.bootstrap_admin_api_key is not None:
        try:
            return chosen.bootstrap_admin_api_key.get_secret_value()
        except SecretsError as error:
            raise ClientError(str(error)) from None
    path = chosen.data_dir / "keys" / "bootstrap-admin-api-key"
    return read_secret(path) if path.exists() else None


class Announcement(msgspec.Struct):
    """What a running server left in DATA_DIR/server.json."""

    url: str
    admin_url: str
    certificate_file: str | None = None
    """Under https: what it shows. The folder is closed to others, so this tells us whom to believe."""
    admin_certificate_file: str | None = None
    development_chain: str | None = None
    """The JSON-RPC address of a chain on this machine that nobody else witnesses."""


def announcement() -> Announcement | None:
    try:
        raw = (settings().data_dir / "server.json").read_bytes()
        return msgspec.json.decode(raw, type=Announcement)
    except (OSError, *UNREADABLE):
        return None


def read_secret(path: Path) -> str:
    return read_file(path).decode("ascii", "replace").strip()


def read_file(path: Path | None) -> bytes:
    """The file's bytes; None is stdin."""
    try:
        return sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error


def read_trust(path: Path) -> TrustFile:
    try:
        trust = decode(read_file(path), TrustFile, str(path))
        trust.keys()
        trust.agents()
        trust.check_signatures()
    except (BadAnswer, ValueError) as wrong:
        raise ClientError(f"{path} is no trust file: {wrong}") from wrong
    return trust


def write_file(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error


# ---- showing --------------------------------------------------------------------------------------------


def notice(text: str) -> None:
    print(f"sequencer: {text}", file=sys.stderr, flush=True)


def show(text: str, data: Any, as_json: bool) -> None:
    """The result: ``text`` for people, or ``data`` as one line of JSON."""
    print(msgspec.json.encode(data).decode() if as_json else text, flush=True)


def run(work: Callable[[], Awaitable[int]], *, as_json: bool) -> int:
    """The command's exit code; expected failures become one readable line and a code."""
    return readably(partial(trio.run, work), as_json=as_json)


def readably(work: Callable[[], int], *, as_json: bool) -> int:
    try:
        return int(work())
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except ClientError as error:
        code = _code(error)
        if as_json:
            kind = error.code if isinstance(error, Refused) else type(error).__name__
            show("", {"ok": False, "error": {"code": kind, "message": str(error)}}, as_json=True)
        notice(str(error))
        given = os.environ.get("SEQUENCER_API_KEY_FILE")
        if isinstance(error, Refused) and error.status in (401, 403) and given:
            notice(f"the API key came from SEQUENCER_API_KEY_FILE={given}; unset it to use another one")
        elif isinstance(error, Refused) and error.code == "AUTH_REQUIRED":
            notice("no API key was given: set SEQUENCER_API_KEY_FILE, or --api-key-file")
        return code


def _code(error: ClientError) -> Exit:
    if isinstance(error, Unanswered):
        return Exit.UNANSWERED
    if isinstance(error, Refused | NotVerified | PinMismatch | BadAnswer):
        return Exit.FAILED
    return Exit.USAGE
