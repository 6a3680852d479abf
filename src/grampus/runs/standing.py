"""Where a run stands, as the ledger has it: what `master.core.explain` starts from.

Rule: one consistent, bounded picture, read within one transaction. Tasks that are named are at most
MOST_TASKS, what lives first; `tasks_left` counts the others that are not final. Of a run that is
over, those are named that failed.
"""

from __future__ import annotations

from msgspec import Struct

from grampus.database import Database
from grampus.model.run import FINAL_RUN, AttemptState, RunState, TaskState
from grampus.runs.change import Graphs
from grampus.runs.graph import Graph
from grampus.runs.views import RunView

MOST_TASKS = 50
MOST_UPS = 20
MOST_LIVE = 200
MOST_RUNS = 10


class Upstream(Struct, frozen=True):
    """A task that is waited for, and has not succeeded."""

    task: str
    state: TaskState


class Tried(Struct, frozen=True):
    """A task's last attempt."""

    attempt: int
    state: AttemptState
    session: int
    n: int
    worker: str
    started: int
    #: When its process was seen running, or None.
    running: int | None


class TaskStanding(Struct, frozen=True, kw_only=True):
    name: str
    index: int
    state: TaskState
    reason: str
    #: Of the attempt that comes next.
    attempt: int
    due: int | None
    started: int | None
    ended: int | None
    group: str
    slots: int
    priority: int
    #: Tasks that it waits for: some of them, and how many in all.
    ups: tuple[Upstream, ...]
    waits: int
    last: Tried | None


class Occupant(Struct, frozen=True):
    """A live attempt of any run: it takes slots of its session."""

    session: int
    run: str
    task: str
    attempt: int
    slots: int
    started: int


class Standing(Struct, frozen=True, kw_only=True):
    run: RunView
    tasks: tuple[TaskStanding, ...]
    tasks_left: int
    #: Live attempts of all runs, the oldest sessions first, at most MOST_LIVE.
    occupants: tuple[Occupant, ...]
    workflow_paused: bool
    #: Runs of its workflow that are active, the oldest first, at most MOST_RUNS; and how many.
    active: tuple[tuple[str, RunState], ...]
    active_count: int
    #: Runs of its workflow that are queued before it.
    queued_before: int
    #: When its own timeout passes.
    expires: int | None


def read_standing(db: Database, graphs: Graphs, view: RunView, task: str | None) -> Standing:
    graph = graphs.get(db, view.workflow, view.version)
    assert graph is not None
    tasks, left = _tasks(db, graph, view, task)
    paused = db.value("SELECT paused FROM workflow WHERE name = ?", (view.workflow,))
    active = db.query(
        "SELECT id, state FROM run WHERE workflow = ?"
        " AND state IN ('RUNNING', 'PAUSED', 'CANCELLING') ORDER BY seq LIMIT ?",
        (view.workflow, MOST_RUNS),
    )
    count = db.value(
        "SELECT count(*) FROM run WHERE workflow = ?"
        " AND state IN ('RUNNING', 'PAUSED', 'CANCELLING')",
        (view.workflow,),
    )
    queued = db.value(
        "SELECT count(*) FROM run WHERE workflow = ? AND state = 'QUEUED'"
        " AND (priority > ? OR (priority = ? AND seq < ?))",
        (view.workflow, view.priority, view.priority, view.seq),
    )
    expires = db.value("SELECT expires FROM run WHERE id = ?", (view.id,))
    return Standing(
        run=view, tasks=tasks, tasks_left=left, occupants=_occupants(db, graphs),
        workflow_paused=bool(paused),
        active=tuple((run, RunState(state)) for run, state in active), active_count=count,
        queued_before=queued if view.state == RunState.QUEUED else 0, expires=expires,
    )  # fmt: skip


_TASKS = """
SELECT idx, state, reason, attempt, due, started, ended, waits FROM task_run WHERE run = ?
"""
_FAILED = " AND state IN ('FAILED', 'TIMED_OUT') ORDER BY ended, idx LIMIT ?"
_UNFINISHED = """
 AND state IN ('RUNNING', 'RETRYING', 'READY', 'WAITING') ORDER BY CASE state WHEN 'RUNNING' THEN 0
 WHEN 'RETRYING' THEN 1 WHEN 'READY' THEN 2 ELSE 3 END, idx LIMIT ?
"""


def _tasks(
    db: Database, graph: Graph, view: RunView, task: str | None
) -> tuple[tuple[TaskStanding, ...], int]:
    if task is not None:
        rows = db.query(_TASKS + " AND idx = ?", (view.id, graph.index[task]))
        return tuple(_standing(db, graph, view, row) for row in rows), 0
    if view.state in FINAL_RUN:
        rows = db.query(_TASKS + _FAILED, (view.id, MOST_TASKS))
        return tuple(_standing(db, graph, view, row) for row in rows), 0
    rows = db.query(_TASKS + _UNFINISHED, (view.id, MOST_TASKS))
    unfinished = db.value(
        "SELECT count(*) FROM task_run WHERE run = ?"
        " AND state IN ('RUNNING', 'RETRYING', 'READY', 'WAITING')",
        (view.id,),
    )
    return tuple(_standing(db, graph, view, row) for row in rows), unfinished - len(rows)


def _standing(
    db: Database, graph: Graph, view: RunView, row: tuple[int, str, str, int, int, int, int, int]
) -> TaskStanding:
    index, state, reason, attempt, due, started, ended, waits = row
    task = graph.tasks[index]
    ups: list[Upstream] = []
    if state == TaskState.WAITING:
        for up in graph.ups[index]:
            up_state = db.value(
                "SELECT state FROM task_run WHERE run = ? AND idx = ?", (view.id, up)
            )
            if up_state != TaskState.SUCCEEDED:
                ups.append(Upstream(graph.tasks[up].name, TaskState(up_state)))
                if len(ups) == MOST_UPS:
                    break
    last = db.one(
        "SELECT a.attempt, a.state, a.session, a.n, s.name, a.started, a.running FROM attempt a"
        " JOIN session s ON s.id = a.session WHERE a.run = ? AND a.task = ? AND a.attempt = ?",
        (view.id, index, attempt),
    )
    return TaskStanding(
        name=task.name, index=index, state=TaskState(state), reason=reason, attempt=attempt + 1,
        due=due, started=started, ended=ended, group=task.group, slots=task.slots,
        priority=view.priority + task.priority, ups=tuple(ups), waits=waits,
        last=None if last is None else Tried(last[0], AttemptState(last[1]), *last[2:]),
    )  # fmt: skip


def _occupants(db: Database, graphs: Graphs) -> tuple[Occupant, ...]:
    found = []
    for session, run, index, attempt, slots, started, workflow, version in db.query(
        "SELECT a.session, a.run, a.task, a.attempt, a.slots, a.started, r.workflow, r.version"
        " FROM attempt a JOIN run r ON r.id = a.run"
        " WHERE a.ended IS NULL ORDER BY a.session, a.n LIMIT ?",
        (MOST_LIVE,),
    ):
        graph = graphs.get(db, workflow, version)
        assert graph is not None
        name = graph.tasks[index].name
        found.append(Occupant(session, run, name, attempt, slots, started))
    return tuple(found)
