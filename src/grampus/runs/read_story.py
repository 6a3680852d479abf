"""Reads the story of a run from its event rows. A page is bounded, and its cursor is all that the
next one needs: pages say together what one would."""

from __future__ import annotations

import datetime

import msgspec

from grampus.database import Database
from grampus.runs.graph import Graph
from grampus.runs.story import StoryPage, tell
from grampus.runs.views import EventView


def read_story(
    db: Database,
    graph: Graph,
    run: str,
    task: str | None,
    after: tuple[int, int] | None,
    limit: int,
) -> StoryPage:
    """At most `limit` lines beyond `after`; of a task, with what happened to the whole run."""
    revision, before = after or (0, None)
    where, args = "", []
    if task is not None:
        # A quote within a text is escaped, so this is the field and nothing else.
        where = " AND (kind GLOB 'run.*' OR instr(data, ?) > 0)"
        args.append(f'"task":{msgspec.json.encode(task).decode()}'.encode())
    rows = db.query(
        f"SELECT revision, at, kind, data FROM event WHERE run = ? AND revision > ?{where}"
        " ORDER BY revision LIMIT ?",
        (run, revision, *args, limit + 1),
    )

    def begun(index: int, attempt: int) -> int | None:
        found: int | None = db.value(
            "SELECT started FROM attempt WHERE run = ? AND task = ? AND attempt = ?",
            (run, index, attempt),
        )
        return found

    def run_began(revision: int) -> int | None:
        found: int | None = db.value(
            "SELECT at FROM event WHERE run = ? AND revision < ? AND kind = 'run.started'"
            " ORDER BY revision DESC LIMIT 1",
            (run, revision),
        )
        return found

    events = [EventView(revision=r[0], at=r[1], kind=r[2], data=bytes(r[3])) for r in rows[:limit]]
    lines = tell(events, graph, before, begun, run_began, _moment)
    more = (lines[-1].revision, lines[-1].at) if len(rows) > limit else None
    return StoryPage(lines=tuple(lines), after=more)


def _moment(ms: int) -> str:
    when = datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).replace(tzinfo=None)
    return f"{when.isoformat(' ', 'milliseconds' if ms % 1000 else 'seconds')} UTC"
