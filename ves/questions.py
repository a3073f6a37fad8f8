"""A large question in parts, and the parts' answers as one, as far as they belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from ves.records import Facts, Question

T = TypeVar("T")


def divided(question: Question, names_max: int) -> list[Question]:
    """At most so many event ids, command ids and entities in each. Every part asks for the heads, so that
    each answer has the whole fence; keys and credentials are in the first."""
    names = (question.event_ids, question.commands, question.entities)
    count = max(1, *(-(-len(some) // names_max) for some in names))
    if count == 1:
        return [question]
    nothing: frozenset[object] = frozenset()
    rest = replace(question, keys=nothing, credential_ids=nothing)
    parts = zip(*(_parts(some, count) for some in names), strict=True)
    return [
        replace(rest if n else question, event_ids=event_ids, commands=commands, entities=entities)
        for n, (event_ids, commands, entities) in enumerate(parts)
    ]


def joined(answers: Sequence[Facts]) -> Facts | None:
    """Of one question's parts, in the order in which they were asked. None: the fence moved between two of
    them, so they do not belong together.

    Under one fence no event came into these streams in between, and no key or credential changed. What is
    not under it is compared again when the group is appended: an entity's version, an event or command id.
    """
    first, last = answers[0], answers[-1]
    if any(answer.fence != first.fence for answer in answers):
        return None
    return Facts(
        now_us=last.now_us,
        fence=first.fence,
        known={event_id: event for answer in answers for event_id, event in answer.known.items()},
        used_commands=frozenset().union(*(answer.used_commands for answer in answers)),
        entity_versions={name: n for answer in answers for name, n in answer.entity_versions.items()},
        keys=first.keys,
        revoked_credentials=first.revoked_credentials,
        credential_ends_us=first.credential_ends_us,
        taken=frozenset().union(*(answer.taken for answer in answers)),
    )


def _parts(some: Collection[T], count: int) -> Iterator[frozenset[T]]:
    """So many, as equal as can be."""
    rest = iter(some)
    for n in range(count):
        yield frozenset(islice(rest, (len(some) * (n + 1)) // count - (len(some) * n) // count))
