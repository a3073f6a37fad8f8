"""Reports about incidents, signed by the sequencer that made them.

    statement = SHA-256("VES_INCIDENT_REPORT_V1" || UUID(sequencer_id) || U32(key_version)
                        || SHA-256(JCS(report)))

A signed report says that this sequencer's operators issued exactly these words; what is in them is checked
against the record, not believed. It alone knows the statement's preimage.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from ves.canonical import jcs
from ves.constants import INCIDENT_REPORT
from ves.encoding import u32
from ves.records import Uuid
from ves.signatures import Signer, verify_signature


def report_hash(report: dict[str, Any]) -> bytes:
    return sha256(jcs(report)).digest()


def statement(sequencer_id: Uuid, key_version: int, report: dict[str, Any]) -> bytes:
    """The 32 bytes that are signed."""
    return sha256(INCIDENT_REPORT + sequencer_id + u32(key_version) + report_hash(report)).digest()


def sign_report(signer: Signer, sequencer_id: Uuid, key_version: int, report: dict[str, Any]) -> bytes:
    return signer.sign(statement(sequencer_id, key_version, report))


def report_holds(
    public_key: bytes, sequencer_id: Uuid, key_version: int, report: dict[str, Any], signature: bytes
) -> bool:
    """Whether the holder of this receipt key signed exactly this report."""
    return verify_signature(public_key, statement(sequencer_id, key_version, report), signature)
