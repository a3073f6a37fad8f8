"""What both streams' ingest bodies have in common: the wrapper around the events, and what no body may be.

400 is for bytes that are not one UTF-8 JSON text of bearable depth; 422 for a wrapper whose members are
missing, given twice or of the wrong type; 403 and 400 for events outside the caller's scope or of several
streams. What an event's members are is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Raw

from ves.canonical import exceeds_depth
from ves.constants import BODY_DEPTH_MAX, EVENTS_PER_REQUEST_MAX
from ves.records import BodyRefused, Scope, Uuid
from ves.unreadable import Unreadable, members_once, not_json, too_deep, wrong_type

EVENT_DEPTH_MAX = BODY_DEPTH_MAX - 2  # the wrapper and its array are around every event
_WRAPPER_MEMBERS = 2

_check_syntax = msgspec.json.Decoder(Raw).decode


class Wrapper(Protocol):
    @property
    def events(self) -> list[Raw]: ...


R = TypeVar("R")
W = TypeVar("W", bound=Wrapper)


def read_body(body: bytes, read: Callable[[bytes, str], R]) -> R | BodyRefused:
    """What ``read`` makes of the body, or why the whole body is refused.

    ``read`` raises Unreadable. It is also given what stands in place of each half of a surrogate pair, which
    nothing accepted may hold; usually the empty text, for there is none.
    """
    try:
        return read(body, "")
    except Unreadable as refused:
        refusal = refused.refusal
    # Half a surrogate pair is JSON, so it is one event's fault and not the body's; msgspec cannot say so.
    if refusal.status != 400 or not _SURROGATES.search(body):
        return refusal
    mark = _mark_for(body)
    if (marked := _mark_half_pairs(body, mark.encode())) != body:
        try:
            return read(marked, mark)
        except Unreadable as refused:
            return refused.refusal
    return refusal


# Escapes start after an even number of backslashes; whole pairs are matched so that their low half is not.
_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def _mark_half_pairs(body: bytes, mark: bytes) -> bytes:
    return _SURROGATES.sub(lambda found: found[0] if len(found[2]) == 12 else found[1] + mark, body)


def _mark_for(body: bytes) -> str:
    """A text that the body does not hold, found in one pass: its number is one above all that are there."""
    taken = max((int(n) for n in re.findall(rb"\(half of a surrogate pair (\d{1,9})\)", body)), default=-1)
    return f"(half of a surrogate pair {taken + 1})"


# The wrapper.


def read_wrapper(body: bytes, decode: Callable[[bytes], W], types: dict[str, str]) -> tuple[W, list[bytes]]:
    """The wrapper, and the text of each event, whose nesting is bounded from here on. Raises Unreadable."""
    wrapper = _decoded(body, decode, types)
    raws = [bytes(raw) for raw in wrapper.events]
    if any(exceeds_depth(raw, EVENT_DEPTH_MAX) for raw in raws):
        raise too_deep()
    _check_members(body, raws, types)
    return wrapper, raws


def _decoded(body: bytes, decode: Callable[[bytes], W], types: dict[str, str]) -> W:
    try:
        # Raw members are skipped without a look at their UTF-8.
        if not body.isascii():
            body.decode()
        return decode(body)
    except UnicodeDecodeError as wrong:
        raise not_json(f"the body is not UTF-8 (byte {wrong.start})") from None
    except RecursionError:
        raise too_deep() from None
    except msgspec.DecodeError as wrong:
        raise _explained(body, wrong, types) from None


def _explained(body: bytes, wrong: msgspec.DecodeError, types: dict[str, str]) -> Unreadable:
    # A type error may stand before a syntax error; that the body is no JSON comes first.
    try:
        _check_syntax(body)
    except RecursionError:
        return too_deep()
    except msgspec.DecodeError as syntax:
        return not_json(f"the body is not JSON: {syntax}")
    return wrong_type(str(wrong), "", types)


def _check_members(body: bytes, raws: list[bytes], types: dict[str, str]) -> None:
    outside = body.count(b":") - sum(raw.count(b":") for raw in raws)
    if outside == _WRAPPER_MEMBERS:
        return
    if exceeds_depth(body, BODY_DEPTH_MAX):
        raise too_deep()
    members_once(body, "", types)


# The scope.


class Addressed(Protocol):
    """An event of either stream."""

    @property
    def tenant_id(self) -> Uuid: ...
    @property
    def store_id(self) -> Uuid: ...
    @property
    def source_agent_id(self) -> Uuid: ...


def agent_mismatch(agent_id: Uuid, scope: Scope, member: str) -> BodyRefused | None:
    """``member``: what the wrapper calls the agent."""
    if scope.agent_id is None or scope.agent_id == agent_id:
        return None
    return BodyRefused(
        403, "INSUFFICIENT_PERMISSIONS", f"Agent mismatch: {member} is not the credential's agent"
    )


def out_of_scope(
    agent_id: Uuid, events: Sequence[Addressed], scope: Scope, *, member: str, source: str
) -> BodyRefused | None:
    """Of a request with events (wire 23.1 and 23.2, in that order). ``member`` is what the wrapper calls the
    agent, ``source`` what an event does."""
    tenant_id, store_id = events[0].tenant_id, events[0].store_id
    for index, event in enumerate(events):
        if event.tenant_id != tenant_id or event.store_id != store_id:
            return BodyRefused(
                400,
                "INVALID_FIELD_VALUE",
                "All events in a batch must share the same tenant_id and store_id; "
                f"events[{index}] names another stream, send it in its own request",
            )
    if refused := agent_mismatch(agent_id, scope, member):
        return refused
    for index, event in enumerate(events):
        if event.source_agent_id != agent_id:
            return BodyRefused(400, "INVALID_FIELD_VALUE", f"events[{index}].{source} must match {member}")
    if scope.tenant_id is not None and scope.tenant_id != tenant_id:
        return BodyRefused(
            403, "INSUFFICIENT_PERMISSIONS", "tenant_id is outside what this credential may write to"
        )
    if scope.store_ids is not None and store_id not in scope.store_ids:
        return BodyRefused(
            403, "INSUFFICIENT_PERMISSIONS", "store_id is outside what this credential may write to"
        )
    if len(events) > EVENTS_PER_REQUEST_MAX:
        return BodyRefused(
            413,
            "BATCH_TOO_LARGE",
            f"events has {len(events)} entries, at most {EVENTS_PER_REQUEST_MAX} are allowed; split it",
        )
    return None
