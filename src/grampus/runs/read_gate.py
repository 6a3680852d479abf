"""Reads what stands between the runs of a workflow and their start: see `gate`."""

from __future__ import annotations

from grampus.database import Database
from grampus.runs.change import Graphs
from grampus.runs.gate import Gate, run_limit


def read_gate(db: Database, graphs: Graphs, workflow: str) -> Gate:
    """For a workflow that exists, deleted or not."""
    version, paused = db.one("SELECT version, paused FROM workflow WHERE name = ?", (workflow,))
    newest = graphs.get(db, workflow, version)
    assert newest is not None
    active = active_runs(db, workflow)
    oldest = ""
    if active:
        oldest = db.value(
            "SELECT id FROM run WHERE workflow = ?"
            " AND state IN ('RUNNING', 'PAUSED', 'CANCELLING') ORDER BY seq LIMIT 1",
            (workflow,),
        )
    return Gate(workflow, bool(paused), run_limit(newest), active, oldest)


def active_runs(db: Database, workflow: str) -> int:
    """Runs of the workflow that have begun and are not final."""
    count: int = db.value(
        "SELECT count(*) FROM run WHERE workflow = ?"
        " AND state IN ('RUNNING', 'PAUSED', 'CANCELLING')",
        (workflow,),
    )
    return count
