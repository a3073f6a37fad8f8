"""What happens between two steps of Trio's scheduler: kills, and a look at who is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.abc import Instrument

from tests.simulation.node import NODE
from tests.simulation.script import Kill, KillAnytime

if TYPE_CHECKING:
    from tests.simulation.run import Run

STEPS_MAX = 400_000
"""Of the scheduler; a usual run takes three thousand."""


class Steps(Instrument):
    """Counts the scheduler's steps, kills at the wanted ones, and watches over single activation."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps = 0
        self._own: dict[str, list[int]] = {}
        for kill in run.all_of(Kill):
            self._own.setdefault(kill.actor, []).append(kill.nth)
        self._counts = dict.fromkeys(self._own, 0)
        self._anytime = sorted(run.all_of(KillAnytime), key=lambda kill: kill.nth)
        self._alive: dict[tuple[int, str], int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if task.name in self._own:
            self._count(task)
        if self._anytime and self._anytime[0].nth <= self._steps and not self._run.calm:
            kill = self._anytime[0]
            if self._run.node(kill.node).kill_actor(kill.actor, "killed by the simulation"):
                self._hit("kill anytime", self._anytime.pop(0).actor)
        if self._steps == STEPS_MAX:
            self._run.history.violation(f"more than {STEPS_MAX} steps: somebody goes in circles")
            self._run.scope.cancel("in circles")

    def _count(self, task: trio.lowlevel.Task) -> None:
        self._counts[task.name] += 1
        node = task.context.get(NODE)
        if self._counts[task.name] in self._own[task.name] and node is not None and not self._run.calm:
            kind = "kill sequencer" if task.name.startswith("sequencers/") else "kill actor"
            if node.kill_actor(task.name, "killed by the simulation"):
                self._hit(kind, task.name)

    def _hit(self, kind: str, actor: str) -> None:
        self._run.history.hit(kind, actor, f"at step {self._steps}")

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._count_alive(task, 1)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._count_alive(task, -1)

    def _count_alive(self, task: trio.lowlevel.Task, change: int) -> None:
        node = task.context.get(NODE)
        if node is None or not task.name.startswith("sequencers/"):
            return
        who = (node.number, task.name)
        self._alive[who] = self._alive.get(who, 0) + change
        if self._alive[who] > 1:
            self._run.history.violation(f"two incarnations of {task.name} at once on {node.name}")
