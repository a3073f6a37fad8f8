"""Nobody but the anchor's own rooms can reach its key: read from the source, so that a new door is seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("supervisor", "transport", "actors", "journal", "ves", "config")
OURS = {"actors.chain_signer", "actors.chain_signer_process", "actors.chain_keys", "actors.chain_signer_wire"}
"""What leads to the key."""
WORDS = {"ChainSigner", "ProcessSigner", "SigningKey"}
"""What can be asked for a signature."""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module, and the name taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def leads_to_the_key(source: str) -> bool:
    return any(
        (name in WORDS and module.startswith("actors"))
        or any(
            whole == ours or whole.startswith(f"{ours}.")
            for ours in OURS
            for whole in (module, f"{module}.{name}")
        )
        for module, name in imports(ast.parse(source))
    )


def may(path: str) -> bool:
    """The key's own rooms, the anchor's, and the households and commands of the anchor."""
    return path.startswith(("actors/chain_key", "actors/chain_signer", "actors/anchor", "supervisor/anchor"))


def test_only_the_anchors_rooms_reach_its_key() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if leads_to_the_key(path.read_text())
    }
    assert {"actors/chain_signer.py", "actors/chain_signer_process.py"} <= found, "the search sees nothing"
    assert [path for path in sorted(found) if not may(path)] == []


def test_the_search_sees_every_way_in() -> None:
    for source in (
        "from actors.chain import ChainSigner",
        "from actors.chain_signer import SigningKey as Innocent",
        "import actors.chain_signer",
        "from actors import chain_signer",
        "from actors.chain_keys.raw import open_raw",
        "def f():\n    from actors.chain_signer_process import open_key",
    ):
        assert leads_to_the_key(source)
    assert not leads_to_the_key("from nacl.signing import SigningKey")
    assert not leads_to_the_key("from actors.chain import SignerAway\nfrom actors.chain_spelling import x")


def test_the_signing_process_is_started_in_one_place() -> None:
    named = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if '"actors.chain_signer_process"' in path.read_text()
    ]
    assert named == ["actors/chain_signer.py"]
