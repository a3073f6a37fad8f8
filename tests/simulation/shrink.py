"""Makes a failing script small and shows what is left: the steps, and what happened, as a table.

Leaves out steps as long as the run still fails (delta debugging, Zeller's ddmin), then makes what is left
plainer. It never looks at why the run fails: any violation counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from tests.simulation.history import Entry, History
from tests.simulation.run import simulate
from tests.simulation.script import Post, PostUnsigned, Script, Step

T = TypeVar("T")

RUNS_MAX = 800
OUTCOME_SHOWN = 120
"""Characters of it in the table."""
SCHEDULES = 5
"""A script with a step less has other pauses at other places: so many schedules are tried before it is
believed that it does not fail."""


def shrunk(script: Script, *, fails: Callable[[Script], bool] | None = None) -> Script:
    """A script with as few and as plain steps as could be found that still ``fails``, perhaps under another
    seed: then it is a shorter way to the same end, and not what happened under this one."""
    search = _Search(script, fails or _fails)
    search.leave_out()
    while any(search.take(candidate) for candidate in _plainer(search.script)):
        pass
    search.leave_out()
    return search.script


class _Search:
    """The smallest failing script so far."""

    def __init__(self, script: Script, fails: Callable[[Script], bool]) -> None:
        self.script = script
        self._fails = fails
        self._runs = 0

    def leave_out(self) -> None:
        ddmin(self.script.steps, lambda steps: self.take(_with(self.script, steps)))

    def take(self, candidate: Script) -> bool:
        for seed in range(candidate.seed, candidate.seed + SCHEDULES):
            self._runs += 1
            if self._runs > RUNS_MAX:
                return False
            candidate = msgspec.structs.replace(candidate, seed=seed)
            if self._fails(candidate):
                self.script = candidate
                return True
        return False


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A subsequence that still fails and of which no single item can be left out."""
    kept, parts = tuple(items), 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if fails(rest):
                kept, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), parts * 2)
    return () if kept and fails(()) else kept


def _fails(script: Script) -> bool:
    return bool(simulate(script).violations)


def _with(script: Script, steps: Sequence[Step]) -> Script:
    return msgspec.structs.replace(script, steps=tuple(steps))


def _plainer(script: Script) -> Iterator[Script]:
    if script.nodes > 1:
        yield msgspec.structs.replace(script, nodes=1)
    for index, step in enumerate(script.steps):
        for plainer in _plainer_step(step):
            yield _with(script, [*script.steps[:index], plainer, *script.steps[index + 1 :]])


def _plainer_step(step: Step) -> Iterator[Step]:
    changes: list[dict[str, Any]] = []
    if isinstance(step, Post | PostUnsigned):
        if len(step.events) > 1:
            changes += [{"events": step.events[:1]}, {"events": step.events[:-1]}]
        if step.resends:
            changes += [{"resends": 0}, {"resends": step.resends - 1}]
        if isinstance(step, Post) and step.leaves_after_s is not None:
            changes.append({"leaves_after_s": None})
    for change in changes:
        yield msgspec.structs.replace(step, **change)


# Shown to a person.


def shown(script: Script, history: History) -> str:
    return "\n".join(
        [
            f"seed {script.seed}, {script.nodes} node{'s' * (script.nodes > 1)}, {_settings(script)}",
            "",
            "The script that is left:",
            *(f"  {_step(step)}" for step in sorted(script.steps, key=lambda step: getattr(step, "at", 0.0))),
            "",
            "What happened (virtual seconds):",
            *table(history.entries),
            "",
            "What is wrong:",
            *(f"  {violation}" for violation in history.violations[:10]),
        ]
    )


def table(entries: Sequence[Entry]) -> list[str]:
    rows = [(f"{e.at_s:.4f}", _short(e.who), e.what, e.outcome[:OUTCOME_SHOWN]) for e in entries]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        f"  {at:>{widths[0]}}  {who:<{widths[1]}}  {what:<{widths[2]}}  {outcome}".rstrip()
        for at, who, what, outcome in rows
    ]


def _short(who: str) -> str:
    return who if not who.startswith("sequencers/") else who[: len("sequencers/") + 8]


def _settings(script: Script) -> str:
    return ", ".join(f"{name}={value}" for name, value in script.settings.items())


def _step(step: Step) -> str:
    fields = ", ".join(
        f"{name}={value}"
        for name in step.__struct_fields__
        if (value := getattr(step, name)) is not None and name != "at"
    )
    at = f"at {step.at:.3f}  " if hasattr(step, "at") else "          "
    return f"{at} {type(step).__name__}({fields})"
