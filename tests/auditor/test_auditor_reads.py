"""The auditor over real HTTP: pages, keys, leaves, proofs, and its command's exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.auditor import reading
from tests.auditor.__main__ import main
from tests.auditor.audit import Evidence, audit
from tests.auditor.reading import Unreadable, over_http, read_stream
from tests.client.playing import Fails, PlayedSequencer, played_sequencer


@pytest.fixture
async def play() -> AsyncIterator[PlayedSequencer]:
    """Nine events, seven of them under two commitments."""
    async with played_sequencer() as playing:
        for count in (4, 3, 2):
            for total in range(count):
                playing.honest.post({"total": total})
            if count > 2:
                playing.honest.commit()
        yield playing


async def read(play: PlayedSequencer, proof_every: int = 0) -> Evidence:
    get = over_http(play.url, "ss_test")
    work = partial(read_stream, get, play.honest.tenant_id, play.honest.store_id, proof_every=proof_every)
    return await trio.to_thread.run_sync(work)


async def test_everything_is_read_page_by_page(play: PlayedSequencer) -> None:
    play.page = 2
    evidence = await read(play, proof_every=2)
    assert (len(evidence.events), evidence.head, len(evidence.commitments)) == (9, 9, 2)
    assert [proof["sequence_number"] for proof in evidence.proofs] == [1, 3, 5, 7]
    assert [len(leaves) for leaves in evidence.leaves.values()] == [4, 3]
    assert audit(evidence) == []
    assert set(play.authorizations) == {"ApiKey ss_test"}


async def test_a_page_that_makes_no_progress_is_unreadable_and_no_endless_loop(play: PlayedSequencer) -> None:
    play.spoil["/api/v1/ves/events"] = lambda page: page | {"has_more": True, "next_from": 1}
    with pytest.raises(Unreadable, match="says more follows"):
        await read(play)


async def test_an_auditor_that_asks_too_fast_waits_as_it_is_told_but_not_for_ever(
    play: PlayedSequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.script["/api/v1/ves/head"].extend([Fails(429, retry_after="0")] * 3)
    assert audit(await read(play)) == []
    monkeypatch.setattr(reading, "TOO_MANY_MAX", 2)
    play.script["/api/v1/ves/head"].extend([Fails(429, retry_after="0")] * 3)
    with pytest.raises(Unreadable, match="429"):
        await read(play)


@pytest.mark.parametrize(
    "fails", [Fails(500), Fails(200, body=b"no json"), Fails(200, body=b'{"a":1,"a":2}')]
)
async def test_what_cannot_be_read_is_said_to_be_so(play: PlayedSequencer, fails: Fails) -> None:
    play.script["/api/v1/ves/head"].append(fails)
    with pytest.raises(Unreadable, match="/api/v1/ves/head"):
        await read(play)


@pytest.mark.parametrize("lie", ["none", "payload", "receipt", "unreadable"])
async def test_the_command_says_what_it_found(
    play: PlayedSequencer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lie: str,
) -> None:
    receipts = tmp_path / "receipts.jsonl"
    kept = [{"event": event, "receipt": dict(event["receipt"])} for event in play.honest.events]
    if lie == "payload":
        play.honest.events[4]["payload"] = {"total": 8}
    if lie == "receipt":
        kept[0]["receipt"] = kept[0]["receipt"] | {"eventId": play.honest.tenant_id}
    if lie == "unreadable":
        play.script["/api/v1/ves/events"].append(Fails(401))
    receipts.write_text("\n".join(json.dumps(one) for one in kept))
    stream = ["--tenant", play.honest.tenant_id, "--store", play.honest.store_id, "--receipts", str(receipts)]
    monkeypatch.setattr(sys, "argv", ["auditor", play.url, *stream])
    code = await trio.to_thread.run_sync(main)
    said = capsys.readouterr()
    assert code == {"none": 0, "payload": 1, "receipt": 1, "unreadable": 3}[lie]
    if lie == "payload":
        assert "(number 5): the payload is not the one" in said.out
    if lie == "receipt":
        assert "is lost" in said.out
