"""How secrets are compared: in constant time, and nowhere else than where this test looks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRET = re.compile(r"(^|_)(secret|password|token|seed|api_key|bootstrap_key|key_hash|presented)(_|$)|sha256")
ROOMS = ("actors", "config", "supervisor", "transport/http", "transport/cli")


def suspicious(code: str) -> list[str]:
    """Comparisons by == or != of something whose name says that it is a secret or its hash."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            names = {
                part.id if isinstance(part, ast.Name) else part.attr
                for side in (node.left, *node.comparators)
                for part in (side,)
                if isinstance(part, ast.Name | ast.Attribute)
            }
            if any(SECRET.search(name) for name in names - NO_SECRETS):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


NO_SECRETS = {"api_key_mode"}
"""Settings about secrets."""


def test_no_secret_is_compared_byte_by_byte() -> None:
    looked_at = 0
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert not suspicious(path.read_text()), path
            looked_at += 1
    assert looked_at > 50


def test_the_look_itself_sees() -> None:
    assert suspicious("if key_hash == known: pass")
    assert suspicious("ok = self.bootstrap_key_sha256 != given")
    assert not suspicious("if key_id == 3 or hmac.compare_digest(key_hash, known): pass")
