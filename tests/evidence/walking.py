"""Every way to change one thing in a JSON document, with the name of what was changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any


def changes(document: Any) -> Iterator[tuple[str, Any]]:
    """(where and how, the changed document): each leaf to another value of its kind, each list shorter,
    longer and turned around, each object gone."""
    for path, value in _walked(document, ()):
        for how, other in _others(value):
            changed = copy.deepcopy(document)
            _put(changed, path, other)
            yield f"{_name(path)} {how}", changed


def _walked(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if path:
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _walked(one, (*path, name))


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        yield "one more", value + 1
        yield "one less", value - 1
    elif isinstance(value, float):
        yield "more", value + 1
    elif isinstance(value, str):
        yield "its end", value[:-1] + ("0" if value[-1:] != "0" else "1")
        if value.startswith("0x") and len(value) > 66:
            yield "its beginning", value[:2] + ("0" if value[2] != "0" else "1") + value[3:]
            yield "shorter", value[:-2]
    elif value is None:
        yield "there", "0x" + "11" * 64
    elif isinstance(value, list):
        yield "shorter", value[:-1]
        yield "longer", [*value, *value[-1:]]
        if value[::-1] != value:
            yield "turned around", value[::-1]
    elif isinstance(value, dict):
        yield "gone", None


def _put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        document = document[name]
    document[path[-1]] = value


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
