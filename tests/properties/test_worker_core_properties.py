"""Whatever comes, in whatever order, doubled or lost: the rules hold and nothing starts twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from grampus.model.run import FINAL_ATTEMPT, AttemptState
from grampus.protocol import Invocation, Reports
from grampus.worker.core import events as e
from grampus.worker.core import instructions as i
from grampus.worker.core.check import Watch, check_seen
from grampus.worker.core.core import WorkerCore
from grampus.worker.core.seen import Seen
from grampus.worker.orders import Ended, Running

NUMBERS = st.integers(1, 8)
SESSIONS = st.sampled_from([1, 1, 1, 1, 2, 3])
SETS = st.sets(NUMBERS, max_size=4).map(lambda numbers: tuple(sorted(numbers)))
HAS = st.lists(
    st.builds(Running, NUMBERS, st.sampled_from([None, 0]), st.integers(0, 5), st.booleans()),
    max_size=3,
    unique_by=lambda running: running.n,
).map(tuple)
WORK = Invocation("r", "w", 1, "a", 1, 1, b"{}", b"{}", 0, "UTC", None, {})


def _ended(n: int, cause: str, code: int, output: bool) -> e.WardenEnded:
    exit_code = None if cause in ("spawn", "lost") else code
    return e.WardenEnded(Ended(n, 5, cause, exit_code, "", 0, code, output))  # type: ignore[arg-type]


EVENTS = st.one_of(
    st.builds(e.Connected, SESSIONS),
    st.builds(e.Disconnected),
    st.builds(e.Assigned, SESSIONS, NUMBERS, st.integers(1, 3), st.booleans(), st.just(WORK)),
    st.builds(e.Assigned, SESSIONS, NUMBERS, st.just(1), st.booleans(), st.just(WORK)),
    st.builds(e.KillAsked, SESSIONS, NUMBERS, st.just("cancelled")),
    st.builds(e.SyncAsked, SESSIONS, st.integers(0, 9), st.integers(1, 9), SETS, SETS),
    st.builds(e.Acked, SESSIONS, SETS, SETS),
    st.builds(e.Prepared, NUMBERS),
    st.builds(e.PrepareFailed, NUMBERS, st.just(AttemptState.FAILED), st.just("no")),
    st.builds(e.ResultRead, NUMBERS, broken=st.booleans()),
    st.builds(e.WardenReady, st.sampled_from(["w", "x"]), HAS),
    st.builds(e.WardenLost),
    st.builds(e.WardenStarted, NUMBERS, st.just(3)),
    st.builds(
        _ended,
        NUMBERS,
        st.sampled_from(["exit", "timeout", "end", "spawn", "lost"]),
        st.integers(-9, 1),
        st.booleans(),
    ),
    st.builds(e.Alarm),
)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 3_000), st.lists(EVENTS, max_size=4)), max_size=40))
def test_no_order_of_events_breaks_a_rule(steps: list[tuple[int, list[e.Event]]]) -> None:
    core, watch, now = WorkerCore(2), Watch(), 0
    # Sessions are never used again once they were replaced.
    newest = 0
    for pause, events in steps:
        now += pause
        fed = []
        for event in events:
            if isinstance(event, e.Connected):
                if event.session < newest:
                    continue
                newest = event.session
            fed.append(event)
        for event in fed:
            watch.look(core, core.step(now, [event]))
        watch.look(core, core.step(now, []))


class Ledger:
    """The other side, and the warden: what a server that keeps to the protocol would say."""

    def __init__(self) -> None:
        self.core, self.watch = WorkerCore(2), Watch()
        self.now = 1_000
        self.next_n = 1
        self.revision = 1
        self.live: set[int] = set()
        self.done: dict[int, AttemptState] = {}
        self.acks: list[int] = []
        self.running: list[int] = []
        self.preparing: list[int] = []
        self.reading: list[int] = []
        self.ending: set[int] = set()
        self.alarm: int | None = None

    def feed(self, *events: e.Event) -> None:
        out = self.core.step(self.now, events)
        self.watch.look(self.core, out)
        for instruction in out:
            match instruction:
                case i.Prepare(n):
                    self.preparing.append(n)
                case i.Launch(n):
                    assert len(self.running) < self.core.attempts.slots.room
                    self.running.append(n)
                case i.End(n):
                    self.ending.add(n)
                case i.ReadResult(n):
                    self.reading.append(n)
                case i.SetAlarm(after):
                    self.alarm = None if after is None else self.now + after
                case i.Send(Reports(reports)):
                    for report in reports:
                        if report.state in FINAL_ATTEMPT:
                            self.done.setdefault(report.n, report.state)
                            self.live.discard(report.n)
                            self.acks.append(report.n)


@given(st.data())
def test_once_faults_heal_everything_assigned_is_reported_once_over(data: st.DataObject) -> None:
    world = Ledger()
    world.feed(e.WardenReady("w"), e.Connected(1))
    late: list[e.Event] = []
    for _ in range(data.draw(st.integers(1, 30))):
        world.now += data.draw(st.integers(0, 500))
        world.revision += 1
        match data.draw(st.integers(0, 9)):
            case 0 | 1 if len(world.live) < 4:
                n = world.next_n
                world.next_n += 1
                world.live.add(n)
                assign = e.Assigned(1, n, 1, True, WORK)
                late.append(assign)
                if data.draw(st.booleans()):
                    world.feed(assign)
            case 2 if late:
                world.feed(data.draw(st.sampled_from(late)))
            case 3 if world.live:
                world.feed(e.KillAsked(1, data.draw(st.sampled_from(sorted(world.live))), "x"))
            case 4:
                world.feed(e.Disconnected())
            case 5:
                world.feed(e.Connected(1))
            case 6 if world.preparing:
                world.feed(e.Prepared(world.preparing.pop()))
            case 7 if world.running:
                n = world.running.pop()
                world.feed(_ended(n, "end" if n in world.ending else "exit", 0, True))
            case 8 if world.reading:
                world.feed(e.ResultRead(world.reading.pop()))
            case 9 if world.acks:
                world.feed(e.Acked(1, (world.acks.pop(),), ()))
    for _ in range(40):
        world.now += 20_000
        world.revision += 1
        live = tuple(sorted(world.live))
        world.feed(
            e.Connected(1), e.SyncAsked(1, world.revision, world.next_n, live, ()), e.Alarm()
        )
        for n in sorted(world.live):
            if n not in world.core.attempts.seen:
                world.feed(e.Assigned(1, n, 1, True, WORK))
        for queue, make in (
            (world.preparing, e.Prepared),
            (world.running, lambda n: _ended(n, "exit", 0, False)),
            (world.reading, e.ResultRead),
        ):
            while queue:
                world.feed(make(queue.pop(0)))
        world.feed(e.Acked(1, tuple(world.acks), ()))
        world.acks.clear()
    assert not world.live
    assert set(world.done) == set(range(1, world.next_n))
    assert not world.core.attempts.live
    assert not len(world.core.attempts.outbox)
    assert world.core.attempts.seen.intervals() in ([], [(0, world.next_n)])


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6))))
def test_seen_is_a_set(ranges: list[tuple[int, int]]) -> None:
    seen, plain = Seen(), set()
    for start, length in ranges:
        seen.add_range(start, start + length)
        plain |= set(range(start, start + length))
        check_seen(seen)
    assert {n for n in range(50) if n in seen} == plain


@given(st.sets(st.integers(0, 30)), st.integers(0, 35), st.sets(st.integers(0, 40)))
def test_closing_below_a_number_leaves_out_the_live_ones(
    before: set[int], stop: int, live: set[int]
) -> None:
    seen = Seen()
    for n in before:
        seen.add(n)
    seen.close_below(stop, live)
    check_seen(seen)
    assert {n for n in range(50) if n in seen} == before | (set(range(stop)) - live)
