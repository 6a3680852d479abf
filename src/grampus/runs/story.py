"""The story of a run: each of its facts as one line for people, with how long and why.

Rule: told from the event rows, and from what never changes: the graph, and when attempts started.
A line says what happened; `since` how long after the line before it, `took` how long what ended had
lasted. Pure; `read_story` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from grampus.model.duration import format_duration
from grampus.model.run import AttemptState, RunState, TaskState
from grampus.runs import events as facts
from grampus.runs.events import Fact
from grampus.runs.graph import Graph
from grampus.runs.views import EventView

#: Upstream tasks that are named.
MOST_NAMED = 4

_DECODER = msgspec.json.Decoder(Fact)


class StoryLine(Struct, frozen=True, kw_only=True):
    revision: int
    at: int
    #: Milliseconds since the line before; None for the first.
    since: int | None
    #: Tag of the fact.
    kind: str
    #: "" for what happened to the run itself.
    task: str
    #: 0 for what happened to no attempt.
    attempt: int
    #: That the run, task or attempt has now; "" when the fact changes none.
    state: str
    #: How long what ended had lasted, in ms; None for what is no end.
    took: int | None
    #: Without the time.
    text: str


class StoryPage(Struct, frozen=True, kw_only=True):
    lines: tuple[StoryLine, ...]
    #: Of the last line, for the page that follows: (revision, at). None when all is told.
    after: tuple[int, int] | None


def tell(
    events: Iterable[EventView],
    graph: Graph,
    before: int | None,
    begun: Callable[[int, int], int | None],
    run_began: Callable[[int], int | None],
    moment: Callable[[int], str],
) -> list[StoryLine]:
    """`before`: when the line before the first one was. `begun`: when (task, attempt) started;
    `run_began`: when the round began that ended with a revision. `moment`: a time for people."""
    lines = []
    for event in events:
        fact: Fact = _DECODER.decode(event.data)
        took = _took(fact, begun, run_began)
        lines.append(
            StoryLine(
                revision=event.revision,
                at=event.at,
                since=None if before is None else event.at - before,
                kind=event.kind,
                task=getattr(fact, "task", ""),
                attempt=_attempt_of(fact),
                state=_state_of(fact),
                took=took,
                text=_text(fact, graph, took, moment),
            )
        )
        before = event.at
    return lines


def _took(
    fact: Fact, begun: Callable[[int, int], int | None], run_began: Callable[[int], int | None]
) -> int | None:
    start = None
    if isinstance(fact, facts.AttemptFinished):
        if fact.took is not None:
            return fact.took
        start = begun(fact.index, fact.attempt)
    elif isinstance(fact, facts.RunFinished):
        start = run_began(fact.revision)
    return None if start is None or start > fact.at else fact.at - start


def _attempt_of(fact: Fact) -> int:
    if isinstance(fact, facts.AttemptStarted | facts.AttemptRunning | facts.AttemptFinished):
        return fact.attempt
    return 0


def _state_of(fact: Fact) -> str:
    match fact:
        case facts.RunStarted() | facts.RunResumed():
            return RunState.RUNNING
        case facts.RunPaused():
            return RunState.PAUSED
        case facts.RunCancelling():
            return RunState.CANCELLING
        case facts.RunRetried():
            return RunState.QUEUED
        case facts.TaskReset():
            return TaskState.WAITING
        case facts.AttemptStarted():
            return AttemptState.STARTING
        case facts.AttemptRunning():
            return AttemptState.RUNNING
        case _:
            return str(getattr(fact, "state", ""))


def _text(fact: Fact, graph: Graph, took: int | None, moment: Callable[[int], str]) -> str:
    match fact:
        case facts.RunSubmitted():
            by = "" if fact.tick is None else f" by its schedule, for {moment(fact.tick)}"
            high = f", priority {fact.priority}" if fact.priority else ""
            waits = f"; QUEUED: {fact.reason}" if fact.reason else ""
            return f"submitted{by}: {fact.workflow} version {fact.version}{high}{waits}"
        case facts.RunStarted():
            limit = graph.workflow.timeout
            timed = f", with {format_duration(limit)} to its timeout" if limit else ""
            return _with(f"RUNNING{timed}", fact.why)
        case facts.RunPaused():
            return f"PAUSED by {fact.by}: starts nothing more"
        case facts.RunResumed():
            return f"RUNNING again, resumed by {fact.by}"
        case facts.RunCancelling():
            return f"CANCELLING, asked by {fact.by}: running attempts are ended"
        case facts.RunRetried():
            return f"round {fact.round}, asked by {fact.by}"
        case facts.RunFinished():
            return _with(f"{fact.state}{_after(took)}", fact.reason)
        case facts.TaskReset():
            return f"{fact.task} starts anew"
        case facts.TaskReady():
            return _ready(fact, graph)
        case facts.TaskFinished():
            return _with(f"{fact.task} is {fact.state}", fact.reason)
        case facts.AttemptStarted():
            return f"{fact.task}/{fact.attempt} STARTING on {fact.worker}"
        case facts.AttemptRunning():
            return f"{fact.task}/{fact.attempt} RUNNING on {fact.worker}"
        case facts.AttemptFinished():
            what = f"{fact.task}/{fact.attempt} {fact.state} on {fact.worker}{_after(took)}"
            return _with(what, _ending(fact))
        case _:
            return str(fact.__struct_config__.tag)


def _ready(fact: facts.TaskReady, graph: Graph) -> str:
    wait = fact.due - fact.at
    if fact.again:
        soon = f", due in {span(wait)}" if wait > 0 else ""
        return f"{fact.task} may start again{soon}: the run goes on"
    if fact.state == TaskState.RETRYING:
        soon = f"in {span(wait)}" if wait > 0 else "at once"
        return _with(f"{fact.task} RETRYING {soon} as attempt {fact.attempt}", fact.reason)
    if fact.reason:
        return _with(f"{fact.task} READY again", fact.reason)
    ups = [graph.tasks[up].name for up in graph.ups[fact.index]]
    if not ups:
        return f"{fact.task} READY: it waits for nothing"
    return f"{fact.task} READY because {listed(ups)} succeeded"


def _ending(fact: facts.AttemptFinished) -> str:
    """What the worker said; the exit code when it said nothing."""
    code = ""
    if fact.exit is not None and fact.state != AttemptState.SUCCEEDED:
        code = f"signal {-fact.exit}" if fact.exit < 0 else f"exit code {fact.exit}"
    if code and code not in fact.error:
        return f"{code}: {fact.error}" if fact.error else code
    return fact.error


def _with(what: str, why: str) -> str:
    why = why.rstrip(": ")
    return f"{what}: {why}" if why else what


def _after(took: int | None) -> str:
    return "" if took is None else f" after {span(took)}"


def listed(names: list[str], most: int = MOST_NAMED) -> str:
    """`a`, `a and b`, `a, b, c and 7 more`."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def span(ms: int) -> str:
    """A time for reading: 0.012s, 3.2s, 48s, 5m30s, 2h."""
    if ms < 1_000:
        return f"{ms / 1000:.3f}s"
    if ms < 10_000:
        return f"{ms / 1000:.1f}s"
    return format_duration(round(ms, -3))
