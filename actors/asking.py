"""What a group needs to know, asked in one statement; of a large one beside others in several (ADR 48)."""

from __future__ import annotations

from actors.right_of_way import Passage
from journal.port import Journal, Moved
from ves.questions import divided, joined
from ves.records import Facts, Question

ASKED_AT_ONCE_MAX = 250
"""Names of one kind in one statement of a large group beside others: some 2 ms of PostgreSQL's work."""


async def read_facts(journal: Journal, question: Question, passage: Passage) -> Facts | Moved:
    """Raises JournalAway. Moved: the fence did so meanwhile; nothing was stored."""
    await passage.step()
    if not passage.is_large_beside_others:
        return await journal.read_facts(question)
    answers: list[Facts] = []
    for part in divided(question, ASKED_AT_ONCE_MAX):
        if answers:
            await passage.step()
        answers.append(await journal.read_facts(part))
    return joined(answers) or Moved("the fence")
