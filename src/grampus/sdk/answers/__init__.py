"""What the client answers: the documents of the HTTP API as frozen values.

Rule: names are those of the API. A field that an older server does not send has a default; one that
a newer server adds is ignored. Times are aware datetimes in UTC.
"""

from __future__ import annotations

from grampus.sdk.answers.cluster import (
    ClusterInfo,
    ClusterMember,
    JoinToken,
    LedgerCheck,
    LedgerSum,
    TokenLine,
    Worker,
)
from grampus.sdk.answers.keys import Key, KeyChange, KeysChanged
from grampus.sdk.answers.runs import (
    BatchProblem,
    Explanation,
    Reason,
    Retried,
    Run,
    RunEvent,
    Started,
    StoryLine,
    Submitted,
    TaskExplanation,
)
from grampus.sdk.answers.schedules import PlannedTick, ScheduleInfo, Tick
from grampus.sdk.answers.tasks import Attempt, LogPiece, TaskResult, TaskRun
from grampus.sdk.answers.workflows import Applied, WorkflowInfo

__all__ = [
    "Applied",
    "Attempt",
    "BatchProblem",
    "ClusterInfo",
    "ClusterMember",
    "Explanation",
    "JoinToken",
    "Key",
    "KeyChange",
    "KeysChanged",
    "LedgerCheck",
    "LedgerSum",
    "LogPiece",
    "PlannedTick",
    "Reason",
    "Retried",
    "Run",
    "RunEvent",
    "ScheduleInfo",
    "Started",
    "StoryLine",
    "Submitted",
    "TaskExplanation",
    "TaskResult",
    "TaskRun",
    "Tick",
    "TokenLine",
    "Worker",
    "WorkflowInfo",
]
