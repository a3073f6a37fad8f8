"""The image's content, built once."""

from __future__ import annotations

import pytest

from tests.deploy.cell import Cell, require_cell
from tests.deploy.dockerfile import context, instructions


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """Made by the Dockerfile's own commands."""
    require_cell()
    cell = Cell(tmp_path_factory.mktemp("image"))
    context(cell.source)
    for name, said in instructions():
        if name == "RUN":
            cell.build(said.replace("${LOCK}", "run"))
    return cell
