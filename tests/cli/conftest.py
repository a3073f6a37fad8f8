"""The command with an environment of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.client.playing import PlayedSequencer, played_sequencer
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


@pytest.fixture
def play() -> Iterator[PlayedSequencer]:
    """The played sequencer in a thread of its own, for the command brings its own event loop."""
    started: list[tuple[PlayedSequencer, trio.lowlevel.TrioToken, trio.Event]] = []
    up = threading.Event()

    async def live() -> None:
        async with played_sequencer() as playing:
            stop = trio.Event()
            started.append((playing, trio.lowlevel.current_trio_token(), stop))
            up.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(live,))
    thread.start()
    assert up.wait(5)
    playing, token, stop = started[0]
    yield playing
    trio.from_thread.run_sync(stop.set, trio_token=token)
    thread.join(5)
    assert not thread.is_alive()
