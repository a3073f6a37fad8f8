"""``sequencer audit compare`` and ``head``: two auditors find out whether they were shown the same history.

Offline. A server that shows two histories must sign both; so the first commitment where two states differ is
printed as both saw it, with the receipt of its last event on either side and whether it holds. The other's
files are read like any stranger's: the keys that count are ours.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from cyclopts import Parameter

from transport.cli.console import Exit, Json, read_file, read_trust, readably, show
from transport.client.errors import ClientError
from transport.client.follow_memory import read_state, records_of
from transport.client.follow_view import told
from transport.client.wire import ReceiptKeyName, ReceiptKeys
from ves.constants import ZERO_HASH
from ves.following import (
    Seen,
    Verified,
    head_line,
    history_after,
    last_receipt_holds,
    name_of,
    read_head_line,
    receipts_conflict,
    record_of,
)

LINE_BYTES_MAX = 4096


def head(*, state: Path, as_json: Json = False) -> int:
    """Print one line that says what was verified: send it to other auditors, on a way they trust.

    Parameters
    ----------
    state
        Of `sequencer audit follow`.
    """

    def work() -> int:
        seen = read_state(state).seen()
        show(head_line(seen), {"line": head_line(seen)}, as_json)
        return Exit.OK

    return readably(work, as_json=as_json)


def compare(
    ours: Path, theirs: Path, *, trust: Annotated[Path | None, Parameter()] = None, as_json: Json = False
) -> int:
    """Were two auditors shown the same history? Where not, print both versions as evidence.

    Exit code 1: they were not. 4: ours does not go far enough to tell; follow on and compare again.

    Parameters
    ----------
    ours
        The state file of our `sequencer audit follow`, its .history beside it.
    theirs
        The other auditor's state file with its .history, or a file with the line of `sequencer audit head`.
    trust
        File with the keys that receipts are judged by; default: those of our state.
    """

    def work() -> int:
        state = read_state(ours)
        keys = read_trust(trust).keys() if trust is not None else state.keys()
        line = _line(theirs)
        if line is not None:
            return _with_line(ours, state.seen(), line, as_json)
        return _with_state(ours, theirs, keys, as_json)

    return readably(work, as_json=as_json)


def _line(path: Path) -> Seen | None:
    """The head line in a file; None if it is something else, a state."""
    raw = read_file(path)
    if len(raw) > LINE_BYTES_MAX or not raw.startswith(b"ves-audit-head-"):
        return None
    try:
        return read_head_line(raw.decode("ascii", "replace").strip())
    except ValueError as wrong:
        raise ClientError(f"{path}: {wrong}") from wrong


def _same_stream(one: Seen, other: Seen) -> None:
    if (one.tenant_id, one.store_id) != (other.tenant_id, other.store_id):
        raise ClientError("these are of two streams: there is nothing to compare")


def _nothing_yet(as_json: bool) -> int:
    """Agreeing on nothing is no agreement."""
    text = "one of the two has verified no commitment yet: follow on and compare again"
    show(text, {"ok": False, "verdict": "too_short", "text": text}, as_json)
    return Exit.UNANSWERED


def _with_line(path: Path, seen: Seen, line: Seen, as_json: bool) -> int:
    _same_stream(seen, line)
    if 0 in (seen.count, line.count):
        return _nothing_yet(as_json)
    if line.count > seen.count:
        text = f"theirs goes to commitment {line.count}, ours to {seen.count}: follow on and compare again"
        show(text, {"ok": False, "verdict": "too_short", "text": text}, as_json)
        return Exit.UNANSWERED
    history, root, end = ZERO_HASH, ZERO_HASH, 0
    for index, verified in enumerate(records_of(path, seen)):
        if index < line.count:
            history = history_after(history, record_of(verified))
            root, end = verified.commitment.new_state_root, verified.commitment.sequence_end
    if (history, root, end) == (line.history, line.state_root, line.sequence_end):
        text = (
            f"the same: both verified the same {line.count} commitments, through number {line.sequence_end}"
        )
        show(text, {"ok": True, "verdict": "same", "text": text, "commitments": line.count}, as_json)
        return Exit.OK
    text = (
        f"NOT the same: the first {line.count} commitments are not what the other auditor verified; exchange "
        "the state files with their .history to see where they part"
    )
    show(text, {"ok": False, "verdict": "split_view", "text": text}, as_json)
    return Exit.FAILED


class _Parting(NamedTuple):
    number: int
    """Of the commitment, from 1."""

    ours: Verified
    theirs: Verified


def _with_state(ours: Path, theirs: Path, keys: ReceiptKeys, as_json: bool) -> int:
    one, other = read_state(ours).seen(), read_state(theirs).seen()
    _same_stream(one, other)
    if 0 in (one.count, other.count):
        return _nothing_yet(as_json)
    parting = _first_difference(ours, one, theirs, other)
    if parting is None:
        both = min(one.count, other.count)
        text = f"the same: {both} commitments; ours has {one.count}, theirs {other.count}"
        show(text, {"ok": True, "verdict": "same", "text": text, "commitments": both}, as_json)
        return Exit.OK
    sides = [_side(verified, keys) for verified in (parting.ours, parting.theirs)]
    proven = all(side["receipt_holds"] for side in sides) and receipts_conflict(parting.ours, parting.theirs)
    data = {"ok": False, "verdict": "split_view", "first_difference": parting.number, "proven": proven}
    data |= {"ours": sides[0], "theirs": sides[1]}
    show(_words(parting, sides, proven), data, as_json)
    return Exit.FAILED


def _first_difference(ours: Path, one: Seen, theirs: Path, other: Seen) -> _Parting | None:
    """Both histories are read to their ends: only a whole one is what its state counts."""
    mine, others = records_of(ours, one), records_of(theirs, other)
    parting = None
    for index in range(min(one.count, other.count)):
        here, there = next(mine), next(others)
        if parting is None and here != there:
            parting = _Parting(index + 1, here, there)
    deque(mine, 0), deque(others, 0)
    return parting


def _side(verified: Verified, keys: ReceiptKeys) -> dict[str, Any]:
    receipt = verified.last_receipt
    key = keys.get(ReceiptKeyName(receipt.sequencer_id, receipt.key_version))
    holds = key is not None and last_receipt_holds(verified, key)
    return {"commitment": msgspec.Raw(told(verified)), "receipt_holds": holds}


def _words(parting: _Parting, sides: list[dict[str, Any]], proven: bool) -> str:
    lines = [f"NOT the same: the histories part at commitment {parting.number}"]
    for who, verified, side in zip(("ours", "theirs"), (parting.ours, parting.theirs), sides, strict=True):
        held = "holds" if side["receipt_holds"] else "does NOT hold under the keys we believe"
        lines.append(f"{who}: {name_of(verified.commitment)}; the receipt of its last event {held}")
        lines.append(f"  {bytes(side['commitment']).decode()}")
    if proven:
        lines.append(
            f"PROVEN: the sequencer has signed two events for number {parting.ours.commitment.sequence_end}. "
            "Keep both files"
        )
    else:
        first = min(parting.ours.commitment.sequence_start, parting.theirs.commitment.sequence_start)
        lines.append(
            f"the last receipts alone do not convict: both export the numbers from {first} on (sequencer "
            "export --store --from-sequence) and compare receipts number by number"
        )
    return "\n".join(lines)
