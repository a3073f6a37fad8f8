"""``sequencer verify evidence``: every link of an evidence file, offline, and on the chain if it may ask one.

``--trust`` is what counts: without it the best result is ``consistent, not trusted``, exit code 3. That the
block is the chain's and final needs ``--rpc``; what nobody judged is printed as such, whatever the exit code.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from cyclopts import Parameter

from transport.cli.console import Exit, Json, read_file, read_trust, readably, show
from transport.client.errors import BadAnswer, ClientError, Unanswered
from ves.evidence import ON_CHAIN, Link, Trust, check, failed, missing
from ves.evidence_file import Evidence, NotEvidence, read_evidence

_RPC_S = 10.0
_SIGNS = {"passed": "passed     ", "failed": "FAILED     ", "not checked": "not checked"}


def evidence(
    file: Path,
    *,
    trust: Annotated[Path | None, Parameter()] = None,
    rpc: Annotated[str | None, Parameter(env_var="SEQUENCER_RPC_URL")] = None,
    require_final: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> int:
    """Does everything hold, from the agent's signature down to a block of the chain?

    Parameters
    ----------
    file
        As `sequencer agent evidence` writes it.
    trust
        File with what to believe: a saved /.well-known/ves-sequencer with "chain_id" and "contract", and if
        you like "agent_keys", "anchoring_accounts", "audit_state_roots". Get them from somewhere else than
        the evidence.
    rpc
        Addresses of JSON-RPC endpoints of the chain, with commas between. An address with a provider's key
        in it belongs into SEQUENCER_RPC_URL: other users see the command line.
    require_final
        Exit code 0 only if the chain says that the block is final.
    """

    def work() -> int:
        told = _read(file)
        believed = None if trust is None else _trust(trust)
        links = check(told, believed)
        if rpc is not None:
            links = _on_chain(told, believed, rpc, links)
        if require_final:
            links = [
                msgspec.structs.replace(link, needed=True) if link.name in ON_CHAIN else link
                for link in links
            ]
        return _tell(told, links, believed, as_json)

    return readably(work, as_json=as_json)


def _read(file: Path) -> Evidence:
    try:
        return read_evidence(read_file(file))
    except NotEvidence as wrong:
        raise BadAnswer(f"{file} is no evidence file: {wrong}") from None


def _trust(path: Path) -> Trust:
    try:
        return read_trust(path).of_evidence()
    except ValueError as wrong:
        raise ClientError(f"{path} is no trust file: {wrong}") from None


def _on_chain(told: Evidence, believed: Trust | None, rpc: str, offline: list[Link]) -> list[Link]:
    """The links with the chain's word for those that only it can judge."""
    # web3 takes most of a second to import: only who asks a chain waits for it.
    from actors.chain import ChainAway
    from config.logs import configure_logs
    from transport.chain.opening import open_chain
    from transport.client.evidence_on_chain import ask_chain

    if told.anchor is None:
        return offline
    chain_id = believed.chain_id if believed and believed.chain_id is not None else told.anchor.chain_id
    urls = [one.strip() for one in rpc.split(",") if one.strip()]

    configure_logs("warning", "text")  # what endpoints do wrong goes to stderr, never between the links

    async def ask() -> list[Link]:
        async with open_chain(urls, chain_id, _RPC_S) as chain:
            return await ask_chain(told, chain)

    try:
        answers = trio.run(ask)
    except ChainAway as away:
        raise Unanswered(1, f"{away}; without --rpc the file is checked offline") from None
    except ValueError as wrong:
        raise ClientError(f"--rpc: {wrong}") from None
    return [link for link in offline if link.name not in ON_CHAIN] + answers


def _tell(told: Evidence, links: list[Link], believed: Trust | None, as_json: bool) -> int:
    code, verdict = _verdict(links, believed)
    count = Counter(link.verdict for link in links)
    width = max(len(link.name) for link in links)
    lines = [f"event {told.event.event_id}"]
    lines += [f"  {_SIGNS[link.verdict]}  {link.name:{width}}  {link.text}" for link in links]
    counted = ", ".join(f"{count[each]} {each}" for each in ("passed", "failed", "not checked"))
    lines.append(f"{counted}: {verdict}")
    data = {
        "ok": code == Exit.OK,
        "verdict": verdict,
        "event_id": told.event.event_id,
        "trusted": believed is not None and not missing(links),
        "links": [
            {"name": link.name, "verdict": link.verdict, "text": link.text, "needed": link.needed}
            for link in links
        ],
    }
    show("\n".join(lines), data, as_json)
    return code


def _verdict(links: list[Link], believed: Trust | None) -> tuple[Exit, str]:
    """Wrong beats untrusted beats fine."""
    if broken := failed(links):
        return Exit.FAILED, f"NOT valid: {', '.join(link.name for link in broken)}"
    lacking = ", ".join(link.name for link in missing(links))
    if believed is None:
        return Exit.NOT_TRUSTED, "consistent, not trusted: nothing was given to --trust"
    if lacking:
        return Exit.NOT_TRUSTED, f"consistent, not proven: not checked is {lacking}"
    left = ", ".join(link.name for link in links if link.verdict == "not checked")
    return Exit.OK, f"valid; nobody judged {left}" if left else "valid"
