"""The routes as the server's own OpenAPI documents tell them, and a well-formed request for each.

Alone reads the documents. It knows no route by name beyond ``SPECIAL``; a new route is probed from the day it
is told. Imports nothing of the server.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

Json = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """One place where a caller's text goes."""

    name: str
    where: str
    """path, query or body."""
    schema: Json
    required: bool

    @property
    def is_free_text(self) -> bool:
        """Any short text is a valid value."""
        plain = _plain(self.schema)
        return plain.get("type") == "string" and not ({"pattern", "format", "enum", "const"} & plain.keys())


@dataclass(frozen=True)
class Route:
    listener: str
    """public or admin."""
    method: str
    path: str
    is_public: bool
    fields: tuple[Field, ...]
    takes_body: bool
    needs: str
    """What the document says it needs."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def changes_state(self) -> bool:
        return self.method != "GET"


@dataclass
class Ask:
    """One request, still to be aimed and changed."""

    route: Route
    values: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    raw_body: bytes | None = None
    """Sent as it is, instead of the body members."""

    def with_value(self, name: str, value: Any) -> Ask:
        return replace(self, values={**self.values, name: value})

    def with_headers(self, **headers: str) -> Ask:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **spelled})

    def of(self, where: str) -> Json:
        named = {one.name for one in self.route.fields if one.where == where}
        return {name: value for name, value in self.values.items() if name in named}

    def target(self) -> str:
        path = self.route.path
        for name, value in self.of("path").items():
            path = path.replace("{" + name + "}", urllib.parse.quote(str(value), safe=""))
        query = {n: v for n, v in self.of("query").items() if v is not None}
        return path + ("?" + urllib.parse.urlencode(query) if query else "")

    def body(self) -> bytes | None:
        if self.raw_body is not None or not self.route.takes_body:
            return self.raw_body
        return json.dumps(self.of("body")).encode()


def routes_of(listener: str, document: Json) -> list[Route]:
    shapes = document["components"]["schemas"]
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            fields = [
                Field(p["name"], p["in"], _resolve(p["schema"], shapes), bool(p["required"]))
                for p in operation["parameters"]
            ]
            body = operation.get("requestBody")
            if body:
                fields += _members(body["content"]["application/json"]["schema"], shapes)
            found.append(
                Route(
                    listener,
                    method.upper(),
                    path,
                    "security" not in operation,
                    tuple(fields),
                    body is not None,
                    operation.get("description", ""),
                )
            )
    return found


def read_routes(url: str, admin_url: str) -> list[Route]:
    told = []
    for listener, base in (("public", url), ("admin", admin_url)):
        told += routes_of(listener, httpx.get(base + "/openapi.json", timeout=30).json())
    return told


def well_formed(route: Route, known: Json) -> Ask:
    """A request of the right shape: what ``known`` names is taken from it, the rest is invented."""
    values = {}
    for one in route.fields:
        alias = re.sub(r"(?<!^)(?=[A-Z])", "_", one.name).lower()
        if (route.path, one.name) in known:
            values[one.name] = known[route.path, one.name]
        elif alias in known:
            values[one.name] = known[alias]
        elif one.required:
            values[one.name] = invented(one.schema)
    return Ask(route, values)


def invented(schema: Json) -> Any:
    plain = _plain(schema)
    for key in ("const", "default"):
        if key in plain:
            return plain[key]
    for key in ("examples", "enum"):
        if plain.get(key):
            return plain[key][0]
    kind = plain.get("type")
    if kind == "string":
        return _text(plain)
    if kind in ("integer", "number"):
        return max(1, plain.get("minimum", 1))
    if kind == "boolean":
        return False
    if kind == "array":
        return [invented(plain.get("items", {}))] * plain.get("minItems", 0)
    if kind == "object" or "properties" in plain:
        required = plain.get("required", [])
        return {
            name: invented(member) for name, member in plain.get("properties", {}).items() if name in required
        }
    return {"any": "thing"}


def _text(plain: Json) -> str:
    pattern = plain.get("pattern", "")
    if "{8}(-" in pattern:
        return str(uuid.uuid4())
    for digits in (64, 128):
        if f"{{{digits}}}" in pattern:
            return "ab" * (digits // 2)
    return "x" * max(1, plain.get("minLength", 1))


def _plain(schema: Json) -> Json:
    """The first alternative that is not null."""
    for one in schema.get("anyOf", []):
        if one != {"type": "null"}:
            return {**one, **{k: v for k, v in schema.items() if k not in ("anyOf", "default")}}
    return schema


def _members(schema: Json, shapes: Json) -> list[Field]:
    struct = _resolve(schema, shapes)
    required = struct.get("required", [])
    return [
        Field(name, "body", member, name in required) for name, member in struct.get("properties", {}).items()
    ]


def _resolve(schema: Any, shapes: Json, depth: int = 8) -> Any:
    """Without references, as deep as a request goes."""
    if isinstance(schema, list):
        return [_resolve(one, shapes, depth) for one in schema]
    if not isinstance(schema, dict) or depth == 0:
        return schema
    if "$ref" in schema:
        target = shapes[schema["$ref"].rpartition("/")[2]]
        return _resolve({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, shapes, depth - 1)
    return {key: _resolve(value, shapes, depth - (key == "properties")) for key, value in schema.items()}
