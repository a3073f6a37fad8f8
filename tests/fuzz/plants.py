"""Mistakes made on purpose, for as long as a test looks whether they are found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from tests.fuzz.target import Plant


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    home = import_module(plant.module)
    *path, name = plant.name.split(".")
    for part in path:
        home = getattr(home, part)
    right = getattr(home, name)
    setattr(home, name, plant.mistake(right))
    try:
        yield
    finally:
        setattr(home, name, right)
