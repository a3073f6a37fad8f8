"""How the auditor reads: the public HTTP API with urllib, nothing else. Reads only, never writes.

A page that makes no progress, an endless listing or a server that does not answer within ``TIMEOUT_S`` is
an ``Unreadable``, never a hang.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.auditor import rules
from tests.auditor.audit import AgentKey, Evidence, Json, ReceiptKeys
from tests.auditor.audit_copy import Copied

TIMEOUT_S = 60.0
PAGE = 1000
TOO_MANY_MAX = 20
"""So often in a row one request is asked again after the pause that a 429 asks for."""

Get = Callable[[str, dict[str, Any]], Any]
"""(path, query) -> parsed JSON. Tests give their own."""


class Unreadable(Exception):
    """The server did not show what the auditor needs; the text says what and why."""


class TooMany(Unreadable):
    """We ask faster than we may."""

    def __init__(self, path: str, retry_after_s: float) -> None:
        super().__init__(f"{path}: 429, again and again")
        self.retry_after_s = retry_after_s


def over_http(url: str, api_key: str | None) -> Get:
    base = url.rstrip("/")
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise Unreadable(f"{url} is no http or https address")

    def get(path: str, query: dict[str, Any]) -> Any:
        for _ in range(TOO_MANY_MAX):
            try:
                return once(path, query)
            except TooMany as told:
                time.sleep(told.retry_after_s)
        return once(path, query)

    def once(path: str, query: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"{base}{path}?{urllib.parse.urlencode(query)}")
        if api_key:
            request.add_header("Authorization", f"ApiKey {api_key}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return rules.parse(response.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 429 and error.headers.get("Retry-After", "").isdecimal():
                    raise TooMany(path, min(int(error.headers["Retry-After"]), TIMEOUT_S)) from None
                raise Unreadable(f"{path}: {error.code} {error.read(500)!r}") from None
        except (OSError, ValueError) as error:
            raise Unreadable(f"{path}: {error}") from error

    return get


def read_stream(
    get: Get,
    tenant_id: str,
    store_id: str,
    *,
    acknowledged: Iterable[Json] = (),
    proof_every: int = 0,
    receipt_keys: ReceiptKeys | None = None,
) -> Evidence:
    """One stream with its keys, commitments and leaves, and the proof of every ``proof_every``th event.

    All events' inclusion is checked from the leaves anyway; 1 fetches each proof, one request each.
    ``receipt_keys`` pinned earlier win over what the server says now, which is only followed from them.
    """
    stream = {"tenant_id": tenant_id, "store_id": store_id}
    events = _paged(get, "/api/v1/ves/events", stream, "events")
    commitments = _paged(get, "/api/v1/ves/commitments", stream, "commitments")
    shown: list[Json] = []
    if proof_every:
        for commitment in commitments:
            for number in range(commitment["sequence_start"], commitment["sequence_end"] + 1, proof_every):
                shown.append(get(f"/api/v1/ves/proofs/{number}", stream))
    published = ReceiptKeys.of(get("/.well-known/ves-sequencer", {}))
    head = get("/api/v1/ves/head", stream)
    return Evidence(
        tenant_id=tenant_id,
        store_id=store_id,
        head=head["head_sequence"],
        voided=[(void["first_number"], void["last_number"]) for void in head.get("voided", [])],
        events=events,
        receipt_keys=receipt_keys.followed_by(published) if receipt_keys else published,
        agent_keys=_agent_keys(get, tenant_id, {event["source_agent_id"] for event in events}),
        commitments=commitments,
        leaves={c["batch_id"]: _leaves(get, c["batch_id"], stream) for c in commitments},
        unsigned=get("/api/v1/head", stream)["head_sequence"],
        proofs=shown,
        acknowledged=list(acknowledged),
    )


def read_export(folder: Path) -> tuple[list[Evidence], list[Copied]]:
    """Every stream of an export, from its files alone. Whether they are those of the manifest is the first
    thing that is looked at."""
    manifest = _json(folder / "manifest.json")
    for entry in manifest["files"]:
        if hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() != entry["sha256"]:
            raise Unreadable(f"{entry['file']} is not the file of the manifest")
    plan = _json(folder / "export.json")
    keys = [json.loads(line) for line in (folder / "agent-keys.jsonl").read_bytes().splitlines()]
    found, copied = [], []
    for stream in plan["streams"]:
        if (stream["first"], stream["legacy"]["first"]) != (1, 1):
            raise Unreadable(f"store {stream['store_id']} is exported from {stream['first']} on only")
        here = folder / "streams" / stream["store_id"]
        events = [rules.parse(line) for file in sorted(here.glob("events-*")) for line in _lines(file)]
        commitments = [json.loads(line) for line in _lines(here / "commitments.jsonl")]
        found.append(
            Evidence(
                tenant_id=plan["tenant_id"],
                store_id=stream["store_id"],
                head=stream["through"],
                events=events,
                receipt_keys=ReceiptKeys.of(_json(folder / "sequencer.json")),
                agent_keys={(key["agentId"], key["keyId"]): _agent_key(key) for key in keys},
                commitments=commitments,
                leaves={c["batch_id"]: c.pop("leaf_hashes") for c in commitments},
                unsigned=stream["legacy"]["through"],
                voided=[(first, last) for first, last in stream["voided"]],
            )
        )
        unsigned = [line for file in sorted(here.glob("legacy-events-*")) for line in _lines(file)]
        copied.append(
            Copied(
                plan["tenant_id"],
                stream["store_id"],
                stream["legacy"]["through"],
                [_spelled(line) for line in unsigned],
                [json.loads(line) for line in _lines(here / "legacy-commitments.jsonl")],
                commitments,
                [json.loads(line) for line in _lines(here / "validity-proofs.jsonl")],
            )
        )
    return found, copied


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _lines(path: Path) -> list[bytes]:
    """None of a file that is not there: which files are due, the manifest has told."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _spelled(line: bytes) -> Json:
    """An unsigned event; the numbers of its payload as they are written."""
    event = rules.parse(line)
    payload = json.loads(line, parse_float=rules.Spelled, parse_int=rules.Spelled)["envelope"].get("payload")
    if "payload" in event["envelope"]:
        event["envelope"]["payload"] = payload
    return dict(event)


def _paged(get: Get, path: str, query: Json, member: str) -> list[Json]:
    """Everything of a listing, page by page; a page that makes no progress is Unreadable."""
    found: list[Json] = []
    start = 0
    while True:
        page = get(path, {**query, "from": start, "limit": PAGE})
        found += page[member]
        if not page["has_more"]:
            return found
        if page["next_from"] <= start:
            raise Unreadable(f"{path}: the page from {start} says more follows from {page['next_from']}")
        start = page["next_from"]


def _leaves(get: Get, batch_id: str, stream: Json) -> list[str]:
    leaves: list[str] = get(f"/api/v1/ves/commitments/{batch_id}/leaves", stream)["leaf_hashes"]
    return leaves


def _agent_keys(get: Get, tenant_id: str, agents: Iterable[str]) -> dict[tuple[str, int], AgentKey]:
    keys = {}
    for agent_id in sorted(agents):
        for entry in _paged(get, f"/api/v1/agents/{agent_id}/keys", {"tenant_id": tenant_id}, "keys"):
            keys[agent_id, entry["keyId"]] = _agent_key(entry)
    return keys


def _agent_key(entry: Json) -> AgentKey:
    start, end, retired = (entry.get(name) for name in ("validFrom", "validTo", "retiresAt"))
    word = entry.get("rotationSignature")
    return AgentKey(
        public_key=rules.unhex(entry["publicKey"], 32, "publicKey"),
        valid_from_us=rules.instant_us(start) if start else None,
        valid_to_us=rules.instant_us(end) if end else None,
        retires_at_us=rules.instant_us(retired) if retired else None,
        replaced_by=entry.get("replacedBy"),
        rotation_signature=rules.unhex(word, 64, "rotationSignature") if word else None,
    )


def kept_receipts(path: Path) -> list[Json]:
    """A file of acknowledgements: one ``{"event": …, "receipt": …}`` per line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
