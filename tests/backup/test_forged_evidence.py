"""What others bring may be forged: it must not end a stream by voiding all of its numbers."""

from __future__ import annotations

import pytest

from journal.port import Voided
from journal.restorations import Given
from supervisor.comparison import VOID_MAX, Comparison, KeptCommitment, Shown, _voids
from supervisor.shell import StartRefused

TENANT, STORE = b"t" * 16, b"s" * 16
HEADS = {(TENANT, STORE): 5}
NAMES = ("73" * 16, "74" * 16, "73" * 16)


@pytest.mark.parametrize("number", [VOID_MAX + 6, (1 << 53) - 1, 1 << 70])
def test_a_number_that_nobody_can_have_given_voids_nothing(number: int) -> None:
    receipt = Comparison(missing=[Shown(Given(TENANT, STORE, number, b"e" * 16), "evil.jsonl:1")])
    with pytest.raises(StartRefused, match=r"evil\.jsonl:1: .* leave it out"):
        list(_voids(receipt, HEADS, 0))
    commitment = Comparison(lost_commitments=[KeptCommitment(*NAMES, sequence_end=number)])
    with pytest.raises(StartRefused, match="commitment 7373"):
        list(_voids(commitment, HEADS, 0))


def test_what_was_given_is_void_up_to_the_last_number() -> None:
    found = Comparison(missing=[Shown(Given(TENANT, STORE, 9, b"e" * 16), "good.jsonl:1")])
    assert list(_voids(found, HEADS, 2)) == [Voided(TENANT, STORE, 6, 11)]
