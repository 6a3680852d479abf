"""Workflows, as the API tells of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct


class Applied(Struct, frozen=True, kw_only=True):
    """A workflow was applied; `created` is False when that was the newest version already."""

    name: str
    version: int
    created: bool
    #: What the user should know; mostly empty.
    note: str = ""


class WorkflowInfo(Struct, frozen=True, kw_only=True):
    name: str
    version: int
    paused: bool
    applied_at: datetime
    #: The canonical workflow, as `model.workflow.Workflow` spells it.
    definition: dict[str, Any]
    #: Runs that are not final.
    active_runs: int
