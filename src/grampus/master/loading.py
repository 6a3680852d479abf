"""The ledger as the scheduler needs it: once at taking office, and one run after a refusal."""

from __future__ import annotations

from grampus.database import Database
from grampus.master.core.events import LiveAttempt, Loaded, ReadyTask, RunLoaded, Seat
from grampus.runs.change import Graphs
from grampus.runs.graph import longest_delay

_READY = """
SELECT t.run, t.idx, t.attempt + 1, t.due, t.state = 'RETRYING', r.workflow, r.version,
    r.priority
FROM run r JOIN task_run t ON t.run = r.id
WHERE r.state = 'RUNNING' AND t.state IN ('READY', 'RETRYING')
"""


class Loading:
    """Over one read-only connection."""

    def __init__(self, db: Database, graphs: Graphs) -> None:
        self._db = db
        self._graphs = graphs

    def everything(self) -> Loaded:
        """One consistent state."""
        db = self._db
        with db.transaction():
            return Loaded(
                revision=db.value("SELECT value FROM meta WHERE key = 'revision'"),
                seats=tuple(
                    Seat(*row)
                    for row in db.query(
                        "SELECT id, name, grp, slots, next_n, registered, silent IS NOT NULL,"
                        " draining FROM session WHERE ended IS NULL ORDER BY id"
                    )
                ),
                ready=self._ready(" ORDER BY r.seq, t.idx"),
                live=tuple(
                    LiveAttempt(*row)
                    for row in db.query(
                        "SELECT session, n, run, task, attempt, slots, token, lease FROM attempt"
                        " WHERE ended IS NULL ORDER BY session, n"
                    )
                ),
                cancelling=tuple(
                    row[0]
                    for row in db.query(
                        "SELECT id FROM run WHERE state = 'CANCELLING' ORDER BY seq"
                    )
                ),
                paused=tuple(
                    row[0]
                    for row in db.query("SELECT id FROM run WHERE state = 'PAUSED' ORDER BY seq")
                ),
                expires=tuple(
                    (run, expires)
                    for run, expires in db.query(
                        "SELECT id, expires FROM run WHERE state IN ('RUNNING', 'PAUSED')"
                        " AND expires IS NOT NULL ORDER BY seq"
                    )
                ),
            )

    def run(self, run: str) -> RunLoaded:
        return RunLoaded(run, self._ready(" AND r.id = ? ORDER BY t.idx", run))

    def _ready(self, tail: str, *args: str) -> tuple[ReadyTask, ...]:
        ready = []
        for run, index, attempt, due, retrying, workflow, version, priority in self._db.query(
            _READY + tail, args
        ):
            graph = self._graphs.get(self._db, workflow, version)
            assert graph is not None
            task = graph.tasks[index]
            ready.append(
                ReadyTask(
                    run,
                    index,
                    attempt,
                    due,
                    task.group,
                    task.slots,
                    priority + task.priority,
                    bool(retrying),
                    longest_delay(task.retry),
                )
            )
        return tuple(ready)
