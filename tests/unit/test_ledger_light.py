"""What may be applied on the event loop: few starts and reports, and submits of small workflows."""

from __future__ import annotations

from grampus.ledger import LIGHT_COMMANDS, Ledger
from grampus.model.run import AttemptState
from grampus.model.workflow import Shell, Task, Workflow
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    Command,
    ReportAttempt,
    StartAttempts,
    SubmitRun,
    encode_command,
    pack_definition,
)

START = StartAttempts(1, 1, 1, "r1", [(0, 1)])
REPORT = ReportAttempt(1, 1, 1, AttemptState.SUCCEEDED, 1, 0, "", (), None, 0, 0)


def ledger_with(tasks: int) -> Ledger:
    ledger = Ledger(None)
    flow = Workflow("w", tuple(Task(f"t{i}", Shell("x")) for i in range(tasks)))
    apply(ledger, ApplyWorkflow(1, "w", pack_definition(flow.content())))
    return ledger


def apply(ledger: Ledger, *commands: Command) -> None:
    ledger.apply(ledger.applied_index + 1, 1, [encode_command(c) for c in commands])


def submit(run: str) -> SubmitRun:
    return SubmitRun(1, run, "w", 1, b"{}", "r", 0, 1)


def light(ledger: Ledger, *commands: Command) -> bool:
    return ledger.light([encode_command(c) for c in commands])


def test_starts_and_reports_are_light_and_everything_else_is_not() -> None:
    ledger = ledger_with(1)
    assert light(ledger, START, REPORT)
    assert not light(ledger, START, CancelRun(1, "r1", "me"))
    assert not light(ledger, *[REPORT] * (LIGHT_COMMANDS + 1))


def test_a_submit_is_light_once_its_workflow_is_known_to_be_small() -> None:
    small, large = ledger_with(3), ledger_with(LIGHT_COMMANDS)
    assert not light(Ledger(None), submit("r1"))
    for ledger in (small, large):
        apply(ledger, submit("r1"))
    assert light(small, submit("r2"), REPORT)
    assert not light(small, *[submit(f"r{i}") for i in range(LIGHT_COMMANDS // 3)])
    assert not light(large, submit("r2"))
