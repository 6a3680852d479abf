"""Runs: submit, cancel, delete, retention."""

from __future__ import annotations

from grampus.model.run import FINAL_RUN, RunState, TaskState
from grampus.runs.change import Change
from grampus.runs.commands import CancelRun, DeleteRun, Refusal, Retain, SubmitRun
from grampus.runs.events import RunCancelling, RunDeleted, RunFinished, RunSubmitted
from grampus.runs.graph import Graph
from grampus.runs.progress import (
    begin,
    finish_tasks,
    not_started,
    queue_reason,
    read_run,
    set_run_state,
    settle,
)

#: Rows of ticks that one `Retain` deletes at most.
TICKS = 1_000


def submit_run(change: Change, command: SubmitRun) -> str | Refusal:
    db = change.db
    known = db.one("SELECT request FROM run WHERE id = ?", (command.run,))
    if known is not None:
        if known[0] == command.request:
            return "exists"
        return Refusal("conflict", f"run {command.run} exists, and was made by another request")
    workflow = db.one(
        "SELECT name FROM workflow WHERE name = ? AND deleted = 0", (command.workflow,)
    )
    graph = change.find_graph(command.workflow, command.version)
    if workflow is None or graph is None:
        return Refusal("not-found", f"there is no workflow {command.workflow}")
    waiting = queue_reason(change, command.workflow)
    if waiting.refusal:
        return Refusal("conflict", waiting.refusal)
    admit(change, command, graph, waiting.reason)
    if waiting.reason and waiting.cancel_oldest:
        cancel_oldest(change, command.at, command.workflow, command.run)
    return "created"


def admit(
    change: Change,
    command: SubmitRun,
    graph: Graph,
    reason: str,
    *,
    planned: bool = False,
    alone: bool = False,
) -> None:
    """Makes the run: it begins, unless there is a `reason` why it is QUEUED.

    `planned`: by its schedule. `alone`: from the queue it starts only when no run of the workflow
    is active."""
    _insert(change, command, graph, reason, alone)
    change.emit(
        RunSubmitted, at=command.at, run=command.run, workflow=command.workflow,
        version=command.version, priority=command.priority,
        state=RunState.QUEUED if reason else RunState.RUNNING, reason=reason,
        tick=command.tick if planned else None,
    )  # fmt: skip
    if not reason:
        row = read_run(change, command.run)
        assert row is not None
        begin(change, command.at, row)


def _insert(change: Change, command: SubmitRun, graph: Graph, reason: str, alone: bool) -> None:
    db = change.db
    seq: int = db.value("UPDATE meta SET value = value + 1 WHERE key = 'run_seq' RETURNING value")
    tasks = len(graph.tasks)
    db.execute(
        "INSERT INTO run (id, seq, workflow, version, state, reason, params, request, priority,"
        " tick, created, started, ended, tasks, remaining, failed, round, expires, expired,"
        " alone)"
        " VALUES (?, ?, ?, ?, 'QUEUED', ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?, 0, 1, NULL, 0, ?)",
        (
            command.run, seq, command.workflow, command.version, reason, command.params,
            command.request, command.priority, command.tick, command.at, tasks, tasks,
            int(alone),
        ),
    )  # fmt: skip
    db.executemany(
        "INSERT INTO task_run (run, idx, state, reason, attempt, failures, lost, waits)"
        " VALUES (?, ?, 'WAITING', '', 0, 0, 0, ?)",
        [(command.run, index, len(ups)) for index, ups in enumerate(graph.ups)],
    )


def cancel_oldest(change: Change, at: int, workflow: str, newer: str) -> None:
    """Overlap `cancel_old`: the oldest active run that is not being cancelled makes room."""
    oldest = change.db.value(
        "SELECT id FROM run WHERE workflow = ? AND state IN ('RUNNING', 'PAUSED')"
        " ORDER BY seq LIMIT 1",
        (workflow,),
    )
    if oldest is not None:
        cancel_run(change, CancelRun(at, oldest, f"overlap: {newer} is newer"))


def cancel_run(change: Change, command: CancelRun) -> RunState | Refusal:
    """What has not started is CANCELLED now; what lives is killed and reported by its worker."""
    row = read_run(change, command.run)
    if row is None:
        return Refusal("not-found", f"there is no run {command.run}")
    if row.state in (RunState.CANCELLING, RunState.CANCELLED):
        return row.state
    if row.state in FINAL_RUN:
        return Refusal("conflict", f"run {command.run} is {row.state} already")
    reason = f"cancelled by {command.by}"
    if row.state != RunState.QUEUED:
        row = set_run_state(change, row, RunState.CANCELLING, reason=reason)
        change.emit(RunCancelling, at=command.at, run=row.id, by=command.by)
    ended = [
        (index, before, TaskState.CANCELLED)
        for index, before in not_started(change, row.id).items()
    ]
    graph = change.graph(row.workflow, row.version)
    row = finish_tasks(change, command.at, row, graph, ended, reason)
    if row.state == RunState.QUEUED:
        _cancel_queued(change, command, reason)
        return RunState.CANCELLED
    settle(change, command.at, row)
    return RunState.CANCELLED if row.remaining == 0 else RunState.CANCELLING


def _cancel_queued(change: Change, command: CancelRun, reason: str) -> None:
    row = read_run(change, command.run)
    assert row is not None
    set_run_state(change, row, RunState.CANCELLED, reason=reason, ended=command.at)
    change.emit(RunFinished, at=command.at, run=row.id, state=RunState.CANCELLED, reason=reason)


def delete_run(change: Change, command: DeleteRun) -> str | Refusal:
    row = read_run(change, command.run)
    if row is None:
        return Refusal("not-found", f"there is no run {command.run}")
    if row.state not in FINAL_RUN:
        return Refusal("conflict", f"run {command.run} is {row.state}: cancel it first")
    _erase(change, command.at, command.run)
    return "deleted"


#: No `seq` is as high.
_NEVER = 2**62


def retain(change: Change, command: Retain) -> list[str]:
    runs = [
        run
        for (run,) in change.db.query(
            "SELECT id FROM run WHERE ended < ? AND seq < ? ORDER BY ended, id LIMIT ?",
            (command.before, _NEVER if command.below is None else command.below, command.limit),
        )
    ]
    for run in runs:
        _erase(change, command.at, run)
    change.db.execute("DELETE FROM event WHERE run = '' AND at < ?", (command.before,))
    change.db.execute(
        "DELETE FROM tick WHERE (workflow, tick) IN"
        " (SELECT workflow, tick FROM tick WHERE at < ? ORDER BY at, workflow, tick LIMIT ?)",
        (command.before, TICKS),
    )
    return runs


def _erase(change: Change, at: int, run: str) -> None:
    for table in ("attempt", "output", "task_run", "event"):
        change.db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
    change.db.execute("DELETE FROM run WHERE id = ?", (run,))
    change.emit(RunDeleted, at=at, run=run, keep=False)
