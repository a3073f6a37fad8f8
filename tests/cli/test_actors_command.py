"""``sequencer actors`` against a served house with a living tree: what it shows and does, how it fails."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import structlog
import trio

from actors.errors import OutcomeUnknown
from actors.messages import FindKeys
from actors.views import ActorView, MailboxView
from tests.cli.conftest import Command, Said
from tests.http.doubles import BOOTSTRAP, Cardboard, serving
from tests.http.living import CANARY, LivingHouse
from transport.cli.top import Picture, Sample
from transport.cli.tree_view import duration
from transport.http.shapes import ActorsReply

WHY = ("--reason", "a drill")


class Played(NamedTuple):
    house: Cardboard
    lives: LivingHouse
    token: trio.lowlevel.TrioToken
    stop: trio.Event

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return trio.from_thread.run(work, *arguments, trio_token=self.token)


@pytest.fixture
def played() -> Iterator[Played]:
    """The house in a thread of its own, for the command brings its own event loop."""
    started: list[Played] = []
    up = threading.Event()

    async def live() -> None:
        lives = LivingHouse()
        async with serving(root=lives.root) as house, trio.open_nursery() as nursery:
            await nursery.start(lives.root.run)
            started.append(Played(house, lives, trio.lowlevel.current_trio_token(), trio.Event()))
            up.set()
            await started[0].stop.wait()
            lives.root.stop()

    # The server's log and the command's output would come out of one mouth.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    thread = threading.Thread(target=trio.run, args=(live,))
    thread.start()
    assert up.wait(5)
    yield started[0]
    structlog.reset_defaults()
    trio.from_thread.run_sync(started[0].stop.set, trio_token=started[0].token)
    thread.join(10)
    assert not thread.is_alive()


Actors = Callable[..., Said]


@pytest.fixture
def actors(played: Played, sequencer: Command, monkeypatch: pytest.MonkeyPatch) -> Actors:
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", BOOTSTRAP)
    monkeypatch.setenv("SEQUENCER_ADMIN_URL", played.house.admin_url)
    return lambda *arguments: sequencer("actors", *arguments)


def until(actors: Actors, path: str, state: str) -> dict[str, Any]:
    give_up = time.monotonic() + 5
    while True:
        tree = dict(actors("tree", path, "--json").json["tree"])
        if tree["state"] == state:
            return tree
        assert time.monotonic() < give_up, tree


# Looking.


def test_the_tree_is_a_line_for_each_inhabitant_tenants_up_to_the_number_asked_for(
    played: Played, actors: Actors
) -> None:
    async def touch(n: int) -> None:
        await played.lives.tenants.ref(f"tenant-{n}").ask(FindKeys([]), deadline_s=5)

    for n in range(4):
        played.run(touch, n)
    shown = actors("tree", "--children", 3)
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0][:6] == ["actor", "state", "life", "uptime", "wait/peak/max", "handled"]
    names = [line[0] for line in lines[1:]]
    assert names == ["house", "keys", "watch", "tenants", "tenant-0", "tenant-1", "tenant-2", "(1"]
    assert lines[2][1:3] == ["running", "1"]
    part = actors("tree", "house/tenants/tenant-2").out.splitlines()
    assert len(part) == 2
    assert part[1].startswith("tenant-2  running")
    assert actors("tree", "--json").json["tree"]["path"] == "house"


def test_tenants_are_ordered_as_asked(played: Played, actors: Actors) -> None:
    assert "no tenant" in actors("tenants").out

    async def touch(n: int) -> None:
        for _ in range(n):
            await played.lives.tenants.ref(f"tenant-{n}").ask(FindKeys([]), deadline_s=5)

    for n in (1, 3, 2):
        played.run(touch, n)
    shown = actors("tenants", "--order", "handled", "--limit", 2)
    assert [line.split()[0] for line in shown.out.splitlines()] == ["tenant", "tenant-3", "tenant-2"]
    assert [one["name"] for one in actors("tenants", "--order", "handled", "--json").json["tenants"]] == [
        "tenant-3",
        "tenant-2",
        "tenant-1",
    ]


def test_top_once_shows_readiness_lag_dead_letters_and_rates(played: Played, actors: Actors) -> None:
    played.house.readiness.wait_for("operator", "drained or suspended: house/keys")
    played.house.house.lag.beat(0.0123)
    played.house.house.lag.last_hog = "house/keys at /usr/lib/python/site-packages/slow/work.py:7 grind"
    shown = actors("top", "--once", "--interval", 0.1)
    assert shown.code == 0, shown
    head = shown.out.splitlines()
    assert head[0].startswith("NOT READY   loop lag 12.3 ms (peak 12.3 ms)   dead letters 0")
    assert head[1] == "waits for operator: drained or suspended: house/keys"
    assert head[2] == "last held the loop: house/keys at slow/work.py:7 grind"
    keys = next(line for line in head if line.startswith("  keys"))
    assert "0.0" in keys.split()
    framed = actors("top", "--once", "--interval", 0.1, "--json").json
    assert framed["ok"]
    assert framed["handled_per_s"]["house/keys"] == 0.0


def test_rates_come_from_two_samples_and_leave_out_who_was_away_in_between() -> None:
    def sample(at: float, **handled: int) -> Sample:
        box = MailboxView(0, 0, 9, 0, 0, 0)
        children = [
            ActorView(f"house/{name}", name, "actor", "running", 1, 1.0, n, 0, None, box, [])
            for name, n in handled.items()
        ]
        house = ActorView("house", "house", "supervisor", "running", 1, 1.0, 0, 0, None, None, children)
        return Sample(at, ActorsReply(house, [], 0, {}, 0.0, 0.0, None, 0))

    picture = Picture().with_sample(sample(10.0, busy=100, back=50))
    assert picture.rates() == {}
    picture = picture.with_sample(sample(12.0, busy=150, back=3, new=7))
    assert picture.rates() == {"house": 0.0, "house/busy": 25.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (3600, "1h00m"), (11_220, "3h07m"), (439_200, "5d02h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_top_on_a_terminal_draws_anew_and_q_leaves_it_as_it_was(played: Played) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    before = termios.tcgetattr(theirs)
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
        "BOOTSTRAP_ADMIN_API_KEY": BOOTSTRAP,
        "SEQUENCER_ADMIN_URL": played.house.admin_url,
        "TERM": "xterm",
    }
    top = subprocess.Popen(
        [sys.executable, "-m", "supervisor.main", "actors", "top", "--interval", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    try:
        seen = _read_until(ours, lambda text: text.count(b"dead letters 0") >= 2)
        assert b"house" in seen
        os.write(ours, b"q")
        rest = _read_until(ours, lambda text: b"\x1b[?1049l" in text)
        assert b"Traceback" not in seen + rest
        assert top.wait(10) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        top.kill()
        top.wait(5)
        os.close(ours)
        os.close(theirs)


def _read_until(terminal: int, enough: Callable[[bytes], bool], deadline_s: float = 15) -> bytes:
    text, give_up = b"", time.monotonic() + deadline_s
    while not enough(text):
        readable, _, _ = select.select([terminal], [], [], max(0.0, give_up - time.monotonic()))
        assert readable, text
        text += os.read(terminal, 65536)
    return text


# Acting.


def test_each_act_says_what_it_found_and_left(played: Played, actors: Actors) -> None:
    killed = actors("kill", "house/keys", *WHY)
    assert killed.code == 0
    assert killed.out.startswith("house/keys: life 1 ended, killed (a drill); now ")
    until(actors, "house/keys", "running")
    drained = actors("drain", "house/keys", *WHY).out
    assert "now drained, takes nothing until restarted" in drained
    assert actors("restart", "house/keys", *WHY, "--json").json["ok"]
    assert until(actors, "house/keys", "running")["incarnation"] == 3
    assert "now suspended, takes nothing until resumed" in actors("suspend", "house/keys", *WHY).out
    assert "now running (life 3)" in actors("resume", "house/keys", *WHY).out
    done = [entry.action for entry in played.house.journal.audits if entry.action.startswith("actor.")]
    assert done == ["actor.kill", "actor.drain", "actor.restart", "actor.suspend", "actor.resume"]


def test_what_cannot_be_done_is_one_readable_line_and_exit_1(actors: Actors) -> None:
    nobody = actors("kill", "house/nobody", *WHY)
    assert (nobody.code, nobody.out) == (1, "")
    assert "house has no child nobody" in nobody.err
    assert len(nobody.err.splitlines()) == 1
    refused = actors("suspend", "house/watch", *WHY, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (1, "CONFLICT")


def test_a_wrong_key_is_said_at_once(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTSTRAP_ADMIN_API_KEY", "ss_" + "x" * 32)
    for command in (("tree",), ("top", "--once"), ("kill", "house/keys", *WHY)):
        said = actors(*command)
        assert said.code == 1, command
        assert "INVALID_API_KEY" in said.err


def test_an_act_without_a_reason_is_not_sent(played: Played, actors: Actors) -> None:
    assert actors("kill", "house/keys").code != 0
    assert played.house.journal.audits == []


def test_a_kill_of_unknown_outcome_is_not_sent_again_but_a_drain_is(
    played: Played, actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unheard(*_: object, **__: object) -> None:
        raise OutcomeUnknown("nobody knows")

    monkeypatch.setattr(played.house.house.overseer, "act", unheard)
    for action in ("kill", "drain"):
        assert actors(action, "house/keys", *WHY, "--patience", 4).code == 4
    sent = [entry.action for entry in played.house.journal.audits]
    assert sent.count("actor.kill") == 1
    assert sent.count("actor.drain") > 1


def test_without_a_server_the_command_says_so(sequencer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQUENCER_ADMIN_URL", "http://127.0.0.1:9")
    said = sequencer("actors", "tree", "--patience", 0.2)
    assert said.code == 4
    assert "ConnectError" in said.err
    assert sequencer("actors", "top", "--once").code == 4


# Dead letters.


def test_dead_letters_are_listed_shown_dropped_and_resent_without_their_content(
    played: Played, actors: Actors
) -> None:
    assert "there is no dead letter" in actors("dead-letters", "list").out
    played.run(played.lives.bury_one)
    listed, shown = actors("dead-letters", "list"), actors("dead-letters", "show", 1)
    assert "FindKeys to keys" in listed.out
    assert "FindKeys to keys" in shown.out
    assert "2 lives cost" in shown.out
    for said in (listed, shown, actors("dead-letters", "show", 1, "--json")):
        assert CANARY.decode()[:16] not in said.out
        assert CANARY[:16].hex() not in said.out
    again = actors("dead-letters", "resend", 1)
    assert again.code == 1
    assert "was not answered: Poisoned" in again.out
    trio.from_thread.run_sync(played.lives.cure, trio_token=played.token)
    assert "dead letter 1 was answered" in actors("dead-letters", "resend", 1).out
    assert actors("dead-letters", "show", 1).code == 1
    played.lives.cured = False
    played.run(played.lives.bury_one)
    dropped = actors("dead-letters", "drop", 2, "--json")
    assert (dropped.code, dropped.json["id"]) == (0, 2)
    assert actors("dead-letters", "list", "--json").json["dead_letters"] == []


def test_json_is_one_object(actors: Actors) -> None:
    for arguments in (("tree",), ("tenants",), ("dead-letters", "list")):
        said = actors(*arguments, "--json")
        assert json.loads(said.out)["ok"] is True
        assert said.out.count("\n") == 1
