"""Accounts on a test's own chain, and what they send: transfers, a contract that logs, one that reverts."""

from __future__ import annotations

from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.anvil import CHAIN_ID, Anvil
from ves.block_proofs import keccak256

GWEI = 10**9
LOGS = bytes.fromhex("602a600052600160206000a100")
"""As the code of a creation: logs the word 42 under the topic 1."""
REVERTS = bytes.fromhex("60006000fd")


def account(number: int) -> LocalAccount:
    made: LocalAccount = Account.from_key(number.to_bytes(32, "big"))
    return made


def address_of(one: LocalAccount) -> bytes:
    return bytes.fromhex(one.address[2:])


def signed(
    one: LocalAccount, nonce: int, *, to: bytes | None = None, data: bytes = b"", **other: Any
) -> bytes:
    """A transaction's bytes; without ``to`` and ``data`` a transfer to itself."""
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 20 * GWEI,
        "maxPriorityFeePerGas": GWEI,
        "data": data,
    }
    if to is not None or not data:
        fields["to"] = one.address if to is None else "0x" + to.hex()
    return bytes(one.sign_transaction(fields | other).raw_transaction)


def mined(chain: Anvil, raw: bytes) -> bytes:
    """The hash of what a block includes now; the chain must not mine by itself."""
    chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
    chain.mine()
    return keccak256(raw)
