"""A ledger for tests of its rules: commands are applied one by one, at the next index."""

from __future__ import annotations

from typing import Any

from grampus.ledger import Ledger
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    Command,
    OpenSession,
    Refusal,
    ReportAttempt,
    StartAttempts,
    SubmitRun,
    TakeOffice,
    encode_command,
    pack_definition,
)
from grampus.runs.queries import Queries


class Book:
    """A ledger, and its next index."""

    def __init__(self, *tasks: Task, **options: Any) -> None:
        self.ledger = Ledger(None)
        self.index = 0
        self.facts: list[Any] = []
        self.epoch = self.do(TakeOffice(0, "n", 1))
        self.session = self.do(OpenSession(0, "w1", "i1", "m", "b", True, "default", 4))
        tasks = tasks or (Task("a", Shell("true")),)
        self.do(ApplyWorkflow(0, "w", pack_definition(Workflow("w", tasks, **options).content())))

    def do(self, *commands: Command) -> Any:
        self.index += 1
        answers, facts = self.ledger.apply(self.index, 1, [encode_command(c) for c in commands])
        self.facts = facts
        return answers[0] if len(answers) == 1 else answers

    def submit(self, run: str, at: int = 1, request: str = "x", priority: int = 0) -> Any:
        return self.do(SubmitRun(at, run, "w", 1, b"{}", request, priority, at))

    def start(self, run: str, index: int = 0, attempt: int = 1, at: int = 10) -> Any:
        return self.do(StartAttempts(at, self.epoch, self.session, run, [(index, attempt)]))

    def end(self, n: int, state: AttemptState = AttemptState.SUCCEEDED, **more: Any) -> Any:
        values: dict[str, Any] = {
            "at": 20, "session": self.session, "n": n, "state": state, "when": 20, "exit": 0,
            "error": "", "exception": (), "output": None, "stdout": 0, "stderr": 0,
        } | more  # fmt: skip
        return self.do(ReportAttempt(**values))

    @property
    def queries(self) -> Queries:
        return Queries(self.ledger.database, Graphs())

    def state(self, run: str) -> RunState:
        view = self.queries.run(run)
        assert view is not None
        return view.state

    def task(self, run: str, index: int = 0) -> TaskState:
        return self.queries.tasks(run)[index].state


def refused(answer: Any, code: str) -> str:
    assert isinstance(answer, Refusal), answer
    assert answer.code == code
    return answer.reason
