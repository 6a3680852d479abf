"""How a run moves on: which tasks become ready, which can never run, when the run is over.

Decided here, inside `apply`, from rows only. The scheduler learns of it from the facts. Every
function leaves the run consistent: `remaining` counts the task runs that are not final, `waits` the
upstream tasks that have not succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grampus.model.duration import format_duration
from grampus.model.run import RunState, TaskState
from grampus.runs.change import Change
from grampus.runs.events import RunFinished, RunStarted, TaskFinished, TaskReady
from grampus.runs.gate import run_limit
from grampus.runs.graph import Graph, longest_delay
from grampus.runs.read_gate import active_runs
from grampus.runs.transitions import run_step, task_step

#: Tasks become READY in these; in PAUSED they wait.
_GOES_ON = (RunState.RUNNING, RunState.PAUSED)


class RunRow(NamedTuple):
    """What progress needs of a run."""

    id: str
    workflow: str
    version: int
    state: RunState
    priority: int
    remaining: int
    failed: bool
    #: Its own timeout has passed.
    expired: bool


_RUN = (
    "SELECT id, workflow, version, state, priority, remaining, failed, expired FROM run"
    " WHERE id = ?"
)


def read_run(change: Change, run: str) -> RunRow | None:
    row = change.db.one(_RUN, (run,))
    if row is None:
        return None
    id, workflow, version, state, priority, remaining, failed, expired = row
    return RunRow(
        id, workflow, version, RunState(state), priority, remaining, bool(failed), bool(expired)
    )


def set_run_state(
    change: Change, row: RunRow, state: RunState, *, reason: str = "", ended: int | None = None
) -> RunRow:
    run_step(row.state, state)
    change.db.execute(
        "UPDATE run SET state = ?, reason = ?, ended = ? WHERE id = ?",
        (state, reason, ended, row.id),
    )
    return row._replace(state=state)


def begin(change: Change, at: int, row: RunRow, why: str = "") -> None:
    """A round begins: the run is RUNNING, and READY is what waits for nothing.

    `why`: what let it out of the queue."""
    graph = change.graph(row.workflow, row.version)
    timeout = graph.workflow.timeout
    expires = None if timeout is None else at + timeout
    change.db.execute(
        "UPDATE run SET state = ?, reason = '', started = ?, expires = ? WHERE id = ?",
        (run_step(row.state, RunState.RUNNING), at, expires, row.id),
    )
    row = row._replace(state=RunState.RUNNING)
    change.emit(
        RunStarted, at=at, run=row.id, workflow=row.workflow, version=row.version,
        priority=row.priority, expires=expires, why=why,
    )  # fmt: skip
    for index, attempt in change.db.query(
        "SELECT idx, attempt FROM task_run WHERE run = ? AND state = 'WAITING' AND waits = 0"
        " ORDER BY idx",
        (row.id,),
    ):
        make_ready(change, at, row, graph, index, TaskState.WAITING, attempt=attempt + 1, due=at)


def make_ready(
    change: Change,
    at: int,
    row: RunRow,
    graph: Graph,
    index: int,
    before: TaskState,
    *,
    attempt: int,
    due: int,
    state: TaskState = TaskState.READY,
    reason: str = "",
) -> None:
    """The task may start its `attempt` from `due` on."""
    change.db.execute(
        "UPDATE task_run SET state = ?, due = ?, reason = ? WHERE run = ? AND idx = ?",
        (task_step(before, state), due, reason, row.id, index),
    )
    task = graph.tasks[index]
    change.emit(
        TaskReady, at=at, run=row.id, task=task.name, index=index, attempt=attempt, due=due,
        state=state, group=task.group, slots=task.slots, priority=row.priority + task.priority,
        reason=reason, longest=longest_delay(task.retry),
    )  # fmt: skip


def finish_tasks(
    change: Change,
    at: int,
    row: RunRow,
    graph: Graph,
    ended: Sequence[tuple[int, TaskState, TaskState]],
    reason: str,
    *,
    over: int | None = None,
) -> RunRow:
    """Makes tasks final: (index, state before, state after). The run itself is looked at by
    `settle`. `over`: when they ended, if that was told later; `at` when None."""
    if not ended:
        return row
    for _, before, after in ended:
        task_step(before, after)
    change.db.executemany(
        "UPDATE task_run SET state = ?, reason = ?, ended = ? WHERE run = ? AND idx = ?",
        [(after, reason, over or at, row.id, index) for index, _, after in ended],
    )
    for index, _, after in ended:
        change.emit(
            TaskFinished, at=at, run=row.id,
            task=graph.tasks[index].name, index=index, state=after, reason=reason, ended=over,
        )  # fmt: skip
    remaining = row.remaining - len(ended)
    change.db.execute("UPDATE run SET remaining = ? WHERE id = ?", (remaining, row.id))
    return row._replace(remaining=remaining)


def release_downstream(change: Change, at: int, row: RunRow, graph: Graph, index: int) -> None:
    """`index` has succeeded: who waited for it alone is READY."""
    for down in graph.downs[index]:
        waits, state, attempt = change.db.one(
            "UPDATE task_run SET waits = waits - 1 WHERE run = ? AND idx = ?"
            " RETURNING waits, state, attempt",
            (row.id, down),
        )
        if waits == 0 and state == TaskState.WAITING and row.state in _GOES_ON:
            make_ready(change, at, row, graph, down, TaskState.WAITING, attempt=attempt + 1, due=at)


def fail_downstream(change: Change, at: int, row: RunRow, graph: Graph, index: int) -> RunRow:
    """`index` has ended badly: what needed it cannot run; with `stop`, nothing else starts
    either."""
    change.db.execute("UPDATE run SET failed = 1 WHERE id = ?", (row.id,))
    row = row._replace(failed=True)
    name = graph.tasks[index].name
    states = not_started(change, row.id)
    doomed = [
        (down, states[down], TaskState.UPSTREAM_FAILED)
        for down in graph.downstream([index])
        if down in states
    ]
    row = finish_tasks(change, at, row, graph, doomed, f"{name} did not succeed")
    if graph.workflow.on_failure == "stop":
        gone = {down for down, _, _ in doomed}
        skipped = [
            (other, before, TaskState.SKIPPED)
            for other, before in states.items()
            if other not in gone
        ]
        row = finish_tasks(change, at, row, graph, skipped, f"{name} failed: the run stops")
    return row


def not_started(change: Change, run: str) -> dict[int, TaskState]:
    """Tasks that have no live attempt and are not final, by index, ascending."""
    rows = change.db.query(
        "SELECT idx, state FROM task_run WHERE run = ?"
        " AND state IN ('WAITING', 'READY', 'RETRYING') ORDER BY idx",
        (run,),
    )
    return {index: TaskState(state) for index, state in rows}


def settle(change: Change, at: int, row: RunRow) -> None:
    """Ends the run when nothing of it is left to do, and starts the next one in the queue."""
    if row.remaining:
        return
    reason = ""
    if row.expired:
        limit = change.graph(row.workflow, row.version).workflow.timeout or 0
        state, reason = RunState.FAILED, f"timed out after {format_duration(limit)}"
    elif row.state == RunState.CANCELLING:
        state = RunState.CANCELLED
        reason = change.db.value("SELECT reason FROM run WHERE id = ?", (row.id,))
    else:
        state = RunState.FAILED if row.failed else RunState.SUCCEEDED
    set_run_state(change, row, state, reason=reason, ended=at)
    change.emit(RunFinished, at=at, run=row.id, state=state, reason=reason)
    promote(change, at, row.workflow, f"run {row.id} is over")


def promote(change: Change, at: int, workflow: str, why: str) -> None:
    """Starts queued runs of the workflow as far as its limit allows: priority first, then age.

    `why`: what happened that may let them begin."""
    found = change.db.one(
        "SELECT version, paused FROM workflow WHERE name = ? AND deleted = 0", (workflow,)
    )
    if found is None or found[1]:
        return
    limit = run_limit(change.graph(workflow, found[0]))
    active = active_runs(change.db, workflow)
    room = 1_000 if limit is None else limit - active
    if room <= 0:
        return
    passed_over = False
    for run, alone in change.db.query(
        "SELECT id, alone FROM run WHERE workflow = ? AND state = 'QUEUED'"
        " AND (alone = 0 OR ? = 0) ORDER BY priority DESC, seq LIMIT ?",
        (workflow, active, room),
    ):
        if alone and active:
            passed_over = True
            continue
        row = read_run(change, run)
        if row is not None:
            begin(change, at, row, why)
            active += 1
    if passed_over:  # Those took room that others may have: something is active now.
        promote(change, at, workflow, why)


class Queueing(NamedTuple):
    """What stands between a run of a workflow and its start."""

    #: Why it waits; "" when it may begin.
    reason: str
    #: Why it may not even wait; "" when it may.
    refusal: str
    #: The oldest active run is to make room.
    cancel_oldest: bool


def queue_reason(change: Change, workflow: str) -> Queueing:
    """For a workflow that exists; the newest version decides."""
    version, paused = change.db.one(
        "SELECT version, paused FROM workflow WHERE name = ?", (workflow,)
    )
    newest = change.graph(workflow, version)
    reason = f"workflow {workflow} is paused" if paused else ""
    limit = run_limit(newest)
    if limit is None or active_runs(change.db, workflow) < limit:
        return Queueing(reason, "", False)
    reason = f"max_active_runs: {limit} of {limit} active"
    overlap = newest.workflow.overlap
    refusal = f"{workflow}: {reason}, and overlap is skip" if overlap == "skip" else ""
    return Queueing(reason, refusal, overlap == "cancel_old" and not paused)
