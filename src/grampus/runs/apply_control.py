"""Run control: pause, resume, a new round, the run's own timeout, attempts that a person gives up.

Rules. A paused run starts nothing, and loses nothing: what lives goes on, tasks become READY and
wait, retry delays and the run's timeout go on. A round begins where the one before it ended: what
succeeded is kept, everything else is WAITING again, and attempt numbers are never used twice. A
run that was cancelled is never run again.

What the ledger cannot know is whether a worker can be reached; so whoever proposes `DeclareLost`
looks at that (the API refuses it while the worker is connected), and names the attempt that it
looked at: the ledger accepts it for exactly that attempt, and only while it is not final.
"""

from __future__ import annotations

from grampus.model.duration import format_duration
from grampus.model.run import FINAL_RUN, AttemptState, RunState, TaskState
from grampus.runs.apply_attempts import report_attempt
from grampus.runs.apply_runs import cancel_oldest
from grampus.runs.change import Change
from grampus.runs.commands import (
    DeclareLost,
    ExpireRun,
    PauseRun,
    Refusal,
    ReportAttempt,
    ResumeRun,
    RetryRun,
)
from grampus.runs.events import (
    RunCancelling,
    RunPaused,
    RunResumed,
    RunRetried,
    TaskReady,
    TaskReset,
)
from grampus.runs.graph import Graph, longest_delay
from grampus.runs.progress import (
    RunRow,
    begin,
    finish_tasks,
    not_started,
    queue_reason,
    read_run,
    set_run_state,
    settle,
)
from grampus.runs.transitions import run_step, task_step


def pause_run(change: Change, command: PauseRun) -> RunState | Refusal:
    row = read_run(change, command.run)
    if row is None:
        return _no_such(command.run)
    if row.state == RunState.PAUSED:
        return row.state
    if row.state != RunState.RUNNING:
        return Refusal("conflict", f"run {row.id} is {row.state}: only a RUNNING run is paused")
    set_run_state(change, row, RunState.PAUSED, reason=f"paused by {command.by}")
    change.emit(RunPaused, at=command.at, run=row.id, by=command.by)
    return RunState.PAUSED


def resume_run(change: Change, command: ResumeRun) -> RunState | Refusal:
    """Every task that may start is told again: the scheduler forgot them at the pause."""
    row = read_run(change, command.run)
    if row is None:
        return _no_such(command.run)
    if row.state == RunState.RUNNING:
        return row.state
    if row.state != RunState.PAUSED:
        return Refusal("conflict", f"run {row.id} is {row.state}: only a PAUSED run is resumed")
    row = set_run_state(change, row, RunState.RUNNING)
    change.emit(RunResumed, at=command.at, run=row.id, by=command.by)
    graph = change.graph(row.workflow, row.version)
    for index, state, attempt, due, reason in change.db.query(
        "SELECT idx, state, attempt, due, reason FROM task_run WHERE run = ?"
        " AND state IN ('READY', 'RETRYING') ORDER BY idx",
        (row.id,),
    ):
        task = graph.tasks[index]
        change.emit(
            TaskReady, at=command.at, run=row.id, task=task.name, index=index,
            attempt=attempt + 1, due=due, state=TaskState(state), group=task.group,
            slots=task.slots, priority=row.priority + task.priority, reason=reason,
            longest=longest_delay(task.retry), again=True,
        )  # fmt: skip
    return RunState.RUNNING


def retry_run(change: Change, command: RetryRun) -> tuple[int, list[str]] | Refusal:
    """A new round of whatever did not succeed; with a task, of it and all that is downstream too.

    So a round can always end as SUCCEEDED, and nothing in it waits for what will not come."""
    row = read_run(change, command.run)
    if row is None:
        return _no_such(command.run)
    graph = change.graph(row.workflow, row.version)
    refusal = _may_run_again(change, command, row, graph)
    if refusal is not None:
        return refusal
    reset = _tasks_of_round(change, command, row, graph)
    if not reset:
        text = f"every task of run {row.id} succeeded: say from which task on, as --from TASK"
        return Refusal("conflict", text)
    waiting = queue_reason(change, row.workflow)
    if waiting.refusal:
        return Refusal("conflict", waiting.refusal)
    number = _begin_round(change, command, row, reset, waiting.reason)
    change.emit(
        RunRetried, at=command.at, run=row.id, by=command.by, round=number,
        workflow=row.workflow, version=row.version, priority=row.priority,
    )  # fmt: skip
    _reset_tasks(change, command.at, row.id, graph, reset)
    if not waiting.reason:
        begin(change, command.at, row._replace(state=RunState.QUEUED))
    elif waiting.cancel_oldest:
        cancel_oldest(change, command.at, row.workflow, row.id)
    return number, [graph.tasks[index].name for index in reset]


def _may_run_again(change: Change, command: RetryRun, row: RunRow, graph: Graph) -> Refusal | None:
    if row.state == RunState.CANCELLED:
        text = f"run {row.id} was cancelled, and is not run again: start a new run"
        return Refusal("conflict", text)
    if row.state not in FINAL_RUN:
        return Refusal("conflict", f"run {row.id} is {row.state}: only a finished run is retried")
    if command.task and command.task not in graph.index:
        return Refusal("not-found", f"run {row.id} has no task {command.task}")
    there = change.db.one("SELECT deleted FROM workflow WHERE name = ?", (row.workflow,))
    if there is None or there[0]:
        return Refusal("conflict", f"workflow {row.workflow} was deleted: apply it first")
    return None


def _tasks_of_round(
    change: Change, command: RetryRun, row: RunRow, graph: Graph
) -> dict[int, TaskState]:
    """What is to be reset with its state, by index, ascending."""
    again: set[int] = set()
    if command.task:
        root = graph.index[command.task]
        again = {root, *graph.downstream([root])}
    return {
        index: TaskState(state)
        for index, state in change.db.query(
            "SELECT idx, state FROM task_run WHERE run = ? ORDER BY idx", (row.id,)
        )
        if state != TaskState.SUCCEEDED or index in again
    }


def _begin_round(
    change: Change, command: RetryRun, row: RunRow, reset: dict[int, TaskState], reason: str
) -> int:
    number: int = change.db.value(
        "UPDATE run SET state = ?, reason = ?, started = NULL, ended = NULL, remaining = ?,"
        " failed = 0, round = round + 1, expires = NULL, expired = 0 WHERE id = ?"
        " RETURNING round",
        (run_step(row.state, RunState.QUEUED), reason, len(reset), row.id),
    )
    return number


def _reset_tasks(
    change: Change, at: int, run: str, graph: Graph, reset: dict[int, TaskState]
) -> None:
    """`waits` counts anew: of the tasks upstream, those that are reset have not succeeded."""
    for before in reset.values():
        task_step(before, TaskState.WAITING)
    change.db.executemany(
        "UPDATE task_run SET state = 'WAITING', reason = '', failures = 0, lost = 0, waits = ?,"
        " due = NULL, started = NULL, ended = NULL WHERE run = ? AND idx = ?",
        [(sum(up in reset for up in graph.ups[index]), run, index) for index in reset],
    )
    change.db.executemany(
        "DELETE FROM output WHERE run = ? AND task = ?", [(run, index) for index in reset]
    )
    for index in reset:
        change.emit(TaskReset, at=at, run=run, task=graph.tasks[index].name, index=index)


def expire_run(change: Change, command: ExpireRun) -> RunState | Refusal:
    """As a cancel by nobody; the run ends as FAILED when its last attempt is gone."""
    db = change.db
    if db.value("SELECT value FROM meta WHERE key = 'epoch'") != command.epoch:
        return Refusal("stale-epoch", f"epoch {command.epoch} is over")
    row = read_run(change, command.run)
    if row is None or row.state not in (RunState.RUNNING, RunState.PAUSED):
        return Refusal("not-active", f"run {command.run} is not running")
    expires = db.value("SELECT expires FROM run WHERE id = ?", (command.run,))
    if expires is None or command.at < expires:
        return Refusal("not-due", f"run {command.run} has time left")
    graph = change.graph(row.workflow, row.version)
    limit = format_duration(graph.workflow.timeout or 0)
    reason = f"timed out after {limit}"
    row = set_run_state(change, row, RunState.CANCELLING, reason=reason)
    db.execute("UPDATE run SET expired = 1 WHERE id = ?", (row.id,))
    row = row._replace(expired=True)
    change.emit(RunCancelling, at=command.at, run=row.id, by=f"its timeout of {limit}")
    ended = [
        (index, before, TaskState.CANCELLED)
        for index, before in not_started(change, row.id).items()
    ]
    row = finish_tasks(change, command.at, row, graph, ended, f"the run {reason}")
    settle(change, command.at, row)
    return RunState.FAILED if row.remaining == 0 else RunState.CANCELLING


def declare_lost(change: Change, command: DeclareLost) -> TaskState | Refusal:
    """The task is READY again, or FAILED when that was once too often: as after any loss."""
    row = read_run(change, command.run)
    if row is None:
        return _no_such(command.run)
    index = change.graph(row.workflow, row.version).index.get(command.task)
    if index is None:
        return Refusal("not-found", f"run {row.id} has no task {command.task}")
    live = change.db.one(
        "SELECT session, n FROM attempt WHERE run = ? AND task = ? AND attempt = ?"
        " AND ended IS NULL",
        (row.id, index, command.attempt),
    )
    if live is None:
        text = f"attempt {command.attempt} of {command.task} is over, or has not begun"
        return Refusal("conflict", text)
    session, n = live
    error = f"declared lost by {command.by}"
    report_attempt(
        change,
        ReportAttempt(
            command.at, session, n, AttemptState.LOST, command.at, None, error, (), None, 0, 0
        ),
    )
    state = change.db.value("SELECT state FROM task_run WHERE run = ? AND idx = ?", (row.id, index))
    return TaskState(state)


def _no_such(run: str) -> Refusal:
    return Refusal("not-found", f"there is no run {run}")
