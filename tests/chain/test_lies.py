"""Endpoints that answer in good form what is not true: their own hashes show it, or another endpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actors.chain import Chain, ChainLies, TransactionReceipt
from tests.anvil import CHAIN_ID, Anvil
from tests.chain.accounts import LOGS, REVERTS, account, address_of, mined, signed
from tests.chain.bad_endpoint import (
    BadEndpoint,
    Fault,
    alters_logs,
    another_chain,
    bad_endpoint,
    changes,
    flips_status,
    foreign_hashes,
    forks,
    hangs,
    refuses,
    says,
    stands_still,
)
from transport.chain.opening import open_chain
from ves.block_proofs import keccak256

ME = account(1)


@pytest.fixture
def bad(chain: Anvil) -> Iterator[BadEndpoint]:
    with bad_endpoint(chain.url) as one:
        yield one


async def true_receipt(chain: Anvil, tx_hash: bytes) -> TransactionReceipt:
    async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
        receipt = await rpc.receipt(tx_hash)
    assert receipt is not None
    return receipt


async def proven(rpc: Chain, tx_hash: bytes) -> None:
    receipt = await rpc.receipt(tx_hash)
    assert receipt is not None
    assert receipt.succeeded
    assert await rpc.inclusion(receipt) is not None


def member(name: str, value: str, *methods: str) -> Fault:
    def made(answer: Any) -> Any:
        return (
            [each | {name: value} for each in answer] if isinstance(answer, list) else answer | {name: value}
        )

    return changes(made, *methods)


BLOCK = ("eth_getBlockByNumber",)
RECEIPT = ("eth_getTransactionReceipt",)
RECEIPTS = ("eth_getBlockReceipts",)
WORD = "0x" + "77" * 32


@pytest.mark.parametrize(
    "fault",
    [
        flips_status(),
        alters_logs(),
        foreign_hashes(),
        member("receiptsRoot", WORD, *BLOCK),
        member("stateRoot", WORD, *BLOCK),
        member("extraData", "0x00", *BLOCK),
        member("cumulativeGasUsed", "0x1", *RECEIPTS),
        member("blockHash", WORD, *RECEIPTS),
        member("type", "0x99", *RECEIPTS),
        changes(lambda _: [], *RECEIPTS),
        changes(lambda answer: answer * 2, *RECEIPTS),
        changes(lambda answer: answer | {"transactions": []}, *BLOCK),
    ],
    ids=(
        [
            "status",
            "logs",
            "transaction",
            "receipts-root",
            "state-root",
            "extra-data",
            "gas",
            "block",
            "type",
            "none",
            "twice",
            "unlisted",
        ]
    ),
)
async def test_a_false_word_about_a_receipt_is_found_by_its_proof(
    chain: Anvil, bad: BadEndpoint, fault: Fault
) -> None:
    receipt = await true_receipt(chain, mined(chain, signed(ME, 0, data=LOGS)))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.inclusion(receipt) is not None
        bad.does(fault)
        if fault.methods[0] == "eth_getTransactionByHash":
            with pytest.raises(ChainLies):
                await rpc.receipt(receipt.tx_hash)
            return
        with pytest.raises(ChainLies):
            await rpc.inclusion(receipt)


@pytest.mark.parametrize("code", [LOGS, REVERTS], ids=["success", "revert"])
async def test_a_flipped_status_never_becomes_an_outcome(chain: Anvil, bad: BadEndpoint, code: bytes) -> None:
    """Told as a success it falls with its proof; told as a failure it is not even told."""
    tx_hash = mined(chain, signed(ME, 0, data=code))
    bad.does(flips_status(), method="eth_getTransactionReceipt")
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="another status than the one its block proves"):
            await proven(rpc, tx_hash)


async def test_another_use_of_gas_than_the_block_proves_is_found(chain: Anvil, bad: BadEndpoint) -> None:
    tx_hash = mined(chain, signed(ME, 0, data=LOGS))
    bad.does(member("gasUsed", "0x5208", *RECEIPT))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        receipt = await rpc.receipt(tx_hash)
        assert receipt is not None
        with pytest.raises(ChainLies, match="use of gas"):
            await rpc.inclusion(receipt)


@pytest.mark.parametrize("name", ["blockHash", "transactionHash", "blockNumber", "transactionIndex"])
async def test_a_receipt_whose_logs_stand_elsewhere_is_a_lie(
    chain: Anvil, bad: BadEndpoint, name: str
) -> None:
    tx_hash = mined(chain, signed(ME, 0, data=LOGS))
    value = WORD if name.endswith("Hash") else "0x777"

    def made(receipt: Any) -> Any:
        return receipt | {"logs": [log | {name: value} for log in receipt["logs"]]}

    bad.does(changes(made, *RECEIPT))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="a log of the receipt names another"):
            await rpc.receipt(tx_hash)


async def test_the_proof_comes_from_an_honest_endpoint_when_there_is_one(
    chain: Anvil, bad: BadEndpoint
) -> None:
    receipt = await true_receipt(chain, mined(chain, signed(ME, 0, data=LOGS)))
    bad.does(alters_logs())
    async with open_chain([bad.url, chain.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.inclusion(receipt) is not None


@pytest.mark.parametrize("only", ["raw", "one-by-one"])
async def test_receipts_are_had_where_an_endpoint_offers_fewer_methods(
    chain: Anvil, bad: BadEndpoint, only: str
) -> None:
    tx_hash = mined(chain, signed(ME, 0, data=LOGS))
    receipt = await true_receipt(chain, tx_hash)
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        honest = await rpc.inclusion(receipt)
        assert honest is not None
        bad.does(refuses(-32601, "the method does not exist"), method="eth_getBlockReceipts")
        if only == "raw":
            bad.does(says(["0x" + honest.receipt.hex()]), method="debug_getRawReceipts")
        assert await rpc.inclusion(receipt) == honest
        assert bad.asked("debug_getRawReceipts") == 1
        assert bad.asked("eth_getTransactionReceipt") == (only == "one-by-one")


@pytest.mark.parametrize("raw", ["0x", "0x00", "0xc0", "0x02c0", "0xf8"])
async def test_bytes_that_are_no_receipts_are_a_lie_and_nothing_else(
    chain: Anvil, bad: BadEndpoint, raw: str
) -> None:
    receipt = await true_receipt(chain, mined(chain, signed(ME, 0, data=LOGS)))
    bad.does(refuses(-32601, "the method does not exist"), method="eth_getBlockReceipts")
    bad.does(says([raw]), method="debug_getRawReceipts")
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies):
            await rpc.inclusion(receipt)


async def test_a_header_with_members_we_do_not_know_is_had_as_bytes(chain: Anvil, bad: BadEndpoint) -> None:
    receipt = await true_receipt(chain, mined(chain, signed(ME, 0, data=LOGS)))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        honest = await rpc.inclusion(receipt)
        assert honest is not None
        bad.does(changes(lambda block: {k: v for k, v in block.items() if k != "requestsHash"}, *BLOCK))
        with pytest.raises(ChainLies, match="debug_getRawHeader gives no other"):
            await rpc.inclusion(receipt)
        bad.does(says("0x" + honest.block_header.hex()), method="debug_getRawHeader")
        assert await rpc.inclusion(receipt) == honest


NONSENSE = {
    "number": "0x" + "f" * 64,
    "hash": "0x12",
    "parentHash": None,
    "timestamp": "1",
    "transactions": "0x",
    "baseFeePerGas": "-0x1",
}


@pytest.mark.parametrize("name", list(NONSENSE))
async def test_a_block_in_another_form_is_a_lie(chain: Anvil, bad: BadEndpoint, name: str) -> None:
    bad.does(changes(lambda block: block | {name: NONSENSE[name]}, *BLOCK))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="eth_getBlockByNumber"):
            await rpc.block("latest")


@pytest.mark.parametrize("result", [None, "0x", "0xzz", 7, [], {}, True, "0x1\n"], ids=repr)
async def test_a_number_in_another_form_is_a_lie(chain: Anvil, bad: BadEndpoint, result: Any) -> None:
    bad.does(says(result), method="eth_getTransactionCount")
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="eth_getTransactionCount"):
            await rpc.nonce_of(address_of(ME))


async def test_another_block_than_the_one_asked_for_is_a_lie(chain: Anvil, bad: BadEndpoint) -> None:
    chain.mine(3)
    bad.does(member("number", "0x1", *BLOCK))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="block 1 is not block 2"):
            await rpc.block(2)


async def test_a_block_of_a_chain_with_authorities_is_read(chain: Anvil, bad: BadEndpoint) -> None:
    """Their extraData is longer than 32 bytes, which web3 by itself refuses."""
    bad.does(member("extraData", "0x" + "ee" * 97, *BLOCK))
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.block("latest") is not None


async def test_a_hash_of_another_transaction_is_no_sign_that_ours_was_taken(
    chain: Anvil, bad: BadEndpoint
) -> None:
    bad.does(says(WORD), method="eth_sendRawTransaction")
    bad.does(foreign_hashes())
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        with pytest.raises(ChainLies, match="another transaction than it was given"):
            await rpc.send(signed(ME, 0))
        chain.rpc("eth_sendRawTransaction", "0x" + (raw := signed(ME, 1)).hex())
        with pytest.raises(ChainLies, match="another transaction than it was asked about"):
            await rpc.is_known(keccak256(raw))


@pytest.mark.parametrize("which", [3, "safe", "finalized"])
async def test_endpoints_that_disagree_on_a_block_are_not_believed_about_finality(
    chain: Anvil, bad: BadEndpoint, which: Any
) -> None:
    chain.mine(10)
    async with open_chain([chain.url, bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.block(which) is not None
        bad.does(forks())
        with pytest.raises(ChainLies, match=r"endpoint 1 .* and endpoint 2 .* do not agree on block"):
            await rpc.block(which)


async def test_a_disagreement_that_passes_was_a_reorganisation(chain: Anvil, bad: BadEndpoint) -> None:
    chain.mine(10)
    bad.does(forks(), times=1)
    async with open_chain([chain.url, bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.block(3) is not None


async def test_of_several_finalized_blocks_the_lowest_counts(chain: Anvil, bad: BadEndpoint) -> None:
    """Whoever calls more final than the others is not believed; nor does a slow one stop anything."""
    chain.mine(20)
    head = chain.rpc("eth_getBlockByNumber", "latest", False)
    bad.does(changes(lambda _: head, *BLOCK), times=1)
    async with open_chain([bad.url, chain.url], CHAIN_ID, 5.0) as rpc:
        found = await rpc.block("finalized")
        assert found is not None
        assert found.number == 16
        bad.behaves()
        bad.does(hangs())
        began = time.monotonic()
        again = await rpc.block("finalized")
        assert again == found
        assert time.monotonic() - began < 2.0


async def test_a_tag_that_nobody_knows_is_no_block(chain: Anvil, bad: BadEndpoint) -> None:
    bad.does(refuses(-39001, "finalized block not found"), method="eth_getBlockByNumber")
    async with open_chain([bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.block("finalized") is None
    async with open_chain([bad.url, bad.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.block("finalized") is None


async def test_an_endpoint_of_another_chain_has_no_say_in_finality(chain: Anvil, bad: BadEndpoint) -> None:
    chain.mine(10)
    bad.does(another_chain(1))
    bad.does(forks())
    async with open_chain([bad.url, chain.url], CHAIN_ID, 5.0) as rpc:
        found = await rpc.block("finalized")
        assert found is not None
        assert found.number == 6


async def test_a_claimed_head_keeps_nobody_else_from_judging_finality(chain: Anvil, bad: BadEndpoint) -> None:
    """One that says it is far ahead makes the others lag, but their finalized block still counts."""
    chain.mine(20)
    bad.does(says(hex(10**6)), method="eth_blockNumber")
    bad.does(changes(lambda block: block | {"number": hex(10**6)}, *BLOCK), times=2)
    async with open_chain([bad.url, chain.url], CHAIN_ID, 5.0) as rpc:
        assert await rpc.nonce_of(address_of(ME)) == 0
        found = await rpc.block("finalized")
        assert found is not None
        assert found.number == 16


def test_the_tool_counts_what_it_was_told(chain: Anvil, bad: BadEndpoint) -> None:
    """The one that stands still is used by hand here, as any test may."""
    chain.mine(9)
    bad.does(stands_still(4), after=1, times=1)
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
    with httpx.Client() as client:
        heads = [client.post(bad.url, json=body).json()["result"] for _ in range(3)]
    assert heads == ["0x9", "0x5", "0x9"]
    assert bad.asked("eth_blockNumber") == 3
