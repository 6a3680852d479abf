"""Schedules: planning a version, what becomes of each planned tick, pausing.

Rule: a planned tick leaves `next_tick` only together with its row in `tick`, and what has a row is
never fired again. No time zone is known here: ticks come from the proposer, and are compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from grampus.model.run import RunState
from grampus.runs.apply_runs import admit, cancel_run
from grampus.runs.change import Change
from grampus.runs.commands import (
    CancelRun,
    FireTick,
    PauseSchedule,
    PlanSchedule,
    Refusal,
    SkipTicks,
    SubmitRun,
)
from grampus.runs.events import SchedulePlanned, TickDone
from grampus.runs.graph import Graph
from grampus.runs.progress import queue_reason

#: Runs of a workflow that wait for one another, and active ones that one tick cancels.
QUEUE_LIMIT = 1_000
CANCEL_LIMIT = 100


class Outcome(NamedTuple):
    #: As in `TickDone`.
    kind: str
    reason: str = ""
    run: str = ""


class _Row(NamedTuple):
    version: int
    paused: bool
    paused_by: str
    next_tick: int | None
    since: int | None


def renew_schedule(change: Change, at: int, workflow: str, version: int) -> None:
    """A version with a schedule is the newest now: it is to be planned. Paused stays paused.

    A tick of the version before that was due and not looked at yet is not lost: the new version
    plans from there. What is told of ticks already stays: whoever applies may be late, or his clock
    behind."""
    row = _read(change, workflow)
    since = at
    if row is not None and row.since is not None:
        since = min(at, row.since)
    elif row is not None and row.next_tick is not None:
        since = min(at, row.next_tick - 1)
    told = change.db.value(
        "SELECT last FROM tick WHERE workflow = ? ORDER BY tick DESC LIMIT 1", (workflow,)
    )
    since = since if told is None else max(since, told)
    change.db.execute(
        "INSERT INTO schedule (workflow, version, paused, paused_by, next_tick, since)"
        " VALUES (?, ?, 0, '', NULL, ?) ON CONFLICT (workflow) DO UPDATE SET"
        " version = excluded.version, next_tick = NULL, since = excluded.since",
        (workflow, version, since),
    )


def remove_schedule(change: Change, workflow: str) -> None:
    """What became of its ticks stays."""
    change.db.execute("DELETE FROM schedule WHERE workflow = ?", (workflow,))


def plan_schedule(change: Change, command: PlanSchedule) -> str | Refusal:
    row = _find(change, command)
    if isinstance(row, Refusal):
        return row
    if row.since is None:
        return Refusal("conflict", f"version {row.version} of {command.workflow} is planned")
    _advance(change, command, row)
    return "planned"


def fire_tick(change: Change, command: FireTick) -> str | Refusal:
    row = _find(change, command)
    if isinstance(row, Refusal):
        return row
    wrong = _not_next(command.workflow, row, command.tick, command.tick, command.next_tick)
    if wrong or row.paused:
        return Refusal("conflict", wrong or f"the schedule of {command.workflow} is paused")
    if _is_done(change, command.workflow, command.tick):
        outcome = Outcome("known")
    else:
        outcome = _fire(change, command)
        _record(change, command, command.tick, command.tick, 1, outcome)
    _advance(change, command, row)
    return outcome.kind


def skip_ticks(change: Change, command: SkipTicks) -> str | Refusal:
    row = _find(change, command)
    if isinstance(row, Refusal):
        return row
    wrong = _not_next(command.workflow, row, command.first, command.last, command.next_tick)
    if not wrong and row.paused != (command.reason == "paused"):
        wrong = f"the schedule of {command.workflow} is {'' if row.paused else 'not '}paused"
    if wrong or command.count < 1:
        return Refusal("conflict", wrong or "no tick is left out")
    if not _is_done(change, command.workflow, command.first):
        reason = f"schedule paused by {row.paused_by}"
        if not row.paused:
            schedule = change.graph(command.workflow, row.version).workflow.schedule
            assert schedule is not None
            reason = f"too late, and missed is {schedule.missed}"
        outcome = Outcome(command.reason, reason)
        _record(change, command, command.first, command.last, command.count, outcome)
    _advance(change, command, row)
    return command.reason


def pause_schedule(change: Change, command: PauseSchedule) -> str | Refusal:
    row = _read(change, command.workflow)
    if row is None:
        return Refusal("not-found", f"there is no schedule of {command.workflow}")
    if row.paused == command.paused:
        return _word(command.paused)
    next_tick, since = row.next_tick, row.since
    if not command.paused and next_tick is not None and next_tick > command.at:
        # Planned anew: should the clock have been wrong, it is no longer.
        next_tick, since = None, command.at
        _take_back(change, command.workflow, command.at)
    change.db.execute(
        "UPDATE schedule SET paused = ?, paused_by = ?, next_tick = ?, since = ?"
        " WHERE workflow = ?",
        (
            int(command.paused), command.by if command.paused else "", next_tick, since,
            command.workflow,
        ),
    )  # fmt: skip
    change.emit(
        SchedulePlanned, at=command.at, keep=False, workflow=command.workflow,
        version=row.version, next_tick=next_tick, paused=command.paused,
    )  # fmt: skip
    return _word(command.paused)


def _take_back(change: Change, workflow: str, at: int) -> None:
    """Ticks later than `at` that were left out are to come; those that made a run are not."""
    db = change.db
    db.execute("DELETE FROM tick WHERE workflow = ? AND tick > ? AND run = ''", (workflow, at))
    db.execute("UPDATE tick SET last = ? WHERE workflow = ? AND last > ? AND run = ''",
               (at, workflow, at))  # fmt: skip


def _word(paused: bool) -> str:
    return "paused" if paused else "active"


# -- guards ------------------------------------------------------------------------------------


def _find(change: Change, command: PlanSchedule | FireTick | SkipTicks) -> _Row | Refusal:
    """The schedule, when the leader and the version are those of the command."""
    if change.db.value("SELECT value FROM meta WHERE key = 'epoch'") != command.epoch:
        return Refusal("stale-epoch", f"epoch {command.epoch} is over")
    row = _read(change, command.workflow)
    if row is None:
        return Refusal("not-found", f"there is no schedule of {command.workflow}")
    if row.version != command.version:
        return Refusal("conflict", f"{command.workflow} is at version {row.version}")
    return row


def _read(change: Change, workflow: str) -> _Row | None:
    row = change.db.one(
        "SELECT version, paused, paused_by, next_tick, since FROM schedule WHERE workflow = ?",
        (workflow,),
    )
    return None if row is None else _Row(row[0], bool(row[1]), row[2], row[3], row[4])


def _not_next(workflow: str, row: _Row, first: int, last: int, next_tick: int | None) -> str:
    """Why `first` to `last` are not the ticks to be decided now; "" when they are."""
    if row.since is not None or row.next_tick != first:
        return f"the next tick of {workflow} is another"
    if last < first or (next_tick is not None and next_tick <= last):
        return "ticks go up"
    return ""


def _is_done(change: Change, workflow: str, tick: int) -> bool:
    """Whether a row tells what became of that tick: the clock was here before."""
    last = change.db.value(
        "SELECT last FROM tick WHERE workflow = ? AND tick <= ? ORDER BY tick DESC LIMIT 1",
        (workflow, tick),
    )
    return last is not None and last >= tick


# -- what happens ------------------------------------------------------------------------------


def _advance(change: Change, command: PlanSchedule | FireTick | SkipTicks, row: _Row) -> None:
    change.db.execute(
        "UPDATE schedule SET next_tick = ?, since = NULL WHERE workflow = ?",
        (command.next_tick, command.workflow),
    )
    change.emit(
        SchedulePlanned, at=command.at, keep=False, workflow=command.workflow,
        version=row.version, next_tick=command.next_tick, paused=row.paused,
    )  # fmt: skip


def _record(
    change: Change,
    command: FireTick | SkipTicks,
    first: int,
    last: int,
    count: int,
    outcome: Outcome,
) -> None:
    """One row; paused ticks that follow one another are one row together."""
    db, workflow = change.db, command.workflow
    before: Any = db.one(
        "SELECT tick, outcome, reason FROM tick WHERE workflow = ? AND tick < ?"
        " ORDER BY tick DESC LIMIT 1",
        (workflow, first),
    )
    if outcome.kind == "paused" and before is not None and before[1:] == outcome[:2]:
        db.execute(
            "UPDATE tick SET last = ?, count = count + ?, at = ? WHERE workflow = ? AND tick = ?",
            (last, count, command.at, workflow, before[0]),
        )
    else:
        db.execute(
            "INSERT INTO tick (workflow, tick, last, count, outcome, run, reason, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                workflow, first, last, count, outcome.kind, outcome.run, outcome.reason, command.at,
            ),
        )  # fmt: skip
    change.emit(
        TickDone, at=command.at, keep=False, workflow=workflow, first=first, last=last,
        count=count, outcome=outcome.kind, made=outcome.run, reason=outcome.reason,
    )  # fmt: skip


def _fire(change: Change, command: FireTick) -> Outcome:
    """Makes the run of the tick, or says why there is none."""
    workflow = command.workflow
    if change.db.value("SELECT paused FROM workflow WHERE name = ?", (workflow,)):
        return Outcome("paused", f"workflow {workflow} is paused")
    if command.params is None:
        return Outcome("failed", command.reason)
    request = f"schedule:{workflow}:{command.tick}"
    known = change.db.one("SELECT request FROM run WHERE id = ?", (command.run,))
    if known is not None:
        if known[0] != request:
            return Outcome("failed", f"run {command.run} exists, and was made by another request")
        return Outcome("run", "", command.run)
    graph = change.graph(workflow, command.version)
    refusal = _make_room(change, command, graph)
    if refusal:
        return Outcome("skipped", refusal)
    waiting = queue_reason(change, workflow)
    if waiting.refusal and _overlap(graph) == "allow":
        return Outcome("skipped", waiting.refusal)
    alone = _overlap(graph) in ("queue", "cancel_old")
    reason = waiting.reason
    if alone and not reason and (run := _busy(change, workflow)):
        reason = f"overlap: waits for run {run[0]}"
    admit(
        change,
        SubmitRun(
            command.at, command.run, workflow, command.version, command.params, request, 0,
            command.tick,
        ),
        graph, reason, planned=True, alone=alone,
    )  # fmt: skip
    return Outcome("run", reason, command.run)


def _overlap(graph: Graph) -> str:
    schedule = graph.workflow.schedule
    assert schedule is not None
    return schedule.overlap


def _make_room(change: Change, command: FireTick, graph: Graph) -> str:
    """Carries out the schedule's overlap policy; why the tick is skipped, or ""."""
    workflow, overlap = command.workflow, _overlap(graph)
    busy = _busy(change, workflow)
    if busy is None or overlap == "allow":
        return ""
    if overlap == "skip":
        return f"overlap: run {busy[0]} is {busy[1]}"
    if overlap == "cancel_old":
        _cancel_old(change, command)
    queued: int = change.db.value(
        "SELECT count(*) FROM (SELECT 1 FROM run WHERE workflow = ? AND state = 'QUEUED' LIMIT ?)",
        (workflow, QUEUE_LIMIT),
    )
    return f"overlap: {queued} runs are queued" if queued >= QUEUE_LIMIT else ""


def _busy(change: Change, workflow: str) -> tuple[str, str] | None:
    """A run of the workflow that is not final, manual ones included."""
    for state in (RunState.RUNNING, RunState.PAUSED, RunState.CANCELLING, RunState.QUEUED):
        run = change.db.value(
            "SELECT id FROM run WHERE workflow = ? AND state = ? ORDER BY seq LIMIT 1",
            (workflow, state),
        )
        if run is not None:
            return run, state
    return None


def _cancel_old(change: Change, command: FireTick) -> None:
    """Those that wait first, so that none of them takes the place of one that ends."""
    by = f"overlap: {command.run} is newer"
    for states in ("'QUEUED'", "'RUNNING', 'PAUSED'"):
        old = change.db.query(
            f"SELECT id FROM run WHERE workflow = ? AND state IN ({states}) ORDER BY seq LIMIT ?",
            (command.workflow, CANCEL_LIMIT),
        )
        for (run,) in list(old):
            cancel_run(change, CancelRun(command.at, run, by))
