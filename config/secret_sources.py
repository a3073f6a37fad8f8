"""Where a secret setting comes from: its own variable, a file, or what a command prints.

    NAME           the value itself
    NAME_FILE      a file that holds it (Kubernetes secrets, Vault agent); symlinks are followed
    NAME_COMMAND   a command that prints it (``vault kv get …``); words as in a shell, but no shell

Every ``SecretStr`` setting has all three by itself, and exactly one of them may be set. What a file or a
command holds is fetched when its owner asks for it and not before: until then a setting only names its
source. Never shows a value, a command line, or what a command wrote to stderr: an error names the variable.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

COMMAND_DEADLINE_S = 10.0
SECRET_BYTES_MAX = 1_048_576
"""As much as a Kubernetes secret may hold: rings of some nine thousand tenants."""
_OTHERS = 0o027
"""The owner's group may read (a Kubernetes volume with fsGroup is made so), nobody else may anything."""
_WAYS = ("", "_FILE", "_COMMAND")


class SecretsError(Exception):
    """A secret is missing, malformed or readable by others. The text holds no secret; do not start."""


class FetchedSecret(SecretStr):
    """A secret that only names its source: ``get_secret_value`` reads the file or runs the command, each time
    it is asked, and raises SecretsError when there is nothing good. May block for ``COMMAND_DEADLINE_S``."""

    def __init__(self, variable: str, place: str, kept_from_commands: frozenset[str]) -> None:
        """``variable``: NAME_FILE or NAME_COMMAND; ``place``: its value. A command finds the variables of
        ``kept_from_commands`` (every NAME) not in its environment."""
        super().__init__(variable)
        self.variable = variable
        self._place = place
        self._kept = kept_from_commands

    @property
    def place(self) -> str:
        """For a process of its own that is to fetch it: no secret, but not for a log either."""
        return self._place

    def __eq__(self, other: object) -> bool:
        """The same source. Comparing must not fetch."""
        return isinstance(other, FetchedSecret) and (self.variable, self._place) == (
            other.variable,
            other._place,
        )

    def __hash__(self) -> int:
        return hash((self.variable, self._place))

    def get_secret_value(self) -> str:
        if self.variable.endswith("_FILE"):
            raw = _read_file(self.variable, Path(self._place))
        else:
            environ = {k: v for k, v in os.environ.items() if k.upper() not in self._kept}
            raw = _run(self.variable, self._place, environ)
        return _text(self.variable, raw)


class TwoSources(ValueError):
    """More than one of NAME, NAME_FILE and NAME_COMMAND is set."""


class SecretSources(PydanticBaseSettingsSource):
    """Finds NAME_FILE and NAME_COMMAND of every secret setting. Reads no file and runs nothing."""

    def __call__(self) -> dict[str, Any]:
        environ = {name.upper(): value for name, value in os.environ.items()}
        names = secret_settings(self.settings_cls)
        kept = frozenset(name.upper() for name in names)
        found = {name: _source(name.upper(), environ, kept) for name in names}
        return {name: source for name, source in found.items() if source is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False


def secret_settings(settings: type[BaseSettings]) -> list[str]:
    """The names of the fields that hold a secret: those whose type is SecretStr, or that or None."""
    return [
        name
        for name, field in settings.model_fields.items()
        if field.annotation is SecretStr or SecretStr in get_args(field.annotation)
    ]


def forget(names: list[str], environ: MutableMapping[str, str]) -> None:
    """These settings are no longer in the environment that a child would get. (What the kernel shows of our
    own start, /proc/PID/environ, cannot be taken back: a file or a command does not get there.)"""
    wanted = {name.upper() for name in names}
    for name in [name for name in environ if name.upper() in wanted]:
        del environ[name]


def _source(name: str, environ: Mapping[str, str], kept: frozenset[str]) -> FetchedSecret | TwoSources | None:
    """None: only NAME itself is set, or nothing."""
    given = [name + way for way in _WAYS if name + way in environ]
    if len(given) > 1:
        return TwoSources(f"is given more than once: set only one of {', '.join(given)}")
    if not given or given == [name]:
        return None
    return FetchedSecret(given[0], environ[given[0]], kept)


def _text(variable: str, raw: bytes) -> str:
    if len(raw) > SECRET_BYTES_MAX:
        raise SecretsError(f"{variable}: more than {SECRET_BYTES_MAX} bytes are no secret")
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise SecretsError(f"{variable} gives no text") from None
    if not text or "\0" in text:
        raise SecretsError(f"{variable} gives {'no text' if text else 'nothing'}")
    return text


def _read_file(variable: str, path: Path) -> bytes:
    try:
        # Not blocking, so that a pipe put there by mistake is refused instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise SecretsError(f"{variable}: the file cannot be read: {_reason(error)}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SecretsError(f"{variable}: {path} is no file")
        if found.st_mode & _OTHERS:
            raise SecretsError(
                f"{variable}: {path} is open to others: chmod 600 it, or 440 for a group of the server's "
                "(Kubernetes: defaultMode 0400 and fsGroup), and consider the secret known"
            )
        return os.read(descriptor, SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise SecretsError(f"{variable}: {path} cannot be read: {_reason(error)}") from None
    finally:
        os.close(descriptor)


def _run(variable: str, command: str, environ: Mapping[str, str]) -> bytes:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SecretsError(f"{variable} is no command: {error}") from None
    if not words:
        raise SecretsError(f"{variable} is set but empty; unset it or give it a command")
    try:
        child = subprocess.Popen(  # noqa: S603 - the operator's own command, no shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # nobody knows what it says there
            env=environ,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise SecretsError(f"{variable}: the command cannot be started: {_reason(error)}") from None
    try:
        return _output(variable, child)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with whatever it has started
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _output(variable: str, child: subprocess.Popen[bytes]) -> bytes:
    """All it prints, after it ended well. SecretsError at the deadline, and for too much."""
    until = time.monotonic() + COMMAND_DEADLINE_S
    assert child.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while ready.select(max(0.0, until - time.monotonic())):
            some = os.read(child.stdout.fileno(), SECRET_BYTES_MAX)
            said += some
            if not some or len(said) > SECRET_BYTES_MAX:
                break
        else:
            raise SecretsError(f"{variable}: the command did not end within {COMMAND_DEADLINE_S:.0f} s")
    if len(said) > SECRET_BYTES_MAX:
        return bytes(said)
    try:
        code = child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise SecretsError(f"{variable}: the command did not end within {COMMAND_DEADLINE_S:.0f} s") from None
    if code != 0:
        raise SecretsError(f"{variable}: the command ended with {code}; run it by hand to see why")
    return bytes(said)


def _reason(error: Exception) -> str:
    return error.strerror or "" if isinstance(error, OSError) else type(error).__name__
