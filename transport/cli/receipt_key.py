"""``sequencer receipt-key``: the keys that sign receipts, as published, and making the next one.

``list`` asks the server like anybody and checks the chain: each version signed by the one before. ``rotate``
is handed in, because it works on the house's own files and database, beside a running server or without one.
Never sees a seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

from transport.cli.console import Exit, Json, Server, notice, run, show
from transport.client.errors import BadAnswer
from transport.client.wire import ReceiptKey, WellKnown, decode
from ves.encoding import uuid_bytes, uuid_text
from ves.receipt_keys import BrokenChain, follow
from ves.timestamps import parse_rfc3339

HERE = Server()
REASON_CHARACTERS_MAX = 500
_DAY_US = 86_400_000_000


def receipt_key_app(rotate: Callable[[bool, str], int]) -> App:
    """The command with its two words."""
    app = App(name="receipt-key", help="The sequencer's receipt-signing keys: list them, make the next.")

    @app.command(name="rotate")
    def rotate_key(*, compromised: Annotated[bool, Parameter(negative=())] = False, reason: str = "") -> int:
        """Make a new receipt key, have the old one sign it, and record it. The old one stays published.

        Run it where the server runs, with the server's DATA_DIR and DATABASE_URL. Encryptors sign with the
        new key from their next life on: restart them or the server.

        Parameters
        ----------
        compromised
            The old key is, or may be, known to somebody else: recorded, and says what that means.
        reason
            For the audit log, at most 500 characters.
        """
        if len(reason) > REASON_CHARACTERS_MAX:
            notice(f"--reason: at most {REASON_CHARACTERS_MAX} characters")
            return Exit.USAGE
        return rotate(compromised, reason)

    app.command(list_keys, name="list")
    return app


def list_keys(*, as_json: Json = False, server: Server = HERE) -> int:
    """List the published receipt keys of every node, and check that each signed the next.

    Exit code 1 when a chain is broken.
    """

    async def work() -> int:
        async with server.client() as client:
            answer = await client.look("/.well-known/ves-sequencer")
        if answer.status != 200:
            raise BadAnswer(f"{client.origin}: /.well-known/ves-sequencer answers {answer.status}")
        shown = decode(answer.body, WellKnown, "/.well-known/ves-sequencer")
        problems = list(_broken_chains(shown))
        data: dict[str, Any] = {"ok": not problems, "receipt_keys": shown.receipt_keys, "problems": problems}
        show("\n".join([*map(_line, shown.receipt_keys), *problems]), data, as_json)
        return Exit.FAILED if problems else Exit.OK

    return run(work, as_json=as_json)


def _broken_chains(shown: WellKnown) -> list[str]:
    problems = []
    for sequencer_id, links in shown.links().items():
        try:
            follow({}, sequencer_id, links)
        except BrokenChain as broken:
            problems.append(f"sequencer {uuid_text(sequencer_id)}: BROKEN CHAIN: {broken}")
    return problems


def _line(key: ReceiptKey) -> str:
    signed = f"signed by version {key.key_version - 1}" if key.previous_signature else "the first"
    age = ""
    if key.created_at:
        days = (time.time_ns() // 1000 - parse_rfc3339(key.created_at)) // _DAY_US
        age = f"  since {key.created_at} ({days} days)"
    name = uuid_text(uuid_bytes(key.sequencer_id)) if key.sequencer_id else "this sequencer"
    state = "current" if key.active else "retired"
    return f"{name}  version {key.key_version}  {key.public_key}  {state}, {signed}{age}"
