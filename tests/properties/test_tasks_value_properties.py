"""A value comes back equal, types included, whichever way it went."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grampus.tasks.failure import TaskFailure
from grampus.tasks.value import DEPTH_LIMIT, decode, encode, is_json

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(max_size=8),
    st.dates(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(st.integers(), max_size=3),
    ),
    max_leaves=20,
)


def same(a: Any, b: Any) -> bool:
    """Equal, types included; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items(), strict=True)
        return len(a) == len(b) and all(
            same(x, y) for p, q in pairs for x, y in zip(p, q, strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    encoding, data = encode(value)
    assert same(decode(encoding, data), value)
    if encoding == "json":
        # Every reader of JSON sees the same.
        assert same(msgspec.json.decode(data), value)
        assert same(json.loads(data), value)


class Colour(enum.StrEnum):
    RED = "red"


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [(1,), {1: 2}, {True: 1}, float("inf"), Colour.RED, Number(3), 2**64, "\ud800", b"x", {"a"}],
)
def test_what_json_would_change_is_pickled(value: object) -> None:
    encoding, data = encode(value)
    assert encoding == "pickle"
    assert same(decode(encoding, data), value)


def test_numpy_scalars_and_times_are_pickled() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(1.5), numpy.int64(3), numpy.bool_(True), datetime.date(2026, 1, 2)):
        assert encode(value)[0] == "pickle"
        assert encode([value])[0] == "pickle"
        assert not is_json({"a": value})


def test_depth_and_cycles_have_an_end() -> None:
    deep: list[Any] = []
    for _ in range(DEPTH_LIMIT + 1):
        deep = [deep]
    assert encode(deep)[0] == "pickle"
    deepest: list[Any] = []
    for _ in range(100_000):
        deepest = [deepest]
    with pytest.raises(TaskFailure, match="cannot be pickled"):
        encode(deepest)
    while deepest:
        deepest = deepest.pop()
    cycle: list[Any] = [1]
    cycle.append(cycle)
    encoding, data = encode(cycle)
    back = decode(encoding, data)
    assert back[1] is back


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TaskFailure, match="a generator, cannot be handed on"):
        encode(x for x in "a")
