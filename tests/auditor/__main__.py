"""``python -m tests.auditor URL --tenant UUID --store UUID``: check a running sequencer from outside.

Exit 0: nothing found. 1: broken promises, one per line. 2: usage. 3: it could not be read, or was empty.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tests.auditor.audit import Evidence, ReceiptKeys, audit_tenant
from tests.auditor.audit_copy import Copied, audit_copy
from tests.auditor.reading import Unreadable, kept_receipts, over_http, read_export, read_stream


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.auditor", description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--tenant")
    parser.add_argument("--store", action="append", help="may be given several times")
    parser.add_argument("--export", type=Path, help="a folder of `sequencer export`, instead of a server")
    parser.add_argument("--receipts", type=Path, help='lines of {"event": …, "receipt": …} clients kept')
    parser.add_argument("--pinned", type=Path, help="a saved /.well-known/ves-sequencer, trusted instead")
    parser.add_argument("--proof-every", type=int, default=0, help="also fetch every n-th inclusion proof")
    asked = parser.parse_args()
    if asked.export is None and not (asked.url and asked.tenant and asked.store):
        parser.error("name a URL with --tenant and --store, or --export FOLDER")
    try:
        streams, copied = _read(asked)
    except (Unreadable, OSError, ValueError, KeyError) as error:
        print(f"could not be read: {error}", file=sys.stderr)
        return 3
    problems = audit_tenant(streams) + [problem for one in copied for problem in audit_copy(one)]
    for problem in problems:
        print(problem)
    for stream in streams:
        print(
            f"store {stream.store_id}: {len(stream.events)} events, {len(stream.commitments)} commitments, "
            f"{len(stream.proofs)} proofs, {len(stream.acknowledged)} kept receipts",
            file=sys.stderr,
        )
    for one in copied:
        print(
            f"store {one.store_id}: {len(one.unsigned_events)} unsigned events, "
            f"{len(one.unsigned_commitments)} commitments over them, "
            f"{len(one.validity_proofs)} validity proofs",
            file=sys.stderr,
        )
    print(f"{len(problems)} broken promises", file=sys.stderr)
    seen = any(stream.events or stream.acknowledged for stream in streams)
    if not problems and not seen and not any(one.unsigned_events for one in copied):
        print("nothing was there to check: is this the right tenant and store?", file=sys.stderr)
        return 3
    return 1 if problems else 0


def _read(asked: argparse.Namespace) -> tuple[list[Evidence], list[Copied]]:
    if asked.export is not None:
        return read_export(asked.export)
    get = over_http(asked.url, os.environ.get("SEQUENCER_API_KEY"))
    pinned = ReceiptKeys.of(json.loads(asked.pinned.read_bytes())) if asked.pinned else None
    kept = kept_receipts(asked.receipts) if asked.receipts else []
    streams = [
        read_stream(
            get,
            asked.tenant,
            store,
            acknowledged=[one for one in kept if _store_of(one, asked.store) == store],
            proof_every=asked.proof_every,
            receipt_keys=pinned,
        )
        for store in asked.store
    ]
    return streams, []


def _store_of(kept: dict[str, dict[str, str]], stores: list[str]) -> str:
    """The store of a kept receipt: its event names it; a bare receipt counts for an only store."""
    named = kept.get("event", {}).get("store_id")
    if named is None and len(stores) > 1:
        raise ValueError("a receipt without its event cannot be told apart between several stores")
    return named or stores[0]


if __name__ == "__main__":
    sys.exit(main())
