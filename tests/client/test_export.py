"""An export: what it holds, how it goes on after a crash, and that no change to it passes.

The server is the auditor's honest one, asked in process; ``tests/e2e/test_export.py`` has the real one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from tests.auditor.audit import audit
from tests.auditor.reading import read_export
from tests.client.playing import PlayedSequencer
from transport.client.errors import BadAnswer, Unanswered
from transport.client.export import Export, begin, begun, plan_export
from transport.client.export_check import ExportReport, check_export
from transport.client.export_form import DamagedExport, Plan
from transport.client.wire import ReceiptKeyName, ReceiptKeys, WellKnown, decode, encode

NOTHING: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
EVENTS = "streams/00000000-0000-0000-0000-000000000001/events-000000000001.jsonl"
LATER = "streams/00000000-0000-0000-0000-000000000001/events-000000000009.jsonl"
COMMITMENTS = "streams/00000000-0000-0000-0000-000000000001/commitments.jsonl"


class Asked:
    """The honest server, until it has answered ``answers_left`` times."""

    origin = "http://honest"

    def __init__(self, answers_left: int = 10**9) -> None:
        self.play = PlayedSequencer()
        self.play.page = 3
        self.answers_left = answers_left
        for n in range(7):
            self.play.honest.post({"n": n})
        self.play.honest.commit()
        for n in range(5):
            self.play.honest.post({"n": n})
        self.play.honest.commit()
        self.play.honest.post({"n": "not committed"})
        self.tenant = UUID(self.play.honest.tenant_id).bytes

    async def ask(self, method: str, path: str, *, query: dict[str, Any]) -> bytes:
        if self.answers_left == 0:
            raise Unanswered(1, "killed")
        self.answers_left -= 1
        status, answer = self.play.answer(method, f"{path}?{urlencode(query)}", b"")
        assert status == 200, path
        if path.endswith("/keys"):  # as the real one: whose key it is
            answer["keys"][0]["agentId"] = path.split("/")[4]
        return json.dumps(answer).encode()

    def keys(self) -> ReceiptKeys:
        return decode(encode(self.play.well_known()), WellKnown, "").keys()


async def planned(asked: Asked, **more: Any) -> Plan:
    wishes = {"store_id": None, "first": None, "through": None, "with_payloads": True, "with_admin": False}
    plan = await plan_export(asked, asked.tenant, **(wishes | more))
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    return Plan(**fields | {"file_events": 4})


async def exported(folder: Path, **more: Any) -> Asked:
    asked = Asked()
    plan = await planned(asked, **more)
    assert begun(folder) is None
    begin(folder, plan)
    await Export(folder, plan, asked, None).run(NOTHING)
    return asked


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in ("export.json", "manifest.json")
    }


async def test_an_export_holds_and_says_what_it_does_not_show(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "x")
    report = check_export(tmp_path / "x", asked.keys(), None)
    assert report.problems == []
    assert report.trusted
    counted = (report.streams, report.events, report.receipts, report.commitments, report.committed)
    assert counted == (1, 13, 13, 2, 12)
    assert report.uncommitted == 1
    root = asked.play.honest.commitments[-1]["new_state_root"]
    assert report.state_roots == {asked.play.honest.store_id: f"0x{root}"}
    assert any("1 events: not committed" in what for what in report.not_verified)
    [evidence] = read_export(tmp_path / "x")
    assert audit(evidence) == []
    assert len(evidence.events) == 13
    # Nobody vouches for the keys: consistent, and no more.
    untrusted = check_export(tmp_path / "x", {}, None)
    assert untrusted.ok
    assert not untrusted.trusted


async def test_a_part_and_an_export_without_payloads_hold_too(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "part", first=3, through=9)
    report = check_export(tmp_path / "part", asked.keys(), None)
    assert report.problems == []
    assert (report.events, report.commitments, report.committed) == (7, 2, 7)
    assert any("state root before 3" in what for what in report.not_verified)
    asked = await exported(tmp_path / "bare", with_payloads=False)
    assert b'"n"' not in b"".join(contents(tmp_path / "bare").values())
    report = check_export(tmp_path / "bare", asked.keys(), None)
    assert report.problems == []
    assert report.receipts == 13
    change_line(tmp_path / "bare", EVENTS, 1, event_type="forged")
    renew_manifest(tmp_path / "bare")
    problems = check_export(tmp_path / "bare", asked.keys(), None).problems
    assert any("agent's key did not sign" in p for p in problems), problems


async def test_a_killed_export_goes_on_and_becomes_what_it_would_have_been(tmp_path: Path) -> None:
    whole = await exported(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    answers = 10**9 - whole.answers_left - 1
    assert answers > 10
    for killed_after in range(answers):
        folder = tmp_path / str(killed_after)
        asked = Asked()
        plan = await planned(asked)
        assert begun(folder) is None
        begin(folder, plan)
        asked.answers_left = killed_after
        with pytest.raises(Unanswered):
            await Export(folder, plan, asked, None).run(NOTHING)
        with pytest.raises(DamagedExport, match="not finished"):
            check_export(folder, asked.keys(), None)
        asked.play.honest.post({"n": "came later"})  # and is not part of it
        asked.play.honest.commit()
        asked.answers_left = answers - killed_after + 3  # at most the file under way is asked for again
        assert begun(folder) == plan
        await Export(folder, plan, asked, None).run(NOTHING)
        assert contents(folder) == expected


async def test_progress_that_was_cut_or_changed_is_noticed(tmp_path: Path) -> None:
    asked = Asked()
    plan = await planned(asked)
    begun(tmp_path / "x")
    begin(tmp_path / "x", plan)
    asked.answers_left = 6
    with pytest.raises(Unanswered):
        await Export(tmp_path / "x", plan, asked, None).run(NOTHING)
    asked.answers_left = 1000
    with (tmp_path / "x" / "progress.jsonl").open("ab") as progress:
        progress.write(b'{"file": "cut')
    shutil.copytree(tmp_path / "x", tmp_path / "changed")
    await Export(tmp_path / "x", plan, asked, None).run(NOTHING)
    assert check_export(tmp_path / "x", asked.keys(), None).ok
    (tmp_path / "changed" / "schemas.jsonl").write_text("{}\n")
    with pytest.raises(DamagedExport, match=r"schemas.jsonl was changed"):
        await Export(tmp_path / "changed", plan, asked, None).run(NOTHING)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("x")
    with pytest.raises(DamagedExport, match="holds other things"):
        begun(tmp_path / "other")


async def test_a_server_that_leaves_an_event_out_gets_no_export_of_it(tmp_path: Path) -> None:
    asked = Asked()
    plan = await planned(asked)
    begun(tmp_path / "x")
    begin(tmp_path / "x", plan)
    del asked.play.honest.events[5]
    with pytest.raises(BadAnswer, match="number 6 was due"):
        await Export(tmp_path / "x", plan, asked, None).run(NOTHING)


async def test_a_store_of_no_name_is_no_folder(tmp_path: Path) -> None:
    asked = Asked()
    asked.play.honest.store_id = "../../up"
    with pytest.raises(BadAnswer):
        await planned(asked)


# ---- lies ---------------------------------------------------------------------------------------------


def renew_manifest(folder: Path) -> None:
    """What whoever changes a file would do next."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for entry in manifest["files"]:
        file = folder / entry["file"]
        if file.exists():
            raw = file.read_bytes()
            entry |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw), "lines": raw.count(b"\n")}
    manifest["plan_sha256"] = hashlib.sha256((folder / "export.json").read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def change_line(folder: Path, name: str, number: int, **members: Any) -> None:
    lines = (folder / name).read_bytes().splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **members}).encode()
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")


def swap_lines(folder: Path) -> None:
    lines = (folder / EVENTS).read_bytes().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    (folder / EVENTS).write_bytes(b"\n".join(lines) + b"\n")


def cut(folder: Path, name: str, lines: int) -> None:
    (folder / name).write_bytes(b"".join((folder / name).read_bytes().splitlines(keepends=True)[:lines]))


def shorten_plan(folder: Path) -> None:
    """Pretend the stream ended before its last commitment's end."""
    path = folder / "export.json"
    plan = json.loads(path.read_bytes())
    plan["streams"][0] |= {"through": 8, "head_sequence": 8}
    path.write_text(json.dumps(plan))
    for n in (9, 13):
        (folder / EVENTS.replace("000001.jsonl", f"{n:06d}.jsonl")).unlink()


def leaf_of_nothing(folder: Path) -> None:
    leaves = json.loads((folder / COMMITMENTS).read_bytes().splitlines()[0])["leaf_hashes"]
    change_line(folder, COMMITMENTS, 1, leaf_hashes=["00" * 32, *leaves[1:]])


LIES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an event is changed": (lambda f: change_line(f, EVENTS, 2, event_type="forged"), f"{EVENTS}:2"),
    "a payload is changed": (lambda f: change_line(f, EVENTS, 2, payload={"n": 99}), f"{EVENTS}:2"),
    "two events are swapped": (swap_lines, f"{EVENTS}:2"),
    "the last event of a file is gone": (lambda f: cut(f, EVENTS, 3), EVENTS),
    "a line is cut": (lambda f: (f / EVENTS).write_bytes((f / EVENTS).read_bytes()[:-9]), EVENTS),
    "a file is gone": (lambda f: (f / LATER).unlink(), LATER),
    "a file is empty": (lambda f: (f / LATER).write_bytes(b""), LATER),
    "a file too many": (lambda f: (f / "streams" / "more.txt").write_text("x"), "streams/more.txt"),
    "a commitment is gone": (lambda f: cut(f, COMMITMENTS, 0), COMMITMENTS),
    "a root is changed": (
        lambda f: change_line(f, COMMITMENTS, 1, merkle_root="11" * 32),
        f"{COMMITMENTS}:1",
    ),
    "a state root is changed": (
        lambda f: change_line(f, COMMITMENTS, 2, prev_state_root="11" * 32),
        f"{COMMITMENTS}:2",
    ),
    "a leaf is changed": (leaf_of_nothing, f"{COMMITMENTS}:1"),
    "another receipt key": (
        lambda f: (f / "sequencer.json").write_bytes(
            (f / "sequencer.json").read_bytes().replace(b'"public_key": "0x', b'"public_key": "0x00', 1)
        ),
        "sequencer.json",
    ),
    "another agent's key": (
        lambda f: change_line(f, "agent-keys.jsonl", 1, publicKey="0x" + "22" * 32),
        f"{EVENTS}:1",
    ),
    "no agent's keys": (lambda f: cut(f, "agent-keys.jsonl", 0), f"{EVENTS}:1"),
}
NEEDS_THE_MANIFEST = {"a commitment is gone"}
"""Who could rewrite everything may leave commitments out: then nothing is shown to be committed."""


@pytest.mark.parametrize("forger", ["clumsy", "diligent"])
@pytest.mark.parametrize("lie", LIES)
async def test_no_change_passes_and_its_place_is_named(tmp_path: Path, lie: str, forger: str) -> None:
    asked = await exported(tmp_path / "x")
    spoil, place = LIES[lie]
    spoil(tmp_path / "x")
    if forger == "diligent":
        renew_manifest(tmp_path / "x")
    report = check_export(tmp_path / "x", asked.keys(), None)
    if forger == "diligent" and lie in NEEDS_THE_MANIFEST:
        assert report.committed == 0
        return
    assert not report.ok
    where = [problem for problem in report.problems if problem.startswith(place)]
    assert where or forger == "clumsy", report.problems


async def test_a_shortened_export_shows_by_its_commitments(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "x")
    shorten_plan(tmp_path / "x")
    path = tmp_path / "x" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"] = [e for e in manifest["files"] if (tmp_path / "x" / e["file"]).exists()]
    path.write_text(json.dumps(manifest))
    renew_manifest(tmp_path / "x")
    report = check_export(tmp_path / "x", asked.keys(), None)
    assert any("reaches beyond the head" in problem for problem in report.problems), report.problems


async def test_a_trusted_key_that_is_another_is_told(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "x")
    [name] = asked.keys()
    report = check_export(tmp_path / "x", {ReceiptKeyName(*name): b"\x11" * 32}, None)
    assert [p for p in report.problems if p.startswith("sequencer.json")]


def test_a_report_keeps_a_hundred_problems_and_counts_all() -> None:
    report = ExportReport()
    for n in range(150):
        report.say("here", str(n))
    assert (len(report.problems), report.problems_found, report.ok) == (100, 150, False)


async def test_a_strangers_plan_costs_the_verifier_nothing(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "x")
    plan = json.loads((tmp_path / "x" / "export.json").read_text())
    plan["streams"][0]["through"] = plan["streams"][0]["head_sequence"] = 10**15
    (tmp_path / "x" / "export.json").write_text(json.dumps(plan))
    with pytest.raises(DamagedExport, match="it demands 250000000000001 files"):
        check_export(tmp_path / "x", asked.keys(), None)
    (tmp_path / "x" / "export.json").unlink()
    (tmp_path / "x" / "export.json").symlink_to("/dev/zero")
    with pytest.raises(DamagedExport, match="symbolic link"):
        check_export(tmp_path / "x", asked.keys(), None)


async def test_payloads_in_an_export_are_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0o755)  # made before, open to others
    await exported(tmp_path / "x")
    files = [path for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
