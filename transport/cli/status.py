"""``sequencer status``: is it there, is it ready, who is it. Asks once, needs no credential."""

from __future__ import annotations

from typing import Any

import msgspec

from transport.cli.console import Exit, Json, Server, run, show
from transport.client.sequencer import Answer
from transport.client.wire import UNREADABLE, WellKnown, decode

HERE = Server()


def status(*, as_json: Json = False, server: Server = HERE) -> int:
    """Show whether the server lives, is ready, and which receipt keys it signs with.

    Exit code 0: ready. 1: there but not ready. 4: no answer.
    """

    async def work() -> int:
        async with server.client() as client:
            health, ready = await client.look("/health"), await client.look("/ready")
            known = await client.look("/.well-known/ves-sequencer")
        is_ready = health.status == 200 and ready.status == 200
        about = _json(health)
        data: dict[str, Any] = {
            "ok": is_ready,
            "url": client.origin,
            "healthy": health.status == 200,
            "ready": is_ready,
            "version": about.get("version"),
        }
        lines = [f"{client.origin}: {'ready' if is_ready else 'NOT ready'}"]
        if about.get("version"):
            lines[0] += f", version {about['version']}"
        if not is_ready:
            data["reason"] = _json(ready).get("message") or f"/ready answers {ready.status}"
            lines.append(str(data["reason"]))
        if known.status == 200:
            shown = decode(known.body, WellKnown, "/.well-known/ves-sequencer")
            data |= {"sequencer_id": shown.sequencer_id, "receipt_keys": shown.receipt_keys}
            lines.append(f"sequencer {shown.sequencer_id}")
            lines += [f"receipt key version {k.key_version}: {k.public_key}" for k in shown.receipt_keys]
        show("\n".join(lines), data, as_json)
        return Exit.OK if is_ready else Exit.FAILED

    return run(work, as_json=as_json)


def _json(answer: Answer) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except UNREADABLE:
        return {}
