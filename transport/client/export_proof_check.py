"""Judging the validity proofs of an export: whole, and about a commitment of this export.

Never says whether one proves anything: that takes the verifier of its own proof system. Walks through proofs
and commitments side by side, so memory holds one of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from pathlib import Path
from typing import Any

from transport.client.errors import BadAnswer
from transport.client.export_form import ExportedProof, PlannedStream, commitments_file, lines_of, proofs_file
from transport.client.export_report import ExportReport, lines_in
from transport.client.wire import WireCommitment, decode
from ves.encoding import base64_bytes, hex_bytes, uuid_bytes, uuid_text
from ves.records import Commitment
from ves.validity import proof_hash, public_inputs


def check_proofs(folder: Path, stream: PlannedStream, there: set[str], report: ExportReport) -> None:
    """The proofs' file of a stream, if it is there. What is wrong with commitments is said elsewhere."""
    name = proofs_file(stream.store_id)
    if name not in there:
        return
    commitments = _commitments(folder, stream, there)
    about: Commitment | None = None
    seen: set[tuple[str, int]] = set()
    for place, line in lines_in(folder, name, report):
        report.validity_proofs += 1
        try:
            shown = decode(line, ExportedProof, place)
            batch_id = uuid_bytes(shown.batch_id)
            while about is None or about.batch_id != batch_id:
                about, seen = next(commitments), set()
            if (shown.proof_type, shown.proof_version) in seen:
                report.say(place, "the commitment has two proofs of this type and version")
            seen.add((shown.proof_type, shown.proof_version))
            _judge(place, shown, about, report)
        except StopIteration:
            report.say(place, "it is about no commitment of this export, or stands in the wrong place")
            return
        except (BadAnswer, ValueError) as wrong:
            report.say(place, str(wrong))


def _commitments(folder: Path, stream: PlannedStream, there: set[str]) -> Iterator[Commitment]:
    name = commitments_file(stream.store_id)
    if name not in there:
        return
    try:
        for number, line in lines_of(folder / name):
            yield decode(line, WireCommitment, f"{name}:{number}").commitment()
    except (BadAnswer, ValueError):
        return


def _judge(place: str, shown: ExportedProof, about: Commitment, report: ExportReport) -> None:
    if (uuid_bytes(shown.tenant_id), uuid_bytes(shown.store_id)) != (about.tenant_id, about.store_id):
        report.say(place, "the proof belongs to another stream")
    if not compare_digest(proof_hash(base64_bytes(shown.proof_b64)), hex_bytes(shown.proof_hash, 32)):
        report.say(place, "its proof_hash is not that of its bytes")
    if shown.public_inputs is None:
        report.proofs_without_inputs += 1
    elif not _alike(shown.public_inputs, public_inputs(about)):
        report.say(place, f"its public inputs are not those of the commitment {uuid_text(about.batch_id)}")


def _alike(given: dict[str, Any], due: dict[str, Any]) -> bool:
    """To Python, 1 equals true: the types are compared too."""
    return given.keys() == due.keys() and all(
        type(given[name]) is type(value) and given[name] == value for name, value in due.items()
    )
