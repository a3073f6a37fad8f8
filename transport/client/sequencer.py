"""The client of a sequencer: post signed events, pull, commit, prove, and verify all of it. For trio.

    async with SequencerClient(url, api_key=key, pins=Pins(default_path())) as client:
        agent = Agent.load(path)
        reply = await client.post([agent.sign(store_id, entity_type="order", …)])

Alone speaks HTTP to the server. A request is made once, as bytes, and those very bytes are sent again after
the answers of ``retry``'s table; so nothing is ever done twice. Receipts are verified before they are given
out, against keys pinned on first use. Redirects are not followed, and a credential is never sent over plain
HTTP to another machine unless that was allowed. Several tasks may share one client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from random import SystemRandom
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
import trio

from transport.client.agent import Agent
from transport.client.checks import (
    StreamChecker,
    StreamReport,
    verify_proof_file,
    verify_receipt,
    verify_shown,
)
from transport.client.errors import BadAnswer, ClientError, InsecureUrl, NotVerified, Refused, Unanswered
from transport.client.retry import LOST, RetryPolicy, retry_after_s
from transport.client.tls import TlsFiles, context_of, why_refused
from transport.client.trust import Pins
from transport.client.wire import (
    UNREADABLE,
    Acknowledgement,
    AgentKeysPage,
    CommitmentsPage,
    Envelope,
    ErrorBody,
    EventsPage,
    IngestReply,
    Leaves,
    ProofFile,
    ReceiptKeys,
    Rotation,
    Stream,
    StreamHead,
    WellKnown,
    WireCommitment,
    WireProof,
    WireReceipt,
    decode,
)
from ves.constants import EVENTS_PER_REQUEST_MAX
from ves.encoding import hex_bytes, prefixed_hex, uuid_bytes, uuid_text
from ves.evidence_file import NotEvidence, read_evidence
from ves.records import KeyName, Uuid

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""No documented answer is larger; a stream that does not end must not fill our memory."""
PAGE_EVENTS = 1000
ERROR_TEXT_MAX = 300

T = TypeVar("T")

_CHANCE = SystemRandom().random


class Answer(msgspec.Struct, frozen=True):
    """A complete HTTP answer."""

    status: int
    headers: httpx.Headers
    body: bytes


class _Lost(Exception):
    """No complete answer came: nobody knows whether the request was carried out."""


class SequencerClient:
    """One server, one credential. ``notice`` hears what a person should know (a pin made, a retry)."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        pins: Pins | None = None,
        receipt_keys: ReceiptKeys | None = None,
        retry: RetryPolicy | None = None,
        allow_plain_http: bool = False,
        tls: TlsFiles | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        notice: Callable[[str], None] = lambda text: None,
        chance: Callable[[], float] = _CHANCE,
    ) -> None:
        """``pins`` None: the receipt keys are believed for the life of this object only. Given
        ``receipt_keys`` are believed instead of whatever the server shows.

        InsecureUrl before anything is sent if the credential would travel in clear text.
        """
        base = _base_url(url)
        local = _is_loopback(base.host)
        if api_key and base.scheme == "http" and not local and not allow_plain_http:
            raise InsecureUrl(f"{url} is plain http: the API key would be readable on the way; use https")
        self.origin = str(base).rstrip("/")
        self._pins = pins or Pins(None)
        self._policy = retry or RetryPolicy()
        self._notice = notice
        self._chance = chance
        self._receipt_keys = receipt_keys
        self._keys_are_given = receipt_keys is not None
        self._agent_keys: dict[KeyName, bytes] = {}
        self._http = httpx.AsyncClient(  # nosec B113
            base_url=base,
            auth=_ApiKey(api_key),
            # Over plain http there is nobody to verify.
            verify=context_of(tls or TlsFiles()) if base.scheme == "https" else False,
            timeout=None,  # noqa: S113 - every attempt has a trio deadline instead
            follow_redirects=False,
            trust_env=not local,  # a proxy has no business between two ends of one machine
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await self._http.aclose()

    # ---- agents -----------------------------------------------------------------------------------------

    async def register_key(
        self, agent: Agent, *, valid_from: str | None = None, valid_to: str | None = None
    ) -> None:
        """The agent's public key is registered under its name, with proof of possession.

        Registering the same key again is harmless. Refused (409) if the name is bound to another key.
        """
        body = _registration(agent, valid_from, valid_to)
        await self._send("POST", "/api/v1/agents/keys", body=msgspec.json.encode(body))

    async def rotate_key(
        self,
        agent: Agent,
        new_agent: Agent,
        *,
        grace_s: int | None = None,
        valid_from: str | None = None,
        valid_to: str | None = None,
    ) -> Rotation:
        """The new key is registered and the old one may sign for ``grace_s`` more (None: the server's week).

        With both keys' signatures, so a credential bound to the agent is enough. The same again is harmless.
        Have the new key on disk before you call this, and sign with it only afterwards.
        """
        if agent.name[:2] != new_agent.name[:2]:
            raise ValueError("both keys are of one agent")
        body = _registration(new_agent, valid_from, valid_to)
        body["replaces"] = agent.name.key_id
        body["previousSignature"] = prefixed_hex(agent.word_for(new_agent))
        if grace_s is not None:
            body["gracePeriodSecs"] = grace_s
        path = "/api/v1/agents/keys/rotate"
        answer = await self._send("POST", path, body=msgspec.json.encode(body))
        return decode(answer.body, Rotation, "the reply to a rotation")

    async def agent_keys(self, tenant_id: Uuid, agent_id: Uuid) -> dict[KeyName, bytes]:
        """All keys ever registered for an agent, revoked ones too: old events are checked with old keys."""
        found: dict[KeyName, bytes] = {}
        start = 0
        while True:
            page = await self._read(
                f"/api/v1/agents/{uuid_text(agent_id)}/keys",
                AgentKeysPage,
                {"tenant_id": uuid_text(tenant_id), "from": start, "limit": PAGE_EVENTS},
            )
            for entry in page.keys:
                found[KeyName(tenant_id, agent_id, entry.key_id)] = _hex32(entry.public_key, "publicKey")
            if not page.has_more:
                return found
            start = _forward(start, page.next_from)

    async def _key_of(self, envelope: Envelope, known: dict[KeyName, bytes]) -> None:
        """Learn the key this event was signed with, unless it is known. The binding never changes."""
        name = envelope.signer_name()
        if name not in known:
            known |= await self.agent_keys(name.tenant_id, name.agent_id)

    # ---- posting ----------------------------------------------------------------------------------------

    async def post(self, envelopes: Sequence[Envelope]) -> IngestReply:
        """Every event accepted or replayed is durable and has its receipt, verified, in request order.

        Envelopes of one agent and one stream, at most 1,000. Raises Refused when nothing of the request was
        taken, Unanswered when nobody knows: then post the same envelopes again, later, it is harmless.
        NotVerified if a receipt does not hold: the events may be stored, but their receipts are no proof.
        """
        body = request_bytes(envelopes)
        # A hint for a load balancer, which sees no body; the sequencer does not read it.
        hint = {"x-tenant-id": envelopes[0].tenant_id}
        answer = await self._send("POST", "/api/v1/ves/events/ingest", body=body, more_headers=hint)
        reply = decode(answer.body, IngestReply, "the reply to a post")
        _check_reply(envelopes, reply)
        posted = {uuid_bytes(envelope.event_id): envelope for envelope in envelopes}
        if reply.receipts:
            keys = await self._keys_for(reply.receipts)
            for receipt in reply.receipts:
                problems = verify_receipt(posted[uuid_bytes(receipt.event_id)], receipt, keys)
                if problems:
                    raise NotVerified(f"the receipt of event {receipt.event_id}", problems)
        return reply

    # ---- reading ----------------------------------------------------------------------------------------

    async def receipt_keys(self) -> ReceiptKeys:
        """The sequencer's receipt keys: those pinned for this address, pinned now if it is met first."""
        if self._receipt_keys is None:
            shown = await self._read("/.well-known/ves-sequencer", WellKnown)
            try:
                met = self._pins.meet(self.origin, shown)
            except ValueError as wrong:
                raise BadAnswer(f"/.well-known/ves-sequencer: {wrong}") from wrong
            if not met.keys:
                raise BadAnswer("/.well-known/ves-sequencer shows no Ed25519 receipt key")
            if met.fresh:
                where = f" in {self._pins.path}" if self._pins.path else ""
                shown_keys = ", ".join(prefixed_hex(key) for key in met.fresh.values())
                how = "met for the first time" if met.first else "has a new key, signed by the pinned one"
                self._notice(f"{self.origin} {how}: receipt key {shown_keys} pinned{where}")
            self._receipt_keys = met.keys
        return self._receipt_keys

    async def _keys_for(self, receipts: Iterable[WireReceipt]) -> ReceiptKeys:
        """The same, asked for once more when a receipt names a later version of a sequencer we believe: it
        may have changed its key while we were connected."""
        keys = await self.receipt_keys()
        named = {(receipt.sequencer_id, receipt.sequencer_key_version) for receipt in receipts}
        known = {(uuid_text(name.sequencer_id), name.key_version) for name in keys}
        sequencers = {sequencer for sequencer, _ in known}
        if not self._keys_are_given and any(one[0] in sequencers for one in named - known):
            self._receipt_keys = None
            keys = await self.receipt_keys()
        return keys

    async def head(self, stream: Stream) -> int:
        """The stream's last sequence number; 0 when it has no event."""
        return (await self._head(stream)).head_sequence

    async def _head(self, stream: Stream) -> StreamHead:
        return await self._read("/api/v1/ves/head", StreamHead, stream.query())

    async def shown(self, stream: Stream, start: int = 1) -> EventsPage:
        """Up to 1,000 events from ``start`` on, as shown, nothing verified."""
        return await self._read(
            "/api/v1/ves/events", EventsPage, {**stream.query(), "from": start, "limit": PAGE_EVENTS}
        )

    async def pull(self, stream: Stream, start: int = 1) -> EventsPage:
        """Up to 1,000 events from ``start`` on, each verified: hashes, signature, number, receipt.

        While ``has_more``, go on from ``next_from``: nothing can be missed. NotVerified at the first event
        that does not hold. The agents' keys come from the server; bring your own to ``verify_stream``.
        """
        page = await self.shown(stream, start)
        keys = await self._keys_for(e.receipt for e in page.events if e.receipt is not None)
        for expected, envelope in enumerate(page.events, max(start, 1)):
            await self._key_of(envelope, self._agent_keys)
            problems = verify_shown(envelope, keys, self._agent_keys)
            if problems:
                raise NotVerified(f"event {expected} of {stream}", problems)
            if envelope.sequence_number != expected or envelope.stream() != stream:
                raise BadAnswer(f"{stream}: number {expected} was due, {envelope.sequence_number} came")
        if page.has_more:
            _forward(start, page.next_from)
        return page

    async def event(self, stream: Stream, event_id: Uuid) -> Envelope:
        """One event by its id, as shown."""
        return await self._read(f"/api/v1/ves/events/{uuid_text(event_id)}", Envelope, stream.query())

    async def evidence(self, stream: Stream, event_id: Uuid, *, payload: bool) -> bytes:
        """Everything that proves the event, as ``sequencer verify evidence`` reads it. Whether it holds is
        not judged here: that takes what somebody trusts. BadAnswer for anything but such a file."""
        path = f"/api/v1/ves/events/{uuid_text(event_id)}/evidence"
        query = stream.query() | ({"payload": "true"} if payload else {})
        raw = (await self._send("GET", path, query=query)).body
        try:
            read_evidence(raw)
        except NotEvidence as wrong:
            raise BadAnswer(f"{path}: {wrong}") from None
        return raw

    # ---- commitments and proofs -------------------------------------------------------------------------

    async def commit(
        self, stream: Stream, sequence_start: int | None = None, sequence_end: int | None = None
    ) -> WireCommitment | None:
        """Commit everything not yet committed (up to 65,536 events, see ``remaining``), or the given range.

        None: nothing was left to commit. After a lost answer that may be because the lost attempt did it;
        ``commitments`` shows. A given range that is committed already is answered with what is stored.
        """
        body: dict[str, Any] = stream.query()
        if sequence_start is not None and sequence_end is not None:
            body |= {"sequence_start": sequence_start, "sequence_end": sequence_end}
        try:
            answer = await self._send("POST", "/api/v1/ves/commitments", body=msgspec.json.encode(body))
        except Refused as refused:
            if refused.status == 409 and sequence_start is None:
                return None
            raise
        return decode(answer.body, WireCommitment, "the reply to a commit")

    async def commitments(self, stream: Stream, start: int = 1) -> list[WireCommitment]:
        """The stream's commitments in order, from the first that starts at ``start`` or later."""
        found: list[WireCommitment] = []
        while True:
            page = await self._read(
                "/api/v1/ves/commitments",
                CommitmentsPage,
                {**stream.query(), "from": start, "limit": PAGE_EVENTS},
            )
            found += page.commitments
            if not page.has_more:
                return found
            start = _forward(start, page.next_from)

    async def leaves(self, stream: Stream, batch_id: str) -> list[str]:
        """All leaf hashes of a commitment in one answer, in sequence order."""
        path = f"/api/v1/ves/commitments/{uuid_text(uuid_bytes(batch_id))}/leaves"
        return (await self._read(path, Leaves, stream.query())).leaf_hashes

    async def prove(self, stream: Stream, sequence_number: int) -> ProofFile:
        """The event with its receipt, commitment and proof, verified: everything to check it offline.

        Refused (404) while the event is not committed; NotVerified if anything does not hold.
        """
        query = stream.query()
        page = await self._read(
            "/api/v1/ves/events", EventsPage, {**query, "from": sequence_number, "limit": 1}
        )
        if not page.events or page.events[0].sequence_number != sequence_number:
            raise Refused(404, "EVENT_NOT_FOUND", f"{stream} has no event {sequence_number}", "")
        shown = page.events[0]
        if shown.receipt is None:
            raise BadAnswer(f"event {sequence_number} was shown without a receipt")
        proof = await self._read(f"/api/v1/ves/proofs/{sequence_number}", WireProof, query)
        commitment = await self._read(f"/api/v1/ves/commitments/{proof.batch_id}", WireCommitment, query)
        file = ProofFile(shown, shown.receipt, commitment, proof)
        await self._key_of(shown, self._agent_keys)
        problems = verify_proof_file(file, await self.receipt_keys(), self._agent_keys)
        if problems:
            raise NotVerified(f"the inclusion of event {sequence_number}", problems)
        return file

    async def verify_stream(
        self,
        stream: Stream,
        *,
        acknowledged: Sequence[Acknowledgement] = (),
        agent_keys: Mapping[KeyName, bytes] | None = None,
        progress: Callable[[int, int], None] = lambda done, head: None,
    ) -> StreamReport:
        """Everything the stream promises, checked here: numbers, hashes, signatures, receipts, the chain of
        commitments, and the inclusion of each committed event. One request per page and per commitment.

        ``acknowledged``: kept receipts, each of which must be in the stream. ``agent_keys``: keys you trust;
        without them the server's list is believed. ``progress`` hears how many of how many events.
        """
        voided = (await self._head(stream)).voided
        checker = StreamChecker(
            stream,
            await self.receipt_keys(),
            voided=[(void.first_number, void.last_number) for void in voided],
        )
        keys = dict(agent_keys) if agent_keys is not None else self._agent_keys
        receipts: dict[str, str] = {}
        start = 1
        while True:
            page = await self.shown(stream, start)
            for envelope in page.events:
                if agent_keys is None:
                    await self._key_of(envelope, keys)
                checker.event(envelope, keys)
                if envelope.receipt is not None:
                    receipts[envelope.event_id] = envelope.receipt.receipt_hash
            progress(checker.report.events, page.head_sequence)
            if not page.has_more:
                break
            start = _forward(start, page.next_from)
        checker.head(page.head_sequence)
        commitments = await self.commitments(stream)
        head = await self.head(stream)
        for commitment in commitments:
            # One that reaches beyond what we read is fine if the stream has grown so far meanwhile.
            if commitment.sequence_end <= page.head_sequence or commitment.sequence_end > head:
                checker.commitment(commitment, await self.leaves(stream, commitment.batch_id))
        report = checker.finish()
        for kept in acknowledged:
            if receipts.get(kept.receipt.event_id) != kept.receipt.receipt_hash:
                report.problems.append(
                    f"acknowledged event {kept.receipt.event_id}: it is not at number "
                    f"{kept.receipt.sequence_number} of the stream"
                )
        return report

    # ---- one request ------------------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeatable: bool = True,
    ) -> bytes:
        """Any other route: the answer's body. ``body`` is encoded as JSON, once.

        Refused and Unanswered as everywhere. ``repeatable=False`` if doing it twice does two things.
        """
        raw = None if body is None else msgspec.json.encode(body)
        return (await self._send(method, path, query=query, body=raw, repeatable=repeatable)).body

    async def look(self, path: str) -> Answer:
        """One attempt, whatever the status: for health checks, where 503 is an answer."""
        request = self._http.build_request("GET", path)
        with trio.move_on_after(self._policy.attempt_s):
            try:
                return await self._attempt(request)
            except _Lost as lost:
                raise Unanswered(1, str(lost)) from lost
        raise Unanswered(1, f"no answer within {self._policy.attempt_s:g} s")

    async def _read(self, path: str, kind: type[T], query: Mapping[str, Any] | None = None) -> T:
        return decode((await self._send("GET", path, query=query)).body, kind, path)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        repeatable: bool = True,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The final answer if it is a success; the same request again in between, as ``retry`` says."""
        headers = {"content-type": "application/json"} if body is not None else {}
        headers.update(more_headers or {})
        request = self._http.build_request(method, path, params=query, content=body, headers=headers)
        give_up = trio.current_time() + self._policy.deadline_s
        attempt, last = 0, ""
        while True:
            attempt += 1
            status, wait_s = LOST, None
            patience_s = min(self._policy.attempt_s, max(0.0, give_up - trio.current_time()))
            with trio.move_on_after(patience_s) as scope:
                try:
                    answer = await self._attempt(request)
                except _Lost as lost:
                    last = str(lost)
                else:
                    if answer.status < 300:
                        return answer
                    refusal = _refusal(answer)
                    status, last = answer.status, str(refusal)
                    wait_s = retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
                    if not self._policy.asks_again(status, repeatable=repeatable) and status not in _UNSURE:
                        raise refusal
            if scope.cancelled_caught and (not last or patience_s == self._policy.attempt_s):
                last = f"no answer within {patience_s:g} s"  # else what we heard before says more
            if not self._policy.asks_again(status, repeatable=repeatable):
                raise Unanswered(attempt, last)
            pause_s = self._policy.pause_s(attempt, self._chance(), wait_s)
            if trio.current_time() + pause_s >= give_up:
                raise Unanswered(attempt, last)
            self._notice(f"{method} {path}: {last}; again in {pause_s:.1f} s")
            await trio.sleep(pause_s)

    async def _attempt(self, request: httpx.Request) -> Answer:
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise BadAnswer(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            why = why_refused(error, self.origin)
            if why is not None:
                raise InsecureUrl(why) from error
            raise _Lost(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        except httpx.HTTPError as error:
            raise BadAnswer(f"the answer cannot be read: {error}") from error
        return Answer(response.status_code, response.headers, bytes(body))


_UNSURE = frozenset({502, 503, 504})
"""Statuses that do not say for certain that nothing was done; without a retry they end as Unanswered."""


class _ApiKey(httpx.Auth):
    """Ours alone: with an auth of its own httpx does not look into ~/.netrc for another."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def auth_flow(self, request: httpx.Request) -> Any:
        if self._api_key:
            # Older keys, those that begin with ss_, are not understood as Bearer by everybody.
            scheme = "ApiKey" if self._api_key.startswith("ss_") else "Bearer"
            request.headers["authorization"] = f"{scheme} {self._api_key}"
        yield request


def _registration(agent: Agent, valid_from: str | None, valid_to: str | None) -> dict[str, Any]:
    """Names the agent's public key, with proof of possession."""
    body: dict[str, Any] = {
        "tenantId": uuid_text(agent.name.tenant_id),
        "agentId": uuid_text(agent.name.agent_id),
        "keyId": agent.name.key_id,
        "publicKey": prefixed_hex(agent.public_key),
        "proofOfPossessionBundle": {"ed25519Pop": prefixed_hex(agent.proof_of_possession())},
    }
    given = {"validFrom": valid_from, "validTo": valid_to}
    return body | {name: moment for name, moment in given.items() if moment is not None}


def request_bytes(envelopes: Sequence[Envelope]) -> bytes:
    """The body of one ingest request. The same envelopes always give the same bytes.

    ValueError unless they are 1 to 1,000 of one agent and one stream.
    """
    if not 0 < len(envelopes) <= EVENTS_PER_REQUEST_MAX:
        raise ValueError(f"a request takes 1 to {EVENTS_PER_REQUEST_MAX} events, not {len(envelopes)}")
    first = envelopes[0]
    for envelope in envelopes:
        if envelope.stream() != first.stream() or envelope.source_agent_id != first.source_agent_id:
            raise ValueError("all events of a request are of one agent and one stream")
    return msgspec.json.encode({"agentId": first.source_agent_id, "events": envelopes})


def _check_reply(envelopes: Sequence[Envelope], reply: IngestReply) -> None:
    """Every event sent has one verdict, and nothing else has."""
    sent = sorted(uuid_bytes(envelope.event_id) for envelope in envelopes)
    try:
        judged = [receipt.event_id for receipt in reply.receipts]
        judged += [rejection.event_id for rejection in reply.rejections]
        complete = sorted(uuid_bytes(event_id) for event_id in judged) == sent
    except ValueError as wrong:
        raise BadAnswer(f"the reply to a post: {wrong}") from wrong
    counted = reply.events_accepted + reply.events_replayed
    if not complete or counted != len(reply.receipts) or reply.events_rejected != len(reply.rejections):
        raise BadAnswer("the reply to a post does not give one verdict per event sent")


def _refusal(answer: Answer) -> Refused:
    """The server's own words where it gives them, else the beginning of what came."""
    request_id = answer.headers.get("x-request-id", "")
    try:
        error = msgspec.json.decode(answer.body, type=ErrorBody).error
    except UNREADABLE:
        text = answer.body[:ERROR_TEXT_MAX].decode("utf-8", "replace") or "no explanation"
        return Refused(answer.status, "UNEXPECTED_STATUS", text, request_id)
    return Refused(answer.status, error.code, error.message, error.request_id or request_id)


def _forward(start: int, next_from: int) -> int:
    if next_from <= start:
        raise BadAnswer(f"the page from {start} says more follows from {next_from}")
    return next_from


def _hex32(text: str, what: str) -> bytes:
    try:
        return hex_bytes(text, 32)
    except ValueError as wrong:
        raise BadAnswer(f"{what}: {wrong}") from wrong


def _base_url(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as wrong:
        raise ClientError(f"{url} is no address: {wrong}") from wrong
    if base.scheme not in ("http", "https") or not base.host:
        raise ClientError(f"{url} is no http or https address")
    if base.userinfo:
        raise ClientError("give the API key as such, not in the address")
    return base


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
