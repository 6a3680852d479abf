"""A workflow in this process, one task after the other: for tests and debuggers.

Rule: Python functions are called here, with their arguments as they are, so that a debugger stops
in them; requests and statements are done by the code that workers use. What belongs to a cluster is
left out: groups, slots, leases, and the waiting between tries unless it is asked for.
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grampus.clock import SystemClock
from grampus.errors import InvalidInput
from grampus.model.graph import order
from grampus.model.params import resolve
from grampus.model.run import TaskState
from grampus.model.template import evaluate, render, tick_scope
from grampus.model.workflow import Http, Python, Retry, Shell, Sleep, Sql, Task, Workflow
from grampus.sdk.context import LOCAL, Context, at_tick
from grampus.sdk.flow import WorkflowFunction
from grampus.tasks.failure import TaskFailure, class_names

RUN = "local"


class CommandFailed(TaskFailure):
    """A shell task ended with an exit code that is not 0."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@dataclass
class LocalRun:
    """What became of a run in this process."""

    params: dict[str, Any]
    #: What each task returned, by name; tasks that did not succeed are absent.
    outputs: dict[str, Any] = field(default_factory=dict)
    states: dict[str, TaskState] = field(default_factory=dict)
    #: What each failed task raised at last.
    errors: dict[str, Exception] = field(default_factory=dict)
    #: Tries that each task took.
    attempts: dict[str, int] = field(default_factory=dict)


def run_local(
    flow: WorkflowFunction,
    params: Mapping[str, Any],
    *,
    tick: int | None = None,
    delays: bool = False,
    raises: bool = True,
) -> LocalRun:
    """Runs `flow` here. `tick`: wall ms; None is now. `delays`: wait between tries.

    Raises InvalidInput for a wrong workflow or params, and what a task raised at last unless
    `raises` is False: then the run goes on as `on_failure` says, and `errors` has it.
    """
    traced = flow.trace()
    if traced.problems:
        raise InvalidInput(traced.problems)
    workflow = traced.workflow
    at = SystemClock().now() if tick is None else tick
    zone = workflow.schedule.tz if workflow.schedule else "UTC"
    given = {name: _plain(value) for name, value in params.items()}
    run = LocalRun(resolve(workflow.params, given, tick_scope(at, zone)))
    folder = Path(os.path.abspath(flow.source)).parent
    worker = _Worker(run, workflow, traced.functions, at, zone, folder, delays)
    for task in order(workflow.tasks):
        if any(run.states[name] != TaskState.SUCCEEDED for name in task.after):
            run.states[task.name] = TaskState.UPSTREAM_FAILED
        elif run.errors and workflow.on_failure == "stop":
            run.states[task.name] = TaskState.SKIPPED
        else:
            try:
                run.outputs[task.name] = worker.run(task)
                run.states[task.name] = TaskState.SUCCEEDED
            except Exception as error:
                run.states[task.name] = TaskState.FAILED
                run.errors[task.name] = error
                if raises:
                    raise
    return run


def _plain(value: object) -> object:
    is_day = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    return value.isoformat() if is_day else value  # type: ignore[attr-defined]


@dataclass
class _Worker:
    """Runs single tasks of one local run."""

    local: LocalRun
    workflow: Workflow
    functions: Mapping[str, Callable[..., Any]]
    tick: int
    zone: str
    folder: Path
    delays: bool

    def run(self, task: Task) -> Any:
        """All tries of a task. Raises what the last one raised."""
        number = 1
        while True:
            self.local.attempts[task.name] = number
            try:
                return copy_context().run(self._attempt, task, number)
            except Exception as error:
                if number > task.retry.max or not _may_retry(task.retry, error):
                    raise
            if self.delays:
                wait = min(
                    task.retry.delay * task.retry.factor ** (number - 1), task.retry.max_delay
                )
                time.sleep(wait / 1000)
            number += 1

    def _attempt(self, task: Task, number: int) -> Any:
        LOCAL.set(self._context(task, number))
        scope = self._scope()
        match task.action:
            case Python(args=args):
                result = self.functions[task.name](**evaluate(args, scope))
                return asyncio.run(result) if inspect.iscoroutine(result) else result
            case Shell(command=command):
                return self._shell(task, render(command, scope, quote=True), number, scope)
            case Http() as action:
                from grampus.tasks import http

                return http.run(action, scope)
            case Sql() as action:
                from grampus.tasks import sql

                return sql.run(action, scope, str(self.folder))
            case Sleep(duration=duration):
                time.sleep(duration / 1000)
                return None

    def _context(self, task: Task, number: int) -> Context:
        return Context(
            run=RUN,
            workflow=self.workflow.name,
            version=0,
            task=task.name,
            attempt=number,
            fencing_token=0,
            tick=at_tick(self.tick, self.zone),
            params=dict(self.local.params),
        )

    def _scope(self) -> dict[str, Any]:
        return {
            "params": self.local.params,
            "tasks": {name: {"output": value} for name, value in self.local.outputs.items()},
            "tick": tick_scope(self.tick, self.zone),
            "run": {"id": RUN, "workflow": self.workflow.name, "version": 0},
        }

    def _shell(self, task: Task, command: str, number: int, scope: Mapping[str, Any]) -> Any:
        """Output of the command's `$GRAMPUS_OUTPUT`; stdout and stderr are this process's."""
        from grampus.tasks.output import find
        from grampus.tasks.value import decode

        with tempfile.TemporaryDirectory(prefix="grampus-") as folder:
            output = Path(folder, "output")
            output.touch(0o600)
            env = {
                **os.environ,
                **{name: render(text, scope, quote=False) for name, text in task.env.items()},
                "GRAMPUS_RUN": RUN,
                "GRAMPUS_WORKFLOW": self.workflow.name,
                "GRAMPUS_TASK": task.name,
                "GRAMPUS_ATTEMPT": str(number),
                "GRAMPUS_FENCING_TOKEN": "0",
                "GRAMPUS_TICK": str(self.tick),
                "GRAMPUS_OUTPUT": str(output),
            }
            cwd = self.folder / render(task.cwd, scope, quote=False) if task.cwd else self.folder
            limit = task.timeout / 1000 if task.timeout is not None else None
            done = subprocess.run(
                ["/bin/sh", "-c", command], env=env, cwd=cwd, timeout=limit, check=False
            )
            if done.returncode:
                text = f"{task.name}: the command ended with exit code {done.returncode}"
                raise CommandFailed(text, done.returncode)
            with output.open("rb") as file:
                found = find(file, shell=True)
            return decode(found.encoding, found.data) if found is not None else None  # type: ignore[union-attr,arg-type]


def _may_retry(retry: Retry, error: Exception) -> bool:
    if retry.on_exit is None and retry.on_exception is None:
        return True
    if isinstance(error, CommandFailed) and error.exit_code in (retry.on_exit or ()):
        return True
    names = error.names if isinstance(error, TaskFailure) else class_names(error)
    return any(name in (retry.on_exception or ()) for name in names)
