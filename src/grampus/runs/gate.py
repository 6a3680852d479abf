"""What stands between the runs of a workflow and their start, as it is now.

A run is told at its submission why it is QUEUED, and its story keeps that; by the time somebody
asks, the workflow may go on, have another limit, or be busy with other runs. So whoever shows a
queued run tells what `promote` would see, never what was written down.
"""

from __future__ import annotations

from typing import NamedTuple

from grampus.database import Database
from grampus.runs.change import Graphs
from grampus.runs.graph import Graph


class Gate(NamedTuple):
    workflow: str
    paused: bool
    #: How many runs may be active at once, by the newest version; None: any number.
    limit: int | None
    #: Runs that have begun and are not final: how many, and the oldest of them, or "".
    active: int
    oldest: str

    def why(self, alone: bool) -> str:
        """Why a queued run has not begun; `alone`: it begins only when no other is active."""
        if self.paused:
            return f"workflow {self.workflow} is paused"
        if alone and self.active:
            return f"overlap: waits for run {self.oldest}"
        if self.limit is not None and self.active >= self.limit:
            return f"max_active_runs: {self.active} of {self.limit} active"
        return "others of its workflow begin before it"


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


def run_limit(graph: Graph) -> int | None:
    """How many runs may be active at once; `overlap: allow` lifts the limit."""
    workflow = graph.workflow
    return None if workflow.overlap == "allow" else workflow.max_active_runs
