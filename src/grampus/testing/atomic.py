"""A key space that does one thing after the other: what a linearizable one must look like. Pure.

`step` says which states an operation may lead to, given what its caller was told; none when the
answer contradicts the state. Where an answer does not tell, more than one may be left: a write of
unknown revision leaves a lower bound, which the first answer that names the revision makes exact.

It does not know that one counter numbers the writes of all keys: that is `revision_order`'s.
"""

from __future__ import annotations

from typing import NamedTuple

from grampus.testing.history import (
    Action,
    Compare,
    Decided,
    Delete,
    Get,
    Got,
    HasValue,
    Put,
    Result,
    Simple,
    Txn,
    Wrote,
    shown,
)


class Held(NamedTuple):
    value: bytes
    #: Revision of its last change: this one, or at least this one.
    mod: int
    exact: bool


class State(NamedTuple):
    #: The revision is at least this.
    floor: int = 0
    #: Of the keys that exist, in no particular order.
    held: frozenset[tuple[bytes, Held]] = frozenset()

    def look(self, key: bytes) -> Held | None:
        for name, held in self.held:
            if name == key:
                return held
        return None

    def put(self, key: bytes, held: Held | None) -> State:
        rest = frozenset(pair for pair in self.held if pair[0] != key)
        return State(self.floor, rest if held is None else rest | {(key, held)})

    def text(self, key: bytes) -> str:
        held = self.look(key)
        if held is None:
            return f"{shown(key)} does not exist"
        return f"{shown(key)} holds {shown(held.value)}" + (
            f" of revision {held.mod}" if held.exact else ""
        )


def step(state: State, action: Action, result: Result | None) -> list[State]:
    """The states after it. `result` None: whatever it was told."""
    if isinstance(action, Txn):
        assert result is None or isinstance(result, Decided)
        return _transact(state, action, result)
    if isinstance(action, Get):
        assert result is None or isinstance(result, Got)
        after = state if result is None else _read(state, action.key, result)
        return [] if after is None else [after]
    assert result is None or isinstance(result, Wrote)
    revision = result.revision if result is not None else None
    if not _fits(state, action, result):
        return []
    if not _changes(state, action):
        after = _seen_at(state, revision)
        return [] if after is None else [after]
    began = _begin(state, revision)
    return [] if began is None else [_write(began[0], action, *began[1:])]


def _read(state: State, key: bytes, got: Got) -> State | None:
    """The state that it confirms, or None if it read something else."""
    held = state.look(key)
    if (held.value if held is not None else None) != got.value:
        return None
    if held is None:
        return _seen_at(state, got.at) if not got.mod else None
    if got.mod is not None:
        bound = _bind(state, key, held, got.mod)
        if bound is None:
            return None
        state = bound
    return _seen_at(state, got.at)


def _bind(state: State, key: bytes, held: Held, mod: int) -> State | None:
    """The state in which the key has just this mod revision."""
    if held.mod == mod and held.exact:
        return state
    if held.exact or mod < held.mod:
        return None
    bound = state.put(key, Held(held.value, mod, True))
    return State(max(bound.floor, mod), bound.held)


def _seen_at(state: State, revision: int | None) -> State | None:
    """Somebody was told the revision of the whole, without changing anything."""
    if revision is None or revision == state.floor:
        return state
    return State(revision, state.held) if revision > state.floor else None


def _begin(state: State, revision: int | None) -> tuple[State, int, bool] | None:
    """A change: its revision is above all before it."""
    exact = revision is not None
    mod = revision if revision is not None else state.floor + 1
    return (State(mod, state.held), mod, exact) if mod > state.floor else None


def _changes(state: State, action: Simple) -> bool:
    return isinstance(action, Put) or (
        isinstance(action, Delete) and state.look(action.key) is not None
    )


def _fits(state: State, action: Put | Delete, result: Wrote | None) -> bool:
    """Whether what was told of `existed` is so."""
    if result is None or result.existed is None:
        return True
    return result.existed == (state.look(action.key) is not None)


def _write(state: State, action: Put | Delete, mod: int, exact: bool) -> State:
    if isinstance(action, Put):
        return state.put(action.key, Held(action.value, mod, exact))
    return state.put(action.key, None)


def _transact(state: State, txn: Txn, told: Decided | None) -> list[State]:
    out = []
    for succeeded, before in _decide(state, txn.compares):
        if told is None or told.succeeded == succeeded:
            branch = txn.then if succeeded else txn.otherwise
            after = _run(before, branch, told)
            if after is not None:
                out.append(after)
    return out


def _decide(state: State, compares: tuple[Compare, ...]) -> list[tuple[bool, State]]:
    """How the comparison may end, and the state that this makes certain."""
    true, may_be_false = state, False
    for compare in compares:
        held = true.look(compare.key)
        if isinstance(compare, HasValue):
            if (held.value if held is not None else None) != compare.value:
                return [(False, state)]
        elif held is None:
            if compare.mod != 0:
                return [(False, state)]
        else:
            bound = _bind(true, compare.key, held, compare.mod)
            if bound is None:
                return [(False, state)]
            true, may_be_false = bound, may_be_false or not held.exact
    return [(True, true), (False, state)] if may_be_false else [(True, true)]


def _run(state: State, branch: tuple[Simple, ...], told: Decided | None) -> State | None:
    """All of a branch, at one revision."""
    results: tuple[Got | Wrote | None, ...] = told.results if told is not None else ()
    revision = told.revision if told is not None else None
    began: tuple[State, int, bool] | None = None
    for action, result in zip(branch, results or (None,) * len(branch), strict=True):
        if isinstance(action, Get):
            after = _read(state, action.key, result) if isinstance(result, Got) else state
            if after is None:
                return None
            state = after
            continue
        if not _fits(state, action, result if isinstance(result, Wrote) else None):
            return None
        if _changes(state, action):
            if began is None:
                began = _begin(state, revision)
                if began is None:
                    return None
                state = began[0]
            state = _write(state, action, *began[1:])
    return state if began is not None else _seen_at(state, revision)
