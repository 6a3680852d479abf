"""No hot query reads a whole table: every statement that a busy node sends is planned by an index.

The statements are not listed here: they are caught while a ledger is put through its paces.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from grampus.database import Database
from grampus.master.loading import Loading
from grampus.model.run import AttemptState
from grampus.model.workflow import Retry, Shell, Task, Workflow
from grampus.runs.change import Graphs
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    DeleteRun,
    EndSession,
    Retain,
    SubmitRun,
    pack_definition,
)
from tests.world import World

#: Few rows, whatever a node has done.
SMALL = ("meta", "workflow", "session", "schedule")
#: Read once in a while, by a thread of its own: every run is counted for `/metrics`.
RARE = ("SELECT state, count(*) FROM run GROUP BY state ORDER BY state",)
#: Through an index from its end, and cut off by LIMIT.
ORDERED = ("run_by_seq", "run_by_end")


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Database, list[str]]]:
    world = World(slots=2)
    db, seen = world.ledger.database, dict[str, None]()

    def note(cursor: apsw.Cursor, sql: str, values: object) -> bool:
        seen[sql] = None
        return True

    db._connection.exec_trace = note  # type: ignore[assignment]
    play(world)
    ask(world)
    db._connection.exec_trace = None
    yield db, [sql for sql in seen if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")]
    world.ledger.close()


def play(world: World) -> None:
    tasks = (Task("a", Shell("x"), retry=Retry(1)), Task("b", Shell("x"), after=("a",)))
    flow = Workflow("w", (*tasks, Task("c", Shell("x"))), on_failure="stop", max_active_runs=2)
    world.propose(ApplyWorkflow(1, "w", pack_definition(flow.content())))
    for number in range(6):
        run = f"run{number}"
        world.propose(SubmitRun(world.now, run, "w", 1, b"{}", "r", 0, world.now))
    ends = [AttemptState.SUCCEEDED] * 3 + [AttemptState.FAILED] * 6
    for state in [*ends, AttemptState.LOST, AttemptState.TIMED_OUT]:
        world.turn()
        session, n = next(iter(world.attempts))
        world.report(session, n, state)
        world.now += 60_000
    world.propose(CancelRun(world.now, "run5", "me"), EndSession(world.now, world.session, "x"))
    for number in range(5):
        world.propose(CancelRun(world.now, f"run{number}", "me"))
    world.propose(DeleteRun(world.now, "run5"), Retain(world.now, 2_000, 10))


def ask(world: World) -> None:
    queries = world.queries()
    queries.workflows(50)
    queries.workflow("w")
    for workflow in (None, "w"):
        for state in (None, "FAILED"):
            queries.runs(workflow, state, 50, None)
    for run in (*queries.resolve_run("run"), *queries.resolve_run("last")):
        queries.run(run)
        queries.tasks(run)
        queries.output(run, "a")
        queries.events(run, 0, 100)
        queries.run_inputs(run)
    queries.workers()
    queries.counts()
    queries.referenced_blobs(["0" * 64])
    loading = Loading(world.ledger.database, Graphs())
    loading.run("run1")


def test_every_statement_is_planned_by_an_index(world: tuple[Database, list[str]]) -> None:
    db, statements = world
    assert len(statements) > 40
    wrong = []
    for sql in statements:
        for *_, step in db.query("EXPLAIN QUERY PLAN " + sql, (0,) * sql.count("?")):
            words = step.split()
            scanned = words[1] if words[0] == "SCAN" else ""
            ordered = " LIMIT " in sql and any(index in words for index in ORDERED)
            if scanned and not ordered and scanned not in SMALL and sql not in RARE:
                wrong.append((sql, step))
            if step == "USE TEMP B-TREE FOR ORDER BY" and "FROM run" in " ".join(sql.split()):
                wrong.append((sql, step))
    assert not wrong, wrong


def test_the_runs_of_one_workflow_are_found_without_those_of_others(
    world: tuple[Database, list[str]],
) -> None:
    db, statements = world
    listed = [s for s in statements if "workflow = ?" in s and "ORDER BY seq DESC" in s]
    assert len(listed) == 2
    for sql in listed:
        plan = db.query("EXPLAIN QUERY PLAN " + sql, (0,) * sql.count("?"))
        assert "SEARCH run USING INDEX run_by_workflow" in plan[0][3], (sql, plan)
