"""Anchorers outside: what they pull and tell, the original's texts, and that a report stays a report."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import httpx
import pytest

from actors.anchor_vitals import Anchoring
from actors.chain import ChainAway, TransactionReceipt
from journal.port import AuditEntry
from tests.http import anchors
from tests.http.anchors import BLOCK, BLOCK_HASH, CHAIN_ID, TX_HASH, paper
from tests.http.doubles import BOOTSTRAP, STORE, TENANT, Cardboard, serving
from ves.records import Commitment

PENDING = "/v1/commitments/pending"
HASH = "0x" + TX_HASH.hex()


@asynccontextmanager
async def outside(
    *, anchoring: Anchoring | None = None, **settings: Any
) -> AsyncIterator[tuple[Cardboard, httpx.AsyncClient, Commitment]]:
    """A house, an operator at its door, and a commitment."""
    house = Cardboard({"request_timeout_secs": 5.0} | settings, anchoring=anchoring)
    async with serving(house=house), house.client(BOOTSTRAP) as client:
        yield house, client, house.journal.commit([sha256(b"%d" % n).digest() for n in range(3)], 1)


def at(commitment: Commitment) -> str:
    return f"/v1/commitments/{uuid.UUID(bytes=commitment.batch_id)}/anchored"


async def test_pending_ones_have_exactly_the_members_of_the_wire() -> None:
    async with outside() as (house, client, one):
        told = (await client.get(PENDING)).json()
        assert told == {
            "commitments": [
                {
                    "batch_id": str(uuid.UUID(bytes=one.batch_id)),
                    "tenant_id": str(TENANT),
                    "store_id": str(STORE),
                    "prev_state_root": "0x" + one.prev_state_root.hex(),
                    "new_state_root": "0x" + one.new_state_root.hex(),
                    "events_root": "0x" + one.merkle_root.hex(),
                    "sequence_start": 1,
                    "sequence_end": 3,
                    "event_count": 3,
                    "committed_at": "2023-11-14T22:13:20.123Z",
                    "chain_tx_hash": None,
                }
            ],
            "total": 1,
        }
        number = anchors.planned(house.journal.anchors, one)
        anchors.moved(house.journal.anchors, number, "submitted")
        [shown] = (await client.get(PENDING)).json()["commitments"]
        assert shown["chain_tx_hash"] == HASH


@pytest.mark.parametrize(("limit", "count"), [("0", 0), ("1", 1), ("4294967295", 2)])
async def test_a_limit_is_clamped_and_none_is_none(limit: str, count: int) -> None:
    async with outside() as (house, client, _):
        house.journal.commit([bytes(32)], 4)
        told = (await client.get(PENDING, params={"limit": limit})).json()
        assert (len(told["commitments"]), told["total"]) == (count, count)


async def test_tenants_that_are_pinned_elsewhere_are_neither_shown_nor_reported() -> None:
    async with outside(region="eu-west-1") as (house, client, one):
        entry = AuditEntry("test", "tenant_regions.set", "x", None, {})
        await house.journal.set_regions(TENANT.bytes, regions=("us-east-1",), audit=entry)
        assert (await client.get(PENDING)).json() == {"commitments": [], "total": 0}
        answer = await client.post(at(one), json={"chain_tx_hash": HASH, "chain_id": 1})
        assert answer.status_code == 421
        assert not house.journal.anchors.reports


async def test_a_report_is_kept_once_and_never_called_more() -> None:
    async with outside(anchoring=anchors.anchoring(), anchor_wait_secs=0) as (house, client, one):
        body = {"chain_tx_hash": f" {TX_HASH.hex().upper()}\n", "chain_id": 8453, "block_number": 7}
        answer = await client.post(at(one), json=body | {"gas_used": 21_000})
        assert answer.status_code == 200, answer.text
        batch_id = str(uuid.UUID(bytes=one.batch_id))
        assert answer.json() == {
            "batch_id": batch_id,
            "status": "anchored",
            "chain_tx_hash": HASH,
            "chain_id": 8453,
            "block_number": 7,
            "checked": None,
        }
        again = await client.post(at(one), json=body)
        assert again.json() == {"batch_id": batch_id, "status": "already_anchored"}
        other = await client.post(at(one), json=body | {"chain_tx_hash": "ab" * 32})
        assert other.status_code == 409
        assert other.json()["message"] == "commitment already anchored with different tx hash"
        [entry] = [entry for entry in house.journal.audits if entry.action == "anchor.report"]
        assert (entry.subject, entry.details["tx_hash"]) == (batch_id, HASH)
        assert (await client.get(PENDING)).json()["total"] == 0

        async with house.client(house.api_key(role="anchor")) as tenant:
            shown = (await tenant.get(f"/api/v1/ves/commitments/{batch_id}")).json()
            asked = (await tenant.post("/api/v1/ves/anchor", json={"batch_id": batch_id})).json()
        assert (shown["anchor"]["state"], shown["anchored_at"]) == ("reported", None)
        assert shown["anchor"]["confirmations"] is None
        assert (asked["status"], asked["finalized"]) == ("reported", False)
        assert "nobody here has verified it" in asked["message"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"chain_tx_hash": HASH, "chain_id": 2**32}, "chain_id must fit in u32"),
        ({"chain_tx_hash": " 0x", "chain_id": 1}, "chain_tx_hash must not be empty"),
        ({"chain_tx_hash": "0xzz", "chain_id": 1}, "Invalid chain_tx_hash: "),
        ({"chain_tx_hash": "ab cd", "chain_id": 1}, "Invalid chain_tx_hash: "),
        ({"chain_tx_hash": "0xabcd", "chain_id": 1}, "chain_tx_hash must be 32 bytes"),
    ],
    ids=["chain id", "empty", "no hex", "blanks", "short"],
)
async def test_what_cannot_be_a_report_is_refused_in_the_originals_words(
    body: dict[str, Any], text: str
) -> None:
    async with outside() as (house, client, one):
        answer = await client.post(at(one), json=body)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(text)
        absent = await client.post(f"/v1/commitments/{uuid.uuid4()}/anchored", json=body)
        assert (absent.status_code, absent.json()["message"]) == (404, "Commitment not found")
        assert not house.journal.anchors.reports


async def test_a_report_never_takes_the_place_of_our_own_anchor() -> None:
    async with outside(anchoring=anchors.anchoring()) as (house, client, one):
        anchors.planned(house.journal.anchors, one)
        answer = await client.post(at(one), json={"chain_tx_hash": HASH, "chain_id": CHAIN_ID})
        assert answer.status_code == 409
        assert "our own anchor has this commitment" in answer.json()["message"]


@pytest.mark.parametrize(
    ("known", "block_number", "checked"),
    [
        ((True, BLOCK), None, True),
        ((True, BLOCK), BLOCK, True),
        ((True, BLOCK), BLOCK + 1, False),
        ((False, BLOCK), None, False),
        (None, None, False),
        (ChainAway("https://secret-address"), None, None),
    ],
    ids=["there", "in that block", "in another block", "reverted", "unknown", "away"],
)
async def test_what_our_own_endpoint_says_of_a_reported_transaction_is_told(
    known: Any, block_number: int | None, checked: bool | None
) -> None:
    async with outside(anchoring=anchors.anchoring()) as (house, client, one):
        assert house.anchoring is not None
        chain = paper(house.anchoring)
        if isinstance(known, Exception):
            chain.failing = known
        elif known is not None:
            succeeded, number = known
            chain.receipts[TX_HASH] = TransactionReceipt(TX_HASH, succeeded, number, BLOCK_HASH, 0, 1, 1)
        body = {"chain_tx_hash": HASH, "chain_id": CHAIN_ID, "block_number": block_number}
        told = (await client.post(at(one), json=body)).json()
        assert (told["status"], told["checked"]) == ("anchored", checked)
        assert house.journal.anchors.reports, "kept either way, as what it is: a report"
