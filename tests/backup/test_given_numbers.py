"""A node's own note of the numbers it gave: bounded, replaced as a whole, and never guessed at."""

from __future__ import annotations

import stat
import uuid
from pathlib import Path

import pytest

from actors.given_numbers import STREAMS_MAX, GivenNumbers, Unreadable
from journal.restorations import Given


def given(number: int, *, store: bytes | None = None) -> Given:
    return Given(bytes(16), store or uuid.uuid4().bytes, number, uuid.uuid4().bytes)


async def test_the_newest_of_each_stream_is_there_in_the_next_life(tmp_path: Path) -> None:
    path, store = tmp_path / "given.json", uuid.uuid4().bytes
    note = GivenNumbers(path)
    assert note.load() == []
    last, other = given(2, store=store), given(9)
    for one in (given(1, store=store), other, last):
        note.gave(one)
    await note.write_down()
    assert GivenNumbers(path).load() == [other, last]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_of_too_many_streams_the_longest_idle_is_forgotten(tmp_path: Path) -> None:
    note, first = GivenNumbers(tmp_path / "given.json"), given(1)
    note.gave(first)
    for _ in range(STREAMS_MAX):
        note.gave(given(1))
    await note.write_down()
    found = GivenNumbers(tmp_path / "given.json").load()
    assert len(found) == STREAMS_MAX
    assert first not in found


async def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    note = GivenNumbers(tmp_path / "given.json")
    await note.write_down()
    assert not (tmp_path / "given.json").exists()


def test_a_note_that_is_none_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text('[{"tenant_id": "x"}]')
    with pytest.raises(Unreadable, match="is not what a server writes"):
        GivenNumbers(tmp_path / "given.json").load()
