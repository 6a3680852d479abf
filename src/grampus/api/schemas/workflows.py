"""Workflows: declared, versioned."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from grampus.api.schemas.base import Answer, Request, Time

#: Of workflows, which come with their definitions.
WORKFLOW_PAGE_LIMIT = 100


class WorkflowRequest(Request):
    """Makes a definition the newest version of its workflow."""

    definition: dict[str, Any] = Field(
        description="The canonical workflow, as `grampus workflow show -o json` prints it.",
        examples=[
            {
                "name": "hello",
                "tasks": [{"name": "greet", "action": {"type": "shell", "command": "echo hello"}}],
            }
        ],
    )


class WorkflowApplied(Answer):
    name: str = Field(examples=["hello"])
    version: int = Field(examples=[1])
    created: bool = Field(description="False when that was the newest version already.")
    note: str = Field(description="What the user should know; empty when there is nothing.")


class WorkflowAnswer(Answer):
    name: str = Field(examples=["hello"])
    version: int = Field(description="The newest version, or the one asked for.", examples=[1])
    paused: bool
    applied_at: Time
    definition: dict[str, Any]
    active_runs: int = Field(description="Runs that are not final.")


class WorkflowPage(Answer):
    """Workflows by name."""

    items: list[WorkflowAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class WorkflowPaused(Answer):
    name: str
    paused: bool
