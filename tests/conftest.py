"""How each test ended, for ``make security``: recorded under TEST_OUTCOMES, a folder, when it is set."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest


class Outcomes:
    """A plugin: the worst end of each test, by node id; written into ``folder``, if there is one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.ended: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worst = self.ended.get(report.nodeid, "passed")
        if report.outcome != "passed":
            self.ended[report.nodeid] = report.outcome
        elif report.when == "call" or worst != "passed":
            self.ended[report.nodeid] = worst

    def pytest_sessionfinish(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{time.time_ns()}.json").write_text(json.dumps(self.ended))


def pytest_configure(config: pytest.Config) -> None:
    folder = os.environ.get("TEST_OUTCOMES")
    if folder and not hasattr(config, "workerinput"):  # the one who hears of all, not one of xdist's workers
        config.pluginmanager.register(Outcomes(Path(folder)))
