"""Headers of chains that everybody knows, and what the libraries do to the process that imports them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.chain.blocks_rebuilt import cumulative_gas_of, header_of, prove, receipt_bytes
from transport.chain.libraries import HexaryTrie, rlp
from transport.chain.wire import BlockFields, ReceiptFields, decode
from ves.block_proofs import decode_header, keccak256

ROOT = Path(__file__).resolve().parents[2]
EMPTY_TRIE = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
EMPTY_LIST = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"


def block(**fields: Any) -> BlockFields:
    whole = {
        "parentHash": "0x" + "00" * 32,
        "sha3Uncles": EMPTY_LIST,
        "miner": "0x" + "00" * 20,
        "transactionsRoot": EMPTY_TRIE,
        "receiptsRoot": EMPTY_TRIE,
        "logsBloom": "0x" + "00" * 256,
        "number": "0x0",
        "gasUsed": "0x0",
        "transactions": [],
        **fields,
    }
    made: BlockFields = decode(msgspec.json.encode(whole), BlockFields)
    return made


KNOWN = {
    "mainnet": block(
        hash="0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
        stateRoot="0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
        gasLimit="0x1388",
        timestamp="0x0",
        difficulty="0x400000000",
        extraData="0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
        nonce="0x0000000000000042",
    ),
    # A chain with authorities (clique): 117 bytes of extraData.
    "goerli": block(
        hash="0xbf7e331f7f7c1dd2e05159666b3bf8bc7a8a3a9eb1d518969eab529dd9b88c1a",
        stateRoot="0x5d6cded585e73c4e322c30c2f782a336316f17dd85a4863b9d838d2d4b8b3008",
        gasLimit="0xa00000",
        timestamp="0x5c51a607",
        difficulty="0x1",
        extraData="0x22466c6578692069732061207468696e6722202d204166726900000000000000"
        "e0a2bd4258d2768837baa26a28fe71dc079f84c7" + "00" * 65,
    ),
}


@pytest.mark.parametrize("chain", list(KNOWN))
def test_a_first_block_that_everybody_knows_has_its_hash(chain: str) -> None:
    header = header_of(KNOWN[chain])
    assert "0x" + keccak256(header).hex() == KNOWN[chain].hash
    assert decode_header(header).number == 0


def test_a_deposit_of_the_op_stack_keeps_its_two_more_members() -> None:
    fields = {
        "transactionHash": "0x" + "01" * 32,
        "transactionIndex": "0x0",
        "blockHash": "0x" + "02" * 32,
        "blockNumber": "0x1",
        "cumulativeGasUsed": "0xb4f5",
        "gasUsed": "0xb4f5",
        "logsBloom": "0x" + "00" * 256,
        "logs": [],
        "status": "0x1",
        "type": "0x7e",
        "depositNonce": "0x10",
        "depositReceiptVersion": "0x1",
    }
    raw = receipt_bytes(decode(msgspec.json.encode(fields), ReceiptFields))
    assert raw[0] == 0x7E
    assert rlp.decode(raw[1:]) == [b"\x01", b"\xb4\xf5", bytes(256), [], b"\x10", b"\x01"]
    assert cumulative_gas_of(raw) == 0xB4F5


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=300, max_size=310), min_size=1, max_size=40), st.data())
def test_a_proof_leads_from_the_root_to_each_receipt(receipts: list[bytes], data: st.DataObject) -> None:
    """Read by py-trie's own verifier; ``ves.block_proofs`` reads ours in the tests against a chain."""
    trie: Any = HexaryTrie({})
    for at, receipt in enumerate(receipts):
        trie[rlp.encode(at)] = receipt
    index = data.draw(st.integers(0, len(receipts) - 1))
    proof = [rlp.decode(node) for node in prove(receipts, index, trie.root_hash)]
    assert HexaryTrie.get_from_proof(trie.root_hash, rlp.encode(index), proof) == receipts[index]
    with pytest.raises(ValueError, match="do not have the root"):
        prove([*receipts, b"one more"], index, trie.root_hash)


def test_importing_web3_leaves_pythons_recursion_limit_as_it_was() -> None:
    """With py_ecc's limit this very text ends the process."""
    program = (
        "import sys; before = sys.getrecursionlimit()\n"
        "import transport.chain.opening\n"
        "assert sys.getrecursionlimit() == before, sys.getrecursionlimit()\n"
        "import py_ecc, web3, eth_account\n"
        "assert sys.getrecursionlimit() == before\n"
        "from transport.chain.wire import Envelope, decode\n"
        "try: decode(b'{\"x\":' + b'[' * 10**6, Envelope)\n"
        "except ValueError as wrong: print(wrong)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("it is nested too deep\n", "")


@pytest.mark.slow
def test_a_limit_that_somebody_raised_before_is_put_back_too() -> None:
    program = (
        "import sys, eth_account\n"
        "assert sys.getrecursionlimit() == 100_000\n"
        "import transport.chain.libraries\n"
        "print(sys.getrecursionlimit())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1000\n"


def test_web3_is_imported_in_one_place() -> None:
    importers = {
        str(file.relative_to(ROOT))
        for folder in ("actors", "config", "journal", "supervisor", "transport", "ves")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(?:import|from) web3\b", file.read_text(), re.MULTILINE)
    }
    assert importers == {"transport/chain/libraries.py"}
