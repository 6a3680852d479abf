"""Whether a recorded history can be explained by a key space that does one thing after the other.

Keys that no transaction joins are searched apart by `order_search`; that is sound, because
linearizability is local. Revisions are compared across keys by `revision_order`.

Rules: the search has a budget of steps, and a history that it could not decide is never taken for a
good one. A bad one is told by the shortest beginning that is bad already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from grampus.testing.history import Operation, check_form, describe, keys, shown
from grampus.testing.order_search import Attempt, Outcome, search
from grampus.testing.revision_order import disagreement

#: Steps of the search: some ten microseconds and, in the worst case, 300 bytes each.
BUDGET = 500_000
#: Steps to find a better way to tell a counterexample.
EXPLAIN = 20_000
#: How much of a good beginning a person needs to see.
TAIL = 12


class Verdict(Struct, frozen=True):
    """True only if the history is linearizable."""

    outcome: Outcome
    #: For a person: the counterexample, or what was not decided.
    text: str = ""

    def __bool__(self) -> bool:
        return self.outcome is Outcome.LINEARIZABLE


def check(history: Sequence[Operation], budget: int = BUDGET) -> Verdict:
    """Raises ValueError for a malformed history."""
    for operation in history:
        check_form(operation)
    if said := disagreement(history):
        return Verdict(Outcome.VIOLATED, f"the revisions contradict the order\n{said}")
    undecided = []
    for names, part in partitions(history):
        attempt = search(part, budget)
        if attempt.outcome is Outcome.VIOLATED:
            return Verdict(Outcome.VIOLATED, _counterexample(names, part, attempt, budget))
        if attempt.outcome is Outcome.UNDECIDED:
            undecided.append(f"{_named(names)}, {len(part)} operations")
    if undecided:
        text = f"undecided after {budget} steps: " + "; ".join(undecided)
        return Verdict(Outcome.UNDECIDED, text)
    return Verdict(Outcome.LINEARIZABLE)


def assert_linearizable(history: Sequence[Operation], budget: int = BUDGET) -> None:
    """Raises AssertionError for a bad history, and for one that could not be decided."""
    verdict = check(history, budget)
    if not verdict:
        raise AssertionError(verdict.text)


def partitions(
    history: Sequence[Operation],
) -> Iterator[tuple[tuple[bytes, ...], list[Operation]]]:
    """Operations that share keys, directly or by way of transactions; in order of their calls."""
    parent: dict[bytes, bytes] = {}

    def root(key: bytes) -> bytes:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for operation in history:
        first, *rest = keys(operation.action) or (b"",)
        for other in rest:
            parent[root(other)] = root(first)
    parts: dict[bytes, list[Operation]] = {}
    for operation in sorted(history, key=lambda op: op.called):
        parts.setdefault(root((keys(operation.action) or (b"",))[0]), []).append(operation)
    for name, part in sorted(parts.items()):
        members = tuple(sorted(key for key in parent if root(key) == name))
        yield members, part


def _counterexample(
    names: tuple[bytes, ...], part: list[Operation], attempt: Attempt, budget: int
) -> str:
    """Of the shortest beginning that is bad already, if the budget allows to find it."""
    moments = sorted({op.returned for op in part if op.returned is not None})
    low, high, shortest = 0, len(moments) - 1, part
    while low < high:
        middle = (low + high) // 2
        beginning = _until(part, moments[middle])
        shorter = search(beginning, budget)
        if shorter.outcome is Outcome.VIOLATED:
            high, attempt, shortest = middle, shorter, beginning
        elif shorter.outcome is Outcome.LINEARIZABLE:
            low = middle + 1
        else:
            break
    # Without the short cuts the search comes to the answer itself, not to what would bury it.
    plain = search(shortest, min(budget, EXPLAIN), short_cuts=False)
    return _tell(names, shortest, plain if plain.outcome is Outcome.VIOLATED else attempt)


def _until(history: list[Operation], moment: int) -> list[Operation]:
    """What was known at that moment: later answers are not there yet."""
    return [
        op
        if op.returned is not None and op.returned <= moment
        else Operation(op.client, op.called, None, op.action, None)
        for op in history
        if op.called <= moment
    ]


def _tell(names: tuple[bytes, ...], history: list[Operation], attempt: Attempt) -> str:
    order = attempt.order
    returned = sum(op.returned is not None for op in history)
    fitting = sum(op.returned is not None for op in order)
    lines = [
        f"not linearizable: {_named(names)}",
        f"of {returned} answers, {fitting} can be put in an order:",
    ]
    if len(order) > TAIL:
        lines.append(f"       ... {len(order) - TAIL} before")
    numbered = list(enumerate(order, start=1))[-TAIL:]
    lines += [f"  {number:4} {describe(op)}" for number, op in numbered]
    held = " and ".join(attempt.state.text(key) for key in names)
    lines.append(f"then {held}; no order goes on with:")
    lines += [f"       {describe(op)}" for op in attempt.stuck[:TAIL]]
    if len(attempt.stuck) > TAIL:
        lines.append(f"       ... and {len(attempt.stuck) - TAIL} that were called meanwhile")
    return "\n".join(lines)


def _named(names: tuple[bytes, ...]) -> str:
    return ("key " if len(names) == 1 else "keys ") + ", ".join(shown(name) for name in names)
