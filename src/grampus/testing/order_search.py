"""Looks for an order of operations that one key space, doing one after the other, could have seen.

The search is that of Wing and Gong, with Lowe's memory of what was tried: the set of operations
done and the state that they led to. What keeps it short, without losing an order:

- what was answered and leaves the state as it is, is done at once: later is no better;
- writes of known revisions are done in the order of these;
- a value that somebody has yet to read is not overwritten when nobody is left to write it again;
- where all is gets and puts, a put of unknown outcome is done only while somebody has yet to read
  its value: elsewhere nobody would see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from grampus.testing.atomic import State, step
from grampus.testing.history import Get, Got, Operation, Put, Wrote, keys, simple, writes
from grampus.testing.revision_order import revision_made


class Outcome(Enum):
    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "undecided"


class Attempt(Struct):
    """How far the search came: the longest order that it found, and what led nowhere after it."""

    outcome: Outcome
    order: list[Operation]
    state: State
    stuck: list[Operation]


class Done(NamedTuple):
    """Which operations took effect. `bits` count from `base`, below which all known ones did."""

    base: int = 0
    bits: int = 0
    #: Of those of unknown outcome.
    unknown: int = 0
    #: How many of those that made a known revision.
    revisions: int = 0

    def has(self, i: int) -> bool:
        return i < self.base or bool(self.bits >> (i - self.base) & 1)

    def plus(self, i: int, revision: bool) -> Done:
        base, bits = self.base, self.bits | 1 << (i - self.base)
        while bits & 1:
            base, bits = base + 1, bits >> 1
        return Done(base, bits, self.unknown, self.revisions + revision)


Move = tuple[Operation, tuple[Done, State]]


def search(history: Sequence[Operation], budget: int, *, short_cuts: bool = True) -> Attempt:
    """Of operations that are sorted by their calls; at most `budget` moves are tried."""
    return _Search(history, short_cuts).run(budget)


def _sees_by_get_alone(operation: Operation) -> bool:
    if isinstance(operation.action, Get):
        return True
    told = operation.result.existed if isinstance(operation.result, Wrote) else None
    return isinstance(operation.action, Put) and told is None


class _Search:
    def __init__(self, history: Sequence[Operation], short_cuts: bool) -> None:
        self._short_cuts = short_cuts
        self._known = [op for op in history if op.returned is not None]
        self._unknown = [op for op in history if op.returned is None and writes(op.action)]
        #: Only gets saw anything.
        self._plain = all(_sees_by_get_alone(op) for op in history)
        made = [(revision_made(op), i) for i, op in enumerate(self._known)]
        self._by_revision = [i for _, i in sorted((r, i) for r, i in made if r is not None)]
        self._makes = set(self._by_revision)
        #: Who read a value, and who may write it, of the known and of the unknown.
        self._readers: dict[tuple[bytes, bytes], list[int]] = {}
        self._makers: dict[tuple[bytes, bytes], list[int]] = {}
        self._perhaps: dict[tuple[bytes, bytes], list[int]] = {}
        for i, operation in enumerate(self._known):
            if isinstance(operation.result, Got) and operation.result.value is not None:
                key = keys(operation.action)[0]
                self._readers.setdefault((key, operation.result.value), []).append(i)
        for table, operations in ((self._makers, self._known), (self._perhaps, self._unknown)):
            for i, operation in enumerate(operations):
                for part in simple(operation.action):
                    if isinstance(part, Put):
                        table.setdefault((part.key, part.value), []).append(i)
        self._path: list[Operation] = []
        self._best = Attempt(Outcome.VIOLATED, [], State(), [])
        self._best_count = -1

    def run(self, budget: int) -> Attempt:
        """Depth first, with a stack of its own: a history is longer than Python's."""
        start = (Done(), State())
        tried = {start}
        stack = [(start, self._moves(*start))]
        while stack:
            (done, state), moves = stack[-1]
            if done.base == len(self._known):
                return Attempt(Outcome.LINEARIZABLE, list(self._path), state, [])
            for operation, after in moves:
                budget -= 1
                if after not in tried:
                    tried.add(after)
                    self._path.append(operation)
                    stack.append((after, self._moves(*after)))
                    break
            else:
                self._remember(done, state)
                stack.pop()
                if self._path:
                    self._path.pop()
            if budget < 0:
                self._best.outcome = Outcome.UNDECIDED
                break
        return self._best

    def _moves(self, done: Done, state: State) -> Iterator[Move]:
        """What may take effect now: not what was called after the return of what is not done."""
        near, until = self._near(done)
        for i in near:
            operation = self._known[i]
            if i not in self._makes and step(state, operation.action, operation.result) == [state]:
                yield operation, (done.plus(i, False), state)
                return
        for i in near:
            made = i in self._makes
            if not made or self._by_revision[done.revisions] == i:
                operation = self._known[i]
                then = done.plus(i, made)
                for after in step(state, operation.action, operation.result):
                    if not self._buries(operation, state, after, then):
                        yield operation, (then, after)
        yield from self._unknown_moves(done, state, until)

    def _unknown_moves(self, done: Done, state: State, until: int) -> Iterator[Move]:
        for i, operation in enumerate(self._unknown):
            if operation.called > until:
                break
            if done.unknown >> i & 1 or not self._is_wanted(operation, done):
                continue
            then = done._replace(unknown=done.unknown | 1 << i)
            for after in step(state, operation.action, None):
                if not self._buries(operation, state, after, then):
                    yield operation, (then, after)

    def _is_wanted(self, operation: Operation, done: Done) -> bool:
        if not self._plain or not isinstance(operation.action, Put):
            return True
        return self._has_reader((operation.action.key, operation.action.value), done)

    def _has_reader(self, what: tuple[bytes, bytes], done: Done) -> bool:
        return any(not done.has(i) for i in self._readers.get(what, ()))

    def _buries(self, operation: Operation, before: State, after: State, then: Done) -> bool:
        """Whether it overwrites for ever what somebody has yet to read."""
        if not self._short_cuts:
            return False
        for key in keys(operation.action):
            old, new = before.look(key), after.look(key)
            if old is None or (new is not None and new.value == old.value):
                continue
            what = (key, old.value)
            if (
                self._has_reader(what, then)
                and all(then.has(i) for i in self._makers.get(what, ()))
                and all(then.unknown >> i & 1 for i in self._perhaps.get(what, ()))
            ):
                return True
        return False

    def _near(self, done: Done) -> tuple[list[int], int]:
        """Known operations that were called before any other returned, the earliest to return
        first; and when that is."""
        near: list[tuple[int, int]] = []
        until: int | None = None
        for i in range(done.base, len(self._known)):
            operation = self._known[i]
            if until is not None and operation.called > until:
                break
            if not done.has(i):
                assert operation.returned is not None
                near.append((operation.returned, i))
                until = operation.returned if until is None else min(until, operation.returned)
        return [i for _, i in sorted(near)], until or 0

    def _remember(self, done: Done, state: State) -> None:
        count = done.base + done.bits.bit_count()
        if count > self._best_count:
            self._best_count = count
            stuck = [self._known[i] for i in self._near(done)[0]]
            self._best = Attempt(Outcome.VIOLATED, list(self._path), state, stuck)
