"""``sequencer verify``: check what somebody kept, offline. Asks no server and believes nobody by default.

``receipt FILE``: one ``{"event": …, "receipt": …}``, or many, one per line, as ``agent post --receipts``
writes them. ``proof FILE``: ``{"event", "receipt", "commitment", "proof"}`` as ``agent prove`` writes it.
Whose signatures count comes from outside the file: ``--trust``, else the pins of earlier meetings. Without
a key for the receipt the best result is ``consistent, not trusted``, exit code 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from transport.cli.console import Exit, Json, read_file, read_trust, readably, show
from transport.client.checks import UNTRUSTED, AgentKeyring, verify_acknowledged, verify_proof_file
from transport.client.errors import BadAnswer
from transport.client.trust import Pins, default_path
from transport.client.wire import Acknowledgement, ProofFile, ReceiptKeys, decode
from ves.proofs import Problem

app = App(name="verify", help="Check receipts and proofs offline.")

Trust = Annotated[Path | None, Parameter()]
PinFile = Annotated[Path | None, Parameter(env_var="SEQUENCER_PINS")]


@app.command
def receipt(file: Path, *, trust: Trust = None, pins: PinFile = None, as_json: Json = False) -> int:
    """Does this receipt promise this event its number, signed by a sequencer we trust?

    Parameters
    ----------
    file
        {"event": …, "receipt": …}, one object or one per line.
    trust
        File with the keys to believe: a saved /.well-known/ves-sequencer, with "agent_keys" if you like.
    pins
        File of keys pinned on first use, believed when there is no --trust.
    """

    def work() -> int:
        keys, agents = _believed(trust, pins)
        kept = _acknowledgements(file)
        found = [
            (f"event {one.event.event_id}", verify_acknowledged(one.event, one.receipt, keys, agents))
            for one in kept
        ]
        return _judge("receipt", found, agents, as_json)

    return readably(work, as_json=as_json)


@app.command
def proof(file: Path, *, trust: Trust = None, pins: PinFile = None, as_json: Json = False) -> int:
    """Does this event stand at its number in this commitment?

    Parameters
    ----------
    file
        {"event", "receipt", "commitment", "proof"} as `sequencer agent prove` writes it.
    trust
        File with the keys to believe: a saved /.well-known/ves-sequencer, with "agent_keys" if you like.
    pins
        File of keys pinned on first use, believed when there is no --trust.
    """

    def work() -> int:
        keys, agents = _believed(trust, pins)
        kept = decode(read_file(file), ProofFile, str(file))
        problems = verify_proof_file(kept, keys, agents)
        return _judge("proof", [(f"event {kept.event.event_id}", problems)], agents, as_json)

    return readably(work, as_json=as_json)


def _believed(trust: Path | None, pins: Path | None) -> tuple[ReceiptKeys, AgentKeyring | None]:
    if trust is None:
        return Pins(pins or default_path()).all_keys(), None
    believed = read_trust(trust)
    return believed.keys(), believed.agents()


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
