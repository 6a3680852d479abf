"""Routes of schedules: what is planned, what became of it, pause and resume."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from grampus.api import paging
from grampus.api.answers import respond, time_text
from grampus.api.ports import Ports
from grampus.api.problems import WRITES, accepted, responses
from grampus.api.runs import USER
from grampus.api.schemas.base import PAGE, PAGE_LIMIT
from grampus.api.schemas.schedules import (
    ClockTrusted,
    PlannedTick,
    ScheduleAnswer,
    SchedulePage,
    SchedulePaused,
    TickAnswer,
    TickList,
    TickPage,
)
from grampus.api.state import ThePorts, settled
from grampus.errors import NotFound
from grampus.model.schedule import next_tick
from grampus.runs.commands import PauseSchedule
from grampus.runs.views import ScheduleView, TickView

router = APIRouter(prefix="/api/v1", dependencies=[Depends(settled)])

#: Ticks that are foretold at once.
FORETOLD = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Name = Annotated[
    str, Path(description="Name of the scheduled workflow.", max_length=64, examples=["hello"])
]


def schedule_answer(view: ScheduleView, held: str) -> ScheduleAnswer:
    return ScheduleAnswer(
        name=view.workflow,
        version=view.version,
        schedule=msgspec.to_builtins(view.schedule),
        tz=view.schedule.tz,
        paused=view.paused,
        paused_by=view.paused_by,
        workflow_paused=view.workflow_paused,
        next=time_text(view.next_tick),
        next_local=local_text(view.next_tick, view.schedule.tz),
        last=None if view.last is None else tick_answer(view.last, view.schedule.tz),
        held=held,
    )


def tick_answer(view: TickView, tz: str) -> TickAnswer:
    return TickAnswer(
        tick=time_text(view.tick),
        local=local_text(view.tick, tz) or "",
        last=time_text(view.last),
        count=view.count,
        outcome=view.outcome,  # type: ignore[arg-type]
        run=view.run or None,
        reason=view.reason,
        at=time_text(view.at),
    )


def local_text(ms: int | None, tz: str) -> str | None:
    """The time on the clock of the zone, with its offset."""
    if ms is None:
        return None
    when = (_EPOCH + timedelta(milliseconds=ms)).astimezone(ZoneInfo(tz))
    return when.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")


async def find_schedule(ports: Ports, name: str) -> ScheduleView:
    """Raises NotFound."""
    view = await ports.reads.schedule(name)
    if view is None:
        raise NotFound(f"there is no schedule of {name}")
    return view


@router.get(
    "/schedules",
    operation_id="listSchedules",
    summary="List schedules by name of their workflow",
    response_model=SchedulePage,
    responses=responses("invalid-input"),
    tags=["schedules"],
)
async def list_schedules(
    ports: ThePorts,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Items on a page.")] = PAGE,
    cursor: paging.Cursor = None,
) -> Response:
    views = await ports.reads.schedules(limit + 1, paging.read_name(cursor))
    more = paging.of_name(views[limit - 1].workflow) if len(views) > limit else None
    held = await ports.clock_doubt.look()
    items = [schedule_answer(view, held) for view in views[:limit]]
    return respond(SchedulePage(items=items, next=more))


@router.get(
    "/schedules/{name}",
    operation_id="getSchedule",
    summary="Show a schedule",
    response_model=ScheduleAnswer,
    responses=responses("not-found", "invalid-input"),
    tags=["schedules"],
)
async def get_schedule(ports: ThePorts, name: Name) -> Response:
    found = await find_schedule(ports, name)
    return respond(schedule_answer(found, await ports.clock_doubt.look()))


@router.get(
    "/schedules/{name}/next",
    operation_id="nextTicks",
    summary="Foretell the next ticks",
    description="From now on, whether or not the schedule is paused. Fewer than `count` when it "
    "ends before.",
    response_model=TickList,
    responses=responses("not-found", "invalid-input"),
    tags=["schedules"],
)
async def next_ticks(
    ports: ThePorts,
    name: Name,
    count: Annotated[int, Query(ge=1, le=FORETOLD, description="How many.")] = 5,
) -> Response:
    view = await find_schedule(ports, name)
    ticks = await asyncio.to_thread(foretell, view, ports.clock.now(), count)
    tz = view.schedule.tz
    items = [PlannedTick(tick=time_text(t), local=local_text(t, tz) or "") for t in ticks]
    return respond(TickList(items=items))


def foretell(view: ScheduleView, now: int, count: int) -> list[int]:
    ticks: list[int] = []
    while len(ticks) < count:
        tick = next_tick(view.schedule, ticks[-1] if ticks else now)
        if tick is None:
            break
        ticks.append(tick)
    return ticks


@router.get(
    "/schedules/{name}/ticks",
    operation_id="listTicks",
    summary="List what became of planned ticks, newest first",
    description="Every planned tick has one item; ticks that follow one another and were missed, "
    "or paused, share one.",
    response_model=TickPage,
    responses=responses("not-found", "invalid-input"),
    tags=["schedules"],
)
async def list_ticks(
    ports: ThePorts,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT, description="Items on a page.")] = PAGE,
    cursor: paging.Cursor = None,
) -> Response:
    tz = (await find_schedule(ports, name)).schedule.tz
    views = await ports.reads.ticks(name, limit + 1, paging.read_seq(cursor))
    more = paging.of_seq(views[limit - 1].tick) if len(views) > limit else None
    return respond(TickPage(items=[tick_answer(v, tz) for v in views[:limit]], next=more))


@router.post(
    "/schedules/{name}/pause",
    operation_id="pauseSchedule",
    summary="Pause a schedule",
    description="Its ticks pass without a run, and are recorded as paused. Runs can still be "
    "started by hand.",
    response_model=SchedulePaused,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["schedules"],
)
async def pause_schedule(ports: ThePorts, name: Name) -> Response:
    command = PauseSchedule(ports.clock.now(), name, paused=True, by=USER)
    accepted(await ports.propose(command))
    return respond(SchedulePaused(name=name, paused=True))


@router.post(
    "/schedules/{name}/resume",
    operation_id="resumeSchedule",
    summary="Resume a schedule",
    description="It fires again from its next tick on.",
    response_model=SchedulePaused,
    responses=responses(*WRITES, "not-found", "conflict", "invalid-input"),
    tags=["schedules"],
)
async def resume_schedule(ports: ThePorts, name: Name) -> Response:
    command = PauseSchedule(ports.clock.now(), name, paused=False, by=USER)
    accepted(await ports.propose(command))
    return respond(SchedulePaused(name=name, paused=False))


@router.post(
    "/schedules:trust-clock",
    operation_id="trustClock",
    summary="Say that the clock is right",
    description="When a node starts and its clock is far from the newest entry of the ledger, or "
    "when it jumps ahead, schedules are held back for ten minutes. A machine that was off for a "
    "month is in its right: whoever has looked at the clock ends the doubt with this.",
    response_model=ClockTrusted,
    responses=responses("no-quorum", "invalid-input"),
    tags=["schedules"],
)
async def trust_clock(ports: ThePorts) -> Response:
    return respond(ClockTrusted(held=await ports.clock_doubt.trust()))
