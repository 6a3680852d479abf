"""Attempts: the guard that every start passes, and what a worker's report changes."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from grampus.model.lease import KEEP, lease_of
from grampus.model.run import ATTEMPT_RANK, FINAL_ATTEMPT, AttemptState, RunState, TaskState
from grampus.model.workflow import Task
from grampus.runs.change import Change
from grampus.runs.commands import Refusal, ReportAttempt, StartAttempts
from grampus.runs.events import AttemptFinished, AttemptRunning, AttemptStarted
from grampus.runs.graph import Graph, longest_delay, retry_delay
from grampus.runs.progress import (
    RunRow,
    fail_downstream,
    finish_tasks,
    make_ready,
    read_run,
    release_downstream,
    settle,
)

#: A worker may be given so many times its slots: what does not fit waits there, in order, and
#: starts without another round trip. Part of the rules of `apply`; the scheduler uses less, but
#: for the shortest.
AHEAD = 8
#: How a task ends whose attempt was over before the cancel of its run reached it.
_ENDED_ITSELF = {
    AttemptState.FAILED: TaskState.FAILED,
    AttemptState.TIMED_OUT: TaskState.TIMED_OUT,
}


class Span(NamedTuple):
    """Of an attempt that is over, by the ledger's clock."""

    #: None: its worker did not say how long it took.
    began: int | None
    ended: int


class TaskRow(NamedTuple):
    state: TaskState
    attempt: int
    failures: int
    lost: int
    waits: int
    due: int | None


def _read_task(change: Change, run: str, index: int) -> TaskRow | None:
    row = change.db.one(
        "SELECT state, attempt, failures, lost, waits, due FROM task_run WHERE run = ? AND idx = ?",
        (run, index),
    )
    return None if row is None else TaskRow(TaskState(row[0]), *row[1:])


def start_attempts(change: Change, command: StartAttempts) -> list[int] | Refusal:
    """All of them or none. This is the guard: nothing else in the ledger creates an attempt."""
    db = change.db
    if db.value("SELECT value FROM meta WHERE key = 'epoch'") != command.epoch:
        return Refusal("stale-epoch", f"epoch {command.epoch} is over")
    row = read_run(change, command.run)
    if row is None or row.state != RunState.RUNNING:
        return Refusal("not-active", f"run {command.run} is not running")
    session = db.one(
        "SELECT name, grp, slots, busy, next_n, draining, leased FROM session"
        " WHERE id = ? AND ended IS NULL",
        (command.session,),
    )
    if session is None:
        return Refusal("no-session", f"session {command.session} has ended")
    worker, group, slots, busy, n, draining, leased = session
    if draining:
        return Refusal("no-slot", f"{worker} is draining")
    graph = change.graph(row.workflow, row.version)
    if len({index for index, _ in command.tasks}) != len(command.tasks):
        return Refusal("not-due", f"{command.run}: a task is named twice")
    needed = 0
    for index, attempt in command.tasks:
        task = _read_task(change, command.run, index)
        longest = longest_delay(graph.tasks[index].retry)
        if task is None or not _is_due(task, attempt, command.at, longest):
            return Refusal("not-due", f"{command.run} task {index} attempt {attempt}: not due")
        if graph.tasks[index].group != group:
            return Refusal("no-slot", f"{worker} is not in group {graph.tasks[index].group}")
        if graph.tasks[index].slots > slots:
            return Refusal("no-slot", f"{worker} has only {slots} slots")
        needed += graph.tasks[index].slots
    free = slots * AHEAD - busy
    if needed > free:
        return Refusal("no-slot", f"{worker} has room for {free} slots, {needed} are needed")
    numbers = []
    for index, attempt in command.tasks:
        lease = lease_of(graph.tasks[index].lease) if leased else KEEP
        _start(change, command, graph.tasks[index], index, attempt, n, worker, lease)
        numbers.append(n)
        n += 1
    db.execute(
        "UPDATE session SET next_n = ?, busy = busy + ? WHERE id = ?",
        (n, needed, command.session),
    )
    return numbers


def _is_due(task: TaskRow, attempt: int, at: int, longest: int) -> bool:
    """Only a retry waits for its time: what is READY may start, should the clock go back too. A
    time that lies further ahead than any delay was made by a clock that was wrong."""
    if task.waits or attempt != task.attempt + 1:
        return False
    if task.state == TaskState.RETRYING:
        return task.due is not None and not at < task.due <= at + longest
    return task.state == TaskState.READY


def _start(
    change: Change,
    command: StartAttempts,
    task: Task,
    index: int,
    attempt: int,
    n: int,
    worker: str,
    lease: int,
) -> None:
    change.db.execute(
        "UPDATE task_run SET state = 'RUNNING', reason = '', attempt = ?,"
        " started = coalesce(started, ?) WHERE run = ? AND idx = ?",
        (attempt, command.at, command.run, index),
    )
    fact = change.emit(
        AttemptStarted, at=command.at, run=command.run, task=task.name, index=index,
        attempt=attempt, session=command.session, n=n, worker=worker, slots=task.slots, lease=lease,
    )  # fmt: skip
    change.db.execute(
        "INSERT INTO attempt (session, n, run, task, attempt, state, slots, started, running,"
        " ended, exit, error, stdout, stderr, token, lease)"
        " VALUES (?, ?, ?, ?, ?, 'STARTING', ?, ?, NULL, NULL, NULL, '', 0, 0, ?, ?)",
        (
            command.session, n, command.run, index, attempt, task.slots, command.at,
            fact.revision, lease,
        ),
    )  # fmt: skip


def report_attempt(change: Change, command: ReportAttempt) -> str:
    """States only move up. A repeated final report is `done`, one that contradicts is `stale`."""
    live = change.db.one(
        "SELECT a.run, a.task, a.attempt, a.state, a.slots, a.started, s.name FROM attempt a"
        " JOIN session s ON s.id = a.session WHERE a.session = ? AND a.n = ?",
        (command.session, command.n),
    )
    if live is None:
        return "stale"
    run, index, attempt, state, slots, started, worker = live
    if ATTEMPT_RANK[command.state] <= ATTEMPT_RANK[AttemptState(state)]:
        return "done" if state == command.state or command.state not in FINAL_ATTEMPT else "stale"
    row = read_run(change, run)
    if row is None:
        return "stale"
    graph = change.graph(row.workflow, row.version)
    # A report may come late, and clocks may be wrong: never before its start, nor after now.
    when = max(started, min(command.when, command.at))
    if command.state in FINAL_ATTEMPT:
        change.db.execute(
            "UPDATE session SET busy = busy - ? WHERE id = ?", (slots, command.session)
        )
        began = None if command.took is None else max(started, when - command.took)
        span = Span(began, when)
        _finish(change, command, row, graph, index, attempt, worker, span)
    else:
        change.db.execute(
            "UPDATE attempt SET state = ?, running = ? WHERE session = ? AND n = ?",
            (command.state, when, command.session, command.n),
        )
        change.emit(
            AttemptRunning, at=command.at, run=run, task=graph.tasks[index].name, index=index,
            attempt=attempt, session=command.session, n=command.n, worker=worker,
        )  # fmt: skip
    return "done"


def _finish(
    change: Change,
    command: ReportAttempt,
    row: RunRow,
    graph: Graph,
    index: int,
    attempt: int,
    worker: str,
    span: Span,
) -> None:
    at, state = command.at, command.state
    change.db.execute(
        "UPDATE attempt SET state = ?, running = coalesce(?, running, ?), ended = ?, exit = ?,"
        " error = ?, stdout = ?, stderr = ? WHERE session = ? AND n = ?",
        (
            state, span.began, None if state == AttemptState.LOST else span.ended, span.ended,
            command.exit, command.error, command.stdout, command.stderr,
            command.session, command.n,
        ),
    )  # fmt: skip
    change.emit(
        AttemptFinished, at=at, run=row.id, task=graph.tasks[index].name, index=index,
        attempt=attempt, session=command.session, n=command.n, worker=worker, state=state,
        exit=command.exit, error=command.error,
        took=None if span.began is None else span.ended - span.began,
    )  # fmt: skip
    if state == AttemptState.SUCCEEDED:
        _succeed(change, command, row, graph, index, span.ended)
    else:
        _try_again_or_fail(change, command, row, graph, index, attempt, span.ended)


def _succeed(
    change: Change, command: ReportAttempt, row: RunRow, graph: Graph, index: int, over: int
) -> None:
    value = command.output
    if value is not None:
        change.db.execute(
            "INSERT OR REPLACE INTO output (run, task, encoding, data, blob, size)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (row.id, index, value.encoding, value.data, value.blob, value.size),
        )
    ended = [(index, TaskState.RUNNING, TaskState.SUCCEEDED)]
    row = finish_tasks(change, command.at, row, graph, ended, "", over=over)
    release_downstream(change, command.at, row, graph, index)
    settle(change, command.at, row)


def _try_again_or_fail(
    change: Change,
    command: ReportAttempt,
    row: RunRow,
    graph: Graph,
    index: int,
    attempt: int,
    over: int,
) -> None:
    """FAILED and TIMED_OUT are charged to `retry.max`, LOST to `max_lost`, CANCELLED to nobody."""
    at, state, task = command.at, command.state, graph.tasks[index]
    if row.state == RunState.CANCELLING:
        # A run that is being cancelled starts nothing, however the attempt ended.
        final = _ENDED_ITSELF.get(state, TaskState.CANCELLED)
        ended = [(index, TaskState.RUNNING, final)]
        row = finish_tasks(change, at, row, graph, ended, command.error, over=over)
        settle(change, at, row)
        return
    before = _read_task(change, row.id, index)
    assert before is not None
    charged = state in (AttemptState.FAILED, AttemptState.TIMED_OUT)
    failures = before.failures + charged
    lost = before.lost + (state == AttemptState.LOST)
    change.db.execute(
        "UPDATE task_run SET failures = ?, lost = ? WHERE run = ? AND idx = ?",
        (failures, lost, row.id, index),
    )
    stopping = row.failed and graph.workflow.on_failure == "stop"
    again = lost <= task.max_lost
    if charged:
        again = failures <= task.retry.max and _may_retry(task, command)
    if again and charged and not stopping:
        salt = zlib.crc32(f"{row.id}/{index}/{attempt}".encode())
        due = at + retry_delay(task.retry, failures, salt)
        make_ready(
            change, at, row, graph, index, TaskState.RUNNING, attempt=attempt + 1, due=due,
            state=TaskState.RETRYING,
            reason=f"try {failures} of {task.retry.max + 1} failed: {command.error}",
        )  # fmt: skip
    elif again and not stopping:
        make_ready(
            change, at, row, graph, index, TaskState.RUNNING, attempt=attempt + 1, due=at,
            reason=f"attempt {attempt} was {state.lower()}: {command.error}",
        )  # fmt: skip
    else:
        final = TaskState.TIMED_OUT if state == AttemptState.TIMED_OUT else TaskState.FAILED
        reason = command.error
        if lost > task.max_lost:
            reason = f"lost {lost} times (max_lost {task.max_lost}): {command.error}"
        elif again:
            first = _first_failed(change, row, graph)
            reason = ": ".join(filter(None, (f"not tried again: {first} failed", reason)))
        ended = [(index, TaskState.RUNNING, final)]
        row = finish_tasks(change, at, row, graph, ended, reason, over=over)
        row = fail_downstream(change, at, row, graph, index)
        settle(change, at, row)


def _first_failed(change: Change, row: RunRow, graph: Graph) -> str:
    """The task that made the run stop."""
    index: int = change.db.value(
        "SELECT idx FROM task_run WHERE run = ? AND state IN ('FAILED', 'TIMED_OUT')"
        " ORDER BY ended, idx LIMIT 1",
        (row.id,),
    )
    return graph.tasks[index].name


def _may_retry(task: Task, command: ReportAttempt) -> bool:
    """`on_exit` and `on_exception` narrow which failures are tried again; a time-out always is."""
    retry = task.retry
    if command.state == AttemptState.TIMED_OUT:
        return True
    if retry.on_exit is None and retry.on_exception is None:
        return True
    if retry.on_exit is not None and command.exit is not None:
        code = command.exit if command.exit >= 0 else 128 - command.exit
        if code in retry.on_exit:
            return True
    return retry.on_exception is not None and any(
        name in retry.on_exception or name.rpartition(".")[2] in retry.on_exception
        for name in command.exception
    )
