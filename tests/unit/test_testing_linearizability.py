"""The checker of histories: what it accepts, what it refuses, and what it tells a person."""

from __future__ import annotations

import time
from itertools import count

import pytest

from grampus.testing.history import (
    Action,
    Decided,
    Delete,
    Get,
    Got,
    HasRevision,
    Operation,
    Put,
    Result,
    Txn,
    Wrote,
    swap,
)
from grampus.testing.linearizability import Outcome, assert_linearizable, check

X, Y, A, B, C = b"x", b"y", b"A", b"B", b"C"


def op(
    called: int, returned: int | None, action: Action, result: Result | None = None, who: str = "c"
) -> Operation:
    return Operation(who, called, returned, action, result)


def put(called: int, returned: int | None, value: bytes, revision: int | None = None) -> Operation:
    return op(called, returned, Put(X, value), None if returned is None else Wrote(revision))


def get(called: int, returned: int, value: bytes | None, mod: int | None = None) -> Operation:
    return op(called, returned, Get(X), Got(value, mod))


GOOD = {
    "nothing at all": [],
    "one after the other": [get(0, 1, None, 0), put(2, 3, A, 1), get(4, 5, A, 1)],
    "a read beside a write sees either": [
        put(0, 1, A),
        put(2, 9, B),
        get(3, 4, A),
        get(5, 6, B),
        get(7, 8, B),
    ],
    "times that are equal are side by side": [put(0, 5, A), get(5, 5, None)],
    "an unknown put that never happened": [put(0, 1, A), put(2, None, B), get(3, 4, A)],
    "an unknown put that happened late": [
        put(0, 1, A),
        put(2, None, B),
        get(30, 40, A),
        get(50, 60, B, 17),
        get(70, 80, B, 17),
    ],
    "an unknown delete": [put(0, 1, A), op(2, None, Delete(X)), get(3, 4, None)],
    "an unknown swap that happened": [
        put(0, 1, A, 1),
        op(2, None, swap(X, A, B)),
        op(3, 4, swap(X, A, C), Decided(False, 2)),
        get(5, 6, B, 2),
    ],
    "an unknown put explains a failed comparison by revision": [
        put(0, 1, A, 1),
        put(2, None, A),
        op(3, 4, Txn((HasRevision(X, 1),), (Put(X, B),)), Decided(False, 5)),
        get(5, 6, A, 4),
    ],
    "a delete of nothing makes no revision": [
        put(0, 1, A, 1),
        op(2, 3, Delete(X), Wrote(2, True)),
        op(4, 5, Delete(X), Wrote(2, False)),
        put(6, 7, A, 3),
    ],
    "a transaction over two keys": [
        op(0, 1, Txn((), (Put(X, A), Put(Y, A))), Decided(True, 1)),
        op(
            2,
            3,
            Txn((HasRevision(Y, 1),), (Get(X), Delete(Y), Get(Y))),
            Decided(True, 2, (Got(A, 1), Wrote(None, True), Got(None, 0))),
        ),
        op(4, 5, Get(Y), Got(None, 0, 2)),
    ],
    "revisions of several keys have gaps for each": [
        put(0, 1, A, 1),
        op(2, 3, Put(Y, A), Wrote(2)),
        put(4, 5, B, 3),
        op(6, 7, Get(Y), Got(A, 2, 3)),
    ],
}

BAD = {
    "a stale read": [put(0, 1, A), put(2, 3, B), get(4, 5, A)],
    "a read goes back in time": [put(0, 1, A), put(2, 9, B), get(3, 4, B), get(5, 6, A)],
    "a lost acknowledged write": [put(0, 1, A), get(2, 3, None)],
    "a lost update": [
        put(0, 1, A),
        op(2, 5, swap(X, A, B), Decided(True)),
        get(6, 7, A),
    ],
    "two swaps from one value succeed": [
        put(0, 1, A),
        op(2, 5, swap(X, A, B), Decided(True)),
        op(2, 5, swap(X, A, C), Decided(True)),
    ],
    "two swaps from one revision succeed": [
        put(0, 1, A, 1),
        op(2, 5, Txn((HasRevision(X, 1),), (Put(X, A),)), Decided(True, 2)),
        op(2, 5, Txn((HasRevision(X, 1),), (Put(X, A),)), Decided(True, 3)),
    ],
    "two creations of one key succeed": [
        op(0, 5, swap(X, None, B), Decided(True, 1)),
        op(0, 5, swap(X, None, C), Decided(True, 2)),
    ],
    "a phantom after a failed swap": [
        put(0, 1, A),
        op(2, 3, swap(X, B, C), Decided(False)),
        get(4, 5, C),
    ],
    "a value that nobody wrote": [put(0, 1, A), get(2, 3, C)],
    "a read from the future": [get(0, 1, A), put(2, 3, A)],
    "an unknown put that happens before its call": [get(0, 1, A), put(2, None, A)],
    "a retried put applied twice": [put(0, 9, A), get(1, 2, A), put(3, 4, B), get(5, 6, A)],
    "an acknowledged put applied again later": [
        put(0, 1, A, 1),
        put(2, 3, B, 2),
        get(4, 5, A, 3),
    ],
    "an unknown put that takes effect twice": [
        put(0, None, A),
        get(1, 2, A, 1),
        put(3, 4, B, 2),
        get(5, 6, A, 3),
    ],
    "a swap that fails although nothing was in its way": [
        put(0, 1, A),
        op(2, 3, swap(X, A, B), Decided(False)),
    ],
    "revisions against the order of the writes": [put(0, 1, A, 5), put(2, 3, B, 4)],
    "a revision that was given twice": [put(0, 9, A, 5), put(0, 9, B, 5)],
    "a revision given twice, to two keys": [put(0, 9, A, 5), op(0, 9, Put(Y, B), Wrote(5))],
    "a revision of another key": [
        put(0, 1, A, 5),
        op(0, None, Put(Y, A)),
        op(2, 3, Get(Y), Got(A, 5)),
    ],
    "a value with the revision of another": [put(0, 1, A, 1), put(2, 3, B, 2), get(4, 5, B, 1)],
    "revisions of two keys against real time": [put(0, 1, A, 5), op(2, 3, Put(Y, A), Wrote(4))],
    "a read of the whole at an old revision": [
        put(0, 1, A, 5),
        op(2, 3, Get(Y), Got(None, 0, 4)),
    ],
    "two keys, each alone in order, seen in another order than their revisions": [
        op(0, 99, Put(X, A), Wrote(5)),
        op(0, 99, Put(Y, A), Wrote(6)),
        op(10, 20, Get(Y), Got(A, 6)),
        op(30, 40, Get(X), Got(None, 0)),
    ],
    "half of a transaction": [
        op(0, 1, Txn((), (Put(X, A), Put(Y, A))), Decided(True)),
        op(2, 3, Get(Y), Got(None)),
    ],
    "a delete says that it deleted nothing": [
        put(0, 1, A),
        op(2, 3, Delete(X), Wrote(None, False)),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    assert_linearizable(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused(name: str) -> None:
    verdict = check(BAD[name])
    assert verdict.outcome is Outcome.VIOLATED
    assert not verdict
    assert verdict.text


def test_a_counterexample_is_the_shortest_beginning_and_what_cannot_follow_it() -> None:
    fine = [put(i * 10, i * 10 + 5, b"v%d" % i, i + 1) for i in range(40)]
    bad = [
        Operation("anna", 400, 405, Get(X), Got(b"v39", 40)),
        Operation("bert", 410, 415, Get(X), Got(b"v38", None)),
        Operation("carl", 420, 425, Get(X), Got(b"v39", 40)),
    ]
    with pytest.raises(AssertionError) as told:
        assert_linearizable(fine + bad)
    assert str(told.value).splitlines() == [
        "not linearizable: key x",
        "of 42 answers, 41 can be put in an order:",
        "       ... 29 before",
        *(
            f"  {i + 1:4} c      {i * 10:>8}..{i * 10 + 5}  put x=v{i} -> revision {i + 1}"
            for i in range(29, 40)
        ),
        "    41 anna        400..405  get x -> v39 of revision 40",
        "then x holds v39 of revision 40; no order goes on with:",
        "       bert        410..415  get x -> v38",
    ]


def test_what_could_not_be_decided_is_not_taken_for_good() -> None:
    unknown = [put(0, None, b"%d" % i) for i in range(12)]
    reads = [get(10, 1000, b"%d" % i) for i in range(12)]
    history = [*unknown, *reads, get(2000, 2001, C)]
    verdict = check(history, budget=1000)
    assert verdict.outcome is Outcome.UNDECIDED
    assert not verdict
    with pytest.raises(AssertionError, match="undecided after 1000 steps: key x, 25 operations"):
        assert_linearizable(history, budget=1000)


def test_what_is_bad_for_certain_counts_beside_what_is_undecided() -> None:
    unknown = [put(0, None, b"%d" % i) for i in range(12)]
    reads = [get(10, 1000, b"%d" % i) for i in range(12)]
    history = [*unknown, *reads, get(2000, 2001, C), op(0, 1, Get(Y), Got(A))]
    assert check(history, budget=1000).outcome is Outcome.VIOLATED


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (op(0, 1, Get(X)), "come together"),
        (op(0, None, Get(X), Got(A)), "come together"),
        (op(2, 1, Get(X), Got(A)), "returned before it was called"),
        (op(0, 1, Get(X), Wrote(1)), "of another kind"),
        (op(0, 1, Txn((), (Put(X, A),)), Decided(True, 1, (Got(A),))), "do not fit the branch"),
        (op(0, 1, Txn((), (Get(X),)), Decided(True, 1, (Got(A, 1, 1),))), "revision of its own"),
    ],
)
def test_a_malformed_history_is_an_error_of_its_recorder(
    operation: Operation, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check([operation])


def long_history(revisions: bool) -> list[Operation]:
    """64 clients, each with a put and a get in turn, 5,000 in all, one in 50 of unknown outcome."""
    numbers, history = count(1), list[Operation]()
    value, mod = b"", 0
    for n in range(5000):
        at = n * 10  # takes effect at `at`, called up to 600 before, returned up to 600 after
        begin, end = at - n * 7919 % 600, at + n * 104729 % 600
        if n % 2:
            value, mod = b"v%d" % n, next(numbers)
            unknown = n % 50 == 1
            history.append(put(begin, None if unknown else end, value, mod if revisions else None))
        else:
            history.append(get(begin, end, value or None, mod if revisions else None))
    return history


@pytest.mark.parametrize("revisions", [True, False])
def test_a_long_history_of_many_clients_takes_seconds_at_most(revisions: bool) -> None:
    history = long_history(revisions)
    began = time.process_time()
    assert_linearizable(history)
    stale = [*history, get(60_000, 60_001, b"v5", 3 if revisions else None)]
    assert not check(stale, budget=20_000)
    if revisions:
        assert check(stale).outcome is Outcome.VIOLATED
    assert time.process_time() - began < 30
