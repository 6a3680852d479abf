"""Reads of the run store: rows to views. Every answer is bounded by a limit that the caller
gives."""

from __future__ import annotations

from typing import Any

import msgspec

from grampus.database import Database
from grampus.model.run import AttemptState, RunState, TaskState, Value
from grampus.runs import schedule_queries
from grampus.runs.change import Graphs
from grampus.runs.gate import Gate
from grampus.runs.graph import Graph
from grampus.runs.read_gate import read_gate
from grampus.runs.read_standing import read_standing
from grampus.runs.read_story import read_story
from grampus.runs.standing import Standing
from grampus.runs.story import StoryPage
from grampus.runs.views import (
    AttemptView,
    EventView,
    OutputView,
    RunView,
    ScheduleView,
    TaskView,
    TickView,
    WorkerView,
    WorkflowView,
)

_WORKFLOW = """
SELECT w.name, v.version, w.paused, v.applied_at,
    (SELECT count(*) FROM run r WHERE r.workflow = w.name
        AND r.state IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING'))
FROM workflow w JOIN workflow_version v ON v.name = w.name
"""
_RUN = """
SELECT id, seq, workflow, version, state, reason, params, priority, tick, created, started, ended,
    tasks, alone FROM run
"""
_ATTEMPT = """
SELECT a.task, a.attempt,
    CASE WHEN a.ended IS NULL AND s.silent IS NOT NULL THEN 'UNREACHABLE' ELSE a.state END,
    a.session, a.n, s.name, a.started, a.running, a.ended, a.exit,
    a.error, a.stdout, a.stderr, a.lease, CASE WHEN a.ended IS NULL THEN s.silent END
    FROM attempt a JOIN session s ON s.id = a.session
"""


class Queries:
    """Over one read-only connection; not for use by two threads at once."""

    def __init__(self, db: Database, graphs: Graphs) -> None:
        self._db = db
        self._graphs = graphs

    def workflow(self, name: str, version: int | None = None) -> WorkflowView | None:
        """The newest version, or that one. None for a deleted workflow, unless `version` is
        given."""
        if version is None:
            where, args = "WHERE w.name = ? AND w.deleted = 0 AND v.version = w.version", (name,)
        else:
            where, args = "WHERE w.name = ? AND v.version = ?", (name, version)  # type: ignore[assignment]
        row = self._db.one(_WORKFLOW + where, args)
        return None if row is None else self._workflow_view(row)

    def workflows(self, limit: int, after: str = "") -> list[WorkflowView]:
        """By name, after `after`."""
        rows = self._db.query(
            _WORKFLOW + "WHERE w.deleted = 0 AND v.version = w.version AND w.name > ?"
            " ORDER BY w.name LIMIT ?",
            (after, limit),
        )
        return [self._workflow_view(row) for row in rows]

    def _workflow_view(self, row: tuple[Any, ...]) -> WorkflowView:
        name, version, paused, applied_at, active = row
        graph = self._graphs.get(self._db, name, version)
        assert graph is not None
        return WorkflowView(
            name=name, version=version, paused=bool(paused), applied_at=applied_at,
            definition=graph.workflow, active_runs=active,
        )  # fmt: skip

    def run(self, run: str) -> RunView | None:
        row = self._db.one(_RUN + "WHERE id = ?", (run,))
        return None if row is None else self._run_view(row, {})

    def resolve_run(self, text: str) -> list[str]:
        """Ids that `text` may mean: `last`, a whole id or a prefix; at most two."""
        if text == "last":
            rows = self._db.query("SELECT id FROM run ORDER BY seq DESC LIMIT 1")
        else:
            rows = self._db.query(
                "SELECT id FROM run WHERE id >= ? AND id < ? ORDER BY id LIMIT 2",
                (text, text + "\x7f"),
            )
        return [row[0] for row in rows]

    def runs(
        self, workflow: str | None, state: str | None, limit: int, before_seq: int | None
    ) -> list[RunView]:
        """Newest first, older than `before_seq`."""
        where, args = ["seq < ?"], [before_seq if before_seq is not None else 2**62]
        for column, wanted in (("workflow", workflow), ("state", state)):
            if wanted is not None:
                where.append(f"{column} = ?")
                args.append(wanted)  # type: ignore[arg-type]
        rows = self._db.query(
            f"{_RUN} WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?", (*args, limit)
        )
        gates: dict[str, Gate] = {}
        return [self._run_view(row, gates) for row in rows]

    def _run_view(self, row: tuple[Any, ...], gates: dict[str, Gate]) -> RunView:
        """`gates` of workflows that are read already."""
        workflow, state, reason = row[2], RunState(row[4]), row[5]
        if state == RunState.QUEUED:
            if workflow not in gates:
                gates[workflow] = read_gate(self._db, self._graphs, workflow)
            reason = gates[workflow].why(bool(row[13]))
        counts = self._db.query(
            "SELECT state, count(*) FROM task_run WHERE run = ? GROUP BY state ORDER BY state",
            (row[0],),
        )
        return RunView(
            id=row[0], seq=row[1], workflow=workflow, version=row[3], state=state,
            reason=reason, params=msgspec.json.decode(row[6]), priority=row[7], tick=row[8],
            created=row[9], started=row[10], ended=row[11], tasks=row[12], counts=dict(counts),
        )  # fmt: skip

    def tasks(self, run: str) -> list[TaskView]:
        """All tasks of the run in declaration order, with all their attempts."""
        graph = self._graph_of(run)
        return [] if graph is None else self._tasks(run, graph, "", ())

    def task(self, run: str, task: str) -> TaskView | None:
        graph = self._graph_of(run)
        index = None if graph is None else graph.index.get(task)
        if graph is None or index is None:
            return None
        return self._tasks(run, graph, "= ?", (index,))[0]

    def _graph_of(self, run: str) -> Graph | None:
        found = self._db.one("SELECT workflow, version FROM run WHERE id = ?", (run,))
        return None if found is None else self._graphs.get(self._db, *found)

    def _tasks(self, run: str, graph: Graph, which: str, args: tuple[int, ...]) -> list[TaskView]:
        """Those whose index fits `which`, a condition in SQL; all when it is empty."""

        def only(column: str) -> str:
            return f" AND {column} {which}" if which else ""

        attempts: dict[int, list[AttemptView]] = {}
        for row in self._db.query(
            f"{_ATTEMPT} WHERE a.run = ?{only('a.task')} ORDER BY a.task, a.attempt", (run, *args)
        ):
            name = graph.tasks[row[0]].name
            attempts.setdefault(row[0], []).append(_attempt_view(name, row))
        outputs = {
            index
            for (index,) in self._db.query(
                f"SELECT task FROM output WHERE run = ?{only('task')}", (run, *args)
            )
        }
        rows = self._db.query(
            "SELECT idx, state, reason, due, started, ended, failures FROM task_run"
            f" WHERE run = ?{only('idx')} ORDER BY idx",
            (run, *args),
        )
        return [
            TaskView(
                name=graph.tasks[index].name, index=index,
                kind=graph.tasks[index].action.__struct_config__.tag,
                after=graph.tasks[index].after, state=TaskState(state), reason=reason, due=due,
                started=started, ended=ended,
                max_attempts=graph.tasks[index].retry.max + 1,
                tries=failures + (state in (TaskState.RUNNING, TaskState.SUCCEEDED)),
                attempts=tuple(attempts.get(index, ())), output=index in outputs,
            )
            for index, state, reason, due, started, ended, failures in rows
        ]  # fmt: skip

    def output(self, run: str, task: str) -> OutputView | None:
        """None when there is no such run or no such task in it."""
        found = self._db.one("SELECT workflow, version FROM run WHERE id = ?", (run,))
        graph = None if found is None else self._graphs.get(self._db, *found)
        index = None if graph is None else graph.index.get(task)
        if index is None:
            return None
        state = self._db.value("SELECT state FROM task_run WHERE run = ? AND idx = ?", (run, index))
        value = self.value(run, index)
        return OutputView(task=task, state=TaskState(state), value=value)

    def graph(self, workflow: str, version: int) -> Graph | None:
        return self._graphs.get(self._db, workflow, version)

    def run_inputs(self, run: str) -> tuple[str, int, bytes, int] | None:
        """Workflow, version, params as JSON, tick."""
        row = self._db.one("SELECT workflow, version, params, tick FROM run WHERE id = ?", (run,))
        return None if row is None else (row[0], row[1], bytes(row[2]), row[3])

    def value(self, run: str, index: int) -> Value | None:
        row = self._db.one(
            "SELECT encoding, data, blob, size FROM output WHERE run = ? AND task = ?",
            (run, index),
        )
        return None if row is None else Value(*row)

    def events(self, run: str, after: int, limit: int) -> list[EventView]:
        rows = self._db.query(
            "SELECT revision, at, kind, data FROM event WHERE run = ? AND revision > ?"
            " ORDER BY revision LIMIT ?",
            (run, after, limit),
        )
        return [EventView(revision=r[0], at=r[1], kind=r[2], data=bytes(r[3])) for r in rows]

    def story(
        self, run: str, task: str | None, after: tuple[int, int] | None, limit: int
    ) -> StoryPage | None:
        """None when there is no such run, or no such task in it."""
        graph = self._graph_of(run)
        if graph is None or (task is not None and task not in graph.index):
            return None
        return read_story(self._db, graph, run, task, after, limit)

    def standing(self, run: str, task: str | None) -> Standing | None:
        """What an explanation needs; None when there is no such run, or no such task in it."""
        with self._db.transaction():
            view, graph = self.run(run), self._graph_of(run)
            if view is None or graph is None or (task is not None and task not in graph.index):
                return None
            return read_standing(self._db, self._graphs, view, task)

    def session_name(self, session: int) -> str | None:
        """The worker whose session that is or was."""
        name: str | None = self._db.value("SELECT name FROM session WHERE id = ?", (session,))
        return name

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Runs by state, and task runs of unfinished runs by state."""
        runs = self._db.query("SELECT state, count(*) FROM run GROUP BY state ORDER BY state")
        tasks = self._db.query(
            "SELECT t.state, count(*) FROM run r JOIN task_run t ON t.run = r.id"
            " WHERE r.state IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')"
            " GROUP BY t.state ORDER BY t.state"
        )
        return dict(runs), dict(tasks)

    def schedule(self, workflow: str) -> ScheduleView | None:
        return schedule_queries.schedule(self._db, self._graphs, workflow)

    def schedules(self, limit: int, after: str = "") -> list[ScheduleView]:
        return schedule_queries.schedules(self._db, self._graphs, limit, after)

    def ticks(self, workflow: str, limit: int, before: int | None = None) -> list[TickView]:
        return schedule_queries.ticks(self._db, workflow, limit, before)

    def has_ticks_before(self, before: int) -> bool:
        return schedule_queries.has_ticks_before(self._db, before)

    def referenced_blobs(self, hashes: list[str]) -> list[str]:
        """Those of `hashes` that an output names, or a version that can run or has runs."""
        marks = ", ".join("?" * len(hashes))
        rows = self._db.query(
            f"SELECT blob FROM output WHERE blob IN ({marks})"
            " UNION SELECT v.bundle FROM workflow_version v JOIN workflow w ON w.name = v.name"
            f" WHERE v.bundle IN ({marks}) AND (w.deleted = 0 OR EXISTS"
            " (SELECT 1 FROM run r WHERE r.workflow = v.name AND r.version = v.version))",
            (*hashes, *hashes),
        )
        return [row[0] for row in rows]

    def named_blobs(self, after: str, limit: int) -> list[str]:
        """All that `referenced_blobs` knows, a page at a time, in order."""
        rows = self._db.query(
            "SELECT blob FROM output WHERE blob > ?"
            " UNION SELECT v.bundle FROM workflow_version v JOIN workflow w ON w.name = v.name"
            " WHERE v.bundle > ? AND (w.deleted = 0 OR EXISTS"
            " (SELECT 1 FROM run r WHERE r.workflow = v.name AND r.version = v.version))"
            " ORDER BY 1 LIMIT ?",
            (after, after, limit),
        )
        return [row[0] for row in rows]

    def newest_time(self) -> int | None:
        """Wall time of about the newest change; None in an empty ledger."""
        times = [
            self._db.value("SELECT at FROM event WHERE run = '' ORDER BY revision DESC LIMIT 1"),
            self._db.value(
                "SELECT max(created, coalesce(started, 0), coalesce(ended, 0)) FROM run"
                " ORDER BY seq DESC LIMIT 1"
            ),
        ]
        return max((time for time in times if time is not None), default=None)

    def first_run_since(self, since: int, now: int) -> int | None:
        """`seq` of the first run that was made from `since` on, and not in the future."""
        found: int | None = self._db.value(
            "SELECT seq FROM run WHERE created BETWEEN ? AND ? ORDER BY seq LIMIT 1", (since, now)
        )
        return found

    def sizes_of_old_runs(self, before: int, below: int | None, limit: int, most: int) -> list[int]:
        """How many events and task runs each has, in the order in which `Retain` deletes them.
        Of either kind not more than `most` are counted."""
        rows = self._db.query(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM event e WHERE e.run = r.id LIMIT ?1))"
            " + (SELECT count(*) FROM (SELECT 1 FROM task_run t WHERE t.run = r.id LIMIT ?1))"
            " FROM run r WHERE r.ended < ?2 AND r.seq < coalesce(?3, 1 << 62)"
            " ORDER BY r.ended, r.id LIMIT ?4",
            (most, before, below, limit),
        )
        return [size for (size,) in rows]

    def workers(self) -> list[WorkerView]:
        """The newest session of each name."""
        rows = self._db.query(
            "SELECT id, name, grp, slots, min(busy, slots), ended, opened, silent, draining"
            " FROM session WHERE id IN"
            " (SELECT max(id) FROM session GROUP BY name) ORDER BY name LIMIT 10000"
        )
        return [
            WorkerView(
                session=row[0], name=row[1], group=row[2], slots=row[3], busy=row[4],
                state="LIVE" if row[5] is None else "ENDED",
                since=row[6] if row[5] is None else row[5], silent=row[7],
                draining=bool(row[8]),
            )
            for row in rows
        ]  # fmt: skip


def _attempt_view(name: str, row: tuple[Any, ...]) -> AttemptView:
    return AttemptView(
        task=name, attempt=row[1], state=AttemptState(row[2]), session=row[3], n=row[4],
        worker=row[5], started=row[6], running=row[7], ended=row[8], exit=row[9], error=row[10],
        stdout=row[11], stderr=row[12], lease=row[13], unreachable=row[14],
    )  # fmt: skip
