"""``sequencer admin``: what is asked of the house, what is refused before anything happens, and the bar."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import uuid
from dataclasses import replace

import pytest

from tests.no_house import NO_HOUSE
from transport.cli import progress as progress_room
from transport.cli.admin import Reencryption
from transport.cli.app import build_app
from transport.cli.progress import Progress

TENANT, STORE = uuid.uuid4(), uuid.uuid4()
ALL = Reencryption("events", None, None, None, None, dry_run=False, as_json=False)


def asked(*words: str) -> tuple[int, list[object]]:
    """The exit code, and what the house was asked for."""
    wishes: list[object] = []

    def reencrypt(wish: Reencryption) -> int:
        wishes.append(wish)
        return 1

    def retire(key_id: bytes, as_json: bool) -> int:
        wishes.append((key_id, as_json))
        return 0

    app = build_app(replace(NO_HOUSE, reencrypt=reencrypt, retire_at_rest_key=retire))
    try:
        code = app(["admin", *words], result_action="return_value", exit_on_error=True)
    except SystemExit as ended:
        code = ended.code
    return code, wishes


@pytest.mark.parametrize("table", ["ves-events", "events", "ves-validity-proofs"])
def test_each_table_has_its_command_and_all_options_reach_the_house(table: str) -> None:
    wish = replace(ALL, table=table.replace("-", "_"))
    assert asked(f"reencrypt-{table}") == (1, [wish])
    everything = ["--tenant", str(TENANT), "--store", str(STORE), "--limit", "7", "--batch-size", "3"]
    wanted = Reencryption(wish.table, TENANT.bytes, STORE.bytes, 7, 3, dry_run=True, as_json=True)
    assert asked(f"reencrypt-{table}", *everything, "--dry-run", "--json") == (1, [wanted])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("reencrypt-events", "--store", str(STORE)), "--tenant"),
        (("reencrypt-events", "--batch-size", "10001"), "--batch-size"),
        (("reencrypt-events", "--batch-size", "0"), "batch-size"),
        (("reencrypt-events", "--limit", "0"), "limit"),
        (("reencrypt-events", "--tenant", "me"), "tenant"),
        (("retire-at-rest-key", "abc"), "FINGERPRINT"),
        (("retire-at-rest-key", "00" * 32), "never the key itself"),
        (("retire-at-rest-key", "zz" * 8), "FINGERPRINT"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value[:2]),
)
def test_what_makes_no_sense_is_refused_by_name_and_nothing_happens(
    words: tuple[str, ...], names: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, wishes = asked(*words)
    assert code != 0
    assert wishes == []
    captured = capfd.readouterr()
    assert names in captured.err + captured.out
    assert "00" * 32 not in captured.err + captured.out


def test_a_key_is_named_by_its_fingerprint() -> None:
    assert asked("retire-at-rest-key", "00112233445566ff") == (
        0,
        [(bytes.fromhex("00112233445566ff"), False)],
    )
    assert asked("retire-at-rest-key", "00112233445566FF", "--json")[1] == [
        (bytes.fromhex("00112233445566ff"), True)
    ]


def test_without_a_terminal_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("reencrypt-events", 10) as progress:
        progress.is_at(5)
        assert capsys.readouterr().err == "", "not for each page"
        monkeypatch.setattr(progress_room, "LINE_EVERY_S", 0.0)
        progress.is_at(7)
        progress.is_at(12)
    assert capsys.readouterr().err == ("reencrypt-events: 7 of 10 rows\nreencrypt-events: 12 of 12 rows\n")


def test_at_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with Progress("reencrypt-events", 10) as progress:
            progress.is_at(10)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to any more
        while more := os.read(ours, 65536):
            shown += more
    os.close(ours)
    assert b"reencrypt-events" in shown
    assert b"10/10" in shown
