"""The calendar of the triggers: time zones, cron lines, and the params of a tick."""

from __future__ import annotations

import msgspec

from grampus.errors import InvalidInput
from grampus.model.params import resolve
from grampus.model.schedule import next_tick, ticks_between
from grampus.model.template import tick_scope
from grampus.model.workflow import Schedule
from grampus.runs.views import ScheduleView

#: Of a reason why params cannot be resolved, in characters.
REASON = 500


class Almanac:
    def after(self, schedule: Schedule, ms: int) -> int | None:
        return next_tick(schedule, ms)

    def between(
        self, schedule: Schedule, first: int, until: int, limit: int
    ) -> tuple[int, tuple[int, ...]]:
        return ticks_between(schedule, first, until, limit)

    def params(self, view: ScheduleView, tick: int) -> tuple[bytes | None, str]:
        if not view.params:
            return b"{}", ""
        try:
            values = resolve(view.params, {}, tick_scope(tick, view.schedule.tz))
        except InvalidInput as error:
            return None, str(error)[:REASON]
        return msgspec.json.encode(values), ""
