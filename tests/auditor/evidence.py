"""An evidence file checked a second time, written from ``docs/evidence.md``. Imports nothing of the project.

``audited`` answers a verdict for each link, by the names the document gives them: True, False, or None where
nobody can judge. ``python -m tests.auditor.evidence FILE TRUST`` prints them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.auditor import rules
from tests.auditor.evm import keccak256, number, recovered_address, rlp, rlp_written, value_in_trie
from tests.auditor.rules import Malformed, sha256, signature_holds, u32, u64, unhex, uuid16

Json = dict[str, Any]
Verdicts = dict[str, bool | None]

# ---- shape ----------------------------------------------------------------------------------------------


class _Hex:
    def __init__(self, size: int | None = None) -> None:
        self.size = size


_Y, _K, _S, _ADDRESS, _BYTES = _Hex(32), _Hex(32), _Hex(64), _Hex(20), _Hex()
_ID, _TEXT, _JSON, _INT = "uuid", "text", "json", "int"
_U32, _NUMBER, _INDEX, _COUNT = (
    (0, 2**32 - 1),
    (1, 2**63 - 1),
    (0, 2**63 - 1),
    (1, 2**32 - 1),
)
_PATH_SHORT, _PATH_LONG = [_Y, 12], [_Y, 32]
SHAPE: Json = {
    "format": {"VES-EVIDENCE-1"},
    "event": {
        "ves_version": {1},
        **dict.fromkeys(("event_id", "tenant_id", "store_id", "source_agent_id"), _ID),
        "agent_key_id": _U32,
        **dict.fromkeys(("entity_type", "entity_id", "event_type", "created_at"), _TEXT),
        "payload_kind": {0, 1},
        "payload_plain_hash": _Y,
        "payload_cipher_hash": _Y,
        "agent_signature": _S,
        "payload?": _JSON,
        "payload_encrypted?": _JSON,
    },
    "agent_key": (
        None,
        {
            "public_key": _K,
            "possession": (None, {"version": {1, 2}, "signature": _S}),
            "registration": (
                None,
                {
                    "node_id": _ID,
                    "entry_number": _NUMBER,
                    "text": _TEXT,
                    "prev_hash": _Y,
                    "committed": (
                        None,
                        {
                            "entry_start": _NUMBER,
                            "entry_end": _NUMBER,
                            **dict.fromkeys(("merkle_root", "prev_state_root", "new_state_root"), _Y),
                        },
                    ),
                    "path": _PATH_SHORT,
                },
            ),
        },
    ),
    "receipt": {
        "sequencer_id": _ID,
        "key_version": _U32,
        "sequence_number": _NUMBER,
        "receipt_hash": _Y,
        "sequencer_signature": _S,
    },
    "sequencer_keys": [{"key_version": _U32, "public_key": _K, "previous_signature": (None, _S)}, 1000],
    "commitment": (
        None,
        {
            "batch_id": _ID,
            "sequence_start": _NUMBER,
            "sequence_end": _NUMBER,
            "leaf_count": _COUNT,
            **dict.fromkeys(("merkle_root", "prev_state_root", "new_state_root"), _Y),
            "leaf_index": _U32,
            "path": _PATH_LONG,
        },
    ),
    "anchor": (
        None,
        {
            "chain_id": _NUMBER,
            "contract": _ADDRESS,
            "aggregate": (
                None,
                {
                    "leaf": _Y,
                    "position": _U32,
                    "count": _COUNT,
                    "path": _PATH_SHORT,
                    "root": _Y,
                    "first_index": _INDEX,
                    "previous_head": _Y,
                    "head": _Y,
                },
            ),
            "transaction_hash": _Y,
            "transaction": _BYTES,
            "block": {
                "number": _INDEX,
                "hash": _Y,
                "header": _BYTES,
                "transaction_index": _U32,
                "receipt": _BYTES,
                "receipt_proof": [_BYTES, 16],
            },
        },
    ),
    "said": {
        "sequenced_at": _TEXT,
        "committed_at": (None, _TEXT),
        "anchor_state": {
            *("uncommitted", "unanchored", "pending", "submitted", "included", "safe", "finalized"),
            "reported",
        },
        "anchor_state_since": (None, _TEXT),
    },
}


def _shaped(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, tuple) and shape[0] is None:
        if value is not None:
            _shaped(value, shape[1], where)
    elif isinstance(shape, tuple):
        if type(value) is not int or not shape[0] <= value <= shape[1]:
            raise Malformed(f"{where} is no number from {shape[0]} to {shape[1]}")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Malformed(f"{where} is no object")
        known = {name.rstrip("?"): inner for name, inner in shape.items()}
        must = {name for name in shape if not name.endswith("?")}
        if not must <= value.keys() <= known.keys():
            raise Malformed(f"{where} has other members")
        for name, inner in value.items():
            _shaped(inner, known[name], f"{where}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(value) > shape[1]:
            raise Malformed(f"{where} is no list, or too long")
        for inner in value:
            _shaped(inner, shape[0], where)
    elif isinstance(shape, set):
        if isinstance(value, bool | float) or value not in shape:
            raise Malformed(f"{where} is none of {shape}")
    elif isinstance(shape, _Hex):
        digits = f"[0-9a-f]{{{2 * shape.size}}}" if shape.size else "([0-9a-f]{2})*"
        if not isinstance(value, str) or not re.fullmatch(f"0x{digits}", value):
            raise Malformed(f"{where} is no hex of its length")
    elif shape == _ID:
        if not isinstance(value, str) or not re.fullmatch(
            r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value
        ):
            raise Malformed(f"{where} is no UUID")
    elif shape == _TEXT and not isinstance(value, str):
        raise Malformed(f"{where} is no text")


def read(raw: bytes) -> Json:
    """Raises Malformed."""
    try:
        file = rules.parse(raw)
    except (ValueError, RecursionError) as wrong:
        raise Malformed(str(wrong)) from None
    _shaped(file, SHAPE, "the file")
    if not file["sequencer_keys"]:
        raise Malformed("no sequencer key")
    return dict(file)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


# ---- links ----------------------------------------------------------------------------------------------


class Unknown(Exception):
    """Nobody can judge this link with what there is."""


def _sure(holds: bool) -> None:
    if not holds:
        raise Malformed("does not hold")


def audited(file: Json, trust: Json | None) -> Verdicts:
    """``trust``: as the file for ``--trust``; None for none."""
    trust = trust or {}
    judges: dict[str, Callable[[Json, Json], None]] = {
        "payload": _payload,
        "agent_signature": _agent_signature,
        "agent_key": _agent_key,
        "agent_possession": _possession,
        "agent_registration": _registration,
        "audit_root": _audit_root,
        "receipt": _receipt,
        "receipt_signature": _receipt_signature,
        "sequencer_key": _sequencer_key,
        "inclusion": _inclusion,
        "state_root": _state_root,
        "chain": _chain,
        "aggregate": _aggregate,
        "aggregate_head": _head,
        "log": _log,
        "block_receipt": _block_receipt,
        "transaction": _transaction,
        "anchoring_account": _account,
    }
    verdicts: Verdicts = {}
    for name, judge in judges.items():
        try:
            judge(file, trust)
            verdicts[name] = True
        except Unknown:
            verdicts[name] = None
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError):
            verdicts[name] = False
    return verdicts | dict.fromkeys(("block_canonical", "block_final", "contract_state"))


def _known(value: Any) -> Any:
    if value is None:
        raise Unknown
    return value


def _payload(file: Json, trust: Json) -> None:
    event = file["event"]
    names = ["payload", "payload_encrypted"]
    _sure(names[1 - event["payload_kind"]] not in event)
    own = names[event["payload_kind"]]
    if own not in event:
        raise Unknown
    if event["payload_kind"] == 0:
        _sure(rules.payload_plain_hash(event[own]) == _bytes(event["payload_plain_hash"]))
        _sure(_bytes(event["payload_cipher_hash"]) == rules.ZEROS)
    else:
        _sure(rules.payload_cipher_hash(event) == _bytes(event["payload_cipher_hash"]))


def _agent_public_key(file: Json) -> bytes:
    return _bytes(_known(file["agent_key"])["public_key"])


def _agent_signature(file: Json, trust: Json) -> None:
    event = file["event"]
    signature = _bytes(event["agent_signature"])
    _sure(signature_holds(_agent_public_key(file), rules.event_signing_hash(event), signature))


def _agent_key(file: Json, trust: Json) -> None:
    event = file["event"]
    listed = trust.get("agent_keys")
    if not listed:
        raise Unknown
    name = (event["tenant_id"], event["source_agent_id"], event["agent_key_id"])
    known = {(one["tenant_id"], one["agent_id"], one["key_id"]): one["public_key"] for one in listed}
    _sure(name in known)
    _sure(unhex(known[name], 32, "public_key") == _agent_public_key(file))


def _possession(file: Json, trust: Json) -> None:
    event, key = file["event"], _agent_public_key(file)
    proof = _known(file["agent_key"]["possession"])
    if proof["version"] == 1:
        challenge = sha256(b"VES_POP_V1", key)
    else:
        ids = uuid16(event["tenant_id"]), uuid16(event["source_agent_id"])
        challenge = sha256(b"VES_POP_V2", *ids, u32(event["agent_key_id"]), key)
    _sure(signature_holds(key, challenge, _bytes(proof["signature"])))


def _registration(file: Json, trust: Json) -> None:
    event, key = file["event"], _agent_public_key(file)
    told = _known(file["agent_key"]["registration"])
    entry = json.loads(told["text"])
    _sure((entry["node_id"], entry["number"]) == (told["node_id"], told["entry_number"]))
    _sure(entry["tenant_id"] == event["tenant_id"])
    _sure(entry["subject"] == f"{event['source_agent_id']}/{event['agent_key_id']}")
    _sure(entry["action"] in ("agent_key.register", "agent_key.rotate"))
    _sure(entry["details"]["public_key"] == key.hex())
    held = _known(told["committed"])
    node, start, end = uuid16(told["node_id"]), held["entry_start"], held["entry_end"]
    index, count = told["entry_number"] - start, end - start + 1
    _sure(0 <= index < count and 1 << len(told["path"]) == rules.padded(count))
    digest = sha256(b"VES_AUDIT_ENTRY_V1", _bytes(told["prev_hash"]), told["text"].encode())
    running = sha256(b"VES_AUDIT_LEAF_V1", node, u64(told["entry_number"]), digest)
    for height, step in enumerate(map(_bytes, told["path"])):
        pair = (step, running) if index >> height & 1 else (running, step)
        running = sha256(b"VES_AUDIT_NODE_V1", *pair)
    _sure(running == _bytes(held["merkle_root"]))
    chain = sha256(b"VES_AUDIT_CHAIN_V1", node)
    roots = _bytes(held["prev_state_root"]), running
    span = u64(start), u64(end), u32(count)
    _sure(sha256(b"VES_AUDIT_STATE_ROOT_V1", chain, *roots, *span) == _bytes(held["new_state_root"]))


def _audit_root(file: Json, trust: Json) -> None:
    held = _known(_known(_known(file["agent_key"])["registration"])["committed"])
    kept = trust.get("audit_state_roots")
    if not kept:
        raise Unknown
    _sure(_bytes(held["new_state_root"]) in [unhex(one, 32, "state root") for one in kept])


def _receipt(file: Json, trust: Json) -> None:
    receipt = file["receipt"]
    expected = rules.receipt_hash(file["event"], receipt["sequence_number"])
    _sure(_bytes(receipt["receipt_hash"]) == expected)


def _versions(file: Json) -> dict[int, Json]:
    return {key["key_version"]: key for key in file["sequencer_keys"]}


def _receipt_signature(file: Json, trust: Json) -> None:
    receipt = file["receipt"]
    key = _bytes(_versions(file)[receipt["key_version"]]["public_key"])
    _sure(signature_holds(key, _bytes(receipt["receipt_hash"]), _bytes(receipt["sequencer_signature"])))


def _sequencer_key(file: Json, trust: Json) -> None:
    keys, sequencer_id = file["sequencer_keys"], file["receipt"]["sequencer_id"]
    _sure(keys[0]["previous_signature"] is None)
    for before, key in pairwise(keys):
        _sure(key["key_version"] == before["key_version"] + 1)
        public_key = _bytes(key["public_key"])
        statement = rules.receipt_key_statement(sequencer_id, key["key_version"], public_key)
        signature = _bytes(key["previous_signature"])
        _sure(signature_holds(_bytes(before["public_key"]), statement, signature))
    believed = {
        one["key_version"]: unhex(one["public_key"], 32, "public_key")
        for one in trust.get("receipt_keys", ())
        if (one.get("sequencer_id") or trust["sequencer_id"]) == sequencer_id
    }
    if not believed:
        raise Unknown
    shown = _versions(file)
    for version, public_key in believed.items():
        _sure(version in shown and _bytes(shown[version]["public_key"]) == public_key)
    if file["receipt"]["key_version"] < min(believed):
        raise Unknown
    _sure(file["receipt"]["key_version"] in shown)


def _inclusion(file: Json, trust: Json) -> None:
    held, sequence_number = _known(file["commitment"]), file["receipt"]["sequence_number"]
    index, count = sequence_number - held["sequence_start"], held["leaf_count"]
    _sure(count == held["sequence_end"] - held["sequence_start"] + 1)
    _sure(0 <= index < count and held["leaf_index"] == index)
    path = [_bytes(step) for step in held["path"]]
    _sure(1 << len(path) == rules.padded(count))
    leaf = rules.leaf_hash(file["event"], sequence_number)
    _sure(rules.climb(leaf, index, path) == _bytes(held["merkle_root"]))


def _state_root(file: Json, trust: Json) -> None:
    held, event = _known(file["commitment"]), file["event"]
    start, end = held["sequence_start"], held["sequence_end"]
    _sure(1 <= start <= end and held["leaf_count"] == end - start + 1)
    roots = _bytes(held["prev_state_root"]), _bytes(held["merkle_root"])
    expected = rules.state_root(event["tenant_id"], event["store_id"], *roots, start, end)
    _sure(_bytes(held["new_state_root"]) == expected)


def _chain(file: Json, trust: Json) -> None:
    anchor = _known(file["anchor"])
    if trust.get("chain_id") is None or trust.get("contract") is None:
        raise Unknown
    _sure(anchor["chain_id"] == trust["chain_id"])
    _sure(_bytes(anchor["contract"]) == unhex(trust["contract"], 20, "contract"))


def _aggregate(file: Json, trust: Json) -> None:
    anchor, event = _known(file["anchor"]), file["event"]
    held, tree = _known(file["commitment"]), anchor["aggregate"]
    if tree is None:
        return
    leaf = sha256(
        b"VES_ANCHOR_LEAF_V1",
        u64(anchor["chain_id"]),
        _bytes(anchor["contract"]),
        *map(uuid16, (held["batch_id"], event["tenant_id"], event["store_id"])),
        u64(held["sequence_start"]),
        u64(held["sequence_end"]),
        u32(held["leaf_count"]),
        _bytes(held["merkle_root"]),
        _bytes(held["new_state_root"]),
    )
    _sure(leaf == _bytes(tree["leaf"]))
    position, count = tree["position"], tree["count"]
    _sure(position < count <= 4096 and 1 << len(tree["path"]) == rules.padded(count))
    for height, step in enumerate(map(_bytes, tree["path"])):
        pair = (step, leaf) if position >> height & 1 else (leaf, step)
        leaf = sha256(b"VES_ANCHOR_NODE_V1", *pair)
    _sure(leaf == _bytes(tree["root"]))


def _head(file: Json, trust: Json) -> None:
    tree = _known(file["anchor"])["aggregate"]
    if tree is None:
        return
    before, root = _bytes(tree["previous_head"]), _bytes(tree["root"])
    head = sha256(b"VES_ANCHOR_HEAD_V1", before, root, u64(tree["first_index"]), u32(tree["count"]))
    _sure(head == _bytes(tree["head"]))


def _header(anchor: Json) -> list[Any]:
    items = rlp(_bytes(anchor["block"]["header"]))
    _sure(isinstance(items, list) and 15 <= len(items) <= 32)
    return list(items)


def _receipt_items(anchor: Json) -> list[Any]:
    raw = _bytes(anchor["block"]["receipt"])
    _sure(raw[0] != 0)
    items = rlp(raw[1:] if raw[0] < 0x80 else raw)
    _sure(isinstance(items, list) and len(items) == 4 and len(items[2]) == 256 and number(items[1]) < 2**64)
    _sure(items[0] in (b"", b"\x01"))
    return list(items)


def _words(*numbers: int) -> bytes:
    return b"".join(one.to_bytes(32, "big") for one in numbers)


def _uuid_words(*ids: str) -> list[bytes]:
    return [uuid16(one) + bytes(16) for one in ids]


def _log(file: Json, trust: Json) -> None:
    anchor, event = _known(file["anchor"]), file["event"]
    status, _, _, logs = _receipt_items(anchor)
    _sure(status == b"\x01")
    time_s = number(_header(anchor)[11])
    tree = anchor["aggregate"]
    if tree is not None:
        name = b"AggregateAnchored(bytes32,uint64,uint32,bytes32,bytes32,uint256)"
        topics = [keccak256(name), _bytes(tree["root"]), _words(tree["first_index"])]
        data = _words(tree["count"]) + _bytes(tree["previous_head"]) + _bytes(tree["head"]) + _words(time_s)
    else:
        name = b"CommitmentAnchored(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32,uint256)"
        held = _known(file["commitment"])
        batch, tenant, store = _uuid_words(held["batch_id"], event["tenant_id"], event["store_id"])
        topics = [keccak256(name), batch, tenant]
        span = held["sequence_start"], held["sequence_end"], held["leaf_count"], time_s
        data = store + _bytes(held["merkle_root"]) + _bytes(held["new_state_root"]) + _words(*span)
    _sure([_bytes(anchor["contract"]), topics, data] in logs)


def _block_receipt(file: Json, trust: Json) -> None:
    anchor = _known(file["anchor"])
    block, items = anchor["block"], _header(anchor)
    _sure(keccak256(_bytes(block["header"])) == _bytes(block["hash"]))
    _sure(number(items[8]) == block["number"])
    _receipt_items(anchor)
    nodes = [_bytes(node) for node in block["receipt_proof"]]
    found = value_in_trie(items[5], rlp_written(block["transaction_index"]), nodes)
    _sure(found == _bytes(block["receipt"]))


def _sender(anchor: Json) -> tuple[bytes, list[Any]]:
    raw = _bytes(anchor["transaction"])
    items = rlp(raw[1:])
    _sure(raw[0] == 2 and isinstance(items, list) and len(items) == 12 and items[8] == [])
    digest = keccak256(b"\x02" + rlp_written([*items[:8], []]))
    return recovered_address(digest, *map(number, items[9:])), items


def _transaction(file: Json, trust: Json) -> None:
    anchor, event = _known(file["anchor"]), file["event"]
    _sure(keccak256(_bytes(anchor["transaction"])) == _bytes(anchor["transaction_hash"]))
    _, items = _sender(anchor)
    _sure(number(items[0]) == anchor["chain_id"] and items[5] == _bytes(anchor["contract"]))
    for item in (*items[1:5], items[6]):
        number(item)
    _sure(items[6] == b"")
    tree = anchor["aggregate"]
    if tree is not None:
        selector = keccak256(b"anchorMany(bytes32,uint32,uint64)")[:4]
        arguments = _bytes(tree["root"]) + _words(tree["count"], tree["first_index"])
    else:
        held = _known(file["commitment"])
        selector = keccak256(b"anchor(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32)")[:4]
        ids = _uuid_words(held["batch_id"], event["tenant_id"], event["store_id"])
        roots = _bytes(held["merkle_root"]) + _bytes(held["new_state_root"])
        span = _words(held["sequence_start"], held["sequence_end"], held["leaf_count"])
        arguments = b"".join(ids) + roots + span
    _sure(items[7] == selector + arguments)


def _account(file: Json, trust: Json) -> None:
    anchor = _known(file["anchor"])
    accounts = trust.get("anchoring_accounts")
    if not accounts:
        raise Unknown
    _sure(_sender(anchor)[0] in [unhex(one, 20, "account") for one in accounts])


def main() -> int:
    file, trust = (Path(name).read_bytes() for name in sys.argv[1:3])
    verdicts = audited(read(file), json.loads(trust))
    for name, verdict in verdicts.items():
        print({True: "passed", False: "FAILED", None: "not checked"}[verdict], name)
    return int(False in verdicts.values())


if __name__ == "__main__":
    sys.exit(main())
