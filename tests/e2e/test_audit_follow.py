"""An auditor follows a stream of a real server, a liar stands between them, and a real chain is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from journal.embedded import embedded_dsn
from tests.anvil import CHAIN_ID, anvil
from tests.e2e.liar import Change, Liar
from tests.e2e.world import Server, Tenant
from tests.evidence.by_hand import ByHand
from tests.sweeps import some_or_all
from transport.client.wire import WireCommitment, decode
from ves.encoding import prefixed_hex

EVENTS, COMMITMENTS = "/api/v1/ves/events", "/api/v1/ves/commitments"
WELL_KNOWN, HEAD = "/.well-known/ves-sequencer", "/api/v1/ves/head"
OTHER_HASH = "ab" * 32


class Found(NamedTuple):
    code: int
    told: dict[str, Any]
    err: str


class Watch:
    """A tenant's stream with two commitments, and an auditor who looks at it through the liar."""

    def __init__(self, server: Server, liar: Liar, folder: Path) -> None:
        self.server, self.liar, self.folder = server, liar, folder
        self.tenant = Tenant(server)
        self.key, self.state, self.trust = (folder / name for name in ("key", "state.json", "trust.json"))
        reader = self.tenant.new_api_key(["read"])
        self.key.write_text(reader)
        self.batches = [self.grows(5), self.grows(3)]

    def grows(self, count: int) -> str:
        posted = self.tenant.post(*(self.tenant.agent.event({"n": n}) for n in range(count)))
        assert posted.status_code == 200, posted.text
        answer = self.tenant.http.post(COMMITMENTS, json=self.tenant.stream)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["batch_id"])

    def looks(self, *more: str) -> Found:
        stream = ["--tenant", str(self.tenant.tenant_id), "--store", str(self.tenant.store_id)]
        where = ["--url", self.liar.url, "--api-key-file", str(self.key), "--state", str(self.state)]
        pins = ["--pins", str(self.folder / "pins.json"), "--patience", "10"]
        done = self.server.command("audit", "follow", *stream, *where, *pins, "--once", "--json", *more)
        assert "Traceback" not in done.stderr, done.stderr
        return Found(done.returncode, json.loads(done.stdout or "null"), done.stderr)

    def verified(self) -> None:
        found = self.looks()
        assert (found.code, found.told["verified_through"]) == (0, 8), found.err

    def findings(self) -> list[dict[str, Any]]:
        return list(json.loads(self.state.read_bytes())["findings"])


@pytest.fixture
def watch(server: Server, tmp_path: Path) -> Iterator[Watch]:
    with Liar(server.url).running() as liar:
        yield Watch(server, liar, tmp_path)


def test_an_auditor_follows_a_real_stream_and_stops_at_a_lie(watch: Watch) -> None:
    first = watch.looks()
    assert first.code == 0, first.err
    assert "TRUSTED ON FIRST USE" in first.err
    assert (first.told["new"]["events"], first.told["new"]["signatures"]) == (8, 8)
    watch.grows(4)
    watch.liar.changes[COMMITMENTS] = on_first(merkle_root=OTHER_HASH)
    lie = watch.looks()
    assert lie.code == 1, lie.err
    assert "CONTRADICTION commitment_changed" in lie.err
    [kept] = watch.findings()
    assert kept["shown"]["merkle_root"] == OTHER_HASH != kept["verified"]["merkle_root"]
    assert kept["verified"]["last_receipt"]["sequence_number"] in (5, 8)


def on_first(**members: Any) -> Change:
    def page(answer: Any) -> Any:
        answer["commitments"][0] |= members
        return answer

    return page


def on_last_event(change: Change) -> Change:
    return lambda answer: answer | {"events": [*answer["events"][:-1], *change(answer["events"][-1])]}


def with_another_key(answer: Any) -> Any:
    answer["receipt_keys"][0]["public_key"] = "0x" + "11" * 32
    return answer


def forked(answer: Any) -> Any:
    return answer | {"commitments": [one | {"prev_state_root": OTHER_HASH} for one in answer["commitments"]]}


LIES: dict[str, tuple[str, str, Change]] = {
    "rolls the head back": ("head_fell", HEAD, lambda a: a | {"head_sequence": 7}),
    "swaps keys": ("receipt_keys", WELL_KNOWN, with_another_key),
    "forks the stream": ("commitment_changed", COMMITMENTS, forked),
    "drops an event": ("event_missing", EVENTS, on_last_event(lambda e: [])),
    "reuses a number": (
        "number_reused",
        EVENTS,
        on_last_event(lambda e: [e | {"sequence_number": e["sequence_number"] - 1}]),
    ),
    "changes an event": ("event_changed", EVENTS, on_last_event(lambda e: [e | {"entity_id": "x"}])),
    "takes the commitments away": ("commitment_gone", COMMITMENTS, lambda a: a | {"commitments": []}),
}


@pytest.mark.slow
@pytest.mark.parametrize("lies", some_or_all(["drops an event"], list(LIES)))
def test_each_lie_of_the_one_between_is_named(watch: Watch, lies: list[str]) -> None:
    watch.verified()
    watch.grows(4)
    files = [watch.state, watch.state.with_name("state.json.history")]
    before = [file.read_bytes() for file in files]
    for lie in lies:
        for file, content in zip(files, before, strict=True):
            file.write_bytes(content)
        kind, path, change = LIES[lie]
        watch.liar.changes = {path: change}
        found = watch.looks()
        assert (found.code, [one["kind"] for one in watch.findings()]) == (1, [kind]), found.err
    watch.liar.changes.clear()
    after = watch.looks("--acknowledge")
    assert (after.code, after.told["verified_through"]) == (0, 12), after.err


@pytest.mark.slow
def test_the_chain_says_whether_what_is_called_final_is_there(watch: Watch, server: Server) -> None:
    with anvil() as chain:
        hand = ByHand(chain, embedded_dsn(server.data_dir, anchor=True))
        shown = watch.tenant.http.get(f"{COMMITMENTS}/{watch.batches[0]}", params=watch.tenant.stream)
        hand.anchor([decode(shown.content, WireCommitment, "commitment").commitment()])
        keys = httpx.get(server.url + WELL_KNOWN).json()
        watch.trust.write_text(
            json.dumps(keys | {"chain_id": CHAIN_ID, "contract": prefixed_hex(hand.contract)})
        )
        rpc = ("--trust", str(watch.trust), "--rpc", chain.url)
        found = watch.looks(*rpc)
        assert (found.code, found.told["new"]["on_chain"]) == (0, 0), (
            "it is in a block, nobody calls it final"
        )
        fork = chain.rpc("evm_snapshot")
        chain.mine(10)
        watch.liar.changes[COMMITMENTS] = final
        found = watch.looks(*rpc)
        assert (found.code, found.told["finalized_commitments"]) == (0, 1), found.err
        assert found.told["new"]["on_chain"] == 1
        # The chain took it back, and the server goes on calling it final: a new auditor asks the chain.
        assert chain.rpc("evm_revert", fork)
        chain.rpc("anvil_reorg", 1, [])
        watch.state = watch.folder / "another.json"
        found = watch.looks(*rpc)
        assert (found.code, [one["kind"] for one in watch.findings()]) == (1, ["chain_differs"]), found.err
        assert "block_canonical" in found.err
        [kept] = watch.findings()
        assert kept["shown"]["anchor"]["transaction_hash"]


def final(answer: Any) -> Any:
    for one in answer["commitments"]:
        if one["anchor"] is not None:
            one["anchor"]["state"] = "finalized"
    return answer
