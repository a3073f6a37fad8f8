"""Test data that notices what nobody read: every leaf of a JSON document is accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent.parent / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


class Page:
    """A JSON object or array that crosses off each leaf when it is read."""

    def __init__(self, value: Any, path: str = "", unread: set[str] | None = None) -> None:
        self._value = value
        self._path = path
        self._unread = set(_leaves(value, path)) if unread is None else unread

    def __getitem__(self, key: Any) -> Any:
        value, path = self._value[key], f"{self._path}/{key}"
        if isinstance(value, dict | list) and value:
            return Page(value, path, self._unread)
        self._unread.discard(path)
        return value

    def __len__(self) -> int:
        return len(self._value)

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def __iter__(self) -> Iterator[Any]:
        keys = range(len(self._value)) if isinstance(self._value, list) else list(self._value)
        return iter([self[key] for key in keys])

    def items(self) -> list[tuple[str, Any]]:
        return [(key, self[key]) for key in self._value]

    def whole(self) -> Any:
        """The plain value, everything in it crossed off."""
        self._unread -= set(_leaves(self._value, self._path))
        return self._value

    def unread(self) -> set[str]:
        return self._unread


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    else:
        yield path
