"""What is deployed is what the source says, byte for byte, and speaks the original's ABI."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from contracts import artefact
from tests.anvil import ROOT
from tests.contracts.on_chain import OnChain
from ves import anchor_calls

FOLDER = ROOT / "contracts"
ORIGINALS_VIEWS = {
    "verifyEventsRoot(bytes32,bytes32)": "bool",
    "getCommitment(bytes32)": "bytes32 bytes32 bytes32 bytes32 uint64 uint64 uint32 uint256 address",
    "commitments(bytes32)": "bytes32 bytes32 bytes32 bytes32 uint64 uint64 uint32 uint256 address",
    "getLatestSequence(bytes32,bytes32)": "uint64",
    "latestSequence(bytes32)": "uint64",
    "getAnchoredCount()": "uint256",
    "anchoredBatches(uint256)": "bytes32",
    "isAnchored(bytes32)": "bool",
    "owner()": "address",
    "permissionless()": "bool",
}
EVENTS = {
    "CommitmentAnchored(*bytes32,*bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32,uint256)",
    "BatchAnchored(*bytes32,uint256,uint256)",
    "AggregateAnchored(*bytes32,*uint64,uint32,bytes32,bytes32,uint256)",
}


def _signature(entry: dict[str, Any]) -> str:
    words = [("*" if one.get("indexed") else "") + one["type"] for one in entry["inputs"]]
    return f"{entry['name']}({','.join(words)})"


def _of(kind: str) -> list[dict[str, Any]]:
    return [entry for entry in artefact.abi() if entry["type"] == kind]


def test_the_artefact_is_what_the_pinned_compiler_makes_of_the_source() -> None:
    compiled = subprocess.run(
        ["node", "compile.mjs", "--print"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    assert compiled.stdout == (FOLDER / "StateSetAnchor.json").read_text(), "make contract"


def test_the_compiler_is_the_one_that_package_json_pins() -> None:
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["solc"]
    compiler = json.loads((FOLDER / "StateSetAnchor.json").read_text())["compiler"]
    assert compiler["solc"].startswith(f"{pinned}+commit.")
    assert compiler["settings"]["evmVersion"] == "paris"


def test_the_code_on_the_chain_is_the_artefacts(contract: OnChain) -> None:
    code = contract.chain.rpc("eth_getCode", f"0x{contract.address.hex()}", "latest")
    assert bytes.fromhex(code[2:]) == artefact.runtime_code()
    assert 0 < len(artefact.runtime_code()) <= 24_576, "EIP-170"


def test_every_function_has_a_selector_here_and_every_selector_a_function() -> None:
    functions = {_signature(entry) for entry in _of("function")}
    assert functions == set(anchor_calls.SELECTORS)


def test_views_answer_and_events_log_with_the_originals_types() -> None:
    answers = {_signature(e): " ".join(one["type"] for one in e["outputs"]) for e in _of("function")}
    assert {view: answers[view] for view in ORIGINALS_VIEWS} == ORIGINALS_VIEWS
    assert {_signature(entry) for entry in _of("event")} >= EVENTS
    (constructor,) = _of("constructor")
    assert [one["type"] for one in constructor["inputs"]] == ["bool"]


def test_creation_code_ends_with_the_code_it_leaves_on_the_chain() -> None:
    assert artefact.creation_code().endswith(artefact.runtime_code())
