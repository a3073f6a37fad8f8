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
from tests.auditor.audit_copy import audit_copy
from tests.auditor.honest import Honest
from tests.auditor.reading import read_export
from tests.client.playing import PlayedSequencer
from transport.client.errors import BadAnswer, Unanswered
from transport.client.export import Export, begin, begun, plan_export
from transport.client.export_check import check_export
from transport.client.export_form import DamagedExport, Plan
from transport.client.export_report import ExportReport
from transport.client.wire import ReceiptKeyName, ReceiptKeys, WellKnown, decode, encode

NOTHING: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
EVENTS = "streams/00000000-0000-0000-0000-000000000001/events-000000000001.jsonl"
LATER = "streams/00000000-0000-0000-0000-000000000001/events-000000000009.jsonl"
COMMITMENTS = "streams/00000000-0000-0000-0000-000000000001/commitments.jsonl"
PROOFS = "streams/00000000-0000-0000-0000-000000000001/validity-proofs.jsonl"
UNSIGNED = "streams/00000000-0000-0000-0000-000000000001/legacy-events-000000000001.jsonl"
UNSIGNED_COMMITMENTS = "streams/00000000-0000-0000-0000-000000000001/legacy-commitments.jsonl"
TEXTS = ('{"a":1.0,"b":[0.25,true],"ü":"ü"}', "[]", '{"n":-0.0}', '"x"', "9007199254740991", "null")
"""Unsigned payloads, as they are hashed; the last is not committed."""


class Asked:
    """The honest server, until it has answered ``answers_left`` times."""

    origin = "http://honest"

    def __init__(self, answers_left: int = 10**9) -> None:
        self.play = PlayedSequencer()
        self.play.page = 3
        self.answers_left = answers_left
        honest = self.play.honest
        for n in range(7):
            honest.post({"n": n})
        honest.commit()
        for n in range(5):
            honest.post({"n": n})
        honest.commit()
        honest.post({"n": "not committed"})
        first, second = honest.commitments
        honest.submit(first, b"a proof")
        honest.submit(first, b"one about nothing that is said", with_inputs=False)
        honest.submit(second, b"another")
        for count, text in enumerate(TEXTS):
            if count in (3, 5):
                honest.commit_unsigned()
            honest.post_unsigned(text)
        self.tenant = UUID(honest.tenant_id).bytes

    async def ask(self, method: str, path: str, *, query: dict[str, Any]) -> bytes:
        if self.answers_left == 0:
            raise Unanswered(1, "killed")
        self.answers_left -= 1
        status, answer = self.play.answer(method, f"{path}?{urlencode(query)}", b"")
        assert status == 200, path
        if path.endswith("/keys"):  # as the real one: whose key it is
            answer["keys"][0]["agentId"] = path.split("/")[4]
        return json.dumps(answer, ensure_ascii=False).encode()

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
    unsigned = (report.legacy_events, report.legacy_commitments, report.legacy_committed)
    assert unsigned == (6, 2, 5)
    assert (report.validity_proofs, report.proofs_without_inputs) == (3, 1)
    assert (report.uncommitted, report.legacy_uncommitted, report.void) == (1, 1, 0)
    for what in ("who sent them", "at one moment that no copy shows", "what they prove", "1 validity proofs"):
        assert any(what in line for line in report.not_verified), what
    root = asked.play.honest.commitments[-1]["new_state_root"]
    assert report.state_roots == {asked.play.honest.store_id: f"0x{root}"}
    assert any("1 events: not committed" in what for what in report.not_verified)
    [evidence], [copied] = read_export(tmp_path / "x")
    assert audit(evidence) + audit_copy(copied) == []
    assert (len(evidence.events), len(copied.unsigned_events), len(copied.validity_proofs)) == (13, 6, 3)
    # Nobody vouches for the keys: consistent, and no more.
    untrusted = check_export(tmp_path / "x", {}, None)
    assert untrusted.ok
    assert not untrusted.trusted


async def test_a_part_and_an_export_without_payloads_hold_too(tmp_path: Path) -> None:
    asked = await exported(tmp_path / "part", first=3, through=9)
    report = check_export(tmp_path / "part", asked.keys(), None)
    assert report.problems == []
    assert (report.events, report.commitments, report.committed) == (7, 2, 7)
    unsigned = (report.legacy_events, report.legacy_commitments, report.legacy_committed)
    assert unsigned == (4, 2, 2)
    assert any("the unsigned events 1 to 3, of which only a part" in what for what in report.not_verified)
    assert any("state root before 3" in what for what in report.not_verified)
    asked = await exported(tmp_path / "bare", with_payloads=False)
    assert b'"n"' not in b"".join(contents(tmp_path / "bare").values())
    assert b'"payload"' not in contents(tmp_path / "bare")[UNSIGNED]
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
    answers = 10**9 - whole.answers_left - 2  # without the plan's
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
        asked.answers_left = answers - killed_after + 7  # at most the file under way is asked for again
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


async def test_void_numbers_are_the_only_gaps_and_unsigned_events_alone_are_a_stream(tmp_path: Path) -> None:
    asked = Asked()
    honest = asked.play.honest
    honest.commit()
    for lost in (9, 2):  # the first is longer than a file
        honest.give_up(lost)
        honest.post({"n": "after"})
    honest.commit()
    honest.commit()
    honest.give_up(1)
    begun(tmp_path / "x")
    plan = await planned(asked)
    begin(tmp_path / "x", plan)
    await Export(tmp_path / "x", plan, asked, None).run(NOTHING)
    report = check_export(tmp_path / "x", asked.keys(), None)
    assert report.problems == []
    counted = (report.events, report.commitments, report.committed, report.uncommitted, report.void)
    assert counted == (15, 5, 15, 0, 12)
    assert any("the numbers 14 to 22 are nobody's" in what for what in report.not_verified)
    [evidence], [copied] = read_export(tmp_path / "x")
    assert audit(evidence) + audit_copy(copied) == []
    change_plan(tmp_path / "x", voided=[[14, 22], [24, 25]])
    problems = check_export(tmp_path / "x", asked.keys(), None).problems
    assert any("27 is" in p or "a gap" in p for p in problems), problems

    unsigned = Asked()
    unsigned.play.honest = Honest()
    unsigned.play.honest.post_unsigned("{}")
    plan = await planned(unsigned)
    begun(tmp_path / "unsigned")
    begin(tmp_path / "unsigned", plan)
    await Export(tmp_path / "unsigned", plan, unsigned, None).run(NOTHING)
    assert EVENTS not in contents(tmp_path / "unsigned")
    report = check_export(tmp_path / "unsigned", unsigned.keys(), None)
    assert (report.problems, report.streams, report.events, report.legacy_events) == ([], 1, 0, 1)


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


def change_plan(folder: Path, **members: Any) -> None:
    path = folder / "export.json"
    plan = json.loads(path.read_bytes())
    plan["streams"][0] |= members
    path.write_text(json.dumps(plan))


def call_it_void(folder: Path, number: int) -> None:
    """Leave an event out, and say that its number was nobody's."""
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    (folder / EVENTS).write_bytes(b"".join(lines[: number - 1] + lines[number:]))
    change_plan(folder, voided=[[number, number]])


def change_unsigned(folder: Path, number: int, **members: Any) -> None:
    event = json.loads((folder / UNSIGNED).read_bytes().splitlines()[number - 1])
    change_line(folder, UNSIGNED, number, envelope=event["envelope"] | members)


def another_payload(folder: Path) -> None:
    """With its own hash: only the commitment tells."""
    change_unsigned(folder, 2, payload=[1], payload_hash=hashlib.sha256(b"[1]").hexdigest())


def other_inputs(folder: Path) -> None:
    inputs = json.loads((folder / PROOFS).read_bytes().splitlines()[0])["public_inputs"]
    change_line(folder, PROOFS, 1, public_inputs=inputs | {"allCompliant": 1})


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
    "an event is said to be void": (lambda f: call_it_void(f, 2), f"{COMMITMENTS}:1"),
    "numbers behind the head are said to be void": (
        lambda f: change_plan(f, voided=[[14, 15]]),
        "export.json",
    ),
    "void numbers go backwards": (lambda f: change_plan(f, voided=[[3, 2]]), "export.json"),
    "an unsigned payload is changed": (lambda f: change_unsigned(f, 2, payload=[1]), f"{UNSIGNED}:2"),
    "an unsigned payload and its hash are changed": (another_payload, f"{UNSIGNED_COMMITMENTS}:1"),
    "an unsigned payload is gone": (
        lambda f: (f / UNSIGNED).write_bytes((f / UNSIGNED).read_bytes().replace(b'"payload"', b'"gone"', 1)),
        f"{UNSIGNED}:1",
    ),
    "an unsigned event has another entity": (
        lambda f: change_unsigned(f, 2, entity_id="o-9"),
        f"{UNSIGNED_COMMITMENTS}:1",
    ),
    "an unsigned event has another number": (
        lambda f: change_unsigned(f, 2, sequence_number=3),
        f"{UNSIGNED}:2",
    ),
    "an unsigned event is of another store": (
        lambda f: change_unsigned(f, 2, store_id="00000000-0000-0000-0000-000000000002"),
        f"{UNSIGNED}:2",
    ),
    "an unsigned event was earlier": (
        lambda f: change_line(f, UNSIGNED, 2, sequenced_at="2025-01-01T00:00:00Z"),
        f"{UNSIGNED}:2",
    ),
    "an unsigned event is gone": (lambda f: cut(f, UNSIGNED, 3), UNSIGNED),
    "a root over unsigned events is changed": (
        lambda f: change_line(f, UNSIGNED_COMMITMENTS, 2, events_root="11" * 32),
        f"{UNSIGNED_COMMITMENTS}:2",
    ),
    "a state root over unsigned events is changed": (
        lambda f: change_line(f, UNSIGNED_COMMITMENTS, 1, new_state_root="11" * 32),
        f"{UNSIGNED_COMMITMENTS}:2",
    ),
    "the commitments over unsigned events are gone": (
        lambda f: cut(f, UNSIGNED_COMMITMENTS, 0),
        UNSIGNED_COMMITMENTS,
    ),
    "a validity proof is changed": (lambda f: change_line(f, PROOFS, 2, proof_b64="AAAA"), f"{PROOFS}:2"),
    "a validity proof has other inputs": (other_inputs, f"{PROOFS}:1"),
    "a validity proof is about another commitment": (
        lambda f: change_line(f, PROOFS, 3, batch_id="00000000-0000-0000-0000-000000000009"),
        f"{PROOFS}:3",
    ),
    "a validity proof comes twice": (
        lambda f: change_line(f, PROOFS, 2, proof_type="type 1"),
        f"{PROOFS}:2",
    ),
    "the validity proofs are gone": (lambda f: cut(f, PROOFS, 0), PROOFS),
    "no agent's keys": (lambda f: cut(f, "agent-keys.jsonl", 0), f"{EVENTS}:1"),
}
NEEDS_THE_MANIFEST = {
    "a commitment is gone",
    "the commitments over unsigned events are gone",
    "the validity proofs are gone",
}
"""Who could rewrite everything may leave these out: then less is shown."""


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
        assert 0 in (report.committed, report.legacy_committed, report.validity_proofs)
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
