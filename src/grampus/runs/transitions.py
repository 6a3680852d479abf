"""Which state may follow which. A missing entry is a bug of ours, and ends the process.

run      QUEUED ─▶ RUNNING ─▶ SUCCEEDED | FAILED
            │         └─────▶ CANCELLING ─▶ CANCELLED
            └───────────────────────────────────▲
task     WAITING ─▶ READY ─▶ RUNNING ─▶ SUCCEEDED | FAILED | TIMED_OUT | CANCELLED
                      ▲         ├─▶ RETRYING ─▶ RUNNING
                      └─────────┘ (lost, or ended by a worker that stopped)
         WAITING | READY | RETRYING ─▶ CANCELLED | SKIPPED | UPSTREAM_FAILED
attempt  STARTING ─▶ RUNNING ─▶ SUCCEEDED | FAILED | TIMED_OUT | CANCELLED | LOST
"""

from __future__ import annotations

from grampus.model.run import RunState as R
from grampus.model.run import TaskState as T

RUN: dict[R | None, frozenset[R]] = {
    None: frozenset({R.QUEUED, R.RUNNING}),
    R.QUEUED: frozenset({R.RUNNING, R.CANCELLED}),
    R.RUNNING: frozenset({R.CANCELLING, R.SUCCEEDED, R.FAILED}),
    R.CANCELLING: frozenset({R.CANCELLED}),
    R.SUCCEEDED: frozenset(),
    R.FAILED: frozenset(),
    R.CANCELLED: frozenset(),
}

_NOT_STARTED = frozenset({T.CANCELLED, T.SKIPPED, T.UPSTREAM_FAILED})
TASK: dict[T, frozenset[T]] = {
    T.WAITING: frozenset({T.READY}) | _NOT_STARTED,
    T.READY: frozenset({T.RUNNING}) | _NOT_STARTED,
    T.RETRYING: frozenset({T.RUNNING}) | _NOT_STARTED,
    T.RUNNING: frozenset({T.READY, T.RETRYING, T.SUCCEEDED, T.FAILED, T.TIMED_OUT, T.CANCELLED}),
    T.SUCCEEDED: frozenset(),
    T.FAILED: frozenset(),
    T.TIMED_OUT: frozenset(),
    T.CANCELLED: frozenset(),
    T.SKIPPED: frozenset(),
    T.UPSTREAM_FAILED: frozenset(),
}


class BadTransition(RuntimeError):
    """Raised for a step that the tables do not have."""


def run_step(before: R | None, after: R) -> R:
    if after not in RUN.get(before, frozenset()):
        raise BadTransition(f"a run cannot go from {before} to {after}")
    return after


def task_step(before: T, after: T) -> T:
    if after not in TASK.get(before, frozenset()):
        raise BadTransition(f"a task cannot go from {before} to {after}")
    return after
