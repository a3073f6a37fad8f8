"""``sequencer anchor``: how anchoring goes, and what an operator can do about it.

``status`` and ``retry`` ask the server; ``run``, ``resume``, ``deploy`` and ``key`` are handed in, because
they need the anchor's own login or its key, which the doors never see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from transport.cli.console import (
    AdminListener,
    Exit,
    ImpatientAdmin,
    Json,
    Operated,
    notice,
    run,
    show,
)
from transport.client.wire import decode

STATUS = "/api/v1/anchor/status"
ANCHOR = "/api/v1/ves/anchor"
RESTART = "/api/v1/admin/actors/restart"
ACTOR = "house/anchoring/anchor"
REASON_CHARACTERS_MAX = 500
IMPATIENT = ImpatientAdmin()

Number64 = Annotated[int, Parameter(validator=Number(gte=0, lte=2**63 - 1))]
Flag = Annotated[bool, Parameter(negative=())]


@dataclass(frozen=True)
class Resumption:
    """Where an operator says the chain stands, although the journal does not know how it came there."""

    next_nonce: int
    reason: str


@dataclass(frozen=True)
class AnchorCommands:
    """Those that are the house itself; each answers the exit code."""

    run: Callable[[], int]
    resume: Callable[[Resumption], int]
    deploy: Callable[[bool], int]
    key: Callable[[bool], int]


HERE = Operated()


def anchor_app(house: AnchorCommands) -> App:
    """The command with its words."""
    app = App(name="anchor", help="Anchoring on a chain: see how it goes, run it apart, repair it.")
    app.command(status)
    app.command(retry)

    @app.command(name="run")
    def run_anchor() -> int:
        """Anchor from this process, which serves nothing and holds the only key: for ANCHOR=apart.

        It takes part in the same lease as every other anchor of the database: exactly one works. Its settings
        are the server's, with ANCHOR_DATABASE_URL and the key; until SIGTERM or SIGINT.
        """
        return house.run()

    @app.command
    def resume(*, next_nonce: Number64, reason: str) -> int:
        """Go on where the chain stands, after the account was used by others or the database was restored.

        The chain's nonce must be --next-nonce: that is the proof that you have looked. The contract's index
        and head are taken from the chain and recorded with the reason; commitments that a lost transaction
        had anchored are anchored once more.

        Parameters
        ----------
        next_nonce
            The account's next nonce on the chain, as the anchor's trouble names it.
        reason
            For the audit log, at most 500 characters.
        """
        if not 0 < len(reason) <= REASON_CHARACTERS_MAX:
            notice(f"--reason: 1 to {REASON_CHARACTERS_MAX} characters")
            return Exit.USAGE
        return house.resume(Resumption(next_nonce, reason))

    @app.command
    def deploy(*, yes: Flag = False) -> int:
        """Deploy the contract with the anchor's key, which becomes its owner, and print its address.

        Better: deploy with a key of the owner's, and let the owner authorise the anchor's account; see
        docs/contract.md. Without --yes it only says what it would cost.

        Parameters
        ----------
        yes
            Send the transaction.
        """
        return house.deploy(yes)

    @app.command
    def key(*, check: Flag = False) -> int:
        """Print the anchoring account's address and where its key is; the keystore is made if there is none.

        Parameters
        ----------
        check
            Sign something meaningless with it, to see that it can.
        """
        return house.key(check)

    return app


def status(*, as_json: Json = False, server: Operated = HERE) -> int:
    """Show whether anchoring works, what waits, and what it waits for. Exit code 1 when it is in trouble."""

    async def work() -> int:
        async with server.client() as client:
            seen: dict[str, Any] = msgspec.json.decode(await client.ask("GET", STATUS))
        trouble = (seen.get("node") or {}).get("trouble")
        show("\n".join(_lines(seen)), {"ok": trouble is None, **seen}, as_json)
        return Exit.OK if trouble is None else Exit.FAILED

    return run(work, as_json=as_json)


def _lines(seen: dict[str, Any], indent: str = "") -> list[str]:
    """Every member the server tells, in its order."""
    lines = []
    for name, value in seen.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif value is not None:
            lines.append(f"{indent}{name}: {value}")
    return lines


def retry(
    batch_id: UUID | None = None,
    *,
    reason: str = "asked by an operator",
    as_json: Json = False,
    server: Operated = HERE,
    admin: AdminListener = IMPATIENT,
) -> int:
    """Anchor a commitment before its turn; without one, let the anchor look again now, without its pauses.

    Parameters
    ----------
    batch_id
        The commitment's.
    reason
        For the audit log.
    """

    async def work() -> int:
        if batch_id is None:
            async with admin.client() as client:
                body = {"path": ACTOR, "reason": reason}
                await client.ask("POST", RESTART, body=body, repeatable=False)
            show(f"{ACTOR} begins a new life", {"ok": True, "restarted": ACTOR}, as_json)
            return Exit.OK
        async with server.client() as client:
            raw = await client.ask("POST", ANCHOR, body={"batch_id": str(batch_id)})
        done = decode(raw, Requested, ANCHOR)
        show(
            f"{batch_id}: {done.status}",
            {"ok": True, "batch_id": str(batch_id), "status": done.status},
            as_json,
        )
        return Exit.OK

    return run(work, as_json=as_json)


class Requested(msgspec.Struct):
    """What we read of the server's answer."""

    status: str
