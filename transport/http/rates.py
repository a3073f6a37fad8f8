"""Rate limits at the door: whose bucket a request takes from, and how a caller hears of it.

The headers are RateLimit-Limit, -Remaining and -Reset, as drafts 00 to 06 of the IETF's RateLimit header
fields had them (draft-ietf-httpapi-ratelimit-headers). Later drafts (11 is of May 2026, still no RFC) fold
them into two structured fields whose members changed from draft to draft; these three are what clients in the
field read. Limit is what a full bucket holds, Remaining what is in it, Reset the seconds until it is full;
with 429 Reset is the same as Retry-After. Decides nothing: ``actors.rate_limits`` does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from actors.rate_limits import OWN, TENANT_EVENTS, RateLimits, Verdict
from actors.rate_sharing import now_ns
from actors.security_events import SecurityEvents
from transport.http.client_address import network
from transport.http.errors import ApiError, Code
from transport.http.rate_classes import FAILED
from ves.records import IssuedToken, KeyName, Uuid

if TYPE_CHECKING:
    from transport.http.callers import Caller
    from transport.http.visit import Visit

BOOTSTRAP = b"bootstrap"
ROTATIONS_PER_MINUTE = 10
_WHOSE = {OWN: "this credential's own limit", TENANT_EVENTS: f"this tenant's limit ({TENANT_EVENTS})"}
EVENT_BYTES = 1_000
"""Of a request's body count as one event at least: large ones take more of everything."""
SAID_EVERY_NS = 60 * 1_000_000_000
SAID_OF_MAX = 1_000
"""So many offenders have a line in the log each minute; the metrics count all."""


class RateCheck:
    """What all requests of a node share."""

    def __init__(self, limits: RateLimits, security: SecurityEvents) -> None:
        self._limits = limits
        self._security = security
        self._said: OrderedDict[str, int] = OrderedDict()

    def known(self, visit: Visit, caller: Caller, rate_class: str) -> None:
        """A request of somebody we know takes a token. Raises 429."""
        verdict = self._limits.of_credential(
            subject(caller), caller.rate_limit_per_minute, rate_class, now_ns()
        )
        self._heed(visit, verdict)

    def rotating(self, visit: Visit, name: KeyName) -> None:
        """An agent's own rotation makes all appends of its tenant that are under way start again, so its
        holder has few, with however many credentials. Raises 429."""
        whose = name.tenant_id + name.agent_id + b"/rotate"
        self._heed(visit, self._limits.of_credential(whose, ROTATIONS_PER_MINUTE, OWN, now_ns()))

    def tenant(self, visit: Visit, tenant_id: Uuid) -> None:
        """A request takes as many of its tenant's events as are in it by its length. Raises 429."""
        longest = visit.house.settings.max_body_size_bytes  # what claims to be longer is refused
        events = max(1, min(visit.declared_bytes or 0, longest) // EVENT_BYTES)
        verdict = self._limits.of_tenant(tenant_id, events, now_ns())
        if verdict is not None and not verdict.allowed:  # else the headers tell of the credential's bucket
            self._heed(visit, verdict)
        visit.events_taken = events

    def counted(self, visit: Visit, tenant_id: Uuid, events: int) -> None:
        """So many it brought: takes the others. Refused and repeated ones count too."""
        if events > visit.events_taken:
            self._limits.charge_tenant(tenant_id, events - visit.events_taken, now_ns())

    def unknown(self, visit: Visit, rate_class: str = FAILED) -> None:
        """A request of an address takes a token. Raises 429."""
        verdict = self._limits.of_address(network(visit.address), rate_class, now_ns())
        self._heed(visit, verdict)

    def _heed(self, visit: Visit, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        visit.rate_verdict = verdict
        if not verdict.allowed:
            self._count(visit, verdict)
            raise refusal(verdict)

    def _count(self, visit: Visit, verdict: Verdict) -> None:
        """Every one is counted; of each offender one a minute is told."""
        caller = visit.caller
        offender = caller.name if caller is not None else f"address:{network(visit.address)}"
        if self._may_say(offender, now_ns()):
            limit = describe(verdict)
            self._security.happened(
                "rate_limited", caller=offender, address=visit.address, rate_class=verdict.of, limit=limit
            )
        else:
            self._security.counted("rate_limited")

    def _may_say(self, offender: str, now: int) -> bool:
        said = self._said
        while said and next(iter(said.values())) <= now - SAID_EVERY_NS:
            said.popitem(last=False)
        if offender in said or len(said) >= SAID_OF_MAX:
            return False
        said[offender] = now
        return True


def subject(caller: Caller) -> bytes:
    """Whose bucket it is."""
    credential = caller.credential_id
    if credential is None:
        return BOOTSTRAP
    if isinstance(credential, IssuedToken):  # all tokens of a subject: a new one gives no new bucket
        return (caller.tenant_id or b"") + credential.subject
    return credential


def refusal(verdict: Verdict) -> ApiError:
    whose = _WHOSE.get(verdict.of) or f"the limit of class {verdict.of}"
    text = f"{whose} is {describe(verdict)}; nothing was done"
    return ApiError(
        Code.RATE_LIMIT_EXCEEDED,
        text,
        retry_after_s=verdict.wait_s,
        details={"class": verdict.of, "per_minute": verdict.limit.per_minute, "burst": verdict.limit.burst},
    )


def describe(verdict: Verdict) -> str:
    limit, what = verdict.limit, "event" if verdict.of == TENANT_EVENTS else "request"
    per_second, rest = divmod(limit.per_minute, 60)
    count, time = (limit.per_minute, "minute") if rest else (per_second, "second")
    return f"{count} {what}{'' if count == 1 else 's'} a {time}, {limit.burst} at once"


def headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-limit", b"%d" % verdict.limit.burst),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % (verdict.full_in_s if verdict.allowed else verdict.wait_s)),
    ]
