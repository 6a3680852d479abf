"""Reads of schedules and of what became of their ticks."""

from __future__ import annotations

from typing import Any

from grampus.database import Database
from grampus.runs.change import Graphs
from grampus.runs.views import ScheduleView, TickView

_SCHEDULE = """
SELECT s.workflow, s.version, s.paused, s.paused_by, w.paused, s.next_tick, s.since,
    (SELECT value FROM meta WHERE key = 'revision')
FROM schedule s JOIN workflow w ON w.name = s.workflow
"""
_TICK = "SELECT tick, last, count, outcome, run, reason, at FROM tick WHERE workflow = ?"


def schedule(db: Database, graphs: Graphs, workflow: str) -> ScheduleView | None:
    row = db.one(_SCHEDULE + "WHERE s.workflow = ?", (workflow,))
    return None if row is None else _view(db, graphs, row)


def schedules(db: Database, graphs: Graphs, limit: int, after: str) -> list[ScheduleView]:
    """By name, after `after`."""
    rows = db.query(_SCHEDULE + "WHERE s.workflow > ? ORDER BY s.workflow LIMIT ?", (after, limit))
    return [_view(db, graphs, row) for row in list(rows)]


def ticks(db: Database, workflow: str, limit: int, before: int | None) -> list[TickView]:
    """Newest first, those planned before `before`."""
    rows = db.query(
        _TICK + " AND tick < ? ORDER BY tick DESC LIMIT ?",
        (workflow, 2**62 if before is None else before, limit),
    )
    return [_tick(row) for row in rows]


def has_ticks_before(db: Database, before: int) -> bool:
    """Whether rows of ticks are older than that."""
    return db.one("SELECT 1 FROM tick WHERE at < ? LIMIT 1", (before,)) is not None


def _view(db: Database, graphs: Graphs, row: tuple[Any, ...]) -> ScheduleView:
    workflow, version, paused, paused_by, workflow_paused, next_tick, since, revision = row
    graph = graphs.get(db, workflow, version)
    assert graph is not None
    assert graph.workflow.schedule is not None
    newest = ticks(db, workflow, 1, None)
    return ScheduleView(
        workflow=workflow, version=version, schedule=graph.workflow.schedule,
        params=graph.workflow.params, paused=bool(paused), paused_by=paused_by,
        workflow_paused=bool(workflow_paused), next_tick=next_tick, since=since,
        last=newest[0] if newest else None, revision=revision,
    )  # fmt: skip


def _tick(row: tuple[Any, ...]) -> TickView:
    return TickView(
        tick=row[0], last=row[1], count=row[2], outcome=row[3], run=row[4], reason=row[5],
        at=row[6],
    )  # fmt: skip
