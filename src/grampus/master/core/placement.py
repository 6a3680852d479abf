"""Which worker gets which task. Advice only: the guard in `apply` has the last word."""

from __future__ import annotations

from collections.abc import Iterable

from grampus.master.core.events import ReadyTask
from grampus.master.core.queue import ReadyQueue


class Place:
    """A worker as placement sees it: its slots, and what is taken of them or about to be."""

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

    @property
    def free(self) -> int:
        return self.slots - self.busy


def pick(places: Iterable[Place], slots: int) -> Place | None:
    """The place with the smallest share of its slots in use that has `slots` free."""
    best: Place | None = None
    for place in places:
        if place.free < slots:
            continue
        if best is None or place.busy * best.slots < best.busy * place.slots:
            best = place
    return best


def place_group(
    queue: ReadyQueue, group: str, places: list[Place], limit: int
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
        place = pick(places, task.slots)
        if place is None:
            break
        queue.remove(task.run, task.index)
        place.busy += task.slots
        placed.append((place, task))
    for task in too_big:
        queue.put_back(task)
    return placed
