"""Which route a method and a path lead to, as Quart's routing would say, found without asking it.

Alone reads path parameters out of paths, still percent-encoded: nothing here decodes. It finds what is
spelled as the table of routes has it and never says why something is not found: that, and what else leads
somewhere (HEAD, more slashes before the path), is for Quart to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transport.http.routing import Route

Found = tuple[Route, dict[str, str]]
"""And its path parameters by name."""

_NAME = re.compile(r"\{([a-z_]+)\}")


class Paths:
    """Those of one listener's routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.own: dict[str, set[str]] = {}
        """Paths in which nothing varies, and their methods: they beat every pattern, whatever the method."""
        self._fixed: dict[tuple[str, str], Found] = {}
        patterns: dict[str, list[Route]] = {}
        for route in routes:
            if "{" in route.path:
                patterns.setdefault(route.method, []).append(route)
            else:
                methods = {"GET", "HEAD"} if route.method == "GET" else {route.method}
                self.own.setdefault(route.path, set()).update(methods)
                self._fixed[route.method, route.path] = route, {}
        self._patterns = {method: _Patterns(of_method) for method, of_method in patterns.items()}

    def find(self, method: str, path: str) -> Found | None:
        """None: ask Quart."""
        fixed = self._fixed.get((method, path))
        if fixed is not None or path in self.own:
            return fixed
        patterns = self._patterns.get(method)
        return None if patterns is None else patterns.find(path)


class _Patterns:
    """The routes of one method in whose paths something varies, as one regular expression: a group around
    each route, and in it one for each parameter. The first that matches is the right one: as in Quart's
    routing, a segment that is spelled out beats one that varies, and earlier segments decide."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._of_group: dict[int, tuple[Route, list[str]]] = {}
        alternatives, group = [], 1
        for route in sorted(routes, key=lambda route: [part[:1] == "{" for part in route.path.split("/")]):
            names = _NAME.findall(route.path)
            self._of_group[group] = route, names
            alternatives.append("(" + "/".join(map(_segment, route.path.split("/"))) + ")")
            group += 1 + len(names)
        self._expression = re.compile("|".join(alternatives))

    def find(self, path: str) -> Found | None:
        found = self._expression.fullmatch(path)
        if found is None or found.lastindex is None:
            return None
        route, names = self._of_group[found.lastindex]
        return route, dict(zip(names, found.groups()[found.lastindex :], strict=False))


def _segment(text: str) -> str:
    """As Quart's: a parameter is one whole segment that is not empty."""
    if _NAME.fullmatch(text):
        return "([^/]+)"
    if "{" in text or "}" in text:
        raise ValueError(f"a parameter is a whole segment of a path, in lower case: {text!r}")
    return re.escape(text)
