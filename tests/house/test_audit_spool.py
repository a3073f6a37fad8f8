"""Audit entries that could not wait for the database: never lost, twice only under one id, bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import structlog
import trio

from actors.audit_spool import AuditSpool, SpoolEmptier
from actors.errors import Unavailable
from actors.mailbox import Inbox, Mailbox
from journal.port import AuditEntry, JournalAway, JournalOutcomeUnknown


class Chain:
    """The audit chain: written, away, or written without anybody hearing of it."""

    def __init__(self) -> None:
        self.written: list[AuditEntry] = []
        self.away = False
        self.unheard = 0
        self.refused = 0
        self.refused_twice = trio.Event()
        self.first_written = trio.Event()

    async def audit(self, entry: AuditEntry) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            self.refused += 1
            if self.refused == 2:
                self.refused_twice.set()
            raise JournalAway("away")
        self.written.append(entry)
        self.first_written.set()
        if self.unheard:
            self.unheard -= 1
            raise JournalOutcomeUnknown("no answer")

    @property
    def subjects(self) -> list[str]:
        return [entry.subject for entry in self.written]


def a_spool(chain: Chain, tmp_path: Path, **more: int) -> AuditSpool:
    return AuditSpool(journal=chain, path=tmp_path / "spool.jsonl", **more)  # type: ignore[arg-type]


def entry(subject: str) -> AuditEntry:
    return AuditEntry("bootstrap", "actor.kill", subject, None, {"reason": "a drill", "request_id": "r"})


async def spooled(spool: AuditSpool, *subjects: str) -> None:
    for subject in subjects:
        await spool.write(entry(subject), journal_away=True)


async def test_while_the_database_answers_nothing_is_written_to_the_file(tmp_path: Path) -> None:
    chain = Chain()
    await a_spool(chain, tmp_path).write(entry("a"), journal_away=False)
    assert chain.subjects == ["a"]
    assert not (tmp_path / "spool.jsonl").exists()


async def test_entries_reach_the_chain_in_order_also_those_written_while_earlier_ones_wait(
    tmp_path: Path,
) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    chain.away = True
    await spool.write(entry("a"), journal_away=False)
    chain.away = False
    await spool.write(entry("b"), journal_away=False)
    assert chain.subjects == []
    await spool.empty()
    await spool.write(entry("c"), journal_away=False)
    assert chain.subjects == ["a", "b", "c"]
    assert (spool.bytes_waiting, (tmp_path / "spool.jsonl").stat().st_size) == (0, 0)
    assert ["spooled_at" in one.details for one in chain.written] == [True, True, False]
    assert chain.written[0].details["reason"] == "a drill"


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    await spooled(a_spool(Chain(), tmp_path), "a")
    assert stat.S_IMODE((tmp_path / "spool.jsonl").stat().st_mode) == 0o600


async def test_what_waited_when_the_process_died_is_carried_by_the_next_one(tmp_path: Path) -> None:
    await spooled(a_spool(Chain(), tmp_path), "a", "b")
    chain = Chain()
    await a_spool(chain, tmp_path).empty()
    assert chain.subjects == ["a", "b"]


async def test_a_death_before_the_file_is_emptied_writes_twice_under_one_id(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a", "b")
    kept = (tmp_path / "spool.jsonl").read_bytes()
    await spool.empty()
    (tmp_path / "spool.jsonl").write_bytes(kept)
    await a_spool(chain, tmp_path).empty()
    assert chain.subjects == ["a", "b", "a", "b"]
    assert chain.written[0] == chain.written[2]
    assert chain.written[0].details["audit_id"] != chain.written[1].details["audit_id"]


async def test_an_outcome_nobody_heard_puts_the_entry_into_both_under_one_id(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    chain.unheard = 1
    await spool.write(entry("a"), journal_away=False)
    await spool.empty()
    assert chain.subjects == ["a", "a"]
    assert len({one.details["audit_id"] for one in chain.written}) == 1


async def test_a_database_that_goes_again_in_the_middle_is_waited_for_and_nothing_done_anew(
    tmp_path: Path,
) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a", "b", "c")
    chain.unheard = 2  # the first attempt hears nothing of "a"; the second one the same
    for _ in range(2):
        with pytest.raises(JournalOutcomeUnknown):
            await spool.empty()
    await spool.empty()
    assert chain.subjects == ["a", "a", "a", "b", "c"]


async def test_an_entry_written_during_the_carrying_is_not_lost(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a")
    write_through = chain.audit

    async def meanwhile(carried: AuditEntry) -> None:
        await write_through(carried)
        if carried.subject == "a":
            await spool.write(entry("b"), journal_away=False)

    chain.audit = meanwhile  # type: ignore[method-assign]
    await spool.empty()
    assert chain.subjects == ["a", "b"]
    assert spool.bytes_waiting == 0


@pytest.mark.parametrize("torn", [b'{"actor":"boot', b'{"actor":"bootstrap"}', b"\xff\xfe", b"\x00" * 40])
async def test_a_torn_last_line_is_skipped_said_and_takes_no_other_along(tmp_path: Path, torn: bytes) -> None:
    chain = Chain()
    await spooled(a_spool(chain, tmp_path), "a")
    with (tmp_path / "spool.jsonl").open("ab") as file:
        file.write(torn)
    after_the_crash = a_spool(chain, tmp_path)
    await spooled(after_the_crash, "b")
    with structlog.testing.capture_logs() as logs:
        await after_the_crash.empty()
    assert chain.subjects == ["a", "b"]
    assert [one["log_level"] for one in logs] == ["error"]


async def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path, bytes_max=600)
    await spooled(spool, "a", "b")
    with pytest.raises(Unavailable):
        await spooled(spool, "c")
    assert (tmp_path / "spool.jsonl").stat().st_size <= 600
    await spool.empty()
    await spooled(spool, "d")
    await spool.empty()
    assert chain.subjects == ["a", "b", "d"]


async def test_a_disk_that_takes_half_a_line_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a")
    before = (tmp_path / "spool.jsonl").read_bytes()
    really_write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, line: really_write(file, line[:10]))
        with pytest.raises(Unavailable):
            await spooled(spool, "b")
    assert (tmp_path / "spool.jsonl").read_bytes() == before


async def test_a_file_removed_by_hand_holds_nobody_up(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a")
    (tmp_path / "spool.jsonl").unlink()
    with trio.fail_after(5):
        await spool.empty()
    await spool.write(entry("b"), journal_away=False)
    assert chain.subjects == ["b"]


async def test_the_emptier_carries_as_soon_as_the_database_is_back(tmp_path: Path) -> None:
    chain = Chain()
    spool = a_spool(chain, tmp_path)
    await spooled(spool, "a")
    chain.away = True
    async with trio.open_nursery() as nursery:
        inbox = Inbox(Mailbox("audit-spool", letters_max=0))
        nursery.start_soon(SpoolEmptier(spool, every_s=0.001).run, inbox)
        with trio.fail_after(5):
            await chain.refused_twice.wait()
            assert chain.subjects == []
            chain.away = False
            await chain.first_written.wait()
        nursery.cancel_scope.cancel()
    assert chain.subjects == ["a"]
