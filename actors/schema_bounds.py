"""Whether a JSON Schema can cost more than it may, told from its text alone, before anything compiles it.

Pure. The work of comparing a payload with a schema is at most (values in the payload) x (times one value is
looked at), and the second factor is bounded here: alternatives, ``allOf`` and references multiply it, and
recursion multiplies it again with each level of nesting. So exponential schemas are found without running
them. References may only lead into the same document. Anything else is refused with a reason for its author.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ves.constants import PAYLOAD_DEPTH_MAX

NODES_MAX = 2000
"""Subschemas of a schema."""
LOOKS_MAX = 256
"""At one value of a payload: about 2 microseconds."""
CHAIN_MAX = 32
"""Subschemas that apply to one value because of one another: the depth of the engine's calls."""
DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
}
_NAMES_ELSEWHERE = ("$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef")

# Where subschemas stand, by what they apply to: the value itself, or what it holds.
_HERE = ("not", "if", "then", "else")
_HERE_LISTS = ("allOf", "anyOf", "oneOf")
_HERE_MAPS = ("dependentSchemas", "dependencies")
_MEMBERS = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_ELEMENTS = ("items", "additionalItems", "contains", "unevaluatedItems")
_ELEMENT_LISTS = ("prefixItems", "items")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")

Schema = dict[str, Any] | bool


class Unfit(ValueError):
    """The text is for the schema's author."""


class _Node:
    """One subschema: what it costs itself, and who follows from it, by place in the list of nodes."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.weight = 1
        self.here: list[int] = []
        self.each_member: list[int] = []
        self.one_member: list[int] = []
        self.each_element: list[int] = []
        self.one_element: list[int] = []


def check_bounds(root: Any) -> None:
    """Raises Unfit unless every payload can be compared with this schema in time."""
    if not isinstance(root, dict | bool):
        raise Unfit("a schema is an object, true or false")
    _refuse_foreign_names(root)
    nodes = _Walk(root).nodes
    order = _order(nodes)
    before: list[int] | None = None
    for _ in range(PAYLOAD_DEPTH_MAX + 1):
        looks = _looks(nodes, order, before)
        if looks[0] > LOOKS_MAX:
            raise Unfit(
                f"one value of a payload could be looked at more than {LOOKS_MAX} times: fewer alternatives, "
                "patterns, references to the same place, or no recursion through several branches"
            )
        if looks == before:
            return
        before = looks


def _refuse_foreign_names(root: Schema) -> None:
    """Names that make a reference lead somewhere else than its text says."""
    dialect = root.get("$schema") if isinstance(root, dict) else None
    if dialect is not None and str(dialect).rstrip("#") not in DIALECTS:
        raise Unfit("$schema: draft 2020-12 (the default), 2019-09 and draft-07 are understood")
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for name in _NAMES_ELSEWHERE:
                if isinstance(value.get(name), str) and not (name == "$id" and value is root):
                    raise Unfit(f"{name}: not supported; refer to parts of the schema with $ref: #/$defs/…")
            if value is not root and isinstance(value.get("$schema"), str):
                raise Unfit("$schema: only at the top of the schema")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


class _Walk:
    """All subschemas that the root leads to; the root is the first."""

    def __init__(self, root: Schema) -> None:
        self.nodes: list[_Node] = []
        self._root = root
        self._places: dict[int, int] = {}
        self._place(root)
        done = 0
        while done < len(self.nodes):
            node = self.nodes[done]
            if isinstance(node.schema, dict):
                self._follow(node, node.schema)
            done += 1

    def _place(self, schema: Any) -> int:
        if not isinstance(schema, dict | bool):
            raise Unfit("a subschema is an object, true or false")
        # By identity: the same text twice is two nodes, what two references share is one.
        place = self._places.get(id(schema)) if isinstance(schema, dict) else None
        if place is None:
            place = len(self.nodes)
            if place >= NODES_MAX:
                raise Unfit(f"more than {NODES_MAX} subschemas")
            self.nodes.append(_Node(schema))
            self._places[id(schema)] = place
        return place

    def _follow(self, node: _Node, schema: dict[str, Any]) -> None:
        node.weight += _own_weight(schema)
        node.here = [self._place(s) for s in self._here(schema)]
        node.each_member = [self._place(schema[name]) for name in _MEMBERS if name in schema]
        node.each_member += [self._place(s) for s in _values(schema, "patternProperties")]
        node.one_member = [self._place(s) for s in _values(schema, "properties")]
        elements = [schema[name] for name in _ELEMENTS if name in schema]
        node.each_element = [self._place(s) for s in elements if not isinstance(s, list)]
        node.one_element = [self._place(s) for name in _ELEMENT_LISTS for s in _listed(schema, name)]

    def _here(self, schema: dict[str, Any]) -> Iterator[Schema]:
        if "$ref" in schema:
            yield self._target(schema["$ref"])
        for name in _HERE:
            if name in schema:
                yield schema[name]
        for name in _HERE_LISTS:
            yield from _listed(schema, name)
        for name in _HERE_MAPS:
            yield from (s for s in _values(schema, name) if not isinstance(s, list))

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise Unfit("$ref: only within the schema, as # or #/$defs/…")
        value: Any = self._root
        for part in reference.split("/")[1:]:
            if "%" in part:
                raise Unfit("$ref: write names without percent-encoding")
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(name)] if isinstance(value, list) else value[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Unfit("$ref: leads to nothing in this schema") from None
        return value


def _values(schema: dict[str, Any], name: str) -> list[Any]:
    found = schema.get(name, {})
    return list(found.values()) if isinstance(found, dict) else []


def _listed(schema: dict[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found if isinstance(found, list) else []


def _own_weight(schema: dict[str, Any]) -> int:
    """What the engine does one by one: patterns (each at most 200 states), and lists it walks through."""
    weight = 8 if "pattern" in schema else 0
    weight += 4 * len(_values(schema, "patternProperties"))
    structured = sum(isinstance(one, dict | list) for one in _listed(schema, "enum"))
    dependent = sum(len(_values(schema, name)) for name in ("dependentRequired", *_HERE_MAPS))
    return weight + (structured + dependent) // 4


def _order(nodes: list[_Node]) -> list[int]:
    """Places so that whoever applies to the same value because of a node comes before it."""
    order: list[int] = []
    chain = [0] * len(nodes)
    on_the_way, done = [False] * len(nodes), [False] * len(nodes)
    for start in range(len(nodes)):
        waiting = [start]
        while waiting:
            place = waiting[-1]
            if done[place]:
                waiting.pop()
                continue
            ahead = [other for other in nodes[place].here if not done[other]]
            if any(on_the_way[other] for other in ahead):
                raise Unfit("a subschema refers to itself without going into the value: it would never end")
            if ahead:
                on_the_way[place] = True
                waiting.extend(ahead[:1])
                continue
            on_the_way[place], done[place] = False, True
            chain[place] = 1 + max((chain[other] for other in nodes[place].here), default=0)
            if chain[place] > CHAIN_MAX:
                raise Unfit(f"more than {CHAIN_MAX} subschemas follow from one another at the same value")
            order.append(place)
            waiting.pop()
    return order


def _looks(nodes: list[_Node], order: list[int], before: list[int] | None) -> list[int]:
    """How often one value is looked at, at most, because of each node that applies some levels above it; one
    level more than in ``before``. None: the node applies to the value itself."""
    looks = [0] * len(nodes)
    for place in order:
        node = nodes[place]
        # What was evaluated must be found out again by those who want the rest.
        again = 1 + (isinstance(node.schema, dict) and any(name in node.schema for name in _UNEVALUATED))
        total = again * sum(looks[other] for other in node.here)
        if before is None:
            total += node.weight
        else:
            members = sum(before[o] for o in node.each_member) + _most(before, node.one_member)
            elements = sum(before[o] for o in node.each_element) + _most(before, node.one_element)
            total += max(members, elements)
        looks[place] = min(total, LOOKS_MAX + 1)
    return looks


def _most(numbers: list[int], places: list[int]) -> int:
    return max((numbers[place] for place in places), default=0)
