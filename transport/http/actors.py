"""The operator's hands on the house, on the admin listener: looking at the tree, acting on it, dead letters.

Everything here works while the database is away; the audit entries then wait in the spool. Each act leaves
an entry of its own before it is done. No letter's content is ever shown. What an act does and whether it is
possible, the overseer says.
"""

from __future__ import annotations

from functools import partial

from actors.dead_letters import DeadLetter
from actors.views import Acted, Action, ActorView, NoSuchActor, NotPossible, Resent
from transport.http.errors import ApiError, Code
from transport.http.routing import Route
from transport.http.shapes import (
    ActBody,
    ActorsQuery,
    ActorsReply,
    DeadLetterPath,
    DeadLettersQuery,
    DeadLettersReply,
    TenantsQuery,
    TenantsReply,
)
from transport.http.visit import Visit

WAIT_S_MAX = 20.0
WAIT_SHARE = 0.8
"""Of what is left of the request's time: the rest is for the answer."""

ACTORS = "/api/v1/admin/actors"
DEAD_LETTERS = f"{ACTORS}/dead-letters"

SUMMARIES: dict[Action, str] = {
    "kill": "Cancel the present life, a letter in hand or not; its supervisor starts the next",
    "restart": "End the present life between two letters and start the next; revives a drained one",
    "drain": "Let the waiting letters be finished, then end; refuses new ones until restarted",
    "suspend": "Take no letter until resumed; letters wait within the mailbox's bound",
    "resume": "Take letters again after a suspend",
}


async def look(visit: Visit) -> ActorsReply:
    query = visit.query(ActorsQuery)
    house = visit.house
    try:
        seen = house.overseer.look(query.path, children_max=query.children, after=query.after)
    except NoSuchActor as error:
        raise _nobody(error) from None
    return ActorsReply(
        seen.tree,
        house.overseer.busiest(order=query.order, limit=query.tenants) if query.tenants else [],
        seen.dead_letters_total,
        dict(house.readiness.reasons),
        house.lag.lag_s,
        house.lag.peak_s,
        house.lag.last_hog,
        house.audit_spool.bytes_waiting,
    )


async def tenants(visit: Visit) -> TenantsReply:
    query = visit.query(TenantsQuery)
    found = visit.house.overseer.busiest(order=query.order, limit=query.limit)
    return TenantsReply(found, len(found))


async def act(action: Action, visit: Visit) -> Acted:
    body = await visit.json(ActBody)
    overseer = visit.house.overseer
    try:
        _must_be_below_the_house(overseer.look(body.path, children_max=0).tree)
        await visit.audit(visit.act(f"actor.{action}", body.path, None, reason=body.reason))
        return await overseer.act(action, body.path, body.reason, within_s=_patience_s(visit))
    except NoSuchActor as error:
        raise _nobody(error) from None
    except NotPossible as error:
        raise ApiError(Code.CONFLICT, f"{error}; nothing was done") from None


def _must_be_below_the_house(found: ActorView) -> None:
    if "/" not in found.path:
        raise NotPossible(f"path: {found.path} is everybody; name one below it, or stop the process")


async def list_dead_letters(visit: Visit) -> DeadLettersReply:
    query = visit.query(DeadLettersQuery)
    found = visit.house.overseer.list_dead_letters(after=query.after, limit=query.limit + 1)
    page, more = found[: query.limit], len(found) > query.limit
    return DeadLettersReply(page, len(page), more, page[-1].id if more else None)


async def show_dead_letter(visit: Visit) -> DeadLetter:
    return _dead_letter(visit)


async def drop_dead_letter(visit: Visit) -> DeadLetter:
    found = _dead_letter(visit)
    await _audit(visit, "dead_letter.drop", found)
    return visit.house.overseer.drop_dead_letter(found.id)


async def resend_dead_letter(visit: Visit) -> Resent:
    found = _dead_letter(visit)
    await _audit(visit, "dead_letter.resend", found)
    try:
        return await visit.house.overseer.resend_dead_letter(found.id, within_s=_patience_s(visit))
    except NotPossible as error:
        raise ApiError(Code.CONFLICT, f"{error}; nothing was done") from None


def _dead_letter(visit: Visit) -> DeadLetter:
    dead_letter_id = visit.path(DeadLetterPath).id
    try:
        return visit.house.overseer.show_dead_letter(dead_letter_id)
    except LookupError as error:
        raise ApiError(Code.RESOURCE_NOT_FOUND, f"id: {error}; GET {DEAD_LETTERS} lists them") from None


async def _audit(visit: Visit, action: str, letter: DeadLetter) -> None:
    subject = f"dead-letter/{letter.id}"
    await visit.audit(visit.act(action, subject, None, mailbox=letter.mailbox, message=letter.message))


def _patience_s(visit: Visit) -> float:
    return min(WAIT_S_MAX, visit.remaining_s * WAIT_SHARE)


def _nobody(error: NoSuchActor) -> ApiError:
    return ApiError(Code.RESOURCE_NOT_FOUND, f"path: {error}; GET {ACTORS} shows who is there")


ROUTES = [
    Route(
        "GET",
        ACTORS,
        look,
        "The living tree, or a part of it; tenants by activity beside it when asked",
        ActorsReply,
        query_shape=ActorsQuery,
        refuses=(Code.RESOURCE_NOT_FOUND,),
        works_without_database=True,
    ),
    Route(
        "GET",
        f"{ACTORS}/tenants",
        tenants,
        "Tenants' sequencers by activity",
        TenantsReply,
        query_shape=TenantsQuery,
        works_without_database=True,
    ),
    *(
        Route(
            "POST",
            f"{ACTORS}/{action}",
            partial(act, action),
            summary,
            Acted,
            body_shape=ActBody,
            refuses=(Code.RESOURCE_NOT_FOUND, Code.CONFLICT),
            works_without_database=True,
        )
        for action, summary in SUMMARIES.items()
    ),
    Route(
        "GET",
        DEAD_LETTERS,
        list_dead_letters,
        "Letters nobody could handle, newest first, without their content",
        DeadLettersReply,
        query_shape=DeadLettersQuery,
        works_without_database=True,
    ),
    Route(
        "GET",
        f"{DEAD_LETTERS}/{{id}}",
        show_dead_letter,
        "One dead letter, without its content",
        DeadLetter,
        path_shape=DeadLetterPath,
        refuses=(Code.RESOURCE_NOT_FOUND,),
        works_without_database=True,
    ),
    Route(
        "DELETE",
        f"{DEAD_LETTERS}/{{id}}",
        drop_dead_letter,
        "Forget a dead letter",
        DeadLetter,
        path_shape=DeadLetterPath,
        refuses=(Code.RESOURCE_NOT_FOUND,),
        works_without_database=True,
    ),
    Route(
        "POST",
        f"{DEAD_LETTERS}/{{id}}/resend",
        resend_dead_letter,
        "Deliver a dead letter once more; answered, it is one no longer",
        Resent,
        path_shape=DeadLetterPath,
        refuses=(Code.RESOURCE_NOT_FOUND, Code.CONFLICT),
        works_without_database=True,
    ),
]
