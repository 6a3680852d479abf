"""Schedules, and what became of their ticks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct


class Tick(Struct, frozen=True, kw_only=True):
    """What became of a planned tick, or of all `count` from `tick` to `last`."""

    tick: datetime
    #: `tick` on the clock of the schedule's zone, with its offset.
    local: str
    last: datetime
    count: int = 1
    #: `run`, `skipped`, `missed`, `paused` or `failed`
    outcome: str
    #: The run that was made.
    run: str | None = None
    reason: str = ""
    #: When that was decided.
    at: datetime


class PlannedTick(Struct, frozen=True, kw_only=True):
    tick: datetime
    local: str


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """The schedule of the workflow `name`."""

    name: str
    version: int
    #: As `model.workflow.Schedule` spells it.
    schedule: dict[str, Any]
    tz: str = "UTC"
    paused: bool = False
    paused_by: str = ""
    workflow_paused: bool = False
    next: datetime | None = None
    next_local: str | None = None
    #: The newest tick that came.
    last: Tick | None = None
    #: Why no schedule fires now, or "".
    held: str = ""
