"""``sequencer verify``: check what somebody kept, offline. Asks no server and believes nobody by default.

``receipt FILE``: one ``{"event": …, "receipt": …}``, or many, one per line, as ``agent post --receipts``
writes them. ``proof FILE``: ``{"event", "receipt", "commitment", "proof"}`` as ``agent prove`` writes it.
Whose signatures count comes from outside the file: ``--trust``, else the pins of earlier meetings; with
``--keys``, a saved /.well-known/ves-sequencer, also later keys that these lead to by their signatures.
``evidence FILE`` goes from an event down to a block of a chain: ``transport.cli.verify_evidence``.
``export FOLDER``: what ``sequencer export`` wrote, whole.
Without a key for the receipt the best result is ``consistent, not trusted``, exit code 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from transport.cli.console import Exit, Json, read_file, read_trust, readably, show
from transport.cli.export import tell
from transport.cli.verify_evidence import evidence
from transport.client.checks import UNTRUSTED, AgentKeyring, verify_acknowledged, verify_proof_file
from transport.client.errors import BadAnswer, PinMismatch
from transport.client.export_check import check_export
from transport.client.trust import Pins, default_path, followed
from transport.client.wire import Acknowledgement, ProofFile, ReceiptKeys, decode
from ves.proofs import Problem
from ves.receipt_keys import BrokenChain

app = App(name="verify", help="Check receipts, proofs, evidence and exports offline.")
app.command(evidence)

Trust = Annotated[Path | None, Parameter()]
Keys = Annotated[Path | None, Parameter()]
PinFile = Annotated[Path | None, Parameter(env_var="SEQUENCER_PINS")]


@app.command
def receipt(
    file: Path, *, trust: Trust = None, pins: PinFile = None, keys: Keys = None, as_json: Json = False
) -> int:
    """Does this receipt promise this event its number, signed by a sequencer we trust?

    Parameters
    ----------
    file
        {"event": …, "receipt": …}, one object or one per line.
    trust
        File with the keys to believe: a saved /.well-known/ves-sequencer, with "agent_keys" if you like.
    pins
        File of keys pinned on first use, believed when there is no --trust.
    keys
        A saved /.well-known/ves-sequencer: its later keys are believed if the trusted ones signed them.
    """

    def work() -> int:
        believed, agents = _believed(trust, pins, keys)
        kept = _acknowledgements(file)
        found = [
            (f"event {one.event.event_id}", verify_acknowledged(one.event, one.receipt, believed, agents))
            for one in kept
        ]
        return _judge("receipt", found, agents, as_json)

    return readably(work, as_json=as_json)


@app.command
def proof(
    file: Path, *, trust: Trust = None, pins: PinFile = None, keys: Keys = None, as_json: Json = False
) -> int:
    """Does this event stand at its number in this commitment?

    Parameters
    ----------
    file
        {"event", "receipt", "commitment", "proof"} as `sequencer agent prove` writes it.
    trust
        File with the keys to believe: a saved /.well-known/ves-sequencer, with "agent_keys" if you like.
    pins
        File of keys pinned on first use, believed when there is no --trust.
    keys
        A saved /.well-known/ves-sequencer: its later keys are believed if the trusted ones signed them.
    """

    def work() -> int:
        believed, agents = _believed(trust, pins, keys)
        kept = decode(read_file(file), ProofFile, str(file))
        problems = verify_proof_file(kept, believed, agents)
        return _judge("proof", [(f"event {kept.event.event_id}", problems)], agents, as_json)

    return readably(work, as_json=as_json)


@app.command(name="export")
def export_folder(
    folder: Path, *, trust: Trust = None, pins: PinFile = None, keys: Keys = None, as_json: Json = False
) -> int:
    """Is this export complete and unchanged, and does everything in it hold? Says what was not checked.

    Parameters
    ----------
    folder
        As `sequencer export --to` wrote it.
    trust
        File with the keys to believe: a saved /.well-known/ves-sequencer, with "agent_keys" if you like.
    pins
        File of keys pinned on first use, believed when there is no --trust.
    keys
        A saved /.well-known/ves-sequencer: its later keys are believed if the trusted ones signed them.
    """

    def work() -> int:
        believed, agents = _believed(trust, pins, keys)
        return tell(folder, check_export(folder, believed, agents), as_json)

    return readably(work, as_json=as_json)


def _believed(
    trust: Path | None, pins: Path | None, later: Path | None
) -> tuple[ReceiptKeys, AgentKeyring | None]:
    if trust is None:
        keys, agents = Pins(pins or default_path()).all_keys(), None
    else:
        believed = read_trust(trust)
        keys, agents = believed.keys(), believed.agents()
    if later is not None:
        keys = _followed(keys, later)
    return keys, agents


def _followed(keys: ReceiptKeys, later: Path) -> ReceiptKeys:
    """Only of sequencers that the document speaks of: the pins may know others."""
    shown = read_trust(later)
    spoken_of = shown.links()
    try:
        return keys | followed({n: k for n, k in keys.items() if n.sequencer_id in spoken_of}, shown)
    except BrokenChain as broken:
        raise PinMismatch(f"{later} does not follow from the trusted keys: {broken}") from None


def _acknowledgements(file: Path) -> list[Acknowledgement]:
    raw = read_file(file)
    try:
        return [decode(raw, Acknowledgement, str(file))]
    except BadAnswer:
        lines = [line for line in raw.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [decode(line, Acknowledgement, f"{file}:{n}") for n, line in enumerate(lines, 1)]


def _judge(
    kind: str, found: Sequence[tuple[str, list[Problem]]], agents: AgentKeyring | None, as_json: bool
) -> int:
    """Wrong beats untrusted beats fine."""
    broken = [f"{name}: {p.text}" for name, problems in found for p in problems if p.name != UNTRUSTED]
    untrusted = [f"{name}: {p.text}" for name, problems in found for p in problems if p.name == UNTRUSTED]
    count = f"{len(found)} {kind}{'' if len(found) == 1 else 's'}"
    if broken:
        code, verdict = Exit.FAILED, f"{count} checked: NOT valid"
    elif untrusted:
        code, verdict = Exit.NOT_TRUSTED, f"{count} checked: consistent, not trusted"
    else:
        code, verdict = Exit.OK, f"{count} checked: valid"
    unchecked = [] if agents else ["the agents' signatures were not checked: no agent key was given to trust"]
    data = {
        "ok": code == Exit.OK,
        "checked": len(found),
        "trusted": not untrusted,
        "agent_signatures_checked": agents is not None,
        "problems": broken + untrusted,
    }
    show("\n".join([*broken, *untrusted, *unchecked, verdict]), data, as_json)
    return code
