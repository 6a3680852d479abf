"""A worker that is killed in the middle of anything: nothing starts twice, no report is lost.

The core is real, and so is what it writes down. Ledger and warden are models of a few lines.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.model.run import FINAL_ATTEMPT, AttemptState
from grampus.protocol import Invocation, Reports
from grampus.worker.core import events as e
from grampus.worker.core import instructions as i
from grampus.worker.core.check import Watch, same
from grampus.worker.core.core import WITH_THE_WARDEN, WorkerCore
from grampus.worker.core.memory import Memory
from grampus.worker.orders import Ended, Running

WORK = Invocation("r", "w", 1, "a", 1, 1, b"{}", b"{}", 0, "UTC", None, {})
SLOTS = 2


class Warden:
    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.seen: set[int] = set()
        self.running: set[int] = set()
        self.told_to_end: set[int] = set()
        self.kept: dict[int, Ended] = {}

    def launch(self, n: int) -> None:
        assert n not in self.seen, f"{n} was launched twice"
        self.seen.add(n)
        self.running.add(n)
        assert len(self.running) <= WITH_THE_WARDEN * SLOTS

    def finish(self, n: int) -> Ended:
        self.running.remove(n)
        cause = "end" if n in self.told_to_end else "exit"
        self.kept[n] = Ended(n, 5, cause, 0, "", 0, 0, cause == "exit")  # type: ignore[arg-type]
        return self.kept[n]

    def ready(self) -> list[e.Event]:
        has = [Running(n, 0, 3, False) for n in sorted(self.running)]
        has += [Running(n, None, 0, True) for n in self.kept]
        return [e.WardenReady(self.instance, tuple(has)), *map(e.WardenEnded, self.kept.values())]


class World:
    def __init__(self) -> None:
        self.now, self.revision = 1_000, 1
        self.wardens = 1
        self.warden = Warden("w1")
        self.session, self.next_n = 1, 1
        self.live: set[int] = set()
        self.killed: set[int] = set()
        self.done: dict[tuple[int, int], AttemptState] = {}
        self.started: set[tuple[int, int]] = set()
        #: By session and n: how it really ended.
        self.truth: dict[tuple[int, int], str] = {}
        self.file = Memory()
        self.core, self.watch = WorkerCore(SLOTS), Watch(self.file)
        self.preparing: list[int] = []
        self.reading: list[int] = []
        self.acks: list[int] = []
        self.connected = False
        #: Instance of the warden that the session was opened for.
        self.registered = ""

    def feed(self, *events: e.Event, crash: int | None = None) -> bool:
        """Carries out so many instructions and no more, and dies; all of them with None."""
        out = self.core.step(self.now, events)
        if crash is None:
            self.watch.look(self.core, out)
        for instruction in out[:crash]:
            self._carry_out(instruction, crash is not None)
        if crash is None:
            return True
        self.restart()
        return False

    def _carry_out(self, instruction: i.Instruction, write: bool) -> None:
        match instruction:
            case i.Record(entries) if write:
                self.file.add(entries)
            case i.Prepare(n):
                self.preparing.append(n)
            case i.Launch(n):
                self.warden.launch(n)
                self.started.add((self.session, n))
            case i.End(n):
                if n in self.warden.running:
                    self.warden.told_to_end.add(n)
            case i.ReadResult(n):
                self.reading.append(n)
            case i.Forgo(numbers):
                for n in numbers:
                    self.warden.kept.pop(n, None)
            case i.Renew():
                raise AssertionError("the warden is replaced, though all is well")
            case i.Send(Reports(reports)):
                for report in reports:
                    if report.session == self.session and report.state in FINAL_ATTEMPT:
                        before = self.done.setdefault((report.session, report.n), report.state)
                        assert before == report.state, "two different ends"
                        self.live.discard(report.n)
                        self.acks.append(report.n)

    def restart(self) -> None:
        """Of a dead process only its file is left; a warden is found or started."""
        copy = Memory()
        copy.add(self.file.entries())
        assert same(copy, self.file)
        self.preparing.clear()
        self.reading.clear()
        self.connected = False
        left = self.file if self.file.instance == self.warden.instance else None
        self.core = WorkerCore(SLOTS, left)
        if left is None:
            self.file = Memory()
        self.watch.written = self.file
        self.feed(*self.warden.ready())

    def kill_warden(self, worker_too: bool) -> None:
        self.wardens += 1
        self.warden = Warden(f"w{self.wardens}")
        if worker_too:
            self.restart()
        else:
            self.feed(e.WardenLost())
            self.feed(*self.warden.ready())

    def connect(self) -> None:
        if self.registered not in ("", self.warden.instance):
            # Another incarnation: in the ledger all that was live is LOST.
            for n in self.live:
                self.done[self.session, n] = AttemptState.LOST
            self.live.clear()
            self.session, self.next_n = self.wardens, 1
        self.registered, self.connected = self.warden.instance, True
        self.feed(e.Connected(self.session))
        self.sync()

    def sync(self, crash: int | None = None) -> None:
        self.revision += 1
        live, stop = tuple(sorted(self.live)), tuple(sorted(self.live & self.killed))
        if self.feed(
            e.SyncAsked(self.session, self.revision, self.next_n, live, stop), crash=crash
        ):
            cancelled = self.warden.running & set(stop)
            assert cancelled <= self.warden.told_to_end, "a cancel was not carried out"
            for n in live:
                if n not in self.core.attempts.seen and n not in self.core.attempts.live:
                    self.feed(e.Assigned(self.session, n, 1, True, WORK))

    def assign(self, crash: int | None, lost: bool) -> None:
        n, self.next_n = self.next_n, self.next_n + 1
        self.live.add(n)
        if self.connected and not lost:
            self.feed(e.Assigned(self.session, n, 1, True, WORK), crash=crash)

    def finish(self, n: int, away: bool, crash: int | None) -> None:
        ended = self.warden.finish(n)
        self.truth[self.session, n] = ended.cause
        if not away:
            self.feed(e.WardenEnded(ended), crash=crash)

    def settle(self) -> None:
        for _ in range(40):
            self.now += 20_000
            if not self.connected:
                self.connect()
            self.sync()
            self.feed(e.Alarm())
            while self.preparing:
                self.feed(e.Prepared(self.preparing.pop(0)))
            for n in sorted(self.warden.running):
                self.finish(n, False, None)
            while self.reading:
                self.feed(e.ResultRead(self.reading.pop(0)))
            self.feed(e.Acked(self.session, tuple(self.acks), ()))
            self.acks.clear()


def moves(world: World) -> list[str]:
    """What can happen now; what leads on is more likely."""
    possible = {
        "restart": 1,
        "warden": 1,
        "connect": 0 if world.connected else 8,
        "assign": 4 if world.connected and len(world.live) < 4 else 0,
        "prepared": 4 if world.preparing else 0,
        "finish": 2 if world.warden.running else 0,
        "read": 2 if world.reading else 0,
        "ack": 1 if world.acks and world.connected else 0,
        "kill": 2 if world.live - world.killed and world.connected else 0,
        "sync": 1 if world.connected else 0,
    }
    return [move for move, weight in possible.items() for _ in range(weight)]


@settings(max_examples=150)
@given(st.data())
def test_a_worker_killed_in_the_middle_of_anything_loses_nothing(data: st.DataObject) -> None:
    world = World()
    world.feed(*world.warden.ready())
    world.connect()
    for _ in range(data.draw(st.integers(15, 50))):
        world.now += data.draw(st.integers(0, 500))
        crash = data.draw(st.sampled_from([None, None, None, 0, 1, 2, 3]))
        match data.draw(st.sampled_from(moves(world))):
            case "assign":
                world.assign(crash, data.draw(st.booleans()))
            case "prepared":
                world.feed(e.Prepared(world.preparing.pop()), crash=crash)
            case "finish":
                n = data.draw(st.sampled_from(sorted(world.warden.running)))
                world.finish(n, crash == 0, crash)
                if crash == 0:
                    world.restart()
            case "read":
                world.feed(e.ResultRead(world.reading.pop()), crash=crash)
            case "ack":
                world.feed(e.Acked(world.session, (world.acks.pop(),), ()), crash=crash)
            case "kill":
                n = data.draw(st.sampled_from(sorted(world.live - world.killed)))
                world.killed.add(n)
                world.feed(e.KillAsked(world.session, n, "cancelled"), crash=crash)
            case "restart":
                world.restart()
            case "connect":
                world.connect()
            case "sync":
                world.sync(crash)
            case "warden":
                world.kill_warden(data.draw(st.booleans()))
                world.killed.clear()
                world.connect()
    world.settle()
    assert not world.live
    assert {n for session, n in world.done if session == world.session} == set(
        range(1, world.next_n)
    )
    for (session, n), state in world.done.items():
        if session < world.session:
            continue
        match world.truth.get((session, n)):
            case "exit":
                assert state == AttemptState.SUCCEEDED
            case "end" | None:
                assert state == AttemptState.CANCELLED
    assert not world.core.attempts.live
    assert not len(world.core.attempts.outbox)
    assert not world.warden.kept
    assert world.core.attempts.seen.intervals() in ([], [(0, world.next_n)])
