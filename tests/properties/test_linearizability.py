"""The checker beside a real atomic key space, and beside trying every order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.testing.history import (
    Action,
    Decided,
    Delete,
    Get,
    Got,
    HasRevision,
    HasValue,
    Operation,
    Put,
    Result,
    Txn,
    Wrote,
)
from grampus.testing.linearizability import Outcome, check

VALUES = (b"A", b"B", b"C")


class Space:
    """The plainest key space: a dict and a counter."""

    def __init__(self) -> None:
        self.revision = 0
        self.held: dict[bytes, tuple[bytes, int]] = {}
        self.changes = 0

    def do(self, action: Action, revision: int) -> Result:
        """`revision` is the next one, if it changes something."""
        if not isinstance(action, Txn):
            return self._simple(action, revision)
        held = [self.held.get(c.key, (None, 0)) for c in action.compares]
        yes = all(
            h[0] == c.value if isinstance(c, HasValue) else h[1] == c.mod
            for h, c in zip(held, action.compares, strict=True)
        )
        branch = action.then if yes else action.otherwise
        results = [self._simple(part, revision) for part in branch]
        alone = (
            Got(r.value, r.mod) if isinstance(r, Got) else Wrote(None, r.existed) for r in results
        )
        return Decided(yes, self.revision, tuple(alone))

    def _simple(self, action: Get | Put | Delete, revision: int) -> Got | Wrote:
        held = self.held.get(action.key)
        if isinstance(action, Get):
            return Got(held[0] if held else None, held[1] if held else 0, self.revision)
        if isinstance(action, Put):
            self.revision, self.changes = revision, self.changes + 1
            self.held[action.key] = (action.value, revision)
        elif held:
            self.revision, self.changes = revision, self.changes + 1
            del self.held[action.key]
        return Wrote(self.revision, held is not None)


def actions(keys: Sequence[bytes], revisions: bool) -> st.SearchStrategy[Action]:
    key, value = st.sampled_from(keys), st.sampled_from(VALUES)
    part: st.SearchStrategy[Get | Put | Delete] = st.one_of(
        st.builds(Get, key), st.builds(Put, key, value), st.builds(Delete, key)
    )
    compare: st.SearchStrategy[HasValue | HasRevision] = st.builds(HasValue, key, st.none() | value)
    if revisions:
        compare |= st.builds(HasRevision, key, st.integers(0, 4))
    few = st.lists(part, max_size=2).map(tuple)
    swap = st.builds(
        lambda k, old, new: Txn((HasValue(k, old),), (Put(k, new),)), key, value, value
    )
    return st.one_of(
        part,
        part,
        swap,
        st.builds(Txn, st.lists(compare, min_size=1, max_size=2).map(tuple), few, few),
    )


@st.composite
def histories(
    draw: st.DrawFn, keys: Sequence[bytes], most: int, revisions: bool = True
) -> list[Operation]:
    """What clients of one `Space` were told: each takes effect somewhere between call and return,
    and of some nobody was told, or they never took effect."""
    count = draw(st.integers(1, most))
    space, history = Space(), []
    for n in range(count):
        action = draw(actions(keys, revisions))
        at, before, after = 10 * n, draw(st.integers(0, 25)), draw(st.integers(0, 25))
        fate = draw(st.sampled_from(["told", "told", "told", "unknown", "never"]))
        result = None
        if fate != "never":
            result = space.do(action, space.revision + draw(st.integers(1, 2)))
        told = fate == "told"
        history.append(
            Operation(
                f"c{n}", at - before, at + after if told else None, action, result if told else None
            )
        )
    return history if revisions else without_revisions(history)


def without_revisions(history: list[Operation]) -> list[Operation]:
    def plain(result: Result | None) -> Any:
        match result:
            case Got(value):
                return Got(value)
            case Wrote(_, existed):
                return Wrote(None, existed)
            case Decided(succeeded, _, results):
                return Decided(succeeded, None, tuple(plain(r) for r in results))
        return None

    return [msgspec.structs.replace(op, result=plain(op.result)) for op in history]


@st.composite
def mutated(draw: st.DrawFn, keys: Sequence[bytes], most: int, revisions: bool) -> list[Operation]:
    """One thing is not as it was: an answer, a moment, an operation that nobody did."""
    history = draw(histories(keys, most, revisions))
    known = [n for n, op in enumerate(history) if op.result is not None]
    if not known:
        return history
    n = draw(st.sampled_from(known))
    op = history[n]
    assert op.returned is not None
    what = draw(st.sampled_from(["answer", "answer", "earlier", "later", "gone"]))
    if what == "gone":
        return history[:n] + history[n + 1 :]
    if what == "earlier":
        width = op.returned - op.called
        called = op.called - draw(st.integers(1, 60))
        history[n] = msgspec.structs.replace(op, called=called, returned=called + width)
    elif what == "later":
        width = op.returned - op.called
        called = op.called + draw(st.integers(1, 60))
        history[n] = msgspec.structs.replace(op, called=called, returned=called + width)
    else:
        history[n] = msgspec.structs.replace(op, result=draw(other(op.result, revisions)))
    return history


def other(result: Result | None, revisions: bool) -> st.SearchStrategy[Result]:
    number = st.integers(0, 8) if revisions else st.none()
    match result:
        case Got(value, mod, at):
            values = st.none() | st.sampled_from(VALUES)
            return st.builds(Got, values, st.just(mod), st.just(at)) | st.builds(
                Got, st.just(value), number, st.just(at)
            )
        case Wrote(revision, existed):
            return st.builds(Wrote, number, st.just(existed)) | st.builds(
                Wrote, st.just(revision), st.booleans()
            )
        case Decided(succeeded, _, results):
            return st.builds(Decided, st.just(succeeded), number, st.just(results)) | st.builds(
                Decided, st.just(not succeeded), number
            )
    raise AssertionError("a known operation has a result")


def explained(history: list[Operation], revisions: bool) -> bool:
    """Tries every order, every set of unknown operations, and every number for their revisions."""
    known = [op for op in history if op.result is not None]
    unknown = [op for op in history if op.result is None]
    return any(
        _in_time(order) and _plays(order, revisions)
        for some in _subsets(unknown)
        for order in permutations([*known, *some])
    )


def _subsets(operations: list[Operation]) -> Iterator[list[Operation]]:
    for bits in range(1 << len(operations)):
        yield [op for n, op in enumerate(operations) if bits >> n & 1]


def _in_time(order: tuple[Operation, ...]) -> bool:
    return not any(
        later.returned is not None and later.returned < op.called
        for n, op in enumerate(order)
        for later in order[n + 1 :]
    )


def _plays(order: tuple[Operation, ...], revisions: bool) -> bool:
    """Whether one space, doing this, answers so."""
    top = len(order) + max((max(_named(op.result), default=0) for op in order), default=0)

    def go(n: int, space: Space) -> bool:
        if n == len(order):
            return True
        op = order[n]
        named = getattr(op.result, "at" if isinstance(op.result, Got) else "revision", None)
        numbers = range(space.revision + 1, (top if revisions else space.revision) + 2)
        for revision in numbers if named is None else [named]:
            then = Space()
            then.revision, then.held = space.revision, dict(space.held)
            told = then.do(op.action, revision)
            if then.changes and revision <= space.revision:
                continue
            if named is not None and not then.changes:  # others may have changed other things
                then.revision = max(space.revision, named)
                told = then.do(op.action, 0)
            if _agree(told, op.result, revisions) and go(n + 1, then):
                return True
        return False

    return go(0, Space())


def _named(result: Result | None) -> list[int]:
    numbers = [getattr(result, name, None) for name in ("revision", "mod", "at")]
    parts = [n for part in getattr(result, "results", ()) for n in _named(part)]
    return [n for n in numbers if n is not None] + parts


def _agree(told: Result, result: Result | None, revisions: bool) -> bool:
    if result is None:
        return True
    if isinstance(told, Decided):
        assert isinstance(result, Decided)
        same = told.succeeded == result.succeeded
        if result.results:
            same = same and all(
                _agree(a, b, False) and (not revisions or _same_mod(a, b))
                for a, b in zip(told.results, result.results, strict=True)
            )
        return same and (not revisions or result.revision in (None, told.revision))
    if revisions:
        return told == result
    if isinstance(told, Got):
        assert isinstance(result, Got)
        return told.value == result.value
    assert isinstance(result, Wrote)
    return result.existed in (None, told.existed)


def _same_mod(told: Got | Wrote, result: Got | Wrote) -> bool:
    return not isinstance(told, Got) or (isinstance(result, Got) and told.mod == result.mod)


def agree_with_every_order(history: list[Operation], revisions: bool) -> None:
    found = check(history)
    assert found.outcome is not Outcome.UNDECIDED
    assert bool(found) == explained(history, revisions), found.text


@given(histories((b"x", b"y", b"z"), 25))
def test_what_an_atomic_space_does_is_accepted(history: list[Operation]) -> None:
    assert check(history).outcome is Outcome.LINEARIZABLE, check(history).text


@given(histories((b"x", b"y", b"z"), 12, revisions=False))
def test_it_is_accepted_also_where_nobody_wrote_revisions_down(history: list[Operation]) -> None:
    assert check(history).outcome is Outcome.LINEARIZABLE, check(history).text


@given(mutated((b"x", b"y"), 5, revisions=False))
@settings(max_examples=300)
def test_values_are_judged_as_by_trying_every_order(history: list[Operation]) -> None:
    agree_with_every_order(history, revisions=False)


@given(mutated((b"x",), 4, revisions=True))
@settings(max_examples=300)
def test_revisions_of_a_key_are_judged_as_by_trying_every_order(history: list[Operation]) -> None:
    agree_with_every_order(history, revisions=True)


@given(mutated((b"x", b"y"), 4, revisions=True))
@settings(max_examples=200)
def test_revisions_of_several_keys_are_refused_only_if_no_order_has_them(
    history: list[Operation],
) -> None:
    if explained(history, revisions=True):
        assert check(history).outcome is Outcome.LINEARIZABLE, check(history).text
