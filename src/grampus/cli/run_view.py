"""How a run and its tasks look in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grampus.cli.output import ago, clean, ms_of, span, table

if TYPE_CHECKING:
    from grampus.sdk.answers import Attempt, Run, TaskRun


def print_run(run: Run, tasks: list[TaskRun]) -> None:
    from grampus.clock import SystemClock

    now = SystemClock().now()
    print(f"run       {run.id} of {run.workflow}, version {run.version}")
    print(f"state     {run.state}{f': {clean(run.reason)}' if run.reason else ''}")
    print(f"created   {run.created.astimezone():%Y-%m-%d %H:%M:%S %Z}, {ago(run.created, now)}")
    if run.started is not None:
        print(f"took      {lasted(run, now)}")
    for name, value in run.params.items():
        print(f"param     {clean(name)} = {clean(str(value))}")
    print()
    rows = []
    for task in tasks:
        begun, last = ms_of(task.started), task.attempts[-1] if task.attempts else None
        took = "" if begun is None else span((ms_of(task.ended) or now) - begun)
        tries = f"{task.tries}/{task.max_attempts}"
        where = last.worker if last else ""
        why = task.reason or (_why(last, now) if last else "")
        rows.append((task.name, task.kind, str(task.state), tries, took, where, why))
    table(("TASK", "KIND", "STATE", "TRIES", "TOOK", "WORKER", "REASON"), rows)


def done(run: Run) -> str:
    from grampus.model.run import FINAL_TASK

    return f"{sum(run.counts.get(state, 0) for state in FINAL_TASK)}/{run.tasks}"


def lasted(run: Run, now: int) -> str:
    begun = ms_of(run.started)
    return "" if begun is None else span((ms_of(run.ended) or now) - begun)


def _why(last: Attempt, now: int) -> str:
    """What an attempt that is the newest of its task has to say."""
    since = ms_of(last.unreachable_since)
    if since is None:
        return last.error
    until = "until its worker is back, or: grampus run declare-lost"
    if last.lease is not None:
        until = f"starts elsewhere when its lease of {span(last.lease)} ends"
    return f"UNREACHABLE for {span(max(now - since, 0))}; {until}"
