"""What stands between the runs of a workflow and their start, as it is now.

A run is told at its submission why it is QUEUED, and its story keeps that; by the time somebody
asks, the workflow may go on, have another limit, or be busy with other runs. So whoever shows a
queued run tells what `promote` would see, never what was written down.
"""

from __future__ import annotations

from typing import NamedTuple

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


def run_limit(graph: Graph) -> int | None:
    """How many runs may be active at once; `overlap: allow` lifts the limit."""
    workflow = graph.workflow
    return None if workflow.overlap == "allow" else workflow.max_active_runs
