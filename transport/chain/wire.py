"""What an endpoint's answers must look like before anything in them is used, and the values made of them.

Everything is decoded into these types; what does not fit raises ValueError (msgspec's own included), which
the endpoint's caller takes for a lie. Nothing here speaks to an endpoint.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from actors.chain import Block, TransactionReceipt

TRANSACTIONS_MAX = 50_000
"""In one block."""
_LOGS_MAX = 100_000
_NUMBER_MAX = 2**63
_WEI_MAX = 2**128

Hash = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{64}\Z")]
Address = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
Data = Annotated[str, msgspec.Meta(pattern=r"^0x(?:[0-9a-fA-F]{2})*\Z")]
Quantity = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{1,64}\Z")]


class RpcFault(msgspec.Struct):
    code: int
    message: str
    data: Any = None


class Envelope(msgspec.Struct):
    """One of ``result`` and ``error`` (JSON-RPC 2.0)."""

    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: RpcFault | None = None


class BlockFields(msgspec.Struct, rename="camel"):
    """A block with the hashes of its transactions. Members of the header that a fork brought are optional."""

    hash: Hash
    parent_hash: Hash
    sha3_uncles: Hash
    miner: Address
    state_root: Hash
    transactions_root: Hash
    receipts_root: Hash
    logs_bloom: Data
    number: Quantity
    gas_limit: Quantity
    gas_used: Quantity
    timestamp: Quantity
    extra_data: Data
    transactions: Annotated[list[Hash], msgspec.Meta(max_length=TRANSACTIONS_MAX)]
    difficulty: Quantity = "0x0"
    mix_hash: Hash = "0x" + 64 * "0"
    nonce: Data = "0x" + 16 * "0"
    base_fee_per_gas: Quantity | None = None
    withdrawals_root: Hash | None = None
    blob_gas_used: Quantity | None = None
    excess_blob_gas: Quantity | None = None
    parent_beacon_block_root: Hash | None = None
    requests_hash: Hash | None = None
    block_access_list_hash: Hash | None = None
    slot_number: Quantity | None = None


class LogFields(msgspec.Struct, rename="camel"):
    address: Address
    topics: Annotated[list[Hash], msgspec.Meta(max_length=4)]
    data: Data
    block_hash: Hash | None = None
    block_number: Quantity | None = None
    transaction_hash: Hash | None = None
    transaction_index: Quantity | None = None


class ReceiptFields(msgspec.Struct, rename="camel"):
    transaction_hash: Hash
    transaction_index: Quantity
    block_hash: Hash
    block_number: Quantity
    cumulative_gas_used: Quantity
    gas_used: Quantity
    logs_bloom: Data
    logs: Annotated[list[LogFields], msgspec.Meta(max_length=_LOGS_MAX)]
    status: Quantity | None = None
    root: Hash | None = None
    """Instead of a status, before Byzantium."""
    type: Quantity = "0x0"
    effective_gas_price: Quantity = "0x0"
    deposit_nonce: Quantity | None = None
    """Of the OP stack's deposits, as is the next."""
    deposit_receipt_version: Quantity | None = None


class TransactionFields(msgspec.Struct, rename="camel"):
    hash: Hash


class FeeHistory(msgspec.Struct, rename="camel"):
    base_fee_per_gas: Annotated[list[Quantity], msgspec.Meta(max_length=8)] | None = None


def decode(raw: msgspec.Raw | bytes, as_: Any) -> Any:
    """An ``as_``; ValueError for anything else, whatever it is."""
    try:
        return msgspec.json.decode(raw, type=as_)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def quantity(text: str, below: int = _NUMBER_MAX) -> int:
    value = int(text, 16)
    if value >= below:
        raise ValueError(
            f"a number of {value.bit_length()} bits where {below.bit_length() - 1} would be many"
        )
    return value


def wei(text: str) -> int:
    return quantity(text, _WEI_MAX)


def octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


def block_of(fields: BlockFields) -> Block:
    return Block(
        number=quantity(fields.number),
        block_hash=octets(fields.hash),
        parent_hash=octets(fields.parent_hash),
        timestamp_s=quantity(fields.timestamp),
        base_fee_per_gas=wei(fields.base_fee_per_gas or "0x0"),
    )


def receipt_of(fields: ReceiptFields, tx_hash: bytes) -> TransactionReceipt:
    """ValueError for another transaction's, for one whose logs stand elsewhere, or without a status."""
    if octets(fields.transaction_hash) != tx_hash:
        raise ValueError("the receipt is another transaction's")
    if fields.status is None or quantity(fields.status) > 1:
        raise ValueError("the receipt's status is neither 0 nor 1")
    for log in fields.logs:
        _check_place(log, fields)
    return TransactionReceipt(
        tx_hash=tx_hash,
        succeeded=quantity(fields.status) == 1,
        block_number=quantity(fields.block_number),
        block_hash=octets(fields.block_hash),
        transaction_index=quantity(fields.transaction_index, TRANSACTIONS_MAX),
        gas_used=quantity(fields.gas_used),
        effective_gas_price=wei(fields.effective_gas_price),
    )


def _check_place(log: LogFields, receipt: ReceiptFields) -> None:
    for name in ("block_hash", "transaction_hash", "block_number", "transaction_index"):
        claimed = getattr(log, name)
        if claimed is not None and int(claimed, 16) != int(getattr(receipt, name), 16):
            raise ValueError(f"a log of the receipt names another {name.replace('_', ' ')} than the receipt")
