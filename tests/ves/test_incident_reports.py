"""A signed report is signed word for word, by this sequencer and this version of its key."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from ves.canonical import jcs
from ves.incidents import report_holds, sign_report, statement
from ves.signatures import Signer

SIGNER = Signer(bytes(range(32)))
REPORT: dict[str, Any] = {"kind": "incident", "n": 1, "files": {"a": {"sha256": "00"}}}


def test_the_statement_is_the_documented_one() -> None:
    inner = sha256(jcs(REPORT)).digest()
    outer = b"VES_INCIDENT_REPORT_V1" + b"S" * 16 + (3).to_bytes(4, "big") + inner
    assert statement(b"S" * 16, 3, REPORT) == sha256(outer).digest()


def test_a_report_holds_and_nothing_else_does() -> None:
    signature = sign_report(SIGNER, b"S" * 16, 3, REPORT)
    assert report_holds(SIGNER.public_key, b"S" * 16, 3, REPORT, signature)
    other = Signer(bytes(32)).public_key
    assert not report_holds(other, b"S" * 16, 3, REPORT, signature)
    assert not report_holds(SIGNER.public_key, b"T" * 16, 3, REPORT, signature)
    assert not report_holds(SIGNER.public_key, b"S" * 16, 4, REPORT, signature)
    for changed in (REPORT | {"n": 2}, {"kind": "incident"}, REPORT | {"more": True}):
        assert not report_holds(SIGNER.public_key, b"S" * 16, 3, changed, signature)


@pytest.mark.parametrize("signature", [b"", bytes(64)])
def test_no_signature_is_none(signature: bytes) -> None:
    assert not report_holds(SIGNER.public_key, b"S" * 16, 3, REPORT, signature)
