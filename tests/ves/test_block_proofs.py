"""A receipt's proof holds as it was made, and with any byte of it changed it does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import rlp  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ves.blocks import CONTRACT, FIELDS, block, header, receipt
from ves.anchor_records import Inclusion
from ves.block_proofs import (
    HEADER_BYTES_MAX,
    PROOF_NODES_MAX,
    RECEIPT_BYTES_MAX,
    BlockHeader,
    decode_header,
    decode_receipt,
    verify_receipt_proof,
)
from ves.rlp_reading import read_rlp

TOPIC = bytes(range(32))
MANY = [receipt([(CONTRACT, [TOPIC], bytes([n % 256]) * 40)], kind=n % 3) for n in range(300)]


def prove(one: Inclusion) -> BlockHeader:
    return verify_receipt_proof(
        one.block_header, one.block_hash, one.transaction_index, one.receipt, one.proof
    )


@pytest.mark.parametrize(
    ("count", "at"), [(1, 0), (2, 0), (2, 1), (17, 16), (129, 127), (129, 128), (300, 299)]
)
def test_what_a_client_proves_holds(count: int, at: int) -> None:
    one = block(MANY[:count], at)
    read = prove(one)
    assert (read.number, read.timestamp_s, read.block_hash) == (7, 1_700_000_000, one.block_hash)


@pytest.mark.parametrize("fork", FIELDS)
def test_headers_of_every_fork_are_read(fork: str) -> None:
    assert prove(block(MANY[:3], 1, fields=FIELDS[fork])).number == 7


@pytest.mark.parametrize(("count", "at"), [(1, 0), (40, 37)])
def test_no_byte_of_header_receipt_proof_or_hash_can_be_changed(count: int, at: int) -> None:
    one = block(MANY[:count], at)
    wholes: list[tuple[str, bytes]] = [(name, getattr(one, name)) for name in ("block_header", "receipt")]
    wholes += [("block_hash", one.block_hash)]
    for name, whole in wholes:
        for place in range(len(whole)):
            with pytest.raises(ValueError):
                prove(msgspec.structs.replace(one, **{name: _flipped(whole, place)}))
    for number, node in enumerate(one.proof):
        for place in range(len(node)):
            changed = [*one.proof[:number], _flipped(node, place), *one.proof[number + 1 :]]
            with pytest.raises(ValueError, match="is not the one that its parent names"):
                prove(msgspec.structs.replace(one, proof=changed))


def _flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def test_a_proof_is_for_its_index_and_has_neither_more_nor_fewer_nodes() -> None:
    one = block(MANY[:40], 37)
    for index in [*range(37), 38, 39, 40, 128, 2**32]:
        with pytest.raises(ValueError):
            prove(msgspec.structs.replace(one, transaction_index=index))
    for proof in ([], one.proof[:-1], one.proof[1:], [*one.proof, one.proof[-1]], one.proof[::-1]):
        with pytest.raises(ValueError):
            prove(msgspec.structs.replace(one, proof=proof))
    other = block(MANY[:40], 36)
    with pytest.raises(ValueError, match="another receipt"):
        prove(msgspec.structs.replace(one, receipt=other.receipt))


def test_logs_are_read_as_they_were_written() -> None:
    read = decode_receipt(receipt([(CONTRACT, [TOPIC, TOPIC], b"data"), (bytes(20), [], b"")]))
    assert [(log.address, log.topics, log.data) for log in read.logs] == [
        (CONTRACT, [TOPIC, TOPIC], b"data"),
        (bytes(20), [], b""),
    ]
    assert (read.succeeded, read.transaction_type, read.cumulative_gas_used) == (True, 2, 21_000)
    assert not decode_receipt(receipt(status=0, kind=0)).succeeded


def _spelled(*fields: Any) -> bytes:
    return b"\x02" + bytes(rlp.encode(list(fields)))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "ends early"),
        (b"\x00" + receipt(kind=0), "type 0"),
        (b"\x02" + receipt(), "bytes follow"),
        (_spelled(TOPIC, 1, bytes(256), []), "neither 0 nor 1"),
        (_spelled(2, 1, bytes(256), []), "neither 0 nor 1"),
        (_spelled(1, b"\0\1", bytes(256), []), "cumulativeGasUsed is no number"),
        (_spelled(1, 1, bytes(255), []), "bloom has 255 bytes"),
        (_spelled(1, 1, bytes(256), b""), "logs is no list"),
        (_spelled(1, 1, bytes(256), [[bytes(19), [], b""]]), "address has 19 bytes"),
        (_spelled(1, 1, bytes(256), [[bytes(20), [TOPIC] * 5, b""]]), "5 topics"),
        (_spelled(1, 1, bytes(256), [[bytes(20), []]]), "a log of 2 fields"),
        (_spelled(1, 1, bytes(256)), "3 fields"),
        (receipt() + b"\0", "1 bytes follow"),
        (b"\x02" + b"\xc1" * 5000, "lists deep|ends early"),
        (receipt([(bytes(20), [], bytes(RECEIPT_BYTES_MAX))]), "more than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_receipt_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_receipt(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x80", "expected, this is a string"),
        (rlp.encode([b""] * 14), "14 fields"),
        (rlp.encode([b""] * 33), "33 fields"),
        (header(bytes(31)), "receiptsRoot has 31 bytes"),
        (header(bytes(32), number=2**64), "number is no number"),
        (header(bytes(32)) + bytes(HEADER_BYTES_MAX), "more than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_header_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_header(raw)


def test_a_proof_has_a_bound() -> None:
    one = block(MANY[:2], 1)
    with pytest.raises(ValueError, match=f"more than {PROOF_NODES_MAX} nodes"):
        prove(msgspec.structs.replace(one, proof=one.proof * PROOF_NODES_MAX))


ITEMS: st.SearchStrategy[Any] = st.recursive(
    st.binary(max_size=80), lambda inner: st.lists(inner, max_size=6)
)


@settings(max_examples=150)
@given(item=ITEMS)
def test_rlp_is_read_as_the_library_writes_it(item: Any) -> None:
    assert read_rlp(rlp.encode(item)) == item


@settings(max_examples=300)
@given(raw=st.binary(max_size=120))
def test_rlp_that_is_taken_is_the_one_spelling_of_its_value(raw: bytes) -> None:
    try:
        item = read_rlp(raw)
    except ValueError:
        return
    assert rlp.encode(item) == raw


@settings(max_examples=100)
@given(raw=st.binary(max_size=200), proof=st.lists(st.binary(max_size=60), max_size=4), index=st.integers())
def test_nothing_but_a_value_error_comes_of_nonsense(raw: bytes, proof: list[bytes], index: int) -> None:
    with pytest.raises(ValueError):
        prove(Inclusion(1, bytes(32), raw, index, raw, proof))
