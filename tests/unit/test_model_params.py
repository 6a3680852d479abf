"""Params: from text, from JSON, from defaults; strict, complete, all problems at once."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.errors import InvalidInput
from grampus.model.params import PARAMS_LIMIT, parse_text, resolve, type_fault
from grampus.model.template import tick_scope
from grampus.model.workflow import Param, ParamType

TICK = tick_scope(1_790_000_000_000, "UTC")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", " x ", " x "),
        ("int", "-12", -12),
        ("float", "1e3", 1000.0),
        ("bool", "Yes", True),
        ("bool", "0", False),
        ("date", "2026-02-28", "2026-02-28"),
        ("list", '[1, "a,b"]', [1, "a,b"]),
        ("list", "orders, users", ["orders", "users"]),
        ("list", "", []),
        ("json", '{"a": null}', {"a": None}),
    ],
)
def test_text_becomes_a_value_of_the_type(kind: ParamType, text: str, value: object) -> None:
    found = parse_text(Param("p", kind), text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "3.0"),
        ("int", "9" * 30),
        ("int", "9" * 5000),
        ("int", ""),
        ("int", "--3"),
        ("float", "nan"),
        ("float", "inf"),
        ("bool", "maybe"),
        ("date", "2026-02-30"),
        ("date", "20260228"),
        ("date", "2026-W01-1"),
        ("list", "[1,"),
        ("list", '["\\ud800"]'),
        ("json", "{a: 1}"),
        ("json", "[" * 5000),
        ("str", "\ud800"),
    ],
)
def test_text_of_another_type_is_refused_with_what_is_allowed(kind: ParamType, text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_text(Param("p", kind), text)


@pytest.mark.parametrize(
    ("kind", "value", "right"),
    [
        ("int", True, False),
        ("int", 3.0, False),
        ("float", 3, True),
        ("float", True, False),
        ("bool", 1, False),
        ("str", 1, False),
        ("list", (1,), True),
        ("list", "ab", False),
        ("json", {"a": {1}}, False),
        ("json", {1: 2}, False),
        ("json", float("inf"), False),
        ("json", 2**63, False),
        ("date", "2026-1-1", False),
    ],
)
def test_types_are_strict(kind: ParamType, value: object, right: bool) -> None:
    assert (type_fault(kind, value) is None) is right


def test_the_set_is_complete_and_in_declaration_order() -> None:
    params = (
        Param("day", "date", "{{ tick.date }}"),
        Param("year", "int", "{{ tick.year - 1 }}"),
        Param("rate", "float", required=True),
        Param("tables", "list", ["{{ tick.date }}", 1]),
        Param("note", "str", "{{ tick.year }}"),
        Param("extra", "json", {"at": "{{ tick.timestamp }}"}),
        Param("none", "json"),
    )
    found = resolve(params, {"rate": 2}, TICK)
    assert list(found) == [param.name for param in params]
    assert found == {
        "day": "2026-09-21",
        "year": 2025,
        "rate": 2.0,
        "tables": ["2026-09-21", 1],
        "note": "2026",
        "extra": {"at": 1_790_000_000},
        "none": None,
    }
    assert isinstance(found["rate"], float)


def test_all_problems_come_at_once() -> None:
    params = (
        Param("day", "date", required=True),
        Param("n", "int", 1),
        Param("m", "int", "{{ x }}"),
    )
    given: dict[str, Any] = {"n": "3", "dya": "2026-01-01"}
    with pytest.raises(InvalidInput) as caught:
        resolve(params, given, TICK)
    found = {problem.field: str(problem) for problem in caught.value.problems}
    assert "did you mean `day`" in found["params.dya"]
    assert "is missing" in found["params.day"]
    assert "not of type int (found '3'; allowed: a whole number" in found["params.n"]
    assert "default cannot be used" in found["params.m"]


def test_params_that_are_too_large_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too large"):
        resolve((Param("x"),), {"x": "y" * PARAMS_LIMIT}, TICK)


def test_text_that_is_given_is_never_a_template() -> None:
    assert resolve((Param("x"),), {"x": "{{ tick.date }}"}, TICK) == {"x": "{{ tick.date }}"}
