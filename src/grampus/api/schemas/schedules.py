"""Schedules, and what became of their ticks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from grampus.api.schemas.base import Answer, RunIdText, Time


class TickAnswer(Answer):
    """What became of a planned tick, or of all from `tick` to `last`."""

    tick: Time
    local: str = Field(
        description="`tick` on the clock of the schedule's zone.",
        examples=["2026-11-21T06:00:00+01:00"],
    )
    last: Time
    count: int = Field(description="Ticks from `tick` to `last`.")
    outcome: Literal["run", "skipped", "missed", "paused", "failed"] = Field(
        description="`skipped`: by the overlap policy. `failed`: its params could not be resolved."
    )
    run: RunIdText | None = Field(description="The run that was made.")
    reason: str
    at: Time = Field(description="When that was decided.")


class TickPage(Answer):
    """Ticks, newest first."""

    items: list[TickAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class PlannedTick(Answer):
    tick: Time
    local: str = Field(examples=["2026-11-21T06:00:00+01:00"])


class TickList(Answer):
    items: list[PlannedTick]


class ScheduleAnswer(Answer):
    name: str = Field(description="Of the workflow.", examples=["hello"])
    version: int
    schedule: dict[str, Any] = Field(examples=[{"cron": "0 6 * * *", "tz": "Europe/Paris"}])
    tz: str = Field(examples=["Europe/Paris"])
    paused: bool
    paused_by: str
    workflow_paused: bool = Field(description="Then ticks pass without a run too.")
    next: Time | None = Field(description="Null when there is none, or when it is not known yet.")
    next_local: str | None = Field(description="`next` on the clock of the schedule's zone.")
    last: TickAnswer | None = Field(description="The newest tick that came.")
    held: str = Field(
        description="Why no schedule fires now: the clock is in doubt; empty when they fire."
    )


class ClockTrusted(Answer):
    held: str = Field(description="What was doubted until now; empty when nothing was.")


class SchedulePage(Answer):
    """Schedules by name of their workflow."""

    items: list[ScheduleAnswer]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class SchedulePaused(Answer):
    name: str
    paused: bool
