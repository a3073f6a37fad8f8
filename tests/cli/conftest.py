"""The command with an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.no_house import NO_HOUSE
from transport.cli.app import build_app

API_KEY = "ss_0123456789abcdefghijklmnopqrstuvwxyz"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def sequencer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Command:
    """The command with an environment of its own; answers code, stdout, stderr."""
    for name in ("SEQUENCER_API_KEY", "SEQUENCER_URL", "BOOTSTRAP_ADMIN_API_KEY", "SEQUENCER_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SEQUENCER_API_KEY", API_KEY)

    def call(*arguments: object) -> Said:
        app = build_app(NO_HOUSE)
        try:
            code = app([str(argument) for argument in arguments], result_action="return_value")
        except SystemExit as ended:
            code = ended.code
        captured = capfdbinary.readouterr()
        said = Said(code, captured.out.decode(), captured.err.decode())
        assert API_KEY not in said.out + said.err
        assert "Traceback" not in said.err
        return said

    return call
