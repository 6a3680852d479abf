"""One node under faults, from a seed: `python -m grampus.testing.simulation --seed N`.

For a while users ask and processes, power and connections fail; then nothing fails any more, and
within a bound of virtual time every run must be final. `Watch` looks at every step.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from grampus.runs.apply import APPLY
from grampus.runs.commands import DeclareLost, PauseRun, RetryRun
from grampus.testing.log import Disk
from grampus.testing.machine import Machine
from grampus.testing.node import SimServer, SimWorker, simulated
from grampus.testing.seeds import Outcome, play, report
from grampus.testing.user import User
from grampus.testing.watch import Watch, at_rest, check_end, equal_to_replay
from grampus.testing.world import ProcessLoop, World
from grampus.versions import FIRST

MODULE = "grampus.testing.simulation"
#: Virtual seconds of faults, and after which everything must be over.
FAULTS, PATIENCE = 40.0, 900.0
FAULT_KINDS = (
    "break", "node", "server", "worker", "warden", "both", "reboot", "stop", "leave", "hold",
    "overload", "depose", "clock", "clock-at-start", "away",
)  # fmt: skip
_DAY = 86_400_000
#: By how much the clock is set wrong, in ms. What is less than a day ahead after a boot is nothing
#: that anybody could know.
WRONG = (-10 * _DAY, -60_000, 0, 60_000, 240_000, 3 * _DAY, 365 * _DAY)
#: How long a machine is away, in ms: longer than runs are kept.
AWAY = 5 * _DAY


class Simulation:
    def __init__(self, seed: int, folder: Path) -> None:
        self.world = World(seed)
        self.watch = Watch(self.world)
        self.folder = folder
        self.machine = Machine(self.world, self.watch, folder / "worker")
        self.disk = Disk(self.world, self.watch)
        self.user = User(self.world, self._answering, self.watch.live)
        self.watch.unwanted = self.user.deleted
        #: Server and worker are one process, as in `grampus up`.
        self._one = self.world.rng.random() < 0.6
        self._server: SimServer | None = None
        self._worker: SimWorker | None = None
        self._stopping = False

    def run(self) -> None:
        world = self.world
        with simulated(world, lambda: self.machine, self.watch):
            try:
                self._start_server()
                self._start_worker()
                self._plan()
                world.run(FAULTS)
                world.say("no more faults")
                self._mend()
                world.run(FAULTS + PATIENCE, lambda: not self._restless())
                self._check()
            finally:
                world.close()

    # -- processes --------------------------------------------------------------------------------

    def _answering(self) -> SimServer | None:
        server = self._server
        return server if server is not None and server.in_office.is_set() else None

    def _start_server(self) -> None:
        if self._server is not None:
            return
        self.world.say("server starts")
        loop = self.world.process("server")
        self._server = SimServer(loop, self.disk, self.folder, self.machine.boot_id())
        loop.begin(self._server.run())

    def _start_worker(self) -> None:
        if self._worker is not None:
            return
        if self._one and self._server is None:
            return
        self.world.say("worker starts")
        loop = self._server.loop if self._one and self._server else self.world.process("worker")
        self._worker = SimWorker(loop, self.folder)
        loop.begin(self._worker.run())

    def _start_soon(self) -> None:
        self.world.after(self.world.rng.choice([0.01, 0.5, 3.0, 8.0]), self._start_both)

    def _start_both(self) -> None:
        self._start_server()
        self._start_worker()

    def _kill(self, server: bool, worker: bool, power: bool = False) -> None:
        if self._one:
            server = worker = server or worker
        dead: list[ProcessLoop] = []
        if server and self._server is not None:
            dead.append(self._server.loop)
            self._server = None
        if worker and self._worker is not None:
            dead.append(self._worker.loop)
            self._worker = None
        for loop in dead:
            self.world.kill(loop)
        self._stopping = False
        if server:
            self.disk.crash(power)
        self._start_soon()

    # -- faults and users -------------------------------------------------------------------------

    def _plan(self) -> None:
        world = self.world
        # Of the seed alone: what is planned stays the same when the node asks for other chances.
        rng = random.Random(f"plan {world.seed}")
        self.user.schedules = rng.random() < 0.5
        kinds = ["apply", "submit", "submit", "submit", "cancel", "delete", "pause-workflow"]
        known = APPLY[FIRST]
        if self.user.schedules:
            kinds += ["pause-schedule", "apply"]
        if PauseRun in known:
            kinds += ["pause", "resume"]
        if RetryRun in known:
            kinds += ["retry"]
        if DeclareLost in known:
            kinds += ["declare-lost"]
        world.noise = rng.choice([0.0, 0.0, 0.05, 0.3])
        at = 0.5
        for _ in range(rng.randint(4, 30)):
            world.after(at, lambda: self.user.act(kinds))
            at += rng.uniform(0, FAULTS / 25)
        chosen = rng.sample(FAULT_KINDS, rng.randint(1, 4))
        at = rng.uniform(1, 10)
        for _ in range(rng.randint(0, 15)):
            kind = rng.choice(chosen)
            world.after(at, lambda kind=kind: self.fault(kind))  # type: ignore[misc]
            # Some come together: in the middle of what mends the one before.
            at += rng.uniform(0, rng.choice([0.01, 0.5, 8.0]))
            if at >= FAULTS:
                break

    def fault(self, kind: str) -> None:
        world, rng = self.world, self.world.rng
        world.say(f"fault: {kind}")
        self.watch.seen[f"fault {kind}"] += 1
        match kind:
            case "break":
                if world.wires:
                    rng.choice(world.wires).break_()
            case "node":
                self._kill(True, True)
            case "server":
                self._kill(True, False)
            case "worker":
                self._kill(False, True)
            case "warden":
                self._kill_warden()
            case "both":
                self._kill_warden()
                self._kill(True, True)
            case "reboot":
                self.machine.reboot()
                self._kill(True, True, power=True)
                self._tear(self.folder / "worker" / "journal.db")
            case "clock":
                self._set_clock(rng.choice(WRONG))
            case "clock-at-start":
                if rng.random() < 0.5:
                    self.fault("reboot")
                else:
                    self._kill(True, True)
                self._set_clock(rng.choice(WRONG))
            case "away":
                self.fault("reboot")
                world.leap(AWAY)
                self._set_clock(rng.choice((0, world.off)))
            case "stop":
                self._stop(leave=False)
            case "leave":
                self._stop(leave=True)
            case "overload":
                if self._server is not None:
                    self._server.overload(rng.uniform(0, 8))
            case "depose":
                if self._server is not None:
                    self._server.depose(rng.choice([0.0, 0.3, 2.0, 15.0]))
            case "hold":
                if world.loops:
                    rng.choice(world.loops).held_until = world.time + rng.choice([0.1, 2.0, 15.0])

    def _set_clock(self, off: int) -> None:
        """What is right may be kept so, and the kernel says it."""
        world = self.world
        world.say(f"the clock is {off} ms off")
        world.off = off
        world.kept_right = off == 0 and world.rng.random() < 0.5

    def _kill_warden(self) -> None:
        for warden in self.machine.wardens:
            warden.kill()

    def _tear(self, path: Path) -> None:
        """It was never synced."""
        if path.exists():
            os.truncate(path, self.world.rng.randint(0, path.stat().st_size))

    def _stop(self, leave: bool) -> None:
        """SIGTERM: the server admits nothing more, the worker ends its attempts or leaves them to
        the warden, both go."""
        server, worker = self._server, self._worker
        if self._stopping or worker is None or server is None or not self._one:
            return
        self._stopping = True
        server.admit_no_more()

        async def stop() -> None:
            if leave:
                worker.leave()
            else:
                await worker.stop(5_000)
            server.stop()
            self.world.say("stopped")
            self.world.after(0.5, lambda: self._stopped(server))

        server.loop.begin(stop())

    def _stopped(self, server: SimServer) -> None:
        if self._server is server:
            self._kill(True, True)

    # -- the end ----------------------------------------------------------------------------------

    def _mend(self) -> None:
        self.world.noise = 0.0
        self._set_clock(0)
        for loop in self.world.loops:
            loop.held_until = 0.0
        self.user.let_all_end()
        self._again()

    def _again(self) -> None:
        if not self._stopping:
            self._start_both()
        self.world.after(10.0, self._again)

    def _restless(self) -> str:
        """What is not at rest; "" when all is."""
        if self._server is None or self._worker is None or self._stopping:
            return "a process is not up"
        if self.user.asking:
            return f"no answer to {', '.join(self.user.asking.values())}"
        if self.watch.running:
            return f"processes of {sorted(self.watch.running)} live"
        if self.disk.ledger.applied_index < len(self.disk.entries):
            return "an entry of the log is not applied"
        return at_rest(self.disk.ledger)

    def _check(self) -> None:
        ledger = self.disk.ledger
        left = self._restless()
        assert not left, f"after {PATIENCE:g} s without faults: {left}"
        check_end(ledger)
        self.watch.ticks.check_end(ledger)
        states = dict(ledger.database.query("SELECT id, state FROM run ORDER BY seq"))
        for run in self.user.submitted:
            # Whether it may be deleted was looked at when it was.
            gone = run in self.watch.deleted
            assert run in states or gone, f"{run} was answered and is lost"
        for run in self.user.cancelled:
            assert states.get(run, "CANCELLED") == "CANCELLED", (
                f"{run} was cancelled: {states[run]}"
            )
        equal_to_replay(ledger, self.disk.entries)


def run_seed(seed: int) -> Outcome:
    """Plays one seed to its end or to what is wrong."""
    return play(Simulation, seed)


if __name__ == "__main__":
    sys.exit(report(MODULE, __doc__, run_seed))
