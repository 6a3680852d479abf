"""Workflows: new versions, pausing, deleting."""

from __future__ import annotations

from grampus.model.workflow import read_workflow
from grampus.runs.apply_schedules import remove_schedule, renew_schedule
from grampus.runs.change import Change
from grampus.runs.commands import (
    ApplyWorkflow,
    DeleteWorkflow,
    PauseWorkflow,
    Refusal,
    unpack_definition,
)
from grampus.runs.events import WorkflowApplied, WorkflowDeleted, WorkflowPaused
from grampus.runs.progress import promote


def apply_workflow(change: Change, command: ApplyWorkflow) -> tuple[int, bool] | Refusal:
    """Same content as the newest version: that version. A deleted name goes on counting."""
    content = unpack_definition(command.packed)
    workflow = read_workflow(content)
    if workflow.name != command.name:
        return Refusal("conflict", f"the definition is not of {command.name!r}")
    db = change.db
    row = db.one("SELECT version, deleted FROM workflow WHERE name = ?", (command.name,))
    version = 0
    if row is not None:
        version, deleted = row
        newest = db.value(
            "SELECT content FROM workflow_version WHERE name = ? AND version = ?",
            (command.name, version),
        )
        if newest == content and not deleted:
            return version, False
    version += 1
    db.execute(
        "INSERT INTO workflow (name, version, paused, deleted, applied_at) VALUES (?, ?, 0, 0, ?)"
        " ON CONFLICT (name) DO UPDATE SET version = excluded.version, deleted = 0,"
        " applied_at = excluded.applied_at",
        (command.name, version, command.at),
    )
    db.execute(
        "INSERT INTO workflow_version (name, version, content, bundle, applied_at)"
        " VALUES (?, ?, ?, ?, ?)",
        (command.name, version, content, workflow.bundle, command.at),
    )
    if workflow.schedule is None:
        remove_schedule(change, command.name)
    else:
        renew_schedule(change, command.at, command.name, version)
    change.emit(WorkflowApplied, at=command.at, workflow=command.name, version=version)
    promote(change, command.at, command.name, f"version {version} was applied")
    return version, True


def pause_workflow(change: Change, command: PauseWorkflow) -> str | Refusal:
    row = change.db.one(
        "SELECT paused FROM workflow WHERE name = ? AND deleted = 0", (command.name,)
    )
    if row is None:
        return _no_such(command.name)
    if bool(row[0]) != command.paused:
        change.db.execute(
            "UPDATE workflow SET paused = ? WHERE name = ?", (int(command.paused), command.name)
        )
        change.emit(WorkflowPaused, at=command.at, workflow=command.name, paused=command.paused)
        promote(change, command.at, command.name, f"workflow {command.name} was resumed")
    return "paused" if command.paused else "active"


def delete_workflow(change: Change, command: DeleteWorkflow) -> str | Refusal:
    row = change.db.one(
        "SELECT version FROM workflow WHERE name = ? AND deleted = 0", (command.name,)
    )
    if row is None:
        return _no_such(command.name)
    active: int = change.db.value(
        "SELECT count(*) FROM run WHERE workflow = ?"
        " AND state IN ('QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING')",
        (command.name,),
    )
    if active:
        return Refusal("conflict", f"{active} runs of {command.name} are not finished: cancel them")
    change.db.execute("UPDATE workflow SET deleted = 1, paused = 0 WHERE name = ?", (command.name,))
    remove_schedule(change, command.name)
    change.emit(WorkflowDeleted, at=command.at, workflow=command.name)
    return "deleted"


def _no_such(name: str) -> Refusal:
    return Refusal("not-found", f"there is no workflow {name}")
