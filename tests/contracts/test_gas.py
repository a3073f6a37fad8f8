"""contracts/gas.md says what the calls cost, and why many streams share one transaction."""

from __future__ import annotations

import re

from tests.contracts import gas


def test_the_recorded_gas_is_what_the_calls_cost() -> None:
    assert gas.measured() == gas.FILE.read_text(), "make contract"


def test_an_aggregate_costs_the_same_whatever_it_holds() -> None:
    rows = re.findall(r"`anchorMany` of ([\d,]+) \| ([\d,]+) \|", gas.FILE.read_text())
    assert len(rows) == len(gas.SIZES)
    costs = [int(cost.replace(",", "")) for _, cost in rows]
    assert max(costs) - min(costs) < 100, "but for the calldata's zero bytes"
    (single,) = re.findall(r"`anchor`, second \| ([\d,]+) \|", gas.FILE.read_text())
    assert costs[0] < int(single.replace(",", ""))
