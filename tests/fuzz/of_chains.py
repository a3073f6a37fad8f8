"""What strangers say of a chain: headers, receipts, proofs, and evidence files that hold all of them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import rlp  # type: ignore[import-untyped]

from tests.evidence.making import make
from tests.fuzz.target import Plant, Target, law, unnamed
from tests.ves.blocks import CONTRACT, block, receipt
from ves.block_proofs import decode_header, decode_receipt, keccak256, verify_receipt_proof
from ves.evidence import LINKS, ON_CHAIN, check
from ves.evidence_file import Evidence, NotEvidence, read_evidence

_TOPIC = bytes(range(32))
_RECEIPTS = [receipt([(CONTRACT, [_TOPIC], bytes([n]) * 40)], kind=n % 3) for n in range(20)]
_BLOCK = block(_RECEIPTS, 18)


def _block(data: bytes) -> None:
    """Header and receipt: one spelling each, so that what was read can only be written back as it came."""
    with suppress(ValueError):
        law(decode_header(data).block_hash == keccak256(data), "another hash than its own")
    with suppress(ValueError):
        read = decode_receipt(data)
        logs = [[log.address, log.topics, log.data] for log in read.logs]
        fields = rlp.decode(data[1:] if read.transaction_type else data)
        law(fields[3] == logs, "other logs than the library reads")
        law(fields[0] == (b"\x01" if read.succeeded else b""), "another status")


def _receipt_proof(data: bytes) -> None:
    """Nothing but the one true receipt is ever proven under a header's hash, whatever the nodes say."""
    cut = [data[at : at + 532] for at in range(0, len(data), 532)]
    for nodes in (cut, [data], [*_BLOCK.proof[:-1], data]):
        with suppress(ValueError):
            verify_receipt_proof(_BLOCK.block_header, _BLOCK.block_hash, 18, data, nodes)
            law(data == _BLOCK.receipt, "a receipt that is not in the block")
        with suppress(ValueError):
            verify_receipt_proof(_BLOCK.block_header, _BLOCK.block_hash, 18, _BLOCK.receipt, nodes)
            law(nodes == _BLOCK.proof, "another proof of the same receipt")
    with suppress(ValueError):
        verify_receipt_proof(data, keccak256(data), 18, _BLOCK.receipt, _BLOCK.proof)
        law(data == _BLOCK.block_header or _BLOCK.block_header[90:130] in data, "a header without this root")


def _gullible(right: Any) -> Any:
    """Who believes any proof."""

    def wrong(*args: Any) -> Any:
        try:
            return right(*args)
        except ValueError:
            return _BLOCK.receipt

    return wrong


_MADE = make()
_EVIDENCE = msgspec.json.encode(_MADE.evidence)


def _covered(evidence: Evidence) -> Any:
    """All of it but what the server merely says and how the payload is spelled."""
    return json.loads(msgspec.json.encode(evidence)) | {"said": None}


def _evidence_file(data: bytes) -> None:
    """No file but the true one is ever called proven; a judge never falls over what a reader took."""
    try:
        evidence = read_evidence(data)
    except NotEvidence:
        return
    links = check(evidence, _MADE.trust)
    law([link.name for link in links] == list(LINKS), "not one link for each name")
    if evidence.anchor is None or evidence.anchor.aggregate is None:
        return
    if all(link.verdict == "passed" for link in links if link.name not in ON_CHAIN):
        law(_covered(evidence) == _covered(_MADE.evidence), "another file is called proven")


TARGETS = (
    Target(
        "block",
        _block,
        [_BLOCK.block_header, *_RECEIPTS[:3], b"\x02" + b"\xc1" * 900],
        Plant("ves.block_proofs", "read_list", unnamed),
    ),
    Target(
        "receipt-proof",
        _receipt_proof,
        [_BLOCK.receipt, *_BLOCK.proof, b"".join(_BLOCK.proof), _BLOCK.block_header],
        Plant("ves.block_proofs", "_value_at", _gullible),
        bytes_max=2048,
    ),
    Target(
        "evidence-file",
        _evidence_file,
        [_EVIDENCE, msgspec.json.encode(make(road="single", with_payload=False).evidence)],
        Plant("ves.evidence_file", "parse_strictly", unnamed),
        bytes_max=16_384,
    ),
)
