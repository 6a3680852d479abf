"""A model of the warden and its attempts.

As in `worker.keeper`: an attempt is over when nothing of it is left; without a worker attempts go
on, and their ends are kept until one has taken them; a new warden is ready only when nothing of an
earlier one lives.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from grampus.testing.machine import VIGIL, Machine
from grampus.testing.watch import Execution
from grampus.testing.world import ProcessLoop
from grampus.worker import orders
from grampus.worker.fence import Fence

if TYPE_CHECKING:
    from grampus.testing.warden_client import SimWardenClient

Cause = Literal["exit", "timeout", "end", "fenced", "spawn", "lost", "unable"]
#: Seconds that a warden waits for a worker when it has nothing to do and nothing to tell.
ALONE = 30.0


class Attempt:
    def __init__(
        self, launch: orders.Launch, slot: int, chance: random.Random, lasts: Sequence[float]
    ) -> None:
        self.launch = launch
        self.slot = slot
        self.name = Execution.of(launch.stem)
        self.over = False
        self.started = self.ticks = 0
        #: The worker's process that asked for it.
        self.asker: ProcessLoop | None = None
        self.halted: Cause | None = None
        kind = chance.random()
        self.exit = 0 if kind < 0.8 else chance.choice([1, 2, -9])
        self.seconds = chance.uniform(0, chance.choice(lasts))
        #: How long it takes to obey TERM; longer than its grace is never.
        self.obeys = chance.choice([0.002, chance.uniform(0, 12)])
        self.output = b"size=%d\n" % chance.randrange(9) if chance.random() < 0.5 else b""
        self.stderr = b"no such file\n" if self.exit and chance.random() < 0.5 else b""


class Warden:
    def __init__(self, machine: Machine, slots: int) -> None:
        self.machine = machine
        self.world = machine.world
        self.instance = machine.instance()
        self.alive = True
        self.stopping = False
        self.attempts: dict[int, Attempt] = {}
        self.slots = slots
        #: Ends that no worker has taken.
        self._kept: dict[int, orders.Ended] = {}
        self._alone_since = 0.0
        self._queue: list[orders.Launch] = []
        self._fence = Fence()
        self._seen: set[int] = set()
        self._client: SimWardenClient | None = None
        machine.wardens.append(self)

    # -- its worker -------------------------------------------------------------------------------

    @property
    def taken(self) -> bool:
        """It has a worker, or has not seen yet that it is gone."""
        return self._client is not None

    def accept(self, client: SimWardenClient) -> orders.Ready:
        self._client = client
        running = [
            orders.Running(n, a.slot, a.started, False, a.ticks) for n, a in self.attempts.items()
        ]
        running += [orders.Running(launch.n, None, 0, False) for launch in self._queue]
        running += [orders.Running(n, None, 0, True) for n in self._kept]
        ready = orders.Ready(self.instance, client.containment, self.slots, running)
        self._say(ready)
        for ended in self._kept.values():
            self._say(ended)
        return ready

    def hear(self, client: SimWardenClient, order: orders.Order) -> None:
        if not self.alive or client is not self._client:
            return
        if not self.machine.when_awake(lambda: self.hear(client, order)):
            return
        self._fence_off()
        match order:
            case orders.Confirmed(sent):
                self._fence.confirm(sent)
            case orders.Launch(n):
                self._launch(order, n)
            case orders.End(n):
                for launch in [launch for launch in self._queue if launch.n == n]:
                    self._queue.remove(launch)
                    self._refuse(n, "end", "ended before it was started")
                    self._serve()
                if n in self.attempts:
                    self._halt(self.attempts[n], "end", self.attempts[n].launch.grace)
            case orders.Recall(n):
                for launch in [launch for launch in self._queue if launch.n == n]:
                    self._queue.remove(launch)
                    self._refuse(n, "unable", "no slot became free for it")
            case orders.Taken(numbers):
                for n in numbers:
                    self._kept.pop(n, None)
            case orders.Shutdown(grace):
                # With the grace of a stop it is a user's wish.
                assert grace or not self.attempts, "a worker ends a warden that has attempts"
                self._stop(grace)

    def worker_gone(self, client: SimWardenClient) -> None:
        if self.alive and client is self._client:
            self._client = None
            self._be_alone()

    def _be_alone(self) -> None:
        self._alone_since = self.world.time
        self.world.after(ALONE, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        if self._client or self.stopping or self.attempts or self._queue or self._kept:
            return
        if self.alive and self.world.time - self._alone_since >= ALONE - 0.001:
            self._stop(0)

    def _say(self, notice: orders.Notice) -> None:
        if self._client is not None:
            self._client.come(notice)

    def _tell_end(self, ended: orders.Ended) -> None:
        self._kept[ended.n] = ended
        if self._client is None:
            self._be_alone()
        self._say(ended)

    def _launch(self, launch: orders.Launch, n: int) -> None:
        if n in self.attempts or any(n == queued.n for queued in self._queue):
            return
        if n in self._seen:
            self._refuse(n, "unable", f"number {n} was used before")
            return
        self._seen.add(n)
        if self.stopping:
            self._refuse(n, "end", "the warden is ending")
        else:
            self._queue.append(launch)
            self._serve()

    def _serve(self) -> None:
        while self._queue and self._queue[0].slots <= self._room():
            launch = self._queue.pop(0)
            if self._fence.bars(launch.lease, self.world.ticks()):
                self._bar(launch)
                continue
            chance = random.Random(f"{self.world.seed}/{launch.stem}")
            free = min(set(range(self.slots)) - {a.slot for a in self.attempts.values()})
            attempt = self.attempts[launch.n] = Attempt(launch, free, chance, self.machine.lasts)
            self.world.say(f"{self.instance} starts {launch.stem} as {launch.n}")
            self.machine.watch.begins(attempt.name, self.goes_on, self.machine.overslept)
            if launch.lease is not None:
                self._fence.begin(launch.n, launch.lease)
                self.world.after(VIGIL, self._vigil)
            attempt.started, attempt.ticks = self.world.now(), self.world.ticks()
            attempt.asker = None if self._client is None else self._client.loop
            self._say(orders.Started(launch.n, free, attempt.started, attempt.ticks))
            self.world.after(attempt.seconds, partial(self._exits, attempt))
            if launch.timeout is not None:
                self.world.after(
                    launch.timeout / 1000, partial(self._halt, attempt, "timeout", launch.grace)
                )

    def _vigil(self) -> None:
        if self.alive and self._fence.watches and self.machine.when_awake(self._vigil):
            self._fence_off()
            self.world.after(VIGIL, self._vigil)

    def _fence_off(self) -> None:
        now = self.world.ticks()
        for n, grace in self._fence.look(now):
            self._halt(self.attempts[n], "fenced", grace)
        for launch in [each for each in self._queue if self._fence.bars(each.lease, now)]:
            self._queue.remove(launch)
            self._bar(launch)

    def _bar(self, launch: orders.Launch) -> None:
        assert launch.lease is not None
        self.machine.watch.seen["barred"] += 1
        self._refuse(launch.n, "unable", self._fence.why(launch.lease, self.world.ticks()))

    def _room(self) -> int:
        return self.slots - sum(attempt.launch.slots for attempt in self.attempts.values())

    def _refuse(self, n: int, cause: Cause, error: str) -> None:
        now, ticks = self.world.now(), self.world.ticks()
        self._tell_end(orders.Ended(n, now, cause, None, error, 0, 0, False, ticks=ticks))

    def goes_on(self) -> bool:
        """Whoever is lost while this is so should not be."""
        return self.alive and not self.stopping

    def _stop(self, grace: int) -> None:
        self.stopping = True
        for launch in self._queue:
            self._refuse(launch.n, "end", "ended before it was started")
        self._queue.clear()
        for attempt in list(self.attempts.values()):
            self._halt(attempt, "end", min(grace, attempt.launch.grace))
        self._leave()

    def _leave(self) -> None:
        if self.alive and self.stopping and not self.attempts:
            self.alive = False
            if self._client is not None:
                self._client.end()

    # -- attempts ---------------------------------------------------------------------------------

    def _halt(self, attempt: Attempt, cause: Cause, grace: int) -> None:
        if attempt.over or not self.alive:
            return
        attempt.halted = attempt.halted or cause
        self.world.after(min(attempt.obeys, grace / 1000), partial(self._killed, attempt))

    def _exits(self, attempt: Attempt) -> None:
        if not attempt.over and self.alive:
            if self.machine.when_awake(partial(self._exits, attempt)):
                self._end(attempt, attempt.halted or "exit", attempt.exit)

    def _killed(self, attempt: Attempt) -> None:
        if not attempt.over and self.alive:
            if self.machine.when_awake(partial(self._killed, attempt)):
                self._end(attempt, attempt.halted or "end", -15)

    def _end(self, attempt: Attempt, cause: Cause, code: int) -> None:
        self._gone(attempt)
        launch = attempt.launch
        self.world.say(f"{launch.stem} is over: {cause} {code}")
        for suffix, data in (("output", attempt.output), ("err", attempt.stderr)):
            if data:
                path = self.machine.folder / "attempts" / f"{launch.stem}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        if attempt.asker is not None and not attempt.asker.alive:
            self.machine.watch.seen["outlived its worker"] += 1
        why = ""
        if cause == "fenced":
            assert launch.lease is not None
            why = self._fence.why(launch.lease, self.world.ticks())
            self.machine.watch.seen["fenced"] += 1
        self._tell_end(
            orders.Ended(
                launch.n, self.world.now(), cause, code, why, 0, len(attempt.stderr),
                bool(attempt.output), ticks=self.world.ticks(),
                took=self.world.ticks() - attempt.ticks,
            )
        )  # fmt: skip
        self._serve()
        self._leave()

    def _gone(self, attempt: Attempt) -> None:
        attempt.over = True
        self._fence.end(attempt.launch.n)
        del self.attempts[attempt.launch.n]
        self.machine.watch.ends(attempt.name)

    def kill(self) -> None:
        """kill -9: its attempts die with it, a moment later."""
        if not self.alive:
            return
        self.alive = False
        for attempt in list(self.attempts.values()):
            self.world.after(self.world.rng.uniform(0, 0.1), partial(self._dies, attempt))
        if self._client is not None:
            self._client.end()

    def _dies(self, attempt: Attempt) -> None:
        if not attempt.over:
            self._gone(attempt)

    def vanish(self) -> None:
        """The machine is off."""
        self.alive = False
        for attempt in list(self.attempts.values()):
            self._gone(attempt)
