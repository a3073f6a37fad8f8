"""The write path: facts and appends of all the node's tenants, small ones together, large ones by themselves.

A sequencer knows only its own tenant. What several ask at the same time becomes one statement, what several
append at the same time one transaction, with one COMMIT to wait for. A group that is large enough to be
worth a transaction has its own, and so makes nobody wait. While others have as much on their way, small
groups wait a moment for each other (ADR 44, 49). Whoever has to wait for a lock, or may be to blame for the
failure of others, goes alone. Decides who goes with whom, never what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import trio

from journal import legacy
from journal.aio import cross
from journal.append import GoAlone, append, append_together
from journal.combining import LaneLimits, Lanes, NoTurn
from journal.expected import LARGE, Expected
from journal.facts import read_facts
from journal.port import Away, Group, JournalAway, LegacyGroup, Moved, Passing, Stored
from journal.units import Checkpoint, Units
from ves.records import Facts, Question

TOGETHER_MAX = 64
"""Tenants in one statement or transaction."""
ROWS_MAX = 512
"""Events in one statement or transaction of several tenants: some 10 ms of PostgreSQL's work."""
_FACTS_LANES = 1
_APPEND_LANES = 2
"""While one waits for the disk, the other one fills."""
_GATHERING_S = 0.02
"""So long a small group waits at most for others; for how many, ``journal.expected`` says."""


class Appends:
    """What the port promises of ``read_facts``, ``append`` and ``append_legacy``."""

    def __init__(self, units: Units, checkpoint: Checkpoint) -> None:
        self.units = units
        self.expected = Expected()
        self._checkpoint = checkpoint
        self._questions = Lanes[Question, Facts | JournalAway | GoAlone](
            self._read_together,
            limits=_limits(_FACTS_LANES, units),
            weigh=lambda question: len(question.event_ids),
            wanted=lambda question: self.expected.worth_waiting_for(question.tenant_id),
        )
        self._groups = Lanes[Group, Stored | Moved | Away | GoAlone](
            self._append_together,
            limits=_limits(_APPEND_LANES, units),
            weigh=lambda group: len(group.numbered),
            apart=lambda group: group.fence.tenant_id,
            wanted=lambda group: self.expected.worth_waiting_for(group.fence.tenant_id),
        )

    async def read_facts(self, question: Question) -> Facts:
        if len(question.event_ids) < LARGE:
            try:
                answer = await self._questions.ask(question)
            except NoTurn as error:
                raise JournalAway(str(error)) from error
            if isinstance(answer, JournalAway):
                raise type(answer)(str(answer))
            if isinstance(answer, Facts):
                return answer
        [facts] = await cross(lambda: self.units.read(lambda c: read_facts(c, [question])))
        return facts

    async def append(self, group: Group, passing: Passing | None = None) -> Stored | Moved | Away:
        events = len(group.numbered)
        if events:
            self.expected.goes(group.fence.tenant_id, by_itself=events >= LARGE)
        if not 0 < events < LARGE:
            return await self._append_alone(group, passing)
        try:
            outcome = await self._groups.ask(group)
        except NoTurn as error:
            return Away(str(error))
        if not isinstance(outcome, GoAlone):
            return outcome
        result: Stored | Moved | Away
        with trio.CancelScope(shield=True):  # it has begun: it ends, whoever is cancelled
            result = await self._append_alone(group)
        return result

    async def _append_alone(self, group: Group, passing: Passing | None = None) -> Stored | Moved | Away:
        return await cross(lambda: append(self.units, group, self._checkpoint, passing))

    async def append_legacy(
        self, group: LegacyGroup, passing: Passing | None = None
    ) -> Stored | Moved | Away:
        return await cross(lambda: legacy.append(self.units, group, self._checkpoint, passing))

    async def _read_together(self, questions: Sequence[Question]) -> Sequence[Facts | JournalAway | GoAlone]:
        try:
            return await cross(lambda: self.units.read(lambda c: read_facts(c, questions)))
        except JournalAway as error:
            return [error] * len(questions)
        except (asyncpg.PostgresError, ValueError, TypeError):  # one of them cannot be asked
            return [GoAlone()] * len(questions)

    async def _append_together(self, groups: Sequence[Group]) -> Sequence[Stored | Moved | Away | GoAlone]:
        return await cross(lambda: append_together(self.units, groups, self._checkpoint))


def _limits(lanes: int, units: Units) -> LaneLimits:
    return LaneLimits(lanes, TOGETHER_MAX, ROWS_MAX, units.deadline_s, _GATHERING_S)
