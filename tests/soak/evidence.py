"""What the lines of the tasks prove, or disprove: pure.

Two executions of one task may not overlap, one attempt is executed once, and who lived when only a
node process was killed goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: An execution that lives writes at least so often, in seconds, on a busy machine too.
BEAT = 1.0
#: What a killed warden had does not write later than so long after, in seconds.
GONE = 0.25


@dataclass
class Execution:
    run: str
    task: str
    attempt: int
    name: str
    pid: int
    boot: str
    #: Seconds since boot at which it wrote, and what.
    times: list[float] = field(default_factory=list)
    whats: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.whats[-1] in ("end", "fail")


@dataclass(frozen=True)
class Kill:
    """`at` is before the signal; `ready` is when a node was ready again, or the same as `at`."""

    what: str
    at: float
    ready: float


@dataclass
class Findings:
    executions: dict[str, Execution] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    #: Executions of one process before and after a restart of the node, by kill of a node.
    went_on: int = 0
    #: Kills of a node over which at least one execution went on.
    kills_survived: int = 0
    #: Ended while no node was there, and nobody else did it again.
    ended_alone: int = 0


def read(text: str) -> Findings:
    """The executions, and what is wrong with the lines themselves."""
    found = Findings()
    current: dict[tuple[str, str], Execution] = {}
    for line in text.splitlines():
        what, run, task, attempt, name, pid, uptime, boot = line.split()
        if what == "overlap":
            found.problems.append(f"the lock of {run}/{task} was held when {attempt} began")
            continue
        one = found.executions.get(name)
        if one is None:
            one = Execution(run, task, int(attempt), name, int(pid), boot)
            found.executions[name] = one
            before = current.get((run, task))
            if before is not None and one.attempt <= before.attempt:
                found.problems.append(
                    f"{run}/{task}: attempt {one.attempt} executed after {before.attempt}"
                )
            current[run, task] = one
        elif current[run, task] is not one:
            found.problems.append(
                f"{run}/{task}: attempt {one.attempt} wrote `{what}` after the start of"
                f" attempt {current[run, task].attempt}"
            )
        if (one.pid, one.boot) != (int(pid), boot):
            found.problems.append(f"{run}/{task}: one execution, two processes")
        one.times.append(float(uptime))
        one.whats.append(what)
    return found


def follow(found: Findings, kills: Sequence[Kill]) -> None:
    """Who went on over the kills of a node whose warden lived."""
    deaths = [kill.at for kill in kills if kill.what != "node"]
    again = latest(found.executions.values())
    for number, kill in enumerate(kills):
        if kill.what != "node":
            continue
        dead = max((at for at in deaths if at < kill.at), default=0.0) + GONE
        until = min((at for at in deaths if at > kill.at), default=float("inf"))
        survived = 0
        for one in found.executions.values():
            before = [time for time in one.times if max(dead, kill.at - BEAT) < time < kill.at]
            after = [time for time in one.times if kill.at < time < until]
            if not before or (one.over and one.times[-1] < kill.at):
                continue
            if after and after[-1] > kill.ready:
                survived += 1
            elif after and one.over and again[one.run, one.task] is one:
                found.ended_alone += 1
            elif not after and until - kill.at > BEAT:
                found.problems.append(
                    f"{one.run}/{one.task}: attempt {one.attempt} ended with node {number},"
                    " and its warden lived"
                )
        found.went_on += survived
        found.kills_survived += survived > 0


def latest(executions: Iterable[Execution]) -> dict[tuple[str, str], Execution]:
    """The last execution of each task."""
    by_task: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for one in executions:
        by_task[one.run, one.task].append(one)
    return {key: max(many, key=lambda one: one.attempt) for key, many in by_task.items()}
