"""What clients and workers read: answers, receipts, proofs, trust files, audit exports, frames of a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from actors import worker_wire
from actors.worker_wire import (
    HEADER,
    Became,
    Become,
    FrameTooLong,
    VerifyAnswer,
    VerifyBody,
    body_length,
    frame,
)
from tests.fuzz.target import Plant, Target, law, unnamed
from tests.ves.test_verify_body import plaintext
from transport.client.audit_trail import KeptHeads, Verdict, check, from_lines
from transport.client.errors import ClientError
from transport.client.wire import (
    Acknowledgement,
    AgentKeysPage,
    CommitmentsPage,
    ErrorBody,
    EventsPage,
    IngestReply,
    Leaves,
    ProofFile,
    TrustFile,
    WellKnown,
    decode,
)
from ves.records import Scope

_UUID = "6f1d3c1e-0000-4000-8000-00000000000a"
_HASH = "ab" * 32
_RECEIPT = {
    "sequencerId": _UUID,
    "eventId": _UUID,
    "sequenceNumber": 1,
    "sequencedAt": "2026-01-01T00:00:00+00:00",
    "receiptHash": "0x" + _HASH,
    "signatureAlg": "ed25519",
    "sequencerSignature": "0x" + "cd" * 64,
    "sequencerKeyVersion": 1,
}
_COMMITMENT = {
    "batch_id": _UUID,
    "tenant_id": _UUID,
    "store_id": _UUID,
    "ves_version": 1,
    "tree_depth": 1,
    "leaf_count": 2,
    "padded_leaf_count": 2,
    "sequence_start": 1,
    "sequence_end": 2,
    **dict.fromkeys(("merkle_root", "prev_state_root", "new_state_root"), _HASH),
    "committed_at": "2026-01-01T00:00:00Z",
}
_PROOF = {
    "sequence_number": 1,
    "batch_id": _UUID,
    "merkle_root": _HASH,
    "leaf_hash": _HASH,
    "leaf_index": 0,
    "proof_path": [_HASH],
    "directions": [True],
}
_TRUST = {
    "sequencer_id": _UUID,
    "receipt_keys": [
        {"key_version": 1, "alg": "ed25519", "public_key": _HASH, "active": False},
        {"key_version": 2, "alg": "ed25519", "public_key": _HASH, "previous_signature": "0x" + "cd" * 64},
    ],
    "agent_keys": [{"tenant_id": _UUID, "agent_id": _UUID, "key_id": 1, "public_key": _HASH}],
}


def _use(found: Any) -> None:
    """What a client does with it before it is believed. ValueError: a member is misspelt."""
    parts = [found, *(getattr(found, name, None) for name in ("receipt", "event", "commitment", "proof"))]
    for part in parts:
        for act in (
            "keys",
            "links",
            "agents",
            "check_signatures",
            "receipt",
            "commitment",
            "proof",
            "by_node",
        ):
            if callable(method := getattr(part, act, None)):
                method()
    if isinstance(found, ProofFile):
        found.event.sequenced(1).signing_hash()


_KINDS = (
    *(Acknowledgement, ProofFile, TrustFile, WellKnown, EventsPage, CommitmentsPage, Leaves, IngestReply),
    *(AgentKeysPage, ErrorBody, KeptHeads),
)


def _answer(data: bytes) -> None:
    """A file or an answer: BadAnswer that names it, or members that are right or named as wrong."""
    for kind in _KINDS:
        try:
            _use(decode(data, kind, "the file"))  # type: ignore[arg-type]
        except ClientError as wrong:
            law(str(wrong).startswith("the file: "), "does not name the file")
        except (ValueError, OverflowError) as wrong:
            law(isinstance(wrong, ValueError), f"{kind.__name__}: {wrong!r}")


def _trail(data: bytes) -> None:
    """An audit export: findings as sentences, or BadAnswer that names the line."""

    async def read() -> list[str]:
        verdict = Verdict(None)
        return [finding async for finding in check(from_lines(data.split(b"\n"), "the trail"), verdict)]

    try:
        findings = trio.run(read)
    except ClientError as wrong:
        law(str(wrong).startswith("the trail:"), "does not name the trail")
        return
    law(bool(findings) or data.count(b'"end"') == 1, "a trail without an end is nothing to find")


_decoders: list[Callable[[bytes], Any]] = [
    msgspec.msgpack.Decoder(kind).decode
    for kind in (
        Become,
        Became,
        worker_wire.VerifyQuestion,
        VerifyAnswer,
        worker_wire.CheckerAnswer,
        worker_wire.SealBytes,
    )
]


def _pipe(data: bytes) -> None:
    """A frame over a worker's pipe: too long, nonsense, or a value that is framed again the same."""
    if len(data) < HEADER.size:
        return
    try:
        length, request_id = body_length(data[: HEADER.size])
    except FrameTooLong:
        return
    law(0 <= length <= worker_wire.FRAME_BYTES_MAX, "a length beyond the limit")
    for decode_one in _decoders:
        try:
            value = decode_one(data[HEADER.size :])
        except worker_wire.NONSENSE:
            continue
        again = bytes(frame(request_id, value))
        law(body_length(again[: HEADER.size])[1] == request_id, "another question's")
        law(decode_one(again[HEADER.size :]) == value, "framed again it is another")


def _lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records)


_HEAD = {"kind": "head", "node_id": _UUID, "entry_number": 1, "entry_hash": _HASH, "committed_through": 0}
_ENTRY = {
    "kind": "entry",
    "node_id": _UUID,
    "entry_number": 1,
    "recorded_at": "2026-01-01T00:00:00Z",
    "recorded_at_us": 1_767_225_600_000_000,
    "tenant_id": None,
    "actor": "a",
    "action": "b",
    "subject": "c",
    "entry": "{}",
    "prev_hash": "00" * 32,
    "entry_hash": _HASH,
}

_BOTTOMLESS = b'{"kind":"chain","sequencer_id":' + b"[" * 20_000
"""Once ended a client with a traceback."""

TARGETS = (
    Target(
        "answer",
        _answer,
        [
            json.dumps(_TRUST).encode(),
            _BOTTOMLESS,
            json.dumps(
                {"event": plaintext(1), "receipt": _RECEIPT, "commitment": _COMMITMENT, "proof": _PROOF}
            ).encode(),
            json.dumps({"error": {"code": "X", "message": "y", "request_id": "z"}, "message": "y"}).encode(),
            json.dumps({"commitments": [_COMMITMENT], "has_more": False, "next_from": 2}).encode(),
        ],
        Plant("transport.client.wire", "hex_bytes", unnamed),
        bytes_max=32_768,
    ),
    Target(
        "audit-trail",
        _trail,
        [
            _lines(
                {"kind": "chain", "node_id": _UUID},
                _ENTRY,
                {"kind": "commitment", "node_id": _UUID, "entry_start": 1, "entry_end": 1}
                | dict.fromkeys(("merkle_root", "prev_state_root", "new_state_root"), _HASH)
                | {"committed_at": "2026-01-01T00:00:00Z"},
                _HEAD | {"state_root": _HASH},
                {"kind": "end", "chains": 1},
            ),
            _BOTTOMLESS,
        ],
        Plant("transport.client.audit_trail", "parse_rfc3339", unnamed),
        bytes_max=32_768,
    ),
    Target(
        "pipe-frame",
        _pipe,
        [
            bytes(frame(1, VerifyBody(b"{}", Scope(None, None, None)))),
            bytes(frame(2, worker_wire.BecomeVerifier())),
            bytes(frame(3, Became(7, b"k" * 32))),
            bytes(frame(4, worker_wire.GiveKeys([]))),
        ],
        Plant("actors.worker_wire", "checked_length", lambda right: lambda length: length),
        bytes_max=1024,
    ),
)
