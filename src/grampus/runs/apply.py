"""The table: which function carries out which command. Chosen by `apply_version`, never by chance.

A handler looks at everything that could refuse first, and writes after that: a refusal changes
nothing. It returns what the proposer gets, or a `Refusal`. Any exception ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grampus.runs import (
    apply_attempts,
    apply_control,
    apply_runs,
    apply_schedules,
    apply_sessions,
    apply_workflows,
)
from grampus.runs.change import Change
from grampus.runs.commands import (
    ApplyWorkflow,
    CancelRun,
    DeclareLost,
    DeleteRun,
    DeleteWorkflow,
    DrainWorker,
    EndSession,
    ExpireRun,
    FireTick,
    LoseAttempts,
    OpenSession,
    PauseRun,
    PauseSchedule,
    PauseWorkflow,
    PlanSchedule,
    ReportAttempt,
    ResumeRun,
    Retain,
    RetryRun,
    SilenceSession,
    SkipTicks,
    StartAttempts,
    SubmitRun,
    TakeOffice,
)

Handler = Callable[[Change, Any], object]

_VERSION_1: dict[type[Any], Handler] = {
    ApplyWorkflow: apply_workflows.apply_workflow,
    PauseWorkflow: apply_workflows.pause_workflow,
    DeleteWorkflow: apply_workflows.delete_workflow,
    SubmitRun: apply_runs.submit_run,
    CancelRun: apply_runs.cancel_run,
    DeleteRun: apply_runs.delete_run,
    Retain: apply_runs.retain,
    StartAttempts: apply_attempts.start_attempts,
    ReportAttempt: apply_attempts.report_attempt,
    OpenSession: apply_sessions.open_session,
    EndSession: apply_sessions.end_session,
    TakeOffice: apply_sessions.take_office,
    SilenceSession: apply_sessions.silence_session,
    LoseAttempts: apply_sessions.lose_attempts,
    DrainWorker: apply_sessions.drain_worker,
    PauseRun: apply_control.pause_run,
    ResumeRun: apply_control.resume_run,
    RetryRun: apply_control.retry_run,
    ExpireRun: apply_control.expire_run,
    DeclareLost: apply_control.declare_lost,
    PlanSchedule: apply_schedules.plan_schedule,
    FireTick: apply_schedules.fire_tick,
    SkipTicks: apply_schedules.skip_ticks,
    PauseSchedule: apply_schedules.pause_schedule,
}

APPLY: dict[int, dict[type[Any], Handler]] = {1: _VERSION_1}
