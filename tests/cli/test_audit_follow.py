"""``sequencer audit follow``, ``head`` and ``compare`` as auditors use them: words, exit codes, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.conftest import API_KEY, Command, Said
from tests.client.playing import Fails, PlayedSequencer
from tests.client.watching import Auditor, Watched
from transport.client.follow_memory import history_path, read_state

ROOT = Path(__file__).resolve().parents[2]
COMMITMENTS, HEAD = "/api/v1/ves/commitments", "/api/v1/ves/head"


class Follows:
    """One auditor of the played stream, whose eleven events are committed but for the last two."""

    def __init__(self, sequencer: Command, play: PlayedSequencer, folder: Path) -> None:
        self.sequencer, self.play = sequencer, play
        self.state = folder / "state.json"
        self.grow(4)
        self.grow(5)
        play.honest.post({"n": "waits"})
        play.honest.post({"n": "waits"})
        honest = play.honest
        self.words = ["--tenant", honest.tenant_id, "--store", honest.store_id, "--state", self.state]

    def grow(self, count: int) -> None:
        for n in range(count):
            self.play.honest.post({"n": n})
        self.play.honest.commit()

    def once(self, *more: object, url: str | None = None, words: list[Any] | None = None) -> Said:
        where = ["--url", url or self.play.url, "--patience", "1"]
        return self.sequencer("audit", "follow", *(words or self.words), *where, "--once", *more)

    def lies(self) -> None:
        self.play.spoil[HEAD] = lambda answer: answer | {"head_sequence": 10}


@pytest.fixture
def follows(sequencer: Command, play: PlayedSequencer, tmp_path: Path) -> Follows:
    return Follows(sequencer, play, tmp_path)


def test_the_first_look_says_what_it_trusts_and_the_next_one_only_what_is_new(follows: Follows) -> None:
    first = follows.once()
    assert first.code == 0
    key = follows.play.well_known()["receipt_keys"][0]["public_key"]
    assert "TRUSTED ON FIRST USE" in first.err
    assert key in first.err
    assert "verified through 9 of 11, 2 commitments" in first.out
    assert "new: 2 commitments, 9 events, all signatures" in first.out
    assert "NOT verified: the numbers from 10 on, which are not committed yet" in first.out
    follows.grow(1)
    second = follows.once("--json")
    assert (second.code, second.err) == (0, "")
    told = second.json
    assert (told["ok"], told["verdict"], told["verified_through"]) == (True, "verified", 12)
    assert told["new"]["commitments"] == 1
    assert follows.play.authorizations[-1] == f"ApiKey {API_KEY}"


def test_a_contradiction_is_told_kept_and_nothing_goes_on_before_somebody_acknowledges_it(
    follows: Follows, tmp_path: Path
) -> None:
    follows.once()
    follows.lies()
    heard = tmp_path / "heard"
    lie = follows.once("--json", "--alert-command", f"tee -a {heard}")
    assert lie.code == 1
    assert (lie.json["verdict"], lie.json["ok"]) == ("contradiction", False)
    assert "CONTRADICTION head_fell: the head is 10, it was 11" in lie.err
    assert json.loads(heard.read_text()) == {
        "severity": "contradiction",
        "kind": "head_fell",
        "text": "the head is 10, it was 11: events are gone",
    }
    follows.play.spoil.clear()
    refused = follows.once()
    assert refused.code == 1
    assert "--acknowledge" in refused.err
    assert follows.play.authorizations.count(None) == 0
    again = follows.once("--acknowledge")
    assert again.code == 0
    [kept] = read_state(follows.state).findings
    assert kept.acknowledged
    assert json.loads(bytes(kept.shown))["head_sequence"] == 10


def test_what_could_not_be_looked_at_has_a_code_of_its_own_and_is_an_alert_when_it_lasts(
    follows: Follows, tmp_path: Path
) -> None:
    follows.once()
    nowhere = "http://127.0.0.1:9"
    away = follows.once("--moved", url=nowhere)
    assert away.code == 4
    assert "ALERT" not in away.err
    time.sleep(1.1)
    stale = follows.once("--moved", "--stale-after", "1", "--json", url=nowhere)
    assert stale.code == 4
    assert "ALERT stale: nothing was verified to the end for" in stale.err
    assert stale.json["verdict"] == "no_answer"
    assert follows.once("--moved").code == 0


@pytest.mark.parametrize("what", ["stream", "address", "format"])
def test_a_state_file_that_does_not_fit_is_refused_and_left(follows: Follows, what: str) -> None:
    follows.once()
    words, url = list(follows.words), None
    if what == "stream":
        words[3] = str(uuid.UUID(int=5))
    elif what == "address":
        url = follows.play.url.replace("127.0.0.1", "localhost")
    else:
        follows.state.write_bytes(
            follows.state.read_bytes().replace(b"ves-audit-follow-1", b"ves-audit-follow-0")
        )
    before = follows.state.read_bytes()
    refused = follows.once(words=words, url=url)
    assert refused.code == 2
    assert {"stream": "name another --state", "address": "say --moved", "format": "this program reads"}[
        what
    ] in (refused.err)
    assert follows.state.read_bytes() == before


def test_a_trust_file_replaces_trust_on_first_use_and_contradicts_a_wrong_pin(
    follows: Follows, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    known = follows.play.well_known()
    good.write_text(json.dumps(known))
    other = known["receipt_keys"][0] | {"public_key": "0x" + "11" * 32}
    bad.write_text(json.dumps(known | {"receipt_keys": [other]}))
    assert "TRUSTED ON FIRST USE" not in follows.once("--trust", good).err
    assert read_state(follows.state).trusted == "trust file"
    refused = follows.once("--trust", bad)
    assert refused.code == 2
    assert "one of them is wrong" in refused.err
    needs = follows.once("--trust", good, "--rpc", "http://127.0.0.1:9")
    assert needs.code == 2
    assert '--rpc needs --trust FILE with "chain_id" and "contract"' in needs.err


def test_an_anchor_that_does_not_come_is_an_alert_and_no_contradiction(follows: Follows) -> None:
    late = follows.once("--anchor-within", "60", "--json")
    assert (late.code, late.json["verdict"]) == (1, "alert")
    assert late.err.count("ALERT anchor_late") == 2
    assert follows.once().code == 0


@pytest.mark.slow
def test_killed_in_the_middle_of_any_question_it_goes_on_where_it_was(
    follows: Follows, tmp_path: Path
) -> None:
    """A process of its own, with SIGKILL, while the server lets it wait for an answer."""
    environment = os.environ | {"SEQUENCER_API_KEY": API_KEY, "XDG_CONFIG_HOME": str(tmp_path)}
    words = [str(word) for word in (*follows.words, "--url", follows.play.url, "--once")]
    for path in (HEAD, f"{COMMITMENTS}/{follows.play.honest.commitments[1]['batch_id']}/leaves"):
        before = len(follows.play.bodies[path])
        follows.play.script[path].append(Fails(hang=True))
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.main", "audit", "follow", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 30
        while len(follows.play.bodies[path]) == before and time.monotonic() < give_up:
            time.sleep(0.02)
        process.kill()
        assert process.wait(10) == -9
    done = follows.once("--json")
    assert (done.code, done.json["verified_through"]) == (0, 9)
    assert history_path(follows.state).stat().st_size == 2 * 236


# ---- two auditors ---------------------------------------------------------------------------------------


class Two:
    """Auditors who were shown two histories, which part at event 6; a third one sees what the first does."""

    def __init__(self, folder: Path) -> None:
        honest = Watched()
        other = honest.forked_from(5)
        for n in range(3):
            other.honest.post({"other": n})
        other.honest.commit()
        self.paths = {}
        for name, watched in (("one", honest), ("other", other), ("third", Watched())):
            auditor = Auditor(folder, watched, f"{name}.json")
            trio.run(auditor.looks)
            self.paths[name] = auditor.path


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_two_auditors_find_where_their_histories_part_and_what_convicts(sequencer: Command, two: Two) -> None:
    said = sequencer("audit", "compare", two.paths["one"], two.paths["other"], "--json")
    assert said.code == 1
    told = said.json
    assert (told["verdict"], told["first_difference"], told["proven"]) == ("split_view", 3, True)
    assert told["ours"]["receipt_holds"]
    assert told["theirs"]["receipt_holds"]
    assert told["ours"]["commitment"]["merkle_root"] != told["theirs"]["commitment"]["merkle_root"]
    words = sequencer("audit", "compare", two.paths["one"], two.paths["other"]).out
    assert "PROVEN: the sequencer has signed two events for number 8" in words
    # Receipts count only under our keys: somebody who made the other file up convicts nobody.
    trust = two.paths["one"].with_name("trust.json")
    known = Watched().play.well_known()
    known["receipt_keys"][0]["public_key"] = "0x" + "11" * 32
    trust.write_text(json.dumps(known))
    doubted = sequencer("audit", "compare", two.paths["one"], two.paths["other"], "--trust", trust)
    assert doubted.code == 1
    assert "does NOT hold" in doubted.out
    assert "PROVEN" not in doubted.out


def test_two_auditors_of_one_history_agree_whoever_is_ahead(sequencer: Command, two: Two) -> None:
    said = sequencer("audit", "compare", two.paths["one"], two.paths["third"], "--json")
    assert (said.code, said.json["verdict"], said.json["commitments"]) == (0, "same", 3)


def test_with_whoever_verified_nothing_yet_nobody_agrees(sequencer: Command, two: Two) -> None:
    line = two.paths["one"].with_name("line")
    stream = sequencer("audit", "head", "--state", two.paths["one"]).out.split()[1]
    zero = "0" * 64
    line.write_text(f"ves-audit-head-1 {stream} commitments=0 through=0 state_root={zero} history={zero}\n")
    said = sequencer("audit", "compare", two.paths["one"], line, "--json")
    assert (said.code, said.json["verdict"]) == (4, "too_short")


def test_a_line_is_enough_to_compare_and_an_altered_history_is_refused(sequencer: Command, two: Two) -> None:
    for name, code in (("third", 0), ("other", 1)):
        line = two.paths["one"].with_name("line")
        line.write_text(sequencer("audit", "head", "--state", two.paths[name]).out)
        assert sequencer("audit", "compare", two.paths["one"], line).code == code
    longer = line.read_text().replace("commitments=3", "commitments=4")
    line.write_text(longer)
    assert sequencer("audit", "compare", two.paths["one"], line).code == 4
    records = history_path(two.paths["third"])
    raw = records.read_bytes()
    records.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    refused = sequencer("audit", "compare", two.paths["one"], two.paths["third"])
    assert refused.code == 2
    assert "is not the one that" in refused.err
