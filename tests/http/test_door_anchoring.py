"""Anchoring at the door: what is answered in which state, that nothing says more than it proves, waits."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import httpx
import pytest
import trio

from actors.anchor_vitals import Anchoring
from actors.chain import ChainAway, ChainLies, ChainNotOurs
from actors.messages import Commit, Committed, RangeRefused
from journal.port import AuditEntry
from tests.http import anchors
from tests.http.anchors import BLOCK, BLOCK_HASH, CHAIN_ID, CONTRACT, GAS_PRICE, GAS_USED, TX_HASH, paper
from tests.http.doubles import (
    BOOTSTRAP,
    OTHER_STORE,
    OTHER_TENANT,
    STREAM,
    TENANT,
    Cardboard,
    serving,
    stored,
)
from transport.http.anchor_waits import WAITERS_OF_TENANT_MAX
from ves.records import Commitment

ASK = "/api/v1/ves/anchor"
COMMIT = "/api/v1/ves/commitments/anchor"
STATUS = "/api/v1/anchor/status"
SECRET = "https://secret-address/provider-key"


def leaves(count: int = 3) -> list[bytes]:
    return [sha256(b"%d" % n).digest() for n in range(count)]


def name(commitment: Commitment) -> str:
    return str(uuid.UUID(bytes=commitment.batch_id))


@asynccontextmanager
async def anchored(
    *, anchoring: Anchoring | None = None, role: str = "anchor", **settings: Any
) -> AsyncIterator[tuple[Cardboard, httpx.AsyncClient, Commitment]]:
    """A house that anchors, a caller, and a commitment that waits."""
    settings = {"request_timeout_secs": 5.0, "anchor_wait_secs": 0} | settings
    house = Cardboard(settings, anchoring=anchoring or anchors.anchoring())
    async with serving(house=house), house.client(house.api_key(role=role)) as client:
        yield house, client, house.journal.commit(leaves(), 1)


# Off.


async def test_without_an_anchor_it_is_said_and_nothing_is_done() -> None:
    async with serving() as house, house.client(house.api_key(role="admin")) as client:
        one = name(house.journal.commit(leaves(), 1))
        for answer in (
            await client.post(ASK, json={"batch_id": one}),
            await client.post(COMMIT, json=STREAM),
            await client.get(f"{ASK}/{one}/verify"),
        ):
            assert (answer.status_code, answer.headers["x-error-code"]) == (503, "ANCHOR_NOT_CONFIGURED")
            assert answer.json()["message"] == "Anchor service not configured"
            assert answer.json()["error"]["numeric_code"] == 9001
        assert not house.journal.anchors.requests
        assert not house.committer.asked
        told = (await client.get(STATUS)).json()
        assert told["anchor_enabled"] is False
        assert told["message"] == (
            "Anchor service not configured. Set L2_RPC_URL, SET_REGISTRY_ADDRESS, SEQUENCER_PRIVATE_KEY"
        )


# How it stands.


async def test_a_tenant_sees_the_chain_and_nothing_of_others_and_the_operator_sees_all() -> None:
    async with anchored(role="reader") as (house, client, one):
        anchors.planned(house.journal.anchors, one)
        told = (await client.get(STATUS)).json()
        assert told["anchor_enabled"] is True
        assert told["message"] == "Anchor service is configured and ready"
        assert (told["chain_id"], told["contract"]) == (CHAIN_ID, "0x" + CONTRACT.hex())
        assert (told["road"], told["finality"]) == ("aggregate", "the chain's finalized tag")
        assert (told["local_chain"], told["local_chain_note"], told["node"]) == (False, None, None)
        async with house.client(BOOTSTRAP) as operator:
            node = (await operator.get(STATUS)).json()["node"]
        assert (node["role"], node["waiting"], node["open_anchors"]["pending"]) == ("active", 0, 1)
        assert node["oldest_unfinalized_s"] == 99.877
        assert node["balance_wei"] == "1000000000000000000"


async def test_a_stopped_anchor_is_not_called_ready_and_a_local_chain_is_called_local() -> None:
    async with anchored(
        anchoring=anchors.anchoring(development_url="http://127.0.0.1:8545"), role="reader"
    ) as (house, client, one):
        assert house.anchoring is not None
        house.anchoring.vitals.trouble = "chain away: nobody answers"
        told = (await client.get(STATUS)).json()
        assert told["message"] == "Anchor service is configured; commitments wait until it can go on"
        house.anchoring.vitals.role = "stopped"
        told = (await client.get(STATUS)).json()
        assert (
            told["message"]
            == "Anchor service is configured; it waits for an operator and anchors nothing now"
        )
        assert told["local_chain"] is True
        assert "no third party witnesses it" in told["local_chain_note"]
        anchors.planned(house.journal.anchors, one)
        commitment = (await client.get(f"/api/v1/ves/commitments/{name(one)}")).json()
        assert commitment["anchor"]["local_chain"] is True


# Asking.


async def test_what_waits_is_asked_for_once_and_answered_with_202() -> None:
    async with anchored() as (house, client, one):
        for _ in range(2):
            answer = await client.post(ASK, json={"batch_id": name(one)})
            assert answer.status_code == 202, answer.text
            assert answer.headers["retry-after"] == "5"
            told = answer.json()
            assert (told["status"], told["state"], told["finalized"]) == ("pending", "waiting", False)
            assert (told["chain_tx_hash"], told["confirmations"]) == (None, None)
        assert house.journal.anchors.requests == {one.batch_id}
        [entry] = [entry for entry in house.journal.audits if entry.action == "anchor.request"]
        assert (entry.subject, entry.tenant_id) == (name(one), TENANT.bytes)


async def test_who_waits_is_answered_as_soon_as_a_block_includes_it() -> None:
    async with anchored(anchor_wait_secs=4.0) as (house, client, one):
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await client.post(ASK, json={"batch_id": name(one)}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            assert not answers
            assert house.anchoring is not None
            number = anchors.planned(house.journal.anchors, one)
            anchors.moved(house.journal.anchors, number, "submitted")
            await trio.sleep(0.4)
            assert not answers, "a transaction that no block includes is no anchor"
            anchors.mined(paper(house.anchoring), house.journal.anchors, number, one)
            mined_at = trio.current_time()
        assert trio.current_time() - mined_at < 2
        told = answers[0].json()
        assert answers[0].status_code == 200
        assert told["status"] == "anchored"
        assert told["chain_tx_hash"] == TX_HASH.hex()
        assert (told["chain_block_number"], told["chain_id"]) == (BLOCK, CHAIN_ID)
        assert (told["state"], told["finalized"], told["confirmations"]) == ("included", False, 5)
        assert "not final" in told["message"]
        assert (told["sequence_start"], told["sequence_end"]) == (1, 3)
        assert told["merkle_root"] == one.merkle_root.hex()


@pytest.mark.parametrize(
    ("states", "status", "answer", "finalized"),
    [
        (["submitted"], 202, "pending", False),
        (["submitted", "included"], 200, "already_anchored", False),
        (["submitted", "included", "safe"], 200, "already_anchored", False),
        (["submitted", "included", "safe", "finalized"], 200, "already_anchored", True),
        (["submitted", "included", "pending"], 202, "pending", False),
    ],
    ids=["submitted", "included", "safe", "finalized", "reorganised"],
)
async def test_no_answer_says_more_than_the_state_proves(
    states: list[Any], status: int, answer: str, finalized: bool
) -> None:
    async with anchored() as (house, client, one):
        number = anchors.planned(house.journal.anchors, one)
        for state in states:
            anchors.moved(house.journal.anchors, number, state)
        said = await client.post(ASK, json={"batch_id": name(one)})
        assert (said.status_code, said.json()["status"]) == (status, answer)
        assert (said.json()["state"], said.json()["finalized"]) == (states[-1], finalized)
        assert not house.journal.anchors.requests, "an anchor has it already"
        shown = (await client.get(f"/api/v1/ves/commitments/{name(one)}")).json()
        assert shown["is_anchored"] is (status == 200)
        assert (shown["anchored_at"] is not None) is finalized
        assert (shown["chain_block_number"] is not None) is (status == 200)


async def test_of_many_who_wait_some_are_answered_at_once_and_all_share_one_look() -> None:
    async with anchored(anchor_wait_secs=0.6, rate_limit_mode="off") as (house, client, one):
        answers: list[float] = []
        started = trio.current_time()

        async def ask() -> None:
            assert (await client.post(ASK, json={"batch_id": name(one)})).status_code == 202
            answers.append(trio.current_time() - started)

        async with trio.open_nursery() as nursery:
            for _ in range(WAITERS_OF_TENANT_MAX + 5):
                nursery.start_soon(ask)
        at_once = [seconds for seconds in answers if seconds < 0.6]
        assert len(at_once) == 5
        # Each asks once for itself; ten waiters look a few times, not each a few times.
        assert house.journal.anchor_reads <= WAITERS_OF_TENANT_MAX + 5 + 6
        assert not house.public.door.anchor_waits._of_tenant
        assert not house.public.door.anchor_waits._waited_for


async def test_a_journal_that_goes_away_while_somebody_waits_costs_only_news() -> None:
    async with anchored(anchor_wait_secs=0.6) as (house, client, one):
        answers: list[httpx.Response] = []

        async def ask() -> None:
            answers.append(await client.post(ASK, json={"batch_id": name(one)}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            house.journal.away = True
        assert answers[0].status_code == 202


async def test_what_is_not_there_or_not_his_is_the_same_404() -> None:
    async with anchored() as (house, client, one):
        bound = house.api_key(role="anchor", stores=[OTHER_STORE])
        async with house.client(bound) as other:
            foreign = await other.post(ASK, json={"batch_id": name(one)})
        absent = await client.post(ASK, json={"batch_id": str(TENANT)})
        for answer in (foreign, absent):
            assert (answer.status_code, answer.json()["message"]) == (404, "Commitment not found")
        assert not house.journal.anchors.requests


async def test_an_operator_need_not_name_the_tenant_of_a_batch() -> None:
    async with anchored() as (house, _, one), house.client(BOOTSTRAP) as operator:
        assert (await operator.post(ASK, json={"batch_id": name(one)})).status_code == 202
        assert (await operator.get(f"{ASK}/{name(one)}/verify")).status_code == 200
        wrong = await operator.post(f"{ASK}?tenant_id={OTHER_TENANT}", json={"batch_id": name(one)})
        assert wrong.status_code == 404


async def test_nothing_of_a_tenant_that_is_pinned_elsewhere_is_anchored_or_looked_up() -> None:
    async with anchored(region="eu-west-1") as (house, _, one), house.client(BOOTSTRAP) as operator:
        entry = AuditEntry("test", "tenant_regions.set", "x", None, {})
        await house.journal.set_regions(TENANT.bytes, regions=("us-east-1",), audit=entry)
        for answer in (
            await operator.post(ASK, json={"batch_id": name(one)}),
            await operator.post(COMMIT, json=STREAM),
            await operator.get(f"{ASK}/{name(one)}/verify"),
        ):
            assert (answer.status_code, answer.headers["x-error-code"]) == (421, "WRONG_REGION")
        assert not house.journal.anchors.requests
        assert not house.committer.asked


# Committing and anchoring.


async def test_a_range_is_committed_and_then_anchored() -> None:
    async with anchored() as (house, client, _):
        answer = await client.post(COMMIT, json={**STREAM, "sequence_start": 1, "sequence_end": 3})
        assert answer.status_code == 202, answer.text
        told = answer.json()
        assert house.committer.asked == [Commit(TENANT.bytes, uuid.UUID(STREAM["store_id"]).bytes, 1, 3)]
        assert uuid.UUID(told["batch_id"]).bytes in house.journal.anchors.requests
        assert {"prev_state_root", "new_state_root", "merkle_root"} <= told.keys()


@pytest.mark.parametrize(
    ("more", "asked"),
    [({}, (4, 9)), ({"max_events": 2}, (4, 5)), ({"max_events": 0}, (4, 4)), ({"maxEvents": 99}, (4, 9))],
    ids=["all", "two", "none means one", "more than there are"],
)
async def test_without_a_range_the_next_one_is_taken(more: dict[str, int], asked: tuple[int, int]) -> None:
    async with anchored() as (house, client, _):
        house.journal.events += [stored(number) for number in range(1, 10)]
        await client.post(COMMIT, json=STREAM | more)
        [message] = house.committer.asked
        assert (message.sequence_start, message.sequence_end) == asked


async def test_the_refusals_of_a_range_are_the_originals() -> None:
    async with anchored() as (house, client, _):

        async def refused(**more: Any) -> tuple[int, str]:
            answer = await client.post(COMMIT, json=STREAM | more)
            return answer.status_code, answer.json()["message"]

        assert await refused() == (400, "no events to commit")
        house.journal.events += [stored(number) for number in range(1, 4)]
        assert await refused() == (400, "no new events to commit (head_sequence=3)")
        together = "sequence_start and sequence_end must be provided together"
        assert await refused(sequence_start=1) == (400, together)
        assert await refused(sequence_end=1) == (400, together)
        assert not house.committer.asked


async def test_a_range_that_the_committer_took_meanwhile_is_chosen_anew() -> None:
    async with anchored() as (house, client, _):
        house.journal.events += [stored(number) for number in range(1, 7)]

        async def first_somebody_else(message: Commit) -> Any:
            if len(house.committer.asked) == 1:
                house.journal.commit(leaves(2), 4)
                return RangeRefused(True, "sequence_start: the next commitment of this stream starts at 6")
            assert message.sequence_start is not None
            return Committed(house.journal.commit(leaves(1), message.sequence_start), 0)

        house.committer.reply = first_somebody_else
        answer = await client.post(COMMIT, json=STREAM)
        assert (answer.status_code, answer.json()["sequence_start"]) == (202, 6)


# Asking the contract.


@pytest.mark.parametrize("road", ["aggregate", "single"])
async def test_the_contract_is_asked_for_this_very_commitment(road: Any) -> None:
    async with anchored(role="reader") as (house, client, one):
        assert house.anchoring is not None
        chain = paper(house.anchoring)
        batch = [one]
        if road == "aggregate":
            batch = [house.journal.commit(leaves(2), 4), one, house.journal.commit(leaves(5), 6)]
        path = f"{ASK}/{name(one)}/verify"
        nothing = (await client.get(path)).json()
        assert (nothing["anchored_on_chain"], nothing["state"]) == (False, "waiting")
        number = anchors.planned(house.journal.anchors, *batch, road=road)
        assert (await client.get(path)).json()["anchored_on_chain"] is False
        anchors.mined(chain, house.journal.anchors, number, *batch)
        told = (await client.get(path)).json()
        assert told["anchored_on_chain"] is True
        assert (told["road"], told["state"], told["block_number"]) == (road, "included", BLOCK)
        assert told["compared"] == ("verifyIncluded" if road == "aggregate" else "verifyEventsRoot")
        assert told["compared_with"] == "the node's RPC endpoint"
        assert (told["chain_id"], told["contract"]) == (CHAIN_ID, "0x" + CONTRACT.hex())
        assert {to for to, _ in chain.calls} == {CONTRACT}
        # Another root under the same id, or another leaf under the same root, is not this commitment.
        chain.roots = dict.fromkeys(chain.roots, bytes(32))
        chain.aggregates.clear()
        assert (await client.get(path)).json()["anchored_on_chain"] is False


@pytest.mark.parametrize(
    "failure",
    [ChainAway(SECRET), ChainNotOurs(SECRET), ChainLies(SECRET), "Not anchored"],
    ids=["away", "another chain", "lies", "reverts"],
)
async def test_a_chain_that_does_not_answer_or_is_not_believed_is_503(failure: Any) -> None:
    async with anchored(role="reader") as (house, client, one):
        assert house.anchoring is not None
        chain = paper(house.anchoring)
        if isinstance(failure, Exception):
            chain.failing = failure
        else:
            chain.reverting = failure
        answer = await client.get(f"{ASK}/{name(one)}/verify")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "nothing was compared" in answer.json()["message"]
        assert "secret-address" not in answer.text


async def test_nobody_makes_us_ask_the_chain_for_what_is_not_his() -> None:
    async with anchored(role="reader") as (house, _, one):
        assert house.anchoring is not None
        key = house.api_key(role="reader", stores=[OTHER_STORE])
        async with house.client(key) as other:
            assert (await other.get(f"{ASK}/{name(one)}/verify")).status_code == 404
        assert not paper(house.anchoring).calls


async def test_an_anchor_on_a_chain_that_this_node_does_not_look_at_is_said() -> None:
    async with anchored(role="reader") as (house, client, one):
        anchors.planned(house.journal.anchors, one)
        assert house.anchoring is not None
        paper(house.anchoring).chain_id = 1
        answer = await client.get(f"{ASK}/{name(one)}/verify")
        assert (answer.status_code, answer.headers["x-error-code"]) == (409, "CONFLICT")
        assert f"chain {CHAIN_ID}" in answer.json()["message"]


@pytest.mark.parametrize("verify", [False, True])
async def test_legacy_commitments_are_not_anchored_and_the_reason_is_said(verify: bool) -> None:
    async with anchored(role="admin") as (house, client, one):
        legacy = str(uuid.UUID(bytes=house.journal.commit_legacy(leaves(), 1).batch_id))

        async def ask(batch_id: str) -> httpx.Response:
            if verify:
                return await client.get(f"/api/v1/anchor/{batch_id}/verify")
            return await client.post("/api/v1/anchor", json={"batch_id": batch_id})

        assert (await ask(name(one))).status_code == 404, "that is no legacy commitment"
        answer = await ask(legacy)
        assert (answer.status_code, answer.headers["x-error-code"]) == (501, "NOT_IMPLEMENTED")
        assert "/api/v1/ves/anchor" in answer.json()["message"]


# Commitments.


async def test_commitments_show_their_anchor_and_a_page_asks_once() -> None:
    async with anchored(role="reader") as (house, client, one):
        others = [house.journal.commit(leaves(2), 4), house.journal.commit(leaves(1), 6)]
        number = anchors.planned(house.journal.anchors, one, others[0])
        assert house.anchoring is not None
        anchors.mined(paper(house.anchoring), house.journal.anchors, number, one, others[0])
        before = house.journal.anchor_reads
        page = (await client.get("/api/v1/ves/commitments", params=STREAM)).json()
        assert house.journal.anchor_reads == before + 1
        shown, second, third = page["commitments"]
        assert shown["is_anchored"] is True
        assert (shown["chain_id"], shown["chain_tx_hash"]) == (CHAIN_ID, TX_HASH.hex())
        assert (shown["chain_block_number"], shown["anchored_at"]) == (BLOCK, None)
        assert shown["anchor"] == {
            "state": "included",
            "since": "2023-11-14T22:13:21Z",
            "cause": None,
            "road": "aggregate",
            "chain_id": CHAIN_ID,
            "contract": "0x" + CONTRACT.hex(),
            "local_chain": False,
            "tx_hash": TX_HASH.hex(),
            "block_number": BLOCK,
            "block_hash": BLOCK_HASH.hex(),
            "confirmations": 5,
            "batch_count": 2,
            "position": 0,
            "gas_used": GAS_USED,
            "cost_wei": str(GAS_USED * GAS_PRICE // 2),
        }
        assert second["anchor"]["position"] == 1
        assert (third["anchor"], third["is_anchored"], third["chain_id"]) == (None, False, None)
        for wanted, expected in (("true", [1, 4]), ("false", [6])):
            found = await client.get("/api/v1/ves/commitments", params=STREAM | {"anchored": wanted})
            assert [c["sequence_start"] for c in found.json()["commitments"]] == expected


async def test_a_node_that_does_not_look_at_the_chain_knows_no_confirmations() -> None:
    async with anchored(role="reader") as (house, client, one):
        assert house.anchoring is not None
        number = anchors.planned(house.journal.anchors, one)
        anchors.mined(paper(house.anchoring), house.journal.anchors, number, one)

        async def confirmations() -> Any:
            shown = (await client.get(f"/api/v1/ves/commitments/{name(one)}")).json()
            return shown["anchor"]["confirmations"]

        vitals = house.anchoring.vitals
        vitals.latest_block = BLOCK - 1
        assert await confirmations() == 1, "its own block is known to be there"
        vitals.latest_block = None
        assert await confirmations() is None
        vitals.latest_block, paper(house.anchoring).chain_id = BLOCK + 9, 1
        assert await confirmations() is None, "that is another chain's height"
