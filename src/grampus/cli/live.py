"""The live picture of a run on a terminal: a headline, a bar, and as many tasks as fit.

Rule: what does not fit is counted, never cut off silently; what failed and what runs comes first.
Text of tasks is drawn as text: markup and control characters in it mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from grampus.cli.output import clean, cut, span
from grampus.cli.watch import FAILED, Watched, WatchedTask
from grampus.clock import Clock
from grampus.model.run import FINAL_TASK, TaskState

_STYLE = {
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "RETRYING": "yellow",
    "CANCELLING": "yellow",
    "CANCELLED": "yellow",
    "UPSTREAM_FAILED": "yellow",
}
_SIGN = {
    "SUCCEEDED": "✓",
    "RUNNING": "●",
    "FAILED": "✗",
    "TIMED_OUT": "✗",
    "RETRYING": "↻",
    "UPSTREAM_FAILED": "⊘",
    "CANCELLED": "⊘",
    "SKIPPED": "⊘",
}
#: What is shown first when not everything fits.
_RANK = {
    TaskState.FAILED: 0,
    TaskState.TIMED_OUT: 0,
    TaskState.RUNNING: 1,
    TaskState.RETRYING: 2,
    TaskState.READY: 3,
    TaskState.SUCCEEDED: 4,
    TaskState.WAITING: 5,
}
ERROR_LINES = 3
BAR = 30
DEEPEST = 6
#: Cells of a line without its name: a sign, the state, the time, and that there is more.
BESIDE = 28


class Picture:
    """Draws `watched` as it is when it is asked to: give it to `rich.live.Live`."""

    def __init__(self, watched: Watched, clock: Clock) -> None:
        self._watched = watched
        self._clock = clock
        self._depth = depths(watched.tasks)
        #: Since when nobody answers, wall ms.
        self._silent: int | None = None
        #: What is wrong then.
        self._why = ""

    def fall_silent(self, why: str) -> None:
        """Nobody answers: what is drawn is what was known; or, with "", somebody does again."""
        self._silent, self._why = self._clock.now() if why else None, why

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = (options.height or console.size.height) - 1
        yield Group(*self.lines(options.max_width, max(height, 4)))

    def lines(self, width: int, height: int) -> list[Text]:
        """At most `height` lines of at most `width` cells."""
        watched, now = self._watched, self._clock.now()
        end = watched.ended or now
        head = Text(f"{watched.workflow} {watched.id} ", no_wrap=True, overflow="ellipsis")
        head.append(watched.state, _STYLE.get(watched.state, ""))
        head.append(f" {span(end - (watched.started or watched.created))}")
        if watched.reason and watched.ended is None:
            head.append(f"  {clean(watched.reason)}", "dim")
        lines = [head, self._bar()]
        if self._silent is not None:
            lasts = span(now - self._silent)
            lines.append(Text(f"{self._why} for {lasts}: trying again", "yellow"))
        shown, hidden = self._choose(height - len(lines))
        # The state and the time come first when there is not room for all.
        most = max(min(width - BESIDE, width * 2 // 3), 8)
        column = min(max((self._indent(t) + len(t.name) for t in shown), default=0), most)
        for task in shown:
            lines += self._task(task, now, width, column)
        if hidden:
            lines.append(Text(f"  + {hidden}", "dim", no_wrap=True, overflow="ellipsis"))
        for text in lines:
            text.truncate(width, overflow="ellipsis")
        return lines[:height]

    def _bar(self) -> Text:
        counts = self._watched.counts()
        total = max(len(self._watched.tasks), 1)
        done = sum(n for state, n in counts.items() if state in FINAL_TASK)
        bad = sum(n for state, n in counts.items() if state in FAILED)
        good = counts.get(TaskState.SUCCEEDED, 0)
        text = Text(no_wrap=True, overflow="ellipsis")
        parts = [(good, "green"), (bad, "red"), (done - good - bad, "yellow")]
        used = 0
        for count, style in parts:
            # Rounded up, so that one failure among thousands is seen.
            size = min(-(-count * BAR // total), BAR - used)
            text.append("━" * size, style)
            used += size
        text.append("━" * (BAR - used), "dim")
        text.append(f" {done}/{total} done")
        if bad:
            text.append(f", {bad} failed", "red")
        return text

    def _choose(self, room: int) -> tuple[list[WatchedTask], str]:
        """The tasks that fit into `room` lines, in the order of the graph, and what is left out."""
        tasks = self._watched.tasks
        ordered = sorted(tasks, key=lambda t: (self._depth[t.name], t.index))
        if sum(map(_height, tasks)) <= room:
            return ordered, ""
        urgent = sorted(tasks, key=lambda t: (_RANK.get(t.state, 4), -(t.ended or 0), t.index))
        chosen: set[str] = set()
        left = room - 1
        for task in urgent:
            if _height(task) > left:
                break
            chosen.add(task.name)
            left -= _height(task)
        rest: dict[str, int] = {}
        for task in tasks:
            if task.name not in chosen:
                rest[task.state] = rest.get(task.state, 0) + 1
        words = ", ".join(f"{n} {state.lower().replace('_', ' ')}" for state, n in rest.items())
        return [t for t in ordered if t.name in chosen], words

    def _task(self, task: WatchedTask, now: int, width: int, column: int) -> Sequence[Text]:
        style = _STYLE.get(task.state, "dim")
        indent = self._indent(task)
        errors = [Text(" " * (indent + 4) + clean(x), "red") for x in _errors(task)]
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(" " * indent)
        text.append(_SIGN.get(task.state, "·") + " ", style)
        text.append(cut(task.name, max(column - indent, 8)).ljust(column - indent) + "  ")
        text.append(f"{task.state:<15}", style)
        if task.started is not None:
            text.append(f" {span((task.ended or now) - task.started):>6}")
        if task.tries > 1 or task.state == TaskState.RETRYING:
            text.append(f"  try {task.tries} of {task.max_attempts}")
        if task.state == TaskState.RETRYING and task.due is not None:
            text.append(f", next in {span(task.due - now)}")
        if task.state == TaskState.RUNNING:
            text.append(f"  {clean(task.worker)}", "dim")
        elif task.reason and not errors:
            text.append(f"  {clean(task.reason)}", "dim")
        return [text, *errors]

    def _indent(self, task: WatchedTask) -> int:
        return 2 * min(self._depth[task.name], DEEPEST)


def depths(tasks: Sequence[WatchedTask]) -> dict[str, int]:
    """How many tasks are before each, along the longest way."""
    after = {task.name: task.after for task in tasks}
    found: dict[str, int] = {}
    stack = list(after)
    while stack:
        name = stack[-1]
        if name in found:
            stack.pop()
            continue
        missing = [up for up in after[name] if up in after and up not in found]
        if missing:
            stack += missing
            continue
        found[stack.pop()] = 1 + max((found[up] for up in after[name] if up in found), default=-1)
    return found


def _errors(task: WatchedTask) -> list[str]:
    if task.state not in FAILED and task.state != TaskState.RETRYING:
        return []
    return [x for x in (task.error or task.reason).splitlines() if x.strip()][-ERROR_LINES:]


def _height(task: WatchedTask) -> int:
    return 1 + len(_errors(task))
