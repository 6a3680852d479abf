"""Whether the revisions that clients were told agree with each other and with real time. Pure.

One counter numbers the changes of all keys, so an order that explains every key alone may still be
impossible for all of them. Three looks, each complete for the answers that name revisions:

- a revision of a key has one value, and belongs to one operation, which wrote that key;
- every answer holds for a span of revisions: a write for its own, a read from the change that it
  saw to the next known change of that key;
- spans follow real time: what was called after another had returned does not end before it began.

What no answer tells is not looked at here: `linearizability` does.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from msgspec import Struct

from grampus.testing.history import (
    Action,
    Decided,
    Delete,
    Get,
    Got,
    Operation,
    Put,
    Result,
    Simple,
    Txn,
    Wrote,
    describe,
    shown,
    simple,
)

#: Later than every revision.
END = 1 << 63


class Span(Struct):
    """The answer is true of the key space from revision `low` to `high`."""

    operation: Operation
    low: int
    high: int
    #: It made this revision; `low` and `high` are the same.
    change: bool


def disagreement(history: Sequence[Operation]) -> str:
    """What is wrong, with the operations that prove it; "" for nothing."""
    known = [op for op in history if op.result is not None]
    return _values(known) or _owners(known) or _real_time(_spans(history))


def _parts(action: Action, result: Result) -> Iterator[tuple[Simple, Got | Wrote]]:
    """The single answers of an operation."""
    if isinstance(action, Txn):
        assert isinstance(result, Decided)
        branch = action.then if result.succeeded else action.otherwise
        yield from zip(branch, result.results or (Wrote(),) * len(branch), strict=True)
    else:
        assert isinstance(result, Got | Wrote)
        yield action, result


def _written(operation: Operation) -> dict[bytes, bytes | None]:
    """Keys that it changed for certain, and what they hold since; None is nothing."""
    assert operation.result is not None
    last: dict[bytes, bytes | None] = {}
    for part, answer in _parts(operation.action, operation.result):
        if isinstance(part, Put):
            last[part.key] = part.value
        elif isinstance(part, Delete) and (part.key in last or _existed(answer)):
            last[part.key] = None
    return last


def _existed(answer: Got | Wrote) -> bool | None:
    return answer.existed if isinstance(answer, Wrote) else None


def revision_made(operation: Operation) -> int | None:
    """That of its own change, if it made one for certain."""
    if operation.result is None or isinstance(operation.result, Got):
        return None
    return operation.result.revision if _written(operation) else None


def _read_at(operation: Operation) -> int | None:
    """The revision of the whole that it saw, if it changed nothing for certain."""
    assert operation.result is not None
    for part, answer in _parts(operation.action, operation.result):
        if not isinstance(part, Get) and (isinstance(part, Put) or _existed(answer) is not False):
            return None
    return operation.result.at if isinstance(operation.result, Got) else operation.result.revision


def _values(known: list[Operation]) -> str:
    found: dict[tuple[bytes, int], tuple[bytes | None, Operation]] = {}
    for operation in known:
        for key, mod, value in _sightings(operation):
            other = found.setdefault((key, mod), (value, operation))
            if other[0] != value:
                return _two(f"revision {mod} of {shown(key)} has two values", other[1], operation)
    return ""


def _sightings(operation: Operation) -> Iterator[tuple[bytes, int, bytes | None]]:
    """(key, mod revision, value) that it saw or made."""
    assert operation.result is not None
    revision = revision_made(operation)
    if revision is not None:
        for key, value in _written(operation).items():
            yield key, revision, value
    for part, answer in _parts(operation.action, operation.result):
        if isinstance(answer, Got) and answer.mod and answer.mod != revision:
            yield part.key, answer.mod, answer.value


def _owners(known: list[Operation]) -> str:
    owners: dict[int, Operation] = {}
    for operation in known:
        revision = revision_made(operation)
        if revision is not None:
            other = owners.setdefault(revision, operation)
            if other is not operation:
                return _two(f"revision {revision} was given twice", other, operation)
    for operation in known:
        for key, mod, _ in _sightings(operation):
            owner = owners.get(mod)
            if owner is not None and key not in _written(owner):
                what = f"revision {mod} is no change of {shown(key)}"
                return _two(what, owner, operation)
    return ""


def _spans(history: Sequence[Operation]) -> list[Span]:
    known = [op for op in history if op.result is not None]
    changes: dict[bytes, set[int]] = {}
    for operation in known:
        for key, mod, _ in _sightings(operation):
            changes.setdefault(key, set()).add(mod)
    ordered = {key: sorted(mods) for key, mods in changes.items()}
    deleted = {part.key for op in history for part in simple(op.action) if type(part) is Delete}
    return [_span(operation, ordered, deleted) for operation in known]


def _span(operation: Operation, changes: dict[bytes, list[int]], deleted: set[bytes]) -> Span:
    assert operation.result is not None
    revision = revision_made(operation)
    if revision is not None:
        return Span(operation, revision, revision, True)
    low, high = 0, END
    at = _read_at(operation)
    if at is not None:
        low, high = at, at
    for part, answer in _parts(operation.action, operation.result):
        if isinstance(answer, Got) and isinstance(part, Get):
            mods = changes.get(part.key, [])
            if answer.mod:
                low = max(low, answer.mod)
                high = min(high, _after(mods, answer.mod) - 1)
            elif answer.mod == 0 and part.key not in deleted:
                high = min(high, _after(mods, 0) - 1)
    return Span(operation, low, high, False)


def _after(mods: list[int], mod: int) -> int:
    """The next known change of a key."""
    place = bisect_right(mods, mod)
    return mods[place] if place < len(mods) else END


def _real_time(spans: list[Span]) -> str:
    """Goes through the calls in their order; keeps the latest beginning of what had returned."""
    running: list[tuple[int, int, Span]] = []
    latest: Span | None = None
    for number, span in enumerate(sorted(spans, key=lambda s: s.operation.called)):
        while running and running[0][0] < span.operation.called:
            ended = heapq.heappop(running)[2]
            if latest is None or ended.low > latest.low:
                latest = ended
        if span.low > span.high:
            return f"it is true at no revision:\n  {describe(span.operation)}"
        # A change makes its revision: nobody saw it before.
        if latest is not None and span.high - span.change < latest.low:
            return _two("the second came later, and is older", latest.operation, span.operation)
        assert span.operation.returned is not None
        heapq.heappush(running, (span.operation.returned, number, span))
    return ""


def _two(what: str, first: Operation, second: Operation) -> str:
    return f"{what}:\n  {describe(first)}\n  {describe(second)}"
