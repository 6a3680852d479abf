"""What the ledger makes of a leader's word that leases are over."""

from __future__ import annotations

from typing import Any

import pytest

from grampus.ledger import Ledger
from grampus.model.lease import DEFAULT_LEASE, KEEP
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    Command,
    LoseAttempts,
    OpenSession,
    Refusal,
    SilenceSession,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.queries import Queries

FLOW = Workflow(
    "w", (Task("a", Shell("true"), lease=10_000), Task("b", Shell("true")),
          Task("k", Shell("true"), lease=KEEP), Task("c", Shell("true"), lease=10_000)),
)  # fmt: skip


class Book:
    """A run with all its tasks started on w1, which has so many slots."""

    def __init__(self, leased: bool = True, slots: int = 4) -> None:
        self.ledger = Ledger(None)
        self.index = 0
        self.epoch = self.do(TakeOffice(1, "n1", 1))
        self.opening = OpenSession(2, "w1", "i", "m", "b", True, "default", slots, leased=leased)
        self.session = self.do(self.opening)
        self.registered = self.index
        self.do(ApplyWorkflow(3, "w", pack_definition(FLOW.content())))
        self.do(SubmitRun(4, "r1", "w", 1, b"{}", "r", 0, 4))
        tasks = [(index, 1) for index in range(4)]
        assert self.do(StartAttempts(5, self.epoch, self.session, "r1", tasks)) == [1, 2, 3, 4]

    def do(self, command: Command) -> Any:
        self.index += 1
        answers, _ = self.ledger.apply(self.index, 1, [encode_command(command)])
        return answers[0]

    def silence(self) -> None:
        assert self.do(SilenceSession(6, self.epoch, self.session, self.registered)) == "silent"

    def lose(self, *numbers: int, **other: Any) -> Any:
        about = {"epoch": self.epoch, "session": self.session, "registered": self.registered}
        about |= other
        return self.do(LoseAttempts(7, numbers=numbers, reason="unheard", **about))

    def attempts(self) -> list[str]:
        tasks = Queries(self.ledger.database, Graphs()).tasks("r1")
        return [str(task.attempts[0].state) for task in tasks]


def test_exactly_those_are_lost_that_are_named_and_have_a_lease() -> None:
    book = Book()
    book.silence()
    assert book.lose(1, 3, 99) == 1
    assert book.attempts() == ["LOST", "UNREACHABLE", "UNREACHABLE", "UNREACHABLE"]
    (first, *_) = Queries(book.ledger.database, Graphs()).tasks("r1")
    assert (first.state, first.attempts[0].error) == ("READY", "unheard")
    assert book.lose(1, 2, 3, 4) == 2
    assert book.attempts() == ["LOST", "LOST", "UNREACHABLE", "LOST"]


def test_what_was_given_ahead_and_is_not_known_to_have_started_is_charged_to_nobody() -> None:
    book = Book(slots=1)
    book.silence()
    assert book.lose(1, 4) == 2
    assert book.attempts() == ["LOST", "UNREACHABLE", "UNREACHABLE", "CANCELLED"]


@pytest.mark.parametrize(
    ("other", "code"),
    [({"epoch": 99}, "stale-epoch"), ({"session": 99}, "no-session"),
     ({"registered": 1}, "conflict")],
)  # fmt: skip
def test_it_is_refused_when_it_speaks_of_another_office_session_or_registration(
    other: dict[str, int], code: str
) -> None:
    book = Book()
    book.silence()
    answer = book.lose(1, **other)
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert AttemptState.LOST not in book.attempts()


def test_it_is_refused_when_the_worker_is_heard() -> None:
    book = Book()
    assert isinstance(book.lose(1), Refusal)
    book.silence()
    assert book.do(book.opening) == book.session
    assert isinstance(book.lose(1), Refusal)
    assert isinstance(book.lose(1, registered=book.index - 1), Refusal)


def test_an_attempt_has_the_lease_of_its_task_and_none_where_its_worker_keeps_all() -> None:
    def leases(book: Book) -> list[int]:
        tasks = Queries(book.ledger.database, Graphs()).tasks("r1")
        return [task.attempts[0].lease for task in tasks]

    assert leases(Book()) == [10_000, DEFAULT_LEASE, KEEP, 10_000]
    book = Book(leased=False)
    assert leases(book) == [KEEP] * 4
    book.silence()
    assert book.lose(1, 2, 3, 4) == 0
