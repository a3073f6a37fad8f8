"""What each call costs: ``make contract`` writes contracts/gas.md from a real chain, and a test compares.

Gas depends on the calldata's bytes and on what was stored before, so every call here is a fixed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.anvil import ROOT, anvil
from tests.contracts.on_chain import OnChain, anchor_batch, digest, history
from ves import anchor_calls as calls
from ves.anchoring import aggregate_levels, aggregate_path
from ves.merkle import Levels

FILE: Path = ROOT / "contracts/gas.md"
SIZES = (1, 10, 100, 1000, 4096)
HEAD = """# Gas of each call

Written by `make contract`: measured on anvil, optimiser on, `evmVersion` paris; a whole transaction with its
21,000 and its calldata. A rollup adds what it pays for the data on its own chain; `anchorMany` has 100 bytes
of it, `anchor` 260. A test measures again and compares.
"""


@contextmanager
def _undone(contract: OnChain) -> Iterator[None]:
    before = contract.chain.rpc("evm_snapshot")
    yield
    contract.chain.rpc("evm_revert", before)


def _alone(contract: OnChain, data: bytes, sender: bytes | None = None) -> int:
    with _undone(contract):
        return contract.send(data, sender).gas_used


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) + ("---:",) * (len(titles) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _single(contract: OnChain) -> list[tuple[str, int, int]]:
    """What, gas, commitments. The stream's list of batches packs two into a slot, so the next costs vary."""
    rows = []
    one, two, three = history("gas", 100, 100, 100)
    for what, commitment in (("first of all", one), ("second", two), ("third", three)):
        rows.append((f"`anchor`, {what}", contract.send(calls.anchor(commitment)).gas_used, 1))
    other = history("gas of another", *[100] * 10)
    rows.append(("`anchor`, first of another stream", _alone(contract, calls.anchor(other[0])), 1))
    rows.append(("`anchorBatch` of 10 of one stream", _alone(contract, anchor_batch(other)), 10))
    return rows


def _many(contract: OnChain) -> tuple[list[tuple[str, int, int]], dict[int, Levels]]:
    contract.send(calls.anchor_many(digest("an aggregate before"), 1, 0))
    rows, trees = [], {}
    for size in SIZES:
        trees[size] = aggregate_levels([digest(f"leaf {n}") for n in range(size)])
        call = calls.anchor_many(trees[size][-1][0], size, 1)
        rows.append((f"`anchorMany` of {size:,}", _alone(contract, call), size))
    return rows, trees


def _proofs(contract: OnChain, trees: dict[int, Levels]) -> list[tuple[str, ...]]:
    rows = []
    for size, levels in trees.items():
        with _undone(contract):
            contract.send(calls.anchor_many(levels[-1][0], size, 1))
            asked = calls.verify_included(levels[-1][0], levels[0][0], aggregate_path(levels, 0), 0)
            rows.append((f"{size:,}", f"{len(levels) - 1}", f"{contract.send(asked).gas_used:,}"))
    return rows


def _owners(contract: OnChain) -> list[tuple[str, ...]]:
    word, successor = calls.address_word, contract.successor
    rows: list[tuple[str, int]] = [("deployment", int(contract.deployed["gasUsed"], 16))]
    for signature, words in (
        ("setSequencer(address,bool)", (word(successor), calls.number_word(True))),
        ("setPermissionless(bool)", (calls.number_word(True),)),
        ("pause()", ()),
        ("unpause()", ()),
        ("transferOwnership(address)", (word(successor),)),
    ):
        rows.append((f"`{signature}`", contract.send(calls.calldata(signature, *words)).gas_used))
    accepted = contract.send(calls.calldata("acceptOwnership()"), successor)
    return [(what, f"{gas:,}") for what, gas in [*rows, ("`acceptOwnership()`", accepted.gas_used)]]


def measured() -> str:
    with anvil() as chain:
        contract = OnChain(chain)
        single = _single(contract)
        many, trees = _many(contract)
        per_commitment = [(what, f"{gas:,}", f"{gas / n:,.0f}") for what, gas, n in single + many]
        parts = [
            HEAD,
            _table(("anchoring", "gas", "per commitment"), per_commitment),
            _table(("`verifyIncluded` of", "path", "gas, if it were sent"), _proofs(contract, trees)),
            _table(("owner", "gas"), _owners(contract)),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(measured())
