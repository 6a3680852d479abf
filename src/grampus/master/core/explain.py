"""Why something waits, from what the scheduler knows and where the ledger says that the run stands.

Rule: it asks what `place_group` and the guard in `apply` ask, in their order, and tells the answer;
a reason is told by what would have to change. Pure, and bounded: lists are cut, positions in line
are counted for the first tasks only.
"""

from __future__ import annotations

from collections.abc import Iterator

from grampus.master.core.events import ReadyTask
from grampus.master.core.placement import Place
from grampus.master.core.scheduler import Scheduler
from grampus.model.lease import fence_of, lease_of
from grampus.model.run import FINAL_RUN, FINAL_TASK, AttemptState, RunState, TaskState
from grampus.runs.explanation import Explanation, Reason, TaskExplanation
from grampus.runs.standing import Standing, TaskStanding, Tried
from grampus.runs.story import listed, span

#: Names in a list.
MOST_NAMES = 10
#: Tasks whose place in line is counted.
MOST_COUNTED = 5


def explain(
    scheduler: Scheduler | None, standing: Standing, now: int, doubt: str = ""
) -> Explanation:
    """`scheduler` is None where no master is in office. `doubt`: what is wrong with the clock that
    `now` was read from, or ""."""
    run = standing.run
    tasks = []
    for position, task in enumerate(standing.tasks):
        reasons = tuple(_task(scheduler, standing, task, now, position < MOST_COUNTED))
        tasks.append(TaskExplanation(task=task.name, state=task.state, reasons=reasons))
    return Explanation(
        run=run.id,
        workflow=run.workflow,
        state=run.state,
        reasons=tuple(_run(scheduler, standing, now, doubt)),
        tasks=tuple(tasks),
        tasks_left=standing.tasks_left,
    )


# -- the run ------------------------------------------------------------------------------------


def _run(scheduler: Scheduler | None, standing: Standing, now: int, doubt: str) -> Iterator[Reason]:
    run = standing.run
    if run.state == RunState.QUEUED:
        yield _queued(standing)
    elif run.state == RunState.PAUSED:
        yield Reason(code="run-paused", text=f"the run is {run.reason or 'paused'}")
    elif run.state == RunState.CANCELLING:
        yield _cancelling(standing)
    elif run.state in FINAL_RUN:
        yield _finished(standing)
    if run.state in FINAL_RUN:
        return
    if scheduler is None:
        yield Reason(code="no-master", text="no master is in office here: nothing starts now")
    elif scheduler.stopping:
        yield Reason(code="stopping", text="the server is being stopped: it starts nothing more")
    if standing.expires is not None and run.state != RunState.CANCELLING:
        left = max(standing.expires - now, 0)
        text = f"the run's own timeout passes in {span(left)}"
        if doubt and not left:
            text = f"the run's own timeout has passed by a clock that is doubted: {doubt}"
        yield Reason(code="run-timeout", text=text, until=standing.expires)


def _queued(standing: Standing) -> Reason:
    run, gate = standing.run, standing.gate
    if gate.paused:
        text = f"the run is queued: workflow {run.workflow} is paused"
        return Reason(code="workflow-paused", text=text, names=(run.workflow,))
    names = tuple(id for id, _ in standing.active)
    active = [f"{id} ({state})" for id, state in standing.active]
    behind = standing.queued_before
    before = f"; {_count(behind, 'queued run')} before it" if behind else ""
    if standing.alone and active:
        told = f"one run at a time, now {listed(active)}"
        text = f"the run is queued: its schedule's overlap lets {told}{before}"
        return Reason(code="overlap", text=text, names=names)
    text = f"the run is queued: {gate.why(standing.alone)}"
    if active:
        text += f": {'run' if gate.active == 1 else 'runs'} {listed(active)}"
    return Reason(code="queue-limit", text=text + before, names=names)


def _cancelling(standing: Standing) -> Reason:
    run = standing.run
    mine = [o for o in standing.occupants if o.run == run.id]
    names = tuple(f"{o.task}/{o.attempt}" for o in mine[:MOST_NAMES])
    what = listed(list(names)) if names else "its attempts"
    text = f"{run.reason}: waits until its workers say that nothing is left of {what}"
    return Reason(code="cancelling", text=text, names=names)


def _finished(standing: Standing) -> Reason:
    run = standing.run
    text = f"the run has {run.state}" if run.state == RunState.SUCCEEDED else f"it is {run.state}"
    bad = {state: count for state, count in run.counts.items() if state != TaskState.SUCCEEDED}
    counted = ", ".join(f"{count} {state}" for state, count in sorted(bad.items()))
    why = ": ".join(part for part in (run.reason, counted) if part)
    told = f"{text}: {why}" if why else text
    return Reason(code="run-finished", text=told, since=run.ended)


# -- a task -------------------------------------------------------------------------------------


def _task(
    scheduler: Scheduler | None, standing: Standing, task: TaskStanding, now: int, count: bool
) -> Iterator[Reason]:
    if task.state in FINAL_TASK:
        text = f"{task.name} is {task.state}{f': {task.reason}' if task.reason else ''}"
        yield Reason(code="task-finished", text=text, since=task.ended)
    elif task.state == TaskState.RUNNING:
        yield from _live(scheduler, standing, task, now)
    else:
        if task.state == TaskState.WAITING and task.waits:
            yield _upstream(task)
        elif _is_retrying(task, now):
            yield _retry(task, now)
        if standing.run.state in (RunState.QUEUED, RunState.PAUSED):
            text = f"the run is {standing.run.state}: it starts nothing"
            yield Reason(code="run-waits", text=text)
        elif scheduler is None:
            yield Reason(code="no-master", text="no master is in office here: nothing starts now")
        elif task.state != TaskState.WAITING:
            yield from _placement(scheduler, standing, task, now, count)


def _upstream(task: TaskStanding) -> Reason:
    ups = [f"{up.task} ({up.state})" for up in task.ups]
    more = task.waits - len(ups)
    if more > 0:
        ups.append(f"{more} more")
    names = tuple(up.task for up in task.ups)
    return Reason(code="upstream", text=f"waits for {listed(ups, MOST_NAMES)}", names=names)


def _is_retrying(task: TaskStanding, now: int) -> bool:
    return task.state == TaskState.RETRYING and task.due is not None and task.due > now


def _retry(task: TaskStanding, now: int) -> Reason:
    assert task.due is not None
    why = f" ({task.reason.rstrip(': ')})" if task.reason else ""
    text = f"attempt {task.attempt} is due in {span(task.due - now)}{why}"
    return Reason(code="retry-due", text=text, until=task.due)


def _live(
    scheduler: Scheduler | None, standing: Standing, task: TaskStanding, now: int
) -> Iterator[Reason]:
    last = task.last
    assert last is not None
    place = None if scheduler is None else scheduler.places.get(last.session)
    if scheduler is not None and (place is None or not place.connected):
        yield _unreachable(scheduler, place, standing, task, last, now)
    elif place is not None and place.trouble and last.state == AttemptState.STARTING:
        yield _troubled([place], task)
    if place is not None and last.n in place.stuck:
        text = (
            f"{task.name}/{last.attempt} cannot be killed: its processes on {last.worker} are still"
            " there long after KILL, as while a disk or a network file system does not answer."
            " It keeps its slot until they are gone"
        )
        yield Reason(code="unkillable", text=text, names=(last.worker,))
    if last.state == AttemptState.STARTING:
        if scheduler is not None and place is not None:
            live = scheduler.live.get(place.session, {})
            before = sum(attempt.slots for n, attempt in live.items() if n < last.n)
            if before + task.slots > place.slots:
                yield _given_ahead(standing, place, task, last, now)
                return
        ago = span(max(now - last.started, 0))
        text = f"{task.name}/{last.attempt} was given to {last.worker} {ago} ago"
        yield Reason(code="starting", text=text, since=last.started, names=(last.worker,))
        return
    if place is not None and place.connected and last.n not in place.stuck:
        yield from _ending(standing, task, last, now)
    since = last.running or last.started
    text = f"{task.name}/{last.attempt} runs on {last.worker} for {span(max(now - since, 0))}"
    yield Reason(code="running", text=text, since=since, names=(last.worker,))


def _ending(standing: Standing, task: TaskStanding, last: Tried, now: int) -> Iterator[Reason]:
    """TERM goes out with the cancel, and at the attempt's own timeout; KILL after the grace."""
    name, since, why = f"{task.name}/{last.attempt}", standing.ending, ""
    if last.running is not None and task.timeout is not None:
        late = last.running + task.timeout
        if late <= now and (since is None or late < since):
            since, why = late, f"has had its timeout of {span(task.timeout)}, and "
    if since is None:
        return
    kill = since + task.grace
    text = f"{name} {why}was asked to end (TERM) {span(max(now - since, 0))} ago"
    if now < kill:
        text += f": it has {span(kill - now)} left of its grace, then it is killed"
    else:
        text += ": its grace is over, and it is killed; waits until nothing of it is left"
    until = kill if now < kill else None
    yield Reason(code="ending", text=text, since=since, until=until, names=(last.worker,))


def _unreachable(
    scheduler: Scheduler,
    place: Place | None,
    standing: Standing,
    task: TaskStanding,
    last: Tried,
    now: int,
) -> Reason:
    since = None if place is None else place.silent_since
    for_long = "" if since is None else f" for {span(max(now - since, 0))}"
    text = f"{task.name}/{last.attempt} may run on: its worker {last.worker} is silent{for_long}. "
    over = scheduler.lease_over(last.session, last.n)
    ended = standing.ending is not None
    if over is None:
        text += "It is ended" if ended else "It is kept, and goes on"
        text += " when the worker is back; if that never comes: grampus run declare-lost"
    else:
        text += "It is given up" if ended else "It starts elsewhere"
        text += f" when its lease ends in {span(max(over - now, 0))}; {_fenced(task, over, now)}"
    return Reason(code="worker-silent", text=text, since=since, until=over, names=(last.worker,))


def _fenced(task: TaskStanding, over: int, now: int) -> str:
    """What becomes of it where it runs, if nobody is heard there either."""
    lease = lease_of(task.lease)
    fence, left = fence_of(lease), over - now
    if (term := left - lease + fence.term) > 0:
        return f"before that its machine, if it lives, asks it to end (TERM in {span(term)})"
    if (kill := left - lease + fence.kill) > 0:
        return f"its machine, if it lives, has asked it to end (TERM), and kills it in {span(kill)}"
    return "its machine, if it lives, has ended it by now"


def _given_ahead(
    standing: Standing, place: Place, task: TaskStanding, last: Tried, now: int
) -> Reason:
    before = [o for o in standing.occupants if o.session == place.session and o.n < last.n]
    holders = [f"{o.run}/{o.task}" for o in before]
    by = f", behind {listed(holders, MOST_NAMES)}" if holders else ""
    text = (
        f"{task.name}/{last.attempt} was given to {place.worker} {span(max(now - last.started, 0))}"
        f" ago, ahead of a free slot: it waits there for one{by}, and is given back if that lasts"
    )
    names = tuple(holders[:MOST_NAMES])
    return Reason(code="given-ahead", text=text, since=last.started, names=names)


def _placement(
    scheduler: Scheduler, standing: Standing, task: TaskStanding, now: int, count: bool
) -> Iterator[Reason]:
    """As the task would be placed once it is due."""
    if (standing.run.id, task.index, task.attempt) in scheduler.proposed:
        text = f"{task.name}/{task.attempt} is about to start: its start is being committed"
        yield Reason(code="starting", text=text)
        return
    if scheduler.stopping:
        yield Reason(code="stopping", text="the server is being stopped: it starts nothing more")
        return
    group = [place for place in scheduler.places.values() if place.group == task.group]
    there = [place for place in group if place.connected]
    able = [place for place in there if place.is_able]
    if not group:
        yield _no_worker(scheduler, task)
    elif not there:
        yield _silent(group, task, now)
    elif not able:
        troubled = [place for place in there if place.trouble and not place.draining]
        yield _troubled(troubled, task) if troubled else _draining(group, there, task)
    elif task.slots > max(place.slots for place in able):
        yield _too_big(group, able, task)
    elif not _is_retrying(task, now):
        yield from _busy(scheduler, standing, able, task, count)


def _no_worker(scheduler: Scheduler, task: TaskStanding) -> Reason:
    groups = sorted({place.group for place in scheduler.places.values()})
    those = f"groups that exist: {listed(groups, MOST_NAMES)}" if groups else "there is no worker"
    text = f"no worker in group {task.group} ({those})"
    return Reason(code="no-worker", text=text, names=tuple(groups[:MOST_NAMES]))


def _silent(group: list[Place], task: TaskStanding, now: int) -> Reason:
    ways = []
    for place in sorted(group, key=lambda place: place.worker):
        since = place.silent_since
        for_long = "" if since is None else f" for {span(max(now - since, 0))}"
        ways.append(f"{place.worker}{for_long}")
    times = [place.silent_since for place in group if place.silent_since is not None]
    what = "its worker is" if len(group) == 1 else "all its workers are"
    text = f"group {task.group}: {what} silent: {listed(ways, MOST_NAMES)}"
    names = tuple(sorted(place.worker for place in group)[:MOST_NAMES])
    return Reason(code="worker-silent", text=text, since=max(times, default=None), names=names)


def _troubled(there: list[Place], task: TaskStanding) -> Reason:
    ways = [f"{place.worker}: {place.trouble}" for place in there]
    what = "its worker starts" if len(there) == 1 else "its workers start"
    text = f"group {task.group}: {what} nothing now, and tries again ({listed(ways, MOST_NAMES)})"
    names = tuple(place.worker for place in there[:MOST_NAMES])
    return Reason(code="worker-troubled", text=text, names=names)


def _draining(group: list[Place], there: list[Place], task: TaskStanding) -> Reason:
    names = tuple(sorted(place.worker for place in there)[:MOST_NAMES])
    what = "its worker is" if len(there) == 1 else "its workers are"
    text = f"group {task.group}: {what} draining: {listed(list(names), MOST_NAMES)}"
    silent = sorted(place.worker for place in group if not place.connected)
    if silent:
        text += f"; {listed(silent, MOST_NAMES)} {'is' if len(silent) == 1 else 'are'} silent"
    return Reason(code="worker-draining", text=text, names=names)


def _too_big(group: list[Place], able: list[Place], task: TaskStanding) -> Reason:
    largest = max(able, key=lambda place: place.slots)
    ways = [
        f"{place.worker} would do, but {_unable(place)}"
        for place in sorted(group, key=lambda place: place.worker)
        if place.slots >= task.slots
    ]
    text = (
        f"needs {_count(task.slots, 'slot')}, the largest worker"
        f"{' that takes tasks' if ways else ''} of group {task.group} has {largest.slots}"
    )
    if ways:
        text += f"; {listed(ways)}"
    return Reason(code="too-big", text=text, names=(largest.worker,))


def _unable(place: Place) -> str:
    """Of a worker that is not able."""
    if not place.connected:
        return "does not answer"
    return "is draining" if place.draining else f"starts nothing now ({place.trouble})"


def _busy(
    scheduler: Scheduler, standing: Standing, there: list[Place], task: TaskStanding, count: bool
) -> Iterator[Reason]:
    entry = scheduler.queue.find(standing.run.id, task.index)
    room = any(place.slots - place.busy >= task.slots for place in there)
    if not room:
        yield _no_slot(standing, there, task)
    if count and entry is not None:
        ahead, higher = scheduler.queue.ahead(entry)
        if ahead:
            yield _behind(task, entry, ahead, higher)
            return
    if room:
        text = f"{task.name}/{task.attempt} starts as soon as the scheduler comes to it"
        yield Reason(code="starting", text=text)


def _no_slot(standing: Standing, there: list[Place], task: TaskStanding) -> Reason:
    sessions = {place.session for place in there}
    slots, busy = sum(p.slots for p in there), sum(min(p.busy, p.slots) for p in there)
    holders = [f"{o.run}/{o.task}" for o in standing.occupants if o.session in sessions]
    names = tuple(holders[:MOST_NAMES])
    by = f" with {listed(holders, MOST_NAMES)}" if holders else ""
    need = f"; it needs {task.slots} on one worker" if task.slots > 1 else ""
    text = f"no free slot in group {task.group}: {busy} of {slots} busy{by}{need}"
    return Reason(code="no-free-slot", text=text, names=names)


def _behind(task: TaskStanding, entry: ReadyTask, ahead: int, higher: int) -> Reason:
    parts = []
    if higher:
        parts.append(f"{higher} of higher priority")
    if ahead > higher:
        parts.append(f"{ahead - higher} that came before it")
    text = (
        f"behind {_count(ahead, 'other')} in group {task.group}, {' and '.join(parts)} "
        f"(its own priority is {entry.priority})"
    )
    return Reason(code="behind-others", text=text)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
