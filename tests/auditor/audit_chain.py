"""The auditor's judgement of the audit trail: each node's chain, its commitments and kept heads.

Written from docs/audit.md alone: hashes, trees and state roots are computed here, nothing of the project is
imported. ``read_chains`` reads the admin listener with a ``Get`` of ``reading``; ``audit_chain`` is pure.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.auditor.reading import PAGE, Get, Json, Unreadable, over_http
from tests.auditor.rules import unhex, uuid16

PATH = "/api/v1/admin/audit"
ZEROS = bytes(32)


@dataclass
class Chain:
    """One node's chain, as somebody saw it."""

    node_id: str
    head: Json
    entries: list[Json]
    commitments: list[Json]
    kept: Json | None = field(default=None)
    """The head of the same node as somebody kept it earlier."""


def read_chains(get: Get) -> list[Chain]:
    chains = []
    for head in _heads(get):
        node = head["node_id"]
        entries = _numbered(get, f"{PATH}/chains/{node}", "entries")
        commitments = _numbered(get, f"{PATH}/commitments/{node}", "commitments")
        chains.append(
            Chain(
                node,
                head,
                [e for e in entries if e["entry_number"] <= head["entry_number"]],
                [c for c in commitments if c["entry_start"] <= head["committed_through"]],
            )
        )
    return chains


def _heads(get: Get) -> list[Json]:
    found: list[Json] = []
    query: Json = {"limit": PAGE}
    while True:
        page = get(f"{PATH}/heads", query)
        found += page["heads"]
        if not page["has_more"]:
            return found
        query["after"] = page["next_after"]


def _numbered(get: Get, path: str, member: str) -> list[Json]:
    found: list[Json] = []
    start = 1
    while True:
        page = get(path, {"from": start, "limit": PAGE})
        found += page[member]
        if not page["has_more"]:
            return found
        if page["next_from"] <= start:
            raise Unreadable(f"{path}: the page from {start} leads back to {page['next_from']}")
        start = page["next_from"]


def audit_all(chains: Sequence[Chain], kept: Sequence[Json]) -> list[str]:
    """Of all chains, held against heads that somebody kept; also of chains that are gone."""
    by_node = {head["node_id"]: head for head in kept}
    problems = []
    for chain in chains:
        chain.kept = by_node.pop(chain.node_id, None)
        problems += audit_chain(chain)
    return problems + [f"chain {node_id} is gone, its head was kept" for node_id in by_node]


def audit_chain(chain: Chain) -> list[str]:
    """Every broken promise of one chain."""
    try:
        return [f"chain {chain.node_id}: {problem}" for problem in _problems(chain)]
    except (ValueError, KeyError, TypeError) as error:
        return [f"chain {chain.node_id} is not formed as it should be: {type(error).__name__} {error}"]


def _problems(chain: Chain) -> Iterator[str]:
    hashes: list[bytes] = []
    for position, entry in enumerate(chain.entries, 1):
        before = hashes[-1] if hashes else ZEROS
        yield from _entry(entry, position, before)
        hashes.append(unhex(entry["entry_hash"], 32, "entry_hash"))
    through, state = 0, ZEROS
    for commitment in chain.commitments:
        yield from _commitment(chain, commitment, through, state, hashes)
        through, state = commitment["entry_end"], unhex(commitment["new_state_root"], 32, "state root")
    told = (chain.head["entry_number"], chain.head["entry_hash"])
    if told != (len(hashes), hashes[-1].hex() if hashes else ZEROS.hex()):
        yield f"the head says {told[0]}, the entries end otherwise at {len(hashes)}"
    if (chain.head["committed_through"], chain.head["state_root"]) != (through, state.hex()):
        yield "the head tells another state of the commitments than they have"
    if chain.kept is not None:
        yield from _kept(chain.kept, hashes, chain.commitments)


def _entry(entry: Json, number: int, before: bytes) -> Iterator[str]:
    name = f"entry {entry['entry_number']}"
    if entry["entry_number"] != number:
        yield f"{name} stands where {number} should"
    if unhex(entry["prev_hash"], 32, "prev_hash") != before:
        yield f"{name} does not follow its predecessor"
    digest = hashlib.sha256(
        b"VES_AUDIT_ENTRY_V1" + unhex(entry["prev_hash"], 32, "prev_hash") + entry["entry"].encode()
    )
    if digest.hexdigest() != entry["entry_hash"]:
        yield f"{name} was changed: its hash is another"
    told: dict[str, Any] = json.loads(entry["entry"])
    for column in ("node_id", "recorded_at_us", "tenant_id", "actor", "action", "subject"):
        if told[column] != entry[column]:
            yield f"{name}: its {column} is not the one in its text"
    if told["number"] != number:
        yield f"{name} says in its text that it is {told['number']}"


def _commitment(
    chain: Chain, commitment: Json, through: int, state: bytes, hashes: list[bytes]
) -> Iterator[str]:
    start, end = commitment["entry_start"], commitment["entry_end"]
    name = f"commitment {start} to {end}"
    if start != through + 1 or unhex(commitment["prev_state_root"], 32, "state root") != state:
        yield f"{name} does not follow the one before it"
    if not start <= end <= len(hashes):
        yield f"{name} covers entries that are not there"
        return
    node = uuid16(chain.node_id)
    leaves = [
        _h(b"VES_AUDIT_LEAF_V1", node, number.to_bytes(8, "big"), hashes[number - 1])
        for number in range(start, end + 1)
    ]
    root = unhex(commitment["merkle_root"], 32, "merkle_root")
    if _root(leaves) != root:
        yield f"{name}: its merkle_root is not that of its entries"
    chained = _h(
        b"VES_AUDIT_STATE_ROOT_V1",
        _h(b"VES_AUDIT_CHAIN_V1", node),
        state,
        root,
        start.to_bytes(8, "big") + end.to_bytes(8, "big") + (end - start + 1).to_bytes(4, "big"),
    )
    if chained.hex() != commitment["new_state_root"]:
        yield f"{name}: its new_state_root chains something else"


def _kept(kept: Json, hashes: list[bytes], commitments: list[Json]) -> Iterator[str]:
    number = kept["entry_number"]
    if number > len(hashes):
        yield f"{number} entries were there when its head was kept, now {len(hashes)}"
    elif number and hashes[number - 1].hex() != kept["entry_hash"]:
        yield f"entry {number} is another one than was kept"
    roots = {c["entry_end"]: c["new_state_root"] for c in commitments}
    through = kept["committed_through"]
    if through and roots.get(through) != kept["state_root"]:
        yield f"the commitments through {through} are others than were kept"


def proof_holds(proof: Json) -> bool:
    """Whether a proof leads from its entry's text to its commitment's root."""
    entry, commitment = proof["entry"], proof["commitment"]
    digest = _h(b"VES_AUDIT_ENTRY_V1", unhex(entry["prev_hash"], 32, "prev_hash"), entry["entry"].encode())
    number, count = entry["entry_number"], commitment["entry_end"] - commitment["entry_start"] + 1
    index = number - commitment["entry_start"]
    if not 0 <= index < count or len(proof["proof_path"]) != (count - 1).bit_length():
        return False
    running = _h(b"VES_AUDIT_LEAF_V1", uuid16(entry["node_id"]), number.to_bytes(8, "big"), digest)
    for height, text in enumerate(proof["proof_path"]):
        sibling = unhex(text, 32, "proof_path")
        pair = (sibling, running) if index >> height & 1 else (running, sibling)
        running = _h(b"VES_AUDIT_NODE_V1", *pair)
    return running.hex() == commitment["merkle_root"]


def _root(leaves: list[bytes]) -> bytes:
    level = leaves + [_h(b"VES_AUDIT_PAD_LEAF_V1")] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))
    while len(level) > 1:
        level = [_h(b"VES_AUDIT_NODE_V1", level[n], level[n + 1]) for n in range(0, len(level), 2)]
    return level[0]


def _h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def main() -> int:
    """``python -m tests.auditor.audit_chain ADMIN_URL [KEPT_HEADS]``, the credential in SEQUENCER_API_KEY."""
    if len(sys.argv) not in (2, 3):
        print(main.__doc__, file=sys.stderr)
        return 2
    try:
        kept = json.loads(Path(sys.argv[2]).read_bytes())["heads"] if len(sys.argv) == 3 else []
        chains = read_chains(over_http(sys.argv[1], os.environ.get("SEQUENCER_API_KEY")))
    except (Unreadable, OSError, ValueError, KeyError) as error:
        print(f"could not be read: {error}", file=sys.stderr)
        return 3
    problems = audit_all(chains, kept)
    print("\n".join([*problems, f"{len(chains)} chains, {len(problems)} broken promises"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
