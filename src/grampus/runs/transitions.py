"""Which state may follow which. A missing entry is a bug of ours, and ends the process.

run      QUEUED ─▶ RUNNING ⇄ PAUSED ─▶ SUCCEEDED | FAILED    (RUNNING and PAUSED both)
            │         └──────────┴─▶ CANCELLING ─▶ CANCELLED | FAILED (its timeout)
            └──────────────────────────────────────▲
         SUCCEEDED | FAILED ─▶ QUEUED (a new round)
task     WAITING ─▶ READY ─▶ RUNNING ─▶ SUCCEEDED | FAILED | TIMED_OUT | CANCELLED
                      ▲         ├─▶ RETRYING ─▶ RUNNING
                      └─────────┘ (lost, or ended by a worker that stopped)
         WAITING | READY | RETRYING ─▶ CANCELLED | SKIPPED | UPSTREAM_FAILED
         whatever is final ─▶ WAITING (a new round)
attempt  STARTING ─▶ RUNNING ─▶ SUCCEEDED | FAILED | TIMED_OUT | CANCELLED | LOST
"""

from __future__ import annotations

from grampus.model.run import RunState as R
from grampus.model.run import TaskState as T

RUN: dict[R | None, frozenset[R]] = {
    None: frozenset({R.QUEUED, R.RUNNING}),
    R.QUEUED: frozenset({R.RUNNING, R.CANCELLED}),
    R.RUNNING: frozenset({R.PAUSED, R.CANCELLING, R.SUCCEEDED, R.FAILED}),
    R.PAUSED: frozenset({R.RUNNING, R.CANCELLING, R.SUCCEEDED, R.FAILED}),
    R.CANCELLING: frozenset({R.CANCELLED, R.FAILED}),
    R.SUCCEEDED: frozenset({R.QUEUED}),
    R.FAILED: frozenset({R.QUEUED}),
    R.CANCELLED: frozenset(),
}

_AGAIN = frozenset({T.WAITING})
_NOT_STARTED = frozenset({T.CANCELLED, T.SKIPPED, T.UPSTREAM_FAILED})
TASK: dict[T, frozenset[T]] = {
    T.WAITING: frozenset({T.READY}) | _NOT_STARTED,
    T.READY: frozenset({T.RUNNING}) | _NOT_STARTED,
    T.RETRYING: frozenset({T.RUNNING}) | _NOT_STARTED,
    T.RUNNING: frozenset({T.READY, T.RETRYING, T.SUCCEEDED, T.FAILED, T.TIMED_OUT, T.CANCELLED}),
    T.SUCCEEDED: _AGAIN,
    T.FAILED: _AGAIN,
    T.TIMED_OUT: _AGAIN,
    T.CANCELLED: _AGAIN,
    T.SKIPPED: _AGAIN,
    T.UPSTREAM_FAILED: _AGAIN,
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
