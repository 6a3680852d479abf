"""Sessions, audits and upgrades in a simulated cluster: single cases, where chance would take long
to find them; and deliberate bugs, which each of them notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.core.keeper import BarrierEnded
from grampus.cluster.held_session import HeldSession
from grampus.cluster.sessions import SessionDriver
from grampus.model.holder import Holder
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer
from grampus.testing.server_machine import Settings
from grampus.testing.steady_clock import DRIFT, SteadyClock
from tests.simulation.cluster_ground import a_client, roles, three


def a_session_lives(cluster: SimCluster, trouble: Callable[[SimServer], None]) -> bool:
    """Whether it does for 30 s, although its holder asks nothing but for its life; `trouble` comes
    over the server that it asks."""
    world, lives = cluster.world, list[bool]()

    async def hold() -> None:
        async with asyncio.TaskGroup() as tasks:
            client = a_client(cluster, tasks)
            session = await client.open_session("s", 5_000)
            asked = client._route.leader or client._route.home
            trouble(next(s for s in cluster.open() if s.machine.member.node_port == asked[1]))
            await asyncio.sleep(30.0)
            lives.append(session.lives and session.session not in cluster.watch.keys.over)
            client.close()

    world.process("holder").begin(hold())
    world.run(world.time + 60.0, lambda: bool(lives))
    return lives == [True]


def test_a_session_outlives_a_leader_that_is_stopped(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:

        def stop(server: SimServer) -> None:
            assert server is cluster.leader()
            server.loop.held_until = cluster.world.time + 60.0

        assert a_session_lives(cluster, stop)


def test_a_session_outlives_a_server_that_is_alone(tmp_path: Path) -> None:
    """It answers its holder for ever, and knows of no leader."""
    with three(tmp_path) as cluster:

        def part(server: SimServer) -> None:
            others = [other for other in cluster.open() if other is not server]
            cluster.world.partition |= {frozenset((server.name, o.name)) for o in others}

        assert a_session_lives(cluster, part)


class Holds:
    """A process that does nothing but to hold a session."""

    def __init__(self, cluster: SimCluster, ttl: int) -> None:
        self._cluster = cluster
        self._ttl = ttl
        self._clock = SteadyClock(cluster.world)
        self._held: list[HeldSession] = []
        cluster.world.process("holder").begin(self._run())
        cluster.world.run(cluster.world.time + 3.0)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            client = a_client(self._cluster, tasks)
            self._held.append(await client.open_session("s", self._ttl))

    def is_about_to_ask(self) -> bool:
        return self._clock.ticks() >= self._held[0]._holder.due - 10

    def until_it_is_over(self) -> str:
        """Why it is over. Its holder must not rely on it then."""
        world, over = self._cluster.world, self._cluster.watch.keys.over
        (session,) = self._held
        holder = session._holder
        slack = 2 * DRIFT * self._ttl / 1e6

        def look() -> bool:
            lives = not holder.over and self._clock.ticks() < holder.deadline - slack
            ended = session.session in over
            assert not (lives and ended), "it is over, and its holder relies on it"
            return ended

        world.run(world.time + 30.0, look)
        return over[session.session]


def part(cluster: SimCluster, here: list[str], there: list[str]) -> None:
    cluster.world.partition |= {frozenset((one, other)) for one in here for other in there}


def left_behind_with_a_leader(tmp_path: Path) -> str:
    with three(tmp_path) as cluster:
        holder = Holds(cluster, 6_000)
        leader, one, other = roles(cluster)
        part(cluster, [leader.name, "holder"], [one.name, other.name])
        leader.loop.held_until = cluster.world.time + 1.5
        return holder.until_it_is_over()


def told_late_and_then_cut_off(tmp_path: Path) -> str:
    with three(tmp_path) as cluster:
        world = cluster.world
        holder = Holds(cluster, 6_000)
        leader, *_ = roles(cluster)
        world.run(world.time + 2.0, holder.is_about_to_ask)
        answers = (leader.name, "holder")
        world.oneway = {answers}
        world.run(world.time + 0.1)
        world.oneway |= {("holder", server.name) for server in cluster.open()}
        world.run(world.time + 1.2)
        world.oneway.remove(answers)
        return holder.until_it_is_over()


#: Each with the bug that it notices.
CASES: dict[str, tuple[Callable[[Path], str], Callable[[pytest.MonkeyPatch], None]]] = {}


def case(
    play: Callable[[Path], str],
) -> Callable[[Callable[[pytest.MonkeyPatch], None]], None]:
    def add(bug: Callable[[pytest.MonkeyPatch], None]) -> None:
        CASES[bug.__name__] = play, bug

    return add


@case(left_behind_with_a_leader)
def confirms_a_session_without_a_barrier(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: SessionDriver, round: int) -> None:
        self._happened(BarrierEnded(round, True))

    patch.setattr(SessionDriver, "_barrier", at_once)


@case(told_late_and_then_cut_off)
def counts_its_time_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    confirmed = Holder.confirmed
    patch.setattr(Holder, "confirmed", lambda self, sent, now: confirmed(self, now, now))


@pytest.mark.parametrize("name", CASES)
def test_no_holder_relies_on_a_session_that_is_over(tmp_path: Path, name: str) -> None:
    assert CASES[name][0](tmp_path) == "silent"


@pytest.mark.parametrize("name", CASES)
def test_and_who_does_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    play, bug = CASES[name]
    bug(monkeypatch)
    with pytest.raises(AssertionError, match="relies on it"):
        play(tmp_path)


def test_a_session_outlives_wall_clocks_that_jump(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:

        def jump(server: SimServer) -> None:
            for number, other in enumerate(cluster.open()):
                other.machine.skew += (1 - number) * 365 * 86_400_000

        assert a_session_lives(cluster, jump)


@pytest.mark.parametrize("damaged", ["leader", "follower"])
def test_a_damaged_ledger_is_found_and_the_others_go_on(tmp_path: Path, damaged: str) -> None:
    with three(tmp_path, Settings(audit=1.0)) as cluster:
        leader, follower, _ = roles(cluster)
        server = leader if damaged == "leader" else follower
        assert server.ledger is not None
        server.machine.damaged = True
        with server.ledger.database.transaction():
            server.ledger.database.execute("INSERT INTO meta (key, value) VALUES ('rot', 1)")
        seen, world = cluster.watch.seen, cluster.world
        world.run(world.time + 20.0, lambda: bool(seen["diverged"]))
        world.run(world.time + 5.0)
        left = [other for other in cluster.open() if other.machine is not server.machine]
        assert seen["diverged"]
        assert len(left) == 2
        assert cluster.leader() in left
