"""No secret in the repository: tracked files are searched for what a key looks like.

Literals of public test vectors and of tests that need something key-shaped are allowed by file and only
there. What is found is named by file and line, never shown.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BYTES_MAX = 4 * 1024 * 1024

LOOKS_LIKE = {
    "an API key": re.compile(r"\bsk_(?:live|test)_[A-Za-z0-9_-]{20,}"),
    "a legacy API key": re.compile(r"\bss_[A-Za-z0-9_-]{28,}"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key in an assignment": re.compile(
        r"""(?i)\b\w*(?:secret|signing_key|encryption_keys?|private_key|api_key|token)\w*["']?\s*[=:]\s*["']?(?:0x)?[0-9a-f]{64}\b"""
    ),
    "a password in an address": re.compile(
        r"\b(?:postgres(?:ql)?|https?)://[^\s:/@{}$<>'\"]+:(?!pass@|password@)[^\s:/@{}$<>'\"]{6,}@"
    ),
    "an AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
}
ALLOWED = (
    "tests/",  # made up in tests, and public vectors: what the server itself uses never comes from here
    "requirements/",  # hashes of packages
)
"""Folders in which key-shaped literals are no keys of anybody, private keys and cloud keys excepted."""
NOWHERE = ("a private key", "an AWS key")
EXAMPLE = "sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7"
"""In SECURITY.md, for those who set up scanners: its digits stand in a row, and it opens nothing."""
VECTORS = re.compile(r"^tests/(?:vectors|kept)/")
"""Published vectors, and a data directory of an older version with the keys that were made for it."""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=30, check=False)
    if listed.returncode:
        pytest.fail("git does not list the tracked files, so nobody knows what is committed")
    return [name for name in listed.stdout.decode().split("\0") if name]


def found_in(name: str, text: str) -> list[str]:
    kinds = [
        kind
        for kind in LOOKS_LIKE
        if not (name.startswith(ALLOWED) and (kind not in NOWHERE or VECTORS.match(name)))
    ]
    return [
        f"{name}:{number}: {kind}"
        for number, line in enumerate(text.splitlines(), 1)
        for kind in kinds
        if LOOKS_LIKE[kind].search(line.replace(EXAMPLE, ""))
    ]


def test_no_tracked_file_holds_what_looks_like_a_secret() -> None:
    found: list[str] = []
    for name in tracked():
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= BYTES_MAX:
            found += found_in(name, path.read_text(errors="replace"))
    assert found == []


def test_the_search_finds_each_kind_of_secret() -> None:
    samples = {
        "an API key": "sk_" + "live_" + "a1" * 14,
        "a legacy API key": "ss_" + "Zz9" * 12,
        "a private key": "-----BEGIN " + "EC PRIVATE KEY-----",
        "a key in an assignment": "VES_SEQUENCER_SIGNING_KEY=" + "0x" + "ab" * 32,
        "a password in an address": "postgresql://" + "shop:" + "hunter2hunter2@db/x",
        "an AWS key": "AKIA" + "ABCDEFGHIJKLMNOP",
        "a JSON web token": ".".join(("eyJ" + "a" * 12, "eyJ" + "b" * 12, "c" * 24)),
    }
    assert set(samples) == set(LOOKS_LIKE)
    for kind, sample in samples.items():
        assert found_in("deploy/some.env", f"x\n{sample}\n") == [f"deploy/some.env:2: {kind}"], kind
    assert found_in("tests/any.py", samples["a private key"]), "not even in tests"


def test_no_file_that_holds_keys_is_tracked() -> None:
    bad = re.compile(r"(^|/)(\.env|.*\.pem|.*\.key|id_(rsa|ed25519)|bootstrap-admin-api-key)$")
    assert [name for name in tracked() if bad.search(name) and not VECTORS.match(name)] == []
