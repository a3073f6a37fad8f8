"""The engine: fetches nothing, matches in linear time, tells no values, and knows what is compatible."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.schema_bounds import Unfit
from actors.schema_engine import Shelf, checked, compatible, compiled, errors, mismatch, pointer
from actors.worker_checking import probes
from ves.policy import Mismatch

SECRET = "4111-1111-1111-1111"


def first(schema: Any, payload: Any) -> Mismatch | None:
    return mismatch(compiled(json.dumps(schema)), json.dumps(payload).encode())


@pytest.mark.parametrize("reference", ["http://127.0.0.1:{port}/x.json", "//127.0.0.1:{port}/x", "x.json#/a"])
def test_no_reference_leaves_the_schema(reference: str) -> None:
    """Twice: by its text, and by the engine if the text were let through."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        text = json.dumps({"$ref": reference.format(port=listening.getsockname()[1])})
        for refuse in (checked, compiled):
            with pytest.raises(Unfit):
                refuse(text)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_no_file_is_read(tmp_path: Any) -> None:
    (tmp_path / "x.json").write_text("{}")
    for refuse in (checked, compiled):
        with pytest.raises(Unfit):
            refuse(json.dumps({"$ref": f"file://{tmp_path}/x.json"}))


def test_a_name_of_its_own_does_not_lead_a_schema_to_another_one() -> None:
    """``#`` of a schema that calls itself like the meta-schema is still itself."""
    schema = {
        "$id": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"a": {"$ref": "#/$defs/n"}},
    }
    found = first(schema | {"$defs": {"n": {"type": "number"}}}, {"a": "x"})
    assert found is not None
    assert (found.pointer, found.keyword) == ("/a", "type")


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(?<!a)b", "(a{1000}){1000}", "(" * 200])
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(Unfit):
        checked(json.dumps({"pattern": pattern}))


def test_a_pattern_that_explodes_elsewhere_does_not_here() -> None:
    validator = checked(json.dumps({"pattern": "^(a+)+$"}))
    before = time.process_time()
    assert mismatch(validator, json.dumps("a" * 100_000 + "!").encode()) is not None
    assert time.process_time() - before < 5  # a backtracking engine would need longer than the universe has


@pytest.mark.parametrize(
    ("schema", "payload", "expected"),
    [
        ({"properties": {"total": {"minimum": 0}}}, {"total": -1}, ("/total", "minimum")),
        ({"required": ["total"]}, {}, ("", "required")),
        ({"items": {"type": "string"}}, ["a", 1], ("/1", "type")),
        ({"additionalProperties": False}, {"a/b~c": 1}, ("", "additionalProperties")),
        ({"properties": {"a/b~c": False}}, {"a/b~c": 1}, ("/a~1b~0c", "falseSchema")),
    ],
)
def test_the_place_and_the_keyword_are_told(schema: Any, payload: Any, expected: tuple[str, str]) -> None:
    found = first(schema, payload)
    assert found is not None
    assert found.pointer == expected[0]
    assert found.keyword.lower().replace(" ", "") in (expected[1].lower(), "false", "falseschema")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"const": 1},
        {"enum": ["a", "b"]},
        {"pattern": "^x$"},
        {"maxLength": 2},
        {"not": {"type": "string"}},
        {"anyOf": [{"type": "number"}, {"type": "null"}]},
        {"oneOf": [{"type": "string"}, {"minLength": 1}]},
        {"allOf": [{"type": "string"}, {"maxLength": 3}]},
        {"if": {"type": "string"}, "then": {"maxLength": 1}},
    ],
)
def test_no_message_holds_a_value_of_the_payload(schema: Any) -> None:
    inside = {"properties": {"card": schema}, "propertyNames": {"maxLength": 10}}
    validator = compiled(json.dumps(inside))
    payload = json.dumps({"card": SECRET}).encode()
    told = errors(validator, payload)
    assert told
    assert SECRET not in repr(told)
    assert SECRET not in repr(mismatch(validator, payload))


def test_what_is_no_schema_is_refused_with_the_place() -> None:
    with pytest.raises(Unfit, match="/properties/a/type"):
        checked('{"properties": {"a": {"type": "strin"}}}')


def test_errors_are_few() -> None:
    told = errors(compiled('{"items": {"type": "string"}}'), json.dumps(list(range(100))).encode())
    assert len(told) == 20
    assert told[0][0] == "/0"


def test_the_shelf_forgets_the_least_used_and_only_when_it_tidies() -> None:
    shelf, text = Shelf(kept_bytes_max=100), '{"maxLength": 7}'
    for n in range(10):
        shelf.put(bytes([n]), text)
    assert all(shelf.has(bytes([n])) for n in range(10))
    assert shelf.has(b"\0")
    shelf.tidy()
    assert shelf.has(b"\0"), "used last"
    assert not shelf.has(b"\1")
    assert sum(shelf.has(bytes([n])) for n in range(10)) == 100 // len(text)


def test_a_pointer_escapes_what_has_a_meaning() -> None:
    assert pointer(["a/b", 0, "~"]) == "/a~1b/0/~0"
    assert pointer([]) == ""


CLOSED = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}, "kind": {"enum": ["a", "b"]}},
    "required": ["total"],
    "additionalProperties": False,
}


def changed(**members: Any) -> dict[str, Any]:
    return CLOSED | members


@pytest.mark.parametrize(
    ("new", "backward", "forward"),
    [
        (CLOSED, True, True),
        (changed(description="words only"), True, True),
        (changed(required=[]), True, False),
        (changed(required=["total", "kind"]), False, True),
        (changed(properties=CLOSED["properties"] | {"note": {"type": "string"}}), True, False),
        (changed(properties=CLOSED["properties"] | {"kind": {"enum": ["a"]}}), False, True),
        (changed(properties=CLOSED["properties"] | {"total": {"type": "integer"}}), False, False),
        (changed(properties=CLOSED["properties"] | {"total": {"type": ["number", "null"]}}), True, False),
        ({"type": "array"}, False, False),
        (True, True, False),
    ],
)
def test_compatibility_is_what_its_name_says(new: Any, backward: bool, forward: bool) -> None:
    texts = json.dumps(new), json.dumps(CLOSED)
    assert compatible(*texts, "none")
    assert compatible(*texts, "backward") == backward
    assert compatible(*texts, "forward") == forward
    assert compatible(*texts, "full") == (backward and forward)


def test_an_open_schema_that_gets_a_new_typed_member_is_not_backward_compatible() -> None:
    """What nobody described was allowed to be anything."""
    old, new = '{"type": "object"}', '{"type": "object", "properties": {"note": {"type": "string"}}}'
    assert not compatible(new, old, "backward")
    assert compatible(new, old, "forward")


_NAMES = st.sampled_from(["a", "b"])
_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "ab", "abc"]), st.just(0.5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=5,
)
_TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(),
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.one_of(_TYPES, st.lists(_TYPES, min_size=1, max_size=3, unique=True)),
                "enum": st.lists(_VALUES, min_size=1, max_size=3),
                "const": _VALUES,
                "minimum": st.integers(-2, 2),
                "exclusiveMaximum": st.integers(-2, 2),
                "multipleOf": st.sampled_from([1, 2, 0.5]),
                "minLength": st.integers(0, 2),
                "maxLength": st.integers(0, 2),
                "pattern": st.sampled_from(["^a", "b$", "^a+$"]),
                "required": st.lists(_NAMES, max_size=2, unique=True),
                "minItems": st.integers(0, 2),
                "uniqueItems": st.booleans(),
                "maxProperties": st.integers(0, 2),
            },
        ),
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(_NAMES, inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "type": _TYPES,
            "required": st.lists(_NAMES, max_size=1),
        },
    ),
    max_leaves=4,
)


@settings(max_examples=80, deadline=None)
@given(SCHEMAS, SCHEMAS, st.lists(_VALUES, min_size=5, max_size=20))
def test_what_is_called_backward_compatible_takes_all_that_was_taken(
    old: Any, new: Any, values: list[Any]
) -> None:
    if compatible(json.dumps(new), json.dumps(old), "backward"):
        took, takes = compiled(json.dumps(old)), compiled(json.dumps(new))
        for value in values:
            assert not took.is_valid(value) or takes.is_valid(value), (old, new, value)


@settings(max_examples=60, deadline=None)
@given(SCHEMAS, st.lists(_VALUES, min_size=5, max_size=20))
def test_a_schema_widened_by_an_alternative_is_found_compatible_or_doubted_never_narrowed(
    old: Any, values: list[Any]
) -> None:
    wider = {"anyOf": [old, {"type": "null"}]}
    narrower = {"allOf": [old, {"type": ["string", "object"]}]}
    for new in (wider, narrower):
        if compatible(json.dumps(new), json.dumps(old), "backward"):
            for value in values:
                assert not compiled(json.dumps(old)).is_valid(value) or compiled(json.dumps(new)).is_valid(
                    value
                )


@settings(max_examples=80, deadline=None)
@given(SCHEMAS, _VALUES)
def test_a_mismatch_is_found_exactly_when_the_reference_refuses(schema: Any, value: Any) -> None:
    found = first(schema, value)
    assert (found is None) == jsonschema_rs.is_valid(schema, value)


def test_probes_reach_every_name_of_the_schema() -> None:
    schema = {"properties": {"a": {"properties": {"b": {"items": {"properties": {"c": {}}}}}}}}
    told = json.dumps(list(probes(schema)))
    assert all(f'"{name}": ' in told for name in "abc")
