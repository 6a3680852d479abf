"""Reads where a run stands.

Rule: one consistent, bounded picture, read within one transaction. Tasks that are named are at most
MOST_TASKS, what lives first; `tasks_left` counts the others that are not final. Of a run that is
over, those are named that failed.
"""

from __future__ import annotations

from grampus.database import Database
from grampus.model.run import FINAL_RUN, AttemptState, RunState, TaskState
from grampus.runs.change import Graphs
from grampus.runs.graph import Graph
from grampus.runs.read_gate import read_gate
from grampus.runs.standing import Occupant, Standing, TaskStanding, Tried, Upstream
from grampus.runs.views import RunView

MOST_TASKS = 50
MOST_UPS = 20
MOST_LIVE = 200
MOST_RUNS = 10


def read_standing(db: Database, graphs: Graphs, view: RunView, task: str | None) -> Standing:
    graph = graphs.get(db, view.workflow, view.version)
    assert graph is not None
    tasks, left = _tasks(db, graph, view, task)
    active = db.query(
        "SELECT id, state FROM run WHERE workflow = ?"
        " AND state IN ('RUNNING', 'PAUSED', 'CANCELLING') ORDER BY seq LIMIT ?",
        (view.workflow, MOST_RUNS),
    )
    queued = db.value(
        "SELECT count(*) FROM run WHERE workflow = ? AND state = 'QUEUED'"
        " AND (priority > ? OR (priority = ? AND seq < ?))",
        (view.workflow, view.priority, view.priority, view.seq),
    )
    expires, alone = db.one("SELECT expires, alone FROM run WHERE id = ?", (view.id,))
    return Standing(
        run=view, tasks=tasks, tasks_left=left, occupants=_occupants(db, graphs),
        gate=read_gate(db, graphs, view.workflow), alone=bool(alone),
        active=tuple((run, RunState(state)) for run, state in active),
        queued_before=queued if view.state == RunState.QUEUED else 0, expires=expires,
        ending=_ending(db, view),
    )  # fmt: skip


def _ending(db: Database, view: RunView) -> int | None:
    if view.state != RunState.CANCELLING:
        return None
    found: int | None = db.value(
        "SELECT at FROM event WHERE run = ? AND kind = 'run.cancelling'"
        " ORDER BY revision DESC LIMIT 1",
        (view.id,),
    )
    return found


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
        priority=view.priority + task.priority, timeout=task.timeout, grace=task.grace,
        lease=task.lease, ups=tuple(ups), waits=waits,
        last=None if last is None else Tried(last[0], AttemptState(last[1]), *last[2:]),
    )  # fmt: skip


def _occupants(db: Database, graphs: Graphs) -> tuple[Occupant, ...]:
    found = []
    for session, n, run, index, attempt, slots, started, workflow, version in db.query(
        "SELECT a.session, a.n, a.run, a.task, a.attempt, a.slots, a.started, r.workflow, r.version"
        " FROM attempt a JOIN run r ON r.id = a.run"
        " WHERE a.ended IS NULL ORDER BY a.session, a.n LIMIT ?",
        (MOST_LIVE,),
    ):
        graph = graphs.get(db, workflow, version)
        assert graph is not None
        name = graph.tasks[index].name
        found.append(Occupant(session, n, run, name, attempt, slots, started))
    return tuple(found)
