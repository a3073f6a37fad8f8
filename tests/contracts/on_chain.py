"""The contract on a real chain, spoken to through ``ves.anchor_calls`` as the server and auditors do."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Any

import msgspec

from contracts import artefact
from tests.anvil import Anvil, RpcError
from ves import anchor_calls
from ves.anchor_calls import AnchorEvent
from ves.commitments import next_commitment
from ves.records import Commitment, Uuid

_MINED_S = 10.0


def uuid(name: str) -> Uuid:
    return sha256(name.encode()).digest()[:16]


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


def history(stream: str, *counts: int) -> list[Commitment]:
    """One stream's commitments over so many events each, their state roots chained as the server does."""
    made: list[Commitment] = []
    for number, count in enumerate(counts):
        start = made[-1].sequence_end + 1 if made else 1
        one = next_commitment(
            batch_id=uuid(f"{stream} batch {number}"),
            tenant_id=uuid(f"{stream} tenant"),
            store_id=uuid(f"{stream} store"),
            merkle_root=digest(f"{stream} root {number}"),
            prev_state_root=made[-1].new_state_root if made else bytes(32),
            sequence_start=start,
            sequence_end=start + count - 1,
            committed_at_us=0,
        )
        made.append(one)
    return made


def anchor_batch(commitments: list[Commitment], **instead: list[Any]) -> bytes:
    """Calldata of ``anchorBatch``, whose arrays ``eth_abi`` lays out."""
    from eth_abi import encode

    columns: dict[str, list[Any]] = {
        "batch_id": [c.batch_id for c in commitments],
        "tenant_id": [c.tenant_id for c in commitments],
        "store_id": [c.store_id for c in commitments],
        "merkle_root": [c.merkle_root for c in commitments],
        "new_state_root": [c.new_state_root for c in commitments],
        "sequence_start": [c.sequence_start for c in commitments],
        "sequence_end": [c.sequence_end for c in commitments],
        "leaf_count": [c.leaf_count for c in commitments],
    }
    assert instead.keys() <= columns.keys()
    signature = "anchorBatch(bytes32[],bytes32[],bytes32[],bytes32[],bytes32[],uint64[],uint64[],uint32[])"
    types = signature.partition("(")[2].rstrip(")").split(",")
    return anchor_calls.calldata(signature, encode(types, list((columns | instead).values())))


class Mined(msgspec.Struct):
    gas_used: int
    events: list[AnchorEvent]
    logs: int
    """Of all kinds."""


class OnChain:
    """The contract at ``address``; ``people`` are accounts whose keys the chain holds, the first owns it."""

    def __init__(self, chain: Anvil, *, permissionless: bool = False) -> None:
        self.chain = chain
        self.people = [bytes.fromhex(a[2:]) for a in chain.rpc("eth_accounts")]
        self.owner, self.sequencer, self.stranger, self.successor = self.people[:4]
        self.permissionless = permissionless
        self.deployed = self._mine(self.owner, None, self.deployment())
        self.address = bytes.fromhex(self.deployed["contractAddress"][2:])

    def deployment(self) -> bytes:
        return anchor_calls.deployment(artefact.creation_code(), permissionless=self.permissionless)

    def ask(self, data: bytes, sender: bytes | None = None) -> bytes:
        """What a call answers; RpcError if it is refused."""
        answer = self.chain.rpc(
            "eth_call", self._request(sender or self.stranger, self.address, data), "latest"
        )
        return bytes.fromhex(answer[2:])

    def send(self, data: bytes, sender: bytes | None = None) -> Mined:
        """By the owner, or by ``sender``; AssertionError unless it succeeded."""
        receipt = self._mine(sender or self.owner, self.address, data)
        topics_and_data = [([_raw(t) for t in log["topics"]], _raw(log["data"])) for log in receipt["logs"]]
        read = [anchor_calls.read_event(topics, said) for topics, said in topics_and_data]
        events = [event for event in read if event is not None]
        return Mined(int(receipt["gasUsed"], 16), events, len(read))

    def refusal(self, data: bytes, sender: bytes | None = None) -> str:
        """Why it is refused, asked and mined for real, which logs nothing; '' if it would succeed."""
        sender = sender or self.owner
        try:
            self.ask(data, sender)
            return ""
        except RpcError as refused:
            said = refused.data or b""
        request = self._request(sender, self.address, data) | {"gas": hex(2_000_000)}
        receipt = self._receipt(self.chain.rpc("eth_sendTransaction", request))
        assert (receipt["status"], receipt["logs"]) == ("0x0", [])
        return anchor_calls.revert_reason(said)

    def _mine(self, sender: bytes, to: bytes | None, data: bytes) -> dict[str, Any]:
        receipt = self._receipt(self.chain.rpc("eth_sendTransaction", self._request(sender, to, data)))
        assert receipt["status"] == "0x1"
        return receipt

    def _receipt(self, tx_hash: str) -> dict[str, Any]:
        until = time.monotonic() + _MINED_S
        while (receipt := self.chain.rpc("eth_getTransactionReceipt", tx_hash)) is None:
            assert time.monotonic() < until, "not mined"
            time.sleep(0.002)
        found: dict[str, Any] = receipt
        return found

    @staticmethod
    def _request(sender: bytes, to: bytes | None, data: bytes) -> dict[str, str]:
        request = {"from": f"0x{sender.hex()}", "data": f"0x{data.hex()}"}
        return request if to is None else request | {"to": f"0x{to.hex()}"}


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])
