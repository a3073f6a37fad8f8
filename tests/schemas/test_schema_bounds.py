"""Schemas that would cost too much are refused by their text, and ordinary ones are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.schema_bounds import CHAIN_MAX, LOOKS_MAX, NODES_MAX, Unfit, check_bounds

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/order",
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD", "CHF"]},
        "$ref": {"type": "string"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "maxItems": 1000},
        "children": {"items": {"$ref": "#"}},
    },
    "required": ["total"],
    "unevaluatedProperties": False,
    "$defs": {"line": {"oneOf": [{"required": ["sku"]}, {"required": ["ean"], "properties": {"ean": True}}]}},
}


def doubled(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice, at the same place."""
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{levels}": {"type": "object"}}}


def unevaluated(levels: int) -> dict[str, Any]:
    if not levels:
        return {}
    return {"unevaluatedProperties": False, "allOf": [unevaluated(levels - 1)]}


@pytest.mark.parametrize(
    "schema",
    [
        ORDER,
        True,
        False,
        {},
        doubled(5),
        {"oneOf": [{"properties": {"kind": {"const": n}, "data": {"$ref": "#/$defs/d"}}} for n in range(30)]}
        | {"$defs": {"d": {"type": "object", "additionalProperties": {"type": "string"}}}},
        {"properties": {f"p{n}": {"type": "string", "pattern": "^a"} for n in range(900)}},
        {"enum": [f"value {n}" for n in range(5000)]},
        {"const": {"$ref": "http://example.com"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]},
    ],
)
def test_an_ordinary_schema_is_fit(schema: Any) -> None:
    check_bounds(schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (doubled(9), "looked at"),
        ({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, "looked at"),
        ({"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "looked at"),
        ({"additionalProperties": {"$ref": "#"}, "patternProperties": {"a": {"$ref": "#"}}}, "looked at"),
        ({"if": {"items": {"$ref": "#"}}, "then": {"items": {"$ref": "#"}}}, "looked at"),
        (unevaluated(10), "looked at"),
        ({"allOf": [{}] * (LOOKS_MAX + 1)}, "looked at"),
        ({"allOf": [{"pattern": "a"}] * 40}, "looked at"),
        ({"patternProperties": {f"^{n}": {} for n in range(100)}}, "looked at"),
        ({"enum": [{"n": n} for n in range(2000)]}, "looked at"),
        ({"dependentRequired": {f"n{n}": [] for n in range(2000)}}, "looked at"),
        ({"$ref": "#"}, "never end"),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"not": {"$ref": "#/$defs/x"}}}}, "never end"),
        (doubled(CHAIN_MAX), "follow from one another"),
        ({"properties": {f"p{n}": {"type": "null"} for n in range(NODES_MAX)}}, "more than 2000"),
        ({"$ref": "https://example.com/schema"}, "only within"),
        ({"$ref": "file:///etc/passwd"}, "only within"),
        ({"$ref": "other.json"}, "only within"),
        ({"$ref": "#anchor"}, "only within"),
        ({"$ref": "#/$defs/nobody"}, "leads to nothing"),
        ({"$ref": 7}, "only within"),
        ({"$dynamicRef": "#a"}, "not supported"),
        ({"$defs": {"x": {"$id": "http://example.com/x"}}}, "not supported"),
        ({"$defs": {"x": {"$anchor": "x"}}}, "not supported"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft"),
        ({"$defs": {"x": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, "only at the top"),
        ([], "an object"),
        ("true", "an object"),
        ({"not": 7}, "an object"),
    ],
)
def test_a_schema_that_costs_too_much_or_leads_elsewhere_is_refused_with_a_reason(
    schema: Any, why: str
) -> None:
    with pytest.raises(Unfit, match=why):
        check_bounds(schema)


def schemas() -> st.SearchStrategy[Any]:
    """Anything with our keywords in it, sensible or not."""
    refs = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/x", "#/allOf/0"])
    leaves = st.one_of(
        st.booleans(), st.just({}), refs.map(lambda r: {"$ref": r}), st.just({"pattern": "a+"})
    )
    return st.recursive(
        leaves,
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "allOf": st.lists(inner, max_size=3),
                "anyOf": st.lists(inner, max_size=3),
                "not": inner,
                "items": inner,
                "properties": st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
                "additionalProperties": inner,
                "unevaluatedProperties": inner,
                "$defs": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            },
        ),
        max_leaves=12,
    )


def looks(root: Any, schema: Any, value: Any) -> int:
    """How often the deepest value of a chain of nested ones is looked at, counted by walking."""
    if not isinstance(schema, dict):
        return 0 if value is not None else 1
    total = 1 if value is None else 0
    here = [*schema.get("allOf", ()), *schema.get("anyOf", ())]
    if "not" in schema:
        here.append(schema["not"])
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[int(part)] if isinstance(target, list) else target[part]
        here.append(target)
    total += sum(looks(root, one, value) for one in here)
    if isinstance(value, list):
        total += looks(root, schema["items"], value[0]) if "items" in schema else 0
    elif isinstance(value, dict):
        inner = value["x"]
        total += looks(root, schema["properties"]["x"], inner) if "x" in schema.get("properties", ()) else 0
        for name in ("additionalProperties", "unevaluatedProperties"):
            total += looks(root, schema[name], inner) if name in schema else 0
    return total


@settings(max_examples=60, deadline=None)
@given(schemas(), st.lists(st.booleans(), max_size=8))
def test_what_passes_never_looks_at_a_value_more_often_than_promised(
    schema: Any, nesting: list[bool]
) -> None:
    try:
        check_bounds(schema)
    except Unfit:
        return
    value: Any = None
    for in_a_list in nesting:
        value = [value] if in_a_list else {"x": value}
    assert looks(schema, schema, value) <= LOOKS_MAX
