"""A question in parts has every name once, and the parts' answers are the whole one's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ves.questions import divided, joined
from ves.records import (
    CommandName,
    EntityName,
    Facts,
    Fence,
    Head,
    IssuedToken,
    KeyName,
    KeyStatus,
    KnownEvent,
    Question,
    Receipt,
)

TENANT, STORE, AGENT = b"T" * 16, b"S" * 16, b"A" * 16
names = st.integers(0, 40)


def ids(count: int) -> list[bytes]:
    return [n.to_bytes(16, "big") for n in range(count)]


def a_question(events: int, commands: int, entities: int, *, legacy: bool = False) -> Question:
    return Question(
        tenant_id=TENANT,
        store_ids=frozenset({STORE}),
        event_ids=frozenset(ids(events)),
        commands=frozenset(CommandName(STORE, one) for one in ids(commands)),
        entities=frozenset(EntityName(STORE, "order", one.hex()) for one in ids(entities)),
        keys=frozenset({KeyName(TENANT, AGENT, 1)}),
        credential_ids=frozenset({b"C" * 16, IssuedToken(AGENT, 5)}),
        legacy=legacy,
    )


def answer(question: Question, now_us: int = 7, head: int = 3) -> Facts:
    """Of a database that has everything that it is asked for."""
    receipt = Receipt(b"E" * 16, 1, 1, bytes(32), b"Q" * 16, 1, bytes(64))
    known = KnownEvent(STORE, bytes(32), bytes(64), None, None, receipt)
    return Facts(
        now_us=now_us,
        fence=Fence(TENANT, 1, 2, dict.fromkeys(question.store_ids, Head(head, 4))),
        known={} if question.legacy else dict.fromkeys(question.event_ids, known),
        used_commands=question.commands,
        entity_versions=dict.fromkeys(question.entities, 9),
        keys=dict.fromkeys(question.keys, KeyStatus(1, None, False, None, 2)),
        revoked_credentials=question.credential_ids,
        credential_ends_us=dict.fromkeys(question.credential_ids, 8),
        taken=question.event_ids if question.legacy else frozenset(),
    )


@given(events=names, commands=names, entities=names, most=st.integers(1, 50), legacy=st.booleans())
def test_the_parts_answers_are_the_whole_ones(
    events: int, commands: int, entities: int, most: int, legacy: bool
) -> None:
    whole = a_question(events, commands, entities, legacy=legacy)
    parts = divided(whole, most)
    assert len(parts) == max(1, -(-max(events, commands, entities) // most))
    for part in parts:
        assert max(len(part.event_ids), len(part.commands), len(part.entities)) <= most
        assert part.store_ids == whole.store_ids
    for kind in ("event_ids", "commands", "entities", "keys", "credential_ids"):
        asked = [name for part in parts for name in getattr(part, kind)]
        assert len(asked) == len(set(asked)), "each once"
    assert joined([answer(part) for part in parts]) == answer(whole)


def test_now_is_when_the_last_part_was_answered() -> None:
    parts = divided(a_question(2, 0, 0), 1)
    facts = joined([answer(part, now_us) for part, now_us in zip(parts, (7, 8), strict=True)])
    assert facts
    assert facts.now_us == 8


@pytest.mark.parametrize("which", range(3))
def test_parts_under_another_fence_do_not_belong_together(which: int) -> None:
    answers = [answer(part) for part in divided(a_question(3, 0, 0), 1)]
    for fence in (
        replace(answers[which].fence, heads={STORE: Head(4, 4)}),
        replace(answers[which].fence, key_epoch=2),
        replace(answers[which].fence, credential_epoch=3),
    ):
        moved = [replace(one, fence=fence) if n == which else one for n, one in enumerate(answers)]
        assert joined(moved) is None
