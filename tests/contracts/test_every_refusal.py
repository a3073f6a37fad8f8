"""Every reason the source can refuse for is met on a chain, each place that gives it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from tests.anvil import ROOT
from tests.contracts.on_chain import OnChain, anchor_batch, digest, history
from ves import anchor_calls as calls
from ves.records import Commitment

SOURCE = (ROOT / "contracts/StateSetAnchor.sol").read_text()
COLUMNS = (
    *("tenant_id", "store_id", "merkle_root", "new_state_root"),
    *("sequence_start", "sequence_end", "leaf_count"),
)


class Case(NamedTuple):
    reason: str
    name: str
    call: Callable[[OnChain], tuple[bytes, bytes]]
    """Makes everything ready; the calldata and who sends it."""


def _one(**changed: object) -> Commitment:
    return msgspec.structs.replace(history("a", 2)[0], **changed)


def _by_owner(data: bytes) -> Callable[[OnChain], tuple[bytes, bytes]]:
    return lambda contract: (data, contract.owner)


def _after(*sent: bytes, then: bytes) -> Callable[[OnChain], tuple[bytes, bytes]]:
    def call(contract: OnChain) -> tuple[bytes, bytes]:
        for data in sent:
            contract.send(data)
        return then, contract.owner

    return call


def _tailed(position: int) -> bytes:
    """``anchor`` with a byte behind the UUID of one of its ids."""
    data = bytearray(calls.anchor(_one()))
    data[4 + 32 * position + 31] = 1
    return bytes(data)


def _one_short(column: str) -> bytes:
    return anchor_batch([_one()], **{column: []})


MANY = calls.anchor_many(digest("root"), 2, 0)
CASES = [
    Case("Not owner", "a stranger pauses", lambda c: (calls.calldata("pause()"), c.stranger)),
    Case("Not proposed", "the owner accepts", _by_owner(calls.calldata("acceptOwnership()"))),
    Case("Paused", "paused", _after(calls.calldata("pause()"), then=MANY)),
    Case("Not authorized", "a stranger anchors", lambda c: (calls.anchor(_one()), c.stranger)),
    Case("Not authorized", "a stranger aggregates", lambda c: (MANY, c.stranger)),
    Case("Not a UUID", "batch id", _by_owner(_tailed(0))),
    Case("Not a UUID", "tenant id", _by_owner(_tailed(1))),
    Case("Not a UUID", "store id", _by_owner(_tailed(2))),
    Case("Already anchored", "batch", _after(calls.anchor(_one()), then=calls.anchor(_one()))),
    Case("Already anchored", "root", _after(MANY, then=calls.anchor_many(digest("root"), 2, 2))),
    Case("Invalid sequence range", "end before start", _by_owner(calls.anchor(_one(sequence_end=0)))),
    Case("Empty batch", "count 0", _by_owner(calls.anchor(_one(leaf_count=0)))),
    Case("Empty batch", "count 0 among many", _by_owner(anchor_batch([_one(leaf_count=0)]))),
    Case("Empty batch", "no commitment at all", _by_owner(anchor_batch([]))),
    *(Case("Array length mismatch", column, _by_owner(_one_short(column))) for column in COLUMNS),
    Case("Wrong event count", "one more", _by_owner(calls.anchor(_one(leaf_count=3)))),
    Case("Wrong event count", "one less", _by_owner(calls.anchor(_one(leaf_count=1)))),
    Case("Not contiguous", "a stream's second first", _by_owner(calls.anchor(history("a", 2, 1)[1]))),
    Case("Not contiguous", "from 0", _by_owner(calls.anchor(_one(sequence_start=0, leaf_count=3)))),
    Case("Wrong state root", "of another stream", _by_owner(calls.anchor(_one(new_state_root=digest("x"))))),
    Case("Not anchored", "asked for", _by_owner(calls.get_commitment(_one().batch_id))),
    Case("Wrong count", "none", _by_owner(calls.anchor_many(digest("root"), 0, 0))),
    Case("Wrong count", "too many", _by_owner(calls.anchor_many(digest("root"), 4097, 0))),
    Case("Zero root", "zero", _by_owner(calls.anchor_many(bytes(32), 1, 0))),
    Case("Wrong first index", "too late", _by_owner(calls.anchor_many(digest("root"), 1, 1))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}: {case.name}")
def test_a_wrong_call_is_refused_with_its_reason(contract: OnChain, case: Case) -> None:
    data, sender = case.call(contract)
    assert contract.refusal(data, sender) == case.reason


def test_every_reason_in_the_source_has_a_case_and_every_case_a_reason_there() -> None:
    said = Counter(re.findall(r'require\([^;]*?"([^"]+)"\s*\);', SOURCE))
    assert sum(said.values()) == len(re.findall(r"\brequire\(", SOURCE)) == 18
    assert not re.search(r"\b(revert|assert)\b", re.sub(r"//.*", "", SOURCE))
    explained = (ROOT / "docs/contract.md").read_text().partition("## Why a call is refused")[2]
    assert not [reason for reason in said if reason not in explained]
    covered = Counter(case.reason for case in CASES)
    assert covered.keys() == said.keys()
    assert all(covered[reason] >= places for reason, places in said.items())
