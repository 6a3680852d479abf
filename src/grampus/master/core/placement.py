"""Which worker gets which task. Advice only: the guard in `apply` has the last word."""

from __future__ import annotations

from collections.abc import Iterable

from grampus.master.core.events import ReadyTask
from grampus.master.core.queue import ReadyQueue

#: Attempts that take less, in ms, are short: beside them the way of a start to its worker counts.
SHORT = 50
#: Of those that take still less a worker is given more ahead: what they all say travels together,
#: and costs a part of what it costs one by one.
BRIEF, MANY = 15, 7
#: An attempt that was given out so long ago, in ms, is none of the short ones.
OLD = 200


class Place:
    """A worker as placement sees it: its slots, and what is taken of them or about to be.

    While its attempts are short, it is given as many again, or `MANY` times as many, to wait there
    for a slot. One attempt that is not short ends that: whoever waits behind it would be better off
    elsewhere."""

    def __init__(self, session: int, worker: str, group: str, slots: int, next_n: int) -> None:
        self.session = session
        self.worker = worker
        self.group = group
        self.slots = slots
        self.next_n = next_n
        self.busy = 0
        self.connected = False
        #: Since when it is not connected, as far as this master knows.
        self.silent_since: int | None = None
        #: Why it can start nothing, or "".
        self.trouble = ""
        #: Its attempts that KILL does not end: they keep their slots.
        self.stuck: frozenset[int] = frozenset()
        #: It gets nothing new.
        self.draining = False
        #: When its live attempts were started, oldest first.
        self._born: dict[int, int] = {}
        #: How long attempts take, in ms, on a moving average; long until it is known to be short.
        self._span = 10 * SHORT

    def born(self, n: int, at: int) -> None:
        self._born[n] = at

    def ended(self, n: int, at: int) -> None:
        live = len(self._born)
        born = self._born.pop(n, None)
        if born is not None:
            # Of its time it waited for those before it.
            took = max(at - born, 0) * self.slots // max(self.slots, live)
            self._span += (min(took, 10 * SHORT) - self._span) // 8

    def ahead(self, now: int) -> int:
        """Slots that it may be given beyond its own."""
        oldest = next(iter(self._born.values()), now)
        # After a clock was set back an age is below 0: then nobody knows it.
        if self._span >= SHORT or not 0 <= now - oldest < OLD:
            return 0
        return self.slots * MANY if self._span < BRIEF else self.slots

    @property
    def is_able(self) -> bool:
        """Whether it may be given something."""
        return self.connected and not self.trouble and not self.draining

    def free(self, now: int) -> int:
        return self.slots + self.ahead(now) - self.busy


def pick(places: Iterable[Place], slots: int, now: int) -> Place | None:
    """The place with the smallest share of its slots in use that has `slots` free."""
    best: Place | None = None
    for place in places:
        if place.slots < slots or place.free(now) < slots:
            continue
        if best is None or place.busy * best.slots < best.busy * place.slots:
            best = place
    return best


def place_group(
    queue: ReadyQueue, group: str, places: list[Place], limit: int, now: int
) -> list[tuple[Place, ReadyTask]]:
    """Takes tasks from the head of the group's line while they fit, at most `limit`.

    Strictly in order: a task that must wait for more slots makes those behind it wait too, else it
    would wait for ever. A task that no worker of the group could ever hold is passed over.
    """
    placed: list[tuple[Place, ReadyTask]] = []
    too_big: list[ReadyTask] = []
    largest = max((place.slots for place in places), default=0)
    while len(placed) < limit and (task := queue.peek(group)) is not None:
        if task.slots > largest:
            too_big.append(queue.set_aside(group))
            continue
        place = pick(places, task.slots, now)
        if place is None:
            break
        queue.remove(task.run, task.index)
        place.busy += task.slots
        placed.append((place, task))
    for task in too_big:
        queue.put_back(task)
    return placed
