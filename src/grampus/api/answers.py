"""How views become answers, and answers responses. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import overload

import msgspec
from fastapi import Response

from grampus.api.ports import WorkerLoad
from grampus.api.schemas.base import Answer
from grampus.api.schemas.runs import RunAnswer
from grampus.api.schemas.tasks import AttemptAnswer, TaskAnswer
from grampus.api.schemas.workers import WorkerAnswer
from grampus.api.schemas.workflows import WorkflowAnswer
from grampus.model.lease import KEEP
from grampus.runs.views import AttemptView, RunView, TaskView, WorkerView, WorkflowView

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def time_text(ms: int) -> str: ...
@overload
def time_text(ms: int | None) -> str | None: ...
def time_text(ms: int | None) -> str | None:
    """Wall milliseconds as RFC 3339 UTC text with milliseconds."""
    if ms is None:
        return None
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def respond(
    answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`answer` as JSON."""
    content = answer.model_dump_json()
    return Response(content, status, headers=headers, media_type="application/json")


def workflow_answer(view: WorkflowView) -> WorkflowAnswer:
    return WorkflowAnswer(
        name=view.name,
        version=view.version,
        paused=view.paused,
        applied_at=time_text(view.applied_at),
        definition=msgspec.to_builtins(view.definition),
        active_runs=view.active_runs,
    )


def run_answer(view: RunView) -> RunAnswer:
    return RunAnswer(
        id=view.id,
        seq=view.seq,
        workflow=view.workflow,
        version=view.version,
        state=view.state,
        reason=view.reason,
        params=view.params,
        priority=view.priority,
        tick=time_text(view.tick),
        created=time_text(view.created),
        started=time_text(view.started),
        ended=time_text(view.ended),
        tasks=view.tasks,
        counts=view.counts,
    )


def task_answer(view: TaskView) -> TaskAnswer:
    return TaskAnswer(
        name=view.name,
        index=view.index,
        kind=view.kind,
        after=list(view.after),
        state=view.state,
        reason=view.reason,
        due=time_text(view.due),
        started=time_text(view.started),
        ended=time_text(view.ended),
        max_attempts=view.max_attempts,
        tries=view.tries,
        attempts=[attempt_answer(a) for a in view.attempts],
        output=view.output,
    )


def attempt_answer(view: AttemptView) -> AttemptAnswer:
    return AttemptAnswer(
        task=view.task,
        attempt=view.attempt,
        state=view.state,
        session=view.session,
        n=view.n,
        worker=view.worker,
        started=time_text(view.started),
        running=time_text(view.running),
        ended=time_text(view.ended),
        exit=view.exit,
        error=view.error,
        stdout=view.stdout,
        stderr=view.stderr,
        lease=None if view.lease == KEEP else view.lease,
        unreachable_since=time_text(view.unreachable),
    )


def worker_answer(view: WorkerView, present: Mapping[int, WorkerLoad] | None) -> WorkerAnswer:
    """Where the leader does not say who is `present`, the ledger alone tells who is heard."""
    load = None if present is None else present.get(view.session)
    heard = view.state == "LIVE" and view.silent is None
    return WorkerAnswer(
        session=view.session,
        name=view.name,
        group=view.group,
        slots=view.slots,
        busy=view.busy,
        state="LIVE" if view.state == "LIVE" else "ENDED",
        since=time_text(view.since),
        connected=heard if present is None else load is not None,
        silent_since=time_text(view.silent),
        draining=view.draining,
        cpu=load.cpu if load else None,
        memory=load.memory if load else None,
        containment=load.containment if load else None,
        trouble=load.trouble if load else "",
        stuck=load.stuck if load else 0,
    )
