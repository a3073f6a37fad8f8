"""Each question of the port, asked of a real chain."""

from __future__ import annotations

import pytest

from actors.chain import NonceUsed, Reverted, Taken, TooPoor, Underpriced
from tests.anvil import CHAIN_ID, ETHER, Anvil, anvil
from tests.chain.accounts import GWEI, LOGS, REVERTS, account, address_of, mined, signed
from transport.chain.opening import open_chain
from ves.block_proofs import decode_receipt, keccak256, verify_receipt_proof

ME = account(1)
ADDRESS = address_of(ME)


def funded(chain: Anvil, *more: bytes) -> None:
    for address in (ADDRESS, *more):
        chain.fund(address)


async def test_blocks_are_told_by_tag_and_by_number() -> None:
    with anvil() as chain:
        chain.mine(10)
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            latest = await rpc.block("latest")
            assert latest is not None
            assert (latest.number, latest.base_fee_per_gas > 0) == (10, True)
            before = await rpc.block(9)
            assert before is not None
            assert before.block_hash == latest.parent_hash
            assert latest.timestamp_s >= before.timestamp_s > 1_700_000_000
            for tag, number in (("safe", 8), ("finalized", 6)):
                found = await rpc.block(tag)  # type: ignore[arg-type]
                assert found is not None
                assert found == await rpc.block(number)
            assert await rpc.block(11) is None


async def test_an_account_and_a_contract_are_looked_at() -> None:
    with anvil() as chain:
        funded(chain)
        code = bytes.fromhex("602a60005260206000f3")  # answers 42
        chain.rpc("anvil_setCode", "0x" + "c0" * 20, "0x" + code.hex())
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            assert await rpc.balance_of(ADDRESS) == 100 * ETHER
            assert await rpc.nonce_of(ADDRESS) == 0
            assert await rpc.code_at(ADDRESS) == b""
            assert await rpc.code_at(b"\xc0" * 20) == code
            assert await rpc.call(b"\xc0" * 20, b"", sender=ADDRESS) == (42).to_bytes(32, "big")
            assert await rpc.call(b"\xc0" * 20, b"", block=0) == (42).to_bytes(32, "big")
            chain.rpc("eth_sendRawTransaction", "0x" + signed(ME, 0).hex())
            chain.mine()
            assert await rpc.nonce_of(ADDRESS) == 1


async def test_gas_and_fees_are_quoted() -> None:
    with anvil() as chain:
        funded(chain)
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            assert await rpc.estimate_gas(ADDRESS, ADDRESS, b"") == 21_000
            gas = await rpc.estimate_gas(ADDRESS, None, LOGS)
            assert isinstance(gas, int)
            assert 53_000 < gas < 60_000
            chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(7 * GWEI))
            chain.mine()
            fees = await rpc.fees()
            assert 6 * GWEI < fees.base_fee_per_gas < 7 * GWEI  # after an empty block
            assert fees.max_priority_fee_per_gas == GWEI


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("60006000fd", "no reason given"),
        # revert Error("paused")
        (
            "7f08c379a0" + "00" * 28 + "600052602060045260066024526570617573656460d01b60445260646000fd",
            "paused",
        ),
        # revert Panic(0x11)
        ("7f4e487b71" + "00" * 28 + "600052601160045260246000fd", "panic 0x11: arithmetic overflow"),
        # revert with a custom error of four bytes
        ("7fdeadbeef" + "00" * 28 + "60005260046000fd", "0xdeadbeef"),
    ],
    ids=["silent", "error", "panic", "custom"],
)
async def test_why_a_contract_refuses_is_told(code: str, reason: str) -> None:
    with anvil() as chain:
        funded(chain)
        chain.rpc("anvil_setCode", "0x" + "c0" * 20, "0x" + code)
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            assert await rpc.call(b"\xc0" * 20, b"") == Reverted(reason)
            assert await rpc.estimate_gas(ADDRESS, b"\xc0" * 20, b"") == Reverted(reason)


async def test_a_transaction_is_sent_and_every_refusal_is_understood() -> None:
    with anvil(automine=False) as chain:
        funded(chain)
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            raw = signed(ME, 0)
            tx_hash = keccak256(raw)
            assert not await rpc.is_known(tx_hash)
            assert await rpc.send(raw) == Taken()
            assert await rpc.is_known(tx_hash)
            assert await rpc.send(raw) == Taken()
            assert await rpc.receipt(tx_hash) is None
            assert await rpc.send(signed(ME, 0, maxPriorityFeePerGas=2 * GWEI)) == Underpriced()
            better = signed(ME, 0, maxFeePerGas=25 * GWEI, maxPriorityFeePerGas=2 * GWEI)
            assert await rpc.send(better) == Taken()
            chain.mine()
            assert await rpc.send(raw) == NonceUsed()
            assert await rpc.send(signed(ME, 1, maxFeePerGas=1, maxPriorityFeePerGas=1)) == Underpriced()
            assert await rpc.send(signed(ME, 1, value=1000 * ETHER)) == TooPoor()
            assert await rpc.send(signed(account(99), 0)) == TooPoor()
            assert "gas" in str(await rpc.send(signed(ME, 1, gas=100)))
            assert await rpc.receipt(tx_hash) is None
            receipt = await rpc.receipt(keccak256(better))
            assert receipt is not None
            assert (receipt.succeeded, receipt.gas_used, receipt.block_number) == (True, 21_000, 1)
            assert receipt.effective_gas_price > GWEI


async def test_a_reverted_transaction_is_told_as_such() -> None:
    with anvil(automine=False) as chain:
        funded(chain)
        tx_hash = mined(chain, signed(ME, 0, data=REVERTS))
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            receipt = await rpc.receipt(tx_hash)
            assert receipt is not None
            assert not receipt.succeeded
            inclusion = await rpc.inclusion(receipt)
            assert inclusion is not None
            assert not decode_receipt(inclusion.receipt).succeeded


@pytest.mark.parametrize(
    "fork", ["byzantium", "istanbul", "berlin", "london", "shanghai", "cancun", "prague", "osaka"]
)
async def test_an_inclusion_is_proven_on_chains_of_every_fork(fork: str) -> None:
    """Headers gained members with the forks, and receipts types."""
    with anvil(automine=False, more=("--hardfork", fork)) as chain:
        funded(chain)
        legacy = fork in ("byzantium", "istanbul", "berlin")
        raw = _legacy(LOGS) if legacy else signed(ME, 0, data=LOGS)
        tx_hash = mined(chain, raw)
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            receipt = await rpc.receipt(tx_hash)
            assert receipt is not None
            inclusion = await rpc.inclusion(receipt)
            assert inclusion is not None
            (log,) = decode_receipt(inclusion.receipt).logs
            assert (log.topics, log.data) == ([(1).to_bytes(32, "big")], (42).to_bytes(32, "big"))


def _legacy(data: bytes) -> bytes:
    fields = {
        "chainId": CHAIN_ID,
        "nonce": 0,
        "value": 0,
        "gas": 100_000,
        "gasPrice": 20 * GWEI,
        "data": data,
    }
    return bytes(ME.sign_transaction(fields).raw_transaction)


async def test_each_of_many_receipts_in_a_block_is_proven_at_its_place() -> None:
    others = [account(number) for number in range(2, 22)]
    with anvil(automine=False) as chain:
        funded(chain, *map(address_of, others))
        sent = [signed(one, 0, data=LOGS if at % 2 else REVERTS) for at, one in enumerate(others)]
        for raw in sent:
            chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        chain.mine()
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            places = set()
            for at in (0, 1, 7, 19):
                receipt = await rpc.receipt(keccak256(sent[at]))
                assert receipt is not None
                assert receipt.succeeded == bool(at % 2)
                inclusion = await rpc.inclusion(receipt)
                assert inclusion is not None
                places.add(inclusion.transaction_index)
                assert (
                    verify_receipt_proof(
                        inclusion.block_header,
                        receipt.block_hash,
                        receipt.transaction_index,
                        inclusion.receipt,
                        inclusion.proof,
                    ).number
                    == 1
                )
            assert len(places) == 4


async def test_a_block_that_a_reorganisation_took_back_has_no_inclusion() -> None:
    with anvil(automine=False) as chain:
        funded(chain)
        tx_hash = mined(chain, signed(ME, 0, data=LOGS))
        async with open_chain([chain.url], CHAIN_ID, 5.0) as rpc:
            receipt = await rpc.receipt(tx_hash)
            assert receipt is not None
            chain.rpc("anvil_reorg", 1, [])
            assert await rpc.inclusion(receipt) is None
            assert await rpc.receipt(tx_hash) is None
            assert await rpc.nonce_of(ADDRESS) == 0


async def test_a_chain_may_be_opened_several_times_at_once() -> None:
    with anvil() as chain:
        async with (
            open_chain([chain.url], CHAIN_ID, 5.0) as one,
            open_chain([chain.url], CHAIN_ID, 5.0) as other,
        ):
            assert await one.block("latest") == await other.block("latest")
            assert one.chain_id == other.chain_id == CHAIN_ID
