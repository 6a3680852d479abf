"""Disks that hang or are slow, in a simulated cluster: nobody waits for them for long, a person is
told, and the server goes on by itself when its disk does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.commands import Written
from grampus.consensus import turns
from grampus.consensus.roll import Line, Roll
from grampus.consensus.steward import Steward
from grampus.consensus.strain import HANGS
from grampus.consensus.turns import Kept
from grampus.consensus.writer import Limits
from grampus.errors import NoQuorum, OutcomeUnknown
from grampus.protocol import ClusterAsk
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer
from grampus.testing.server_machine import Settings
from tests.simulation.cluster_ground import roles, three
from tests.simulation.cluster_writer import Writer, agree, put, within

#: Every sync goes to a thread, where it takes the time of the simulated disk.
LIMITS = Limits(checkpoint_entries=50, checkpoint_idle=0.5, quick=0.0)
KEPT = Settings(LIMITS, steward=True)


def roll_of(cluster: SimCluster, server: SimServer) -> Roll:
    """What `cluster status` says there."""
    said: list[bytes] = []

    async def ask() -> None:
        assert server.steward is not None
        said.append((await server.steward.relay(ClusterAsk("status"))).body)

    server.loop.begin(ask())
    cluster.world.run(cluster.world.time + 2.0, lambda: bool(said))
    return msgspec.json.decode(said[0], type=Roll)


def line_of(roll: Roll, server: SimServer) -> Line:
    return next(line for line in roll.members if line.name == server.name)


def test_a_leader_whose_disk_hangs_is_followed_by_another_and_comes_back(tmp_path: Path) -> None:
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        old, one, other = roles(cluster)
        at_old, at_one = Writer(cluster, old, b"old"), Writer(cluster, one, b"one")
        world.run(world.time + 1.0)
        begun = world.time
        old.loop.hung_until = begun + 30.0
        within(cluster, 2.0, lambda: cluster.leader() in (one, other))
        later = Writer(cluster, one, b"later")
        within(cluster, 1.0, lambda: Written in map(type, later.since(begun)))
        world.run(begun + HANGS + 0.5)
        assert old.replica is not None
        assert not old.replica.leader, "it still says that it leads"
        # Whoever asks it now is told at once, and nothing happened.
        said: list[tuple[float, object]] = []

        async def ask() -> None:
            asked = world.time
            said.append((world.time - asked, await put(old, 1, b"late")))

        old.loop.begin(ask())
        world.run(world.time + 0.1)
        ((took, outcome),) = said
        assert took < 0.05
        assert isinstance(outcome, NoQuorum)
        assert "disk" in str(outcome)
        new = cluster.leader()
        assert new is not None
        for server in (new, old):
            roll = roll_of(cluster, server)
            line = line_of(roll, old)
            assert line.complaint.startswith("its disk has not answered for "), line
            assert roll.advice[0].startswith(f"{old.name}: its disk has not answered for ")
        assert line_of(roll_of(cluster, new), old).state == "silent"
        assert line_of(roll_of(cluster, old), old).state == "waits"
        # What was under way has an end, too.
        world.run(begun + 29.0, lambda: cluster._look())
        assert max(at_old.longest(), at_one.longest()) < 10.5
        for writer in (at_old, at_one):
            assert [type(o) for o in writer.since(begun - 0.1)].count(OutcomeUnknown) <= 1
        assert set(map(type, later.since(begun))) == {Written}
        assert later.longest() < 1.0
        world.run(begun + 33.0, lambda: cluster._look())
        at_old.over = at_one.over = later.over = True
        # It follows by itself, and takes writes again.
        assert isinstance(at_old.outcomes[-1][2], Written)
        world.run(world.time + 1.0)
        agree(cluster)
        assert not old.replica.disks


def test_a_disk_that_never_answers_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The server is killed, its power is cut, and it starts with another disk controller."""
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        old, one, other = roles(cluster)
        world.run(world.time + 1.0)
        old.loop.hung_until = world.time + 1e6
        first = Writer(cluster, old, b"old")
        within(cluster, 2.0, lambda: cluster.leader() in (one, other))
        writer = Writer(cluster, one, b"one")
        world.run(world.time + 60.0, lambda: cluster._look())
        assert isinstance(writer.outcomes[-1][2], Written)
        assert writer.longest() < 1.0
        cluster.kill(old.machine.member.id, power=True)
        world.run(world.time + 12.0, lambda: cluster._look())
        first.over = writer.over = True
        world.run(world.time + 1.0)
        assert len(cluster.open()) == 3
        agree(cluster)


def test_a_leader_whose_disk_is_slow_lets_another_one_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _watched(monkeypatch)
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        old, one, other = roles(cluster)
        writers = [Writer(cluster, server, server.name.encode()) for server in (old, one)]
        world.run(world.time + 1.0)
        begun = world.time
        old.loop.drag = 0.5  # Raft would let it lead for ever
        within(cluster, 16.0, lambda: cluster.leader() in (one, other))
        assert given == [old.name]
        assert world.time - begun > 4.0, "a moment is no reason"
        world.run(world.time + 20.0, lambda: cluster._look())
        assert cluster.leader() in (one, other)
        leader = cluster.leader()
        assert leader is not None
        line = line_of(roll_of(cluster, leader), old)
        assert line.state in ("follows", "behind")
        assert line.complaint.startswith("its disk is slow: a write takes 0.")
        changed = world.time
        world.run(world.time + 3.0)
        quick = [end - at for at, end, _ in writers[1].outcomes if at > changed]
        assert max(quick) < 0.5, "who is slow still holds all of them up"
        for writer in writers:
            writer.over = True
        old.loop.drag = 0.0
        world.run(world.time + 12.0)
        agree(cluster)
        assert not leader.replica.disks if leader.replica is not None else False


def test_where_all_disks_are_slow_nobody_gives_the_lead_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _watched(monkeypatch)
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        writers = [Writer(cluster, server, b"k") for server in cluster.open()]
        for server in cluster.open():
            server.loop.drag = 0.5
        world.run(world.time + 60.0, lambda: cluster._look())
        for writer in writers:
            writer.over = True

        def all_told() -> bool:
            leader = cluster.leader()
            return (
                leader is not None
                and leader.replica is not None
                and (len(leader.replica.disks) == 3)
            )

        within(cluster, 5.0, all_told)
        assert given == []


def test_a_leader_whose_ledger_hangs_while_its_log_does_not_lets_another_one_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits, and applies nothing: nobody would ever be answered."""
    given = _watched(monkeypatch)
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        old, one, other = roles(cluster)
        first = Writer(cluster, old, b"old")
        world.run(world.time + 1.0)
        begun = world.time
        old.loop.hung_until, old.loop.hung_threads = begun + 40.0, "grampus-ledger"
        within(cluster, 20.0, lambda: cluster.leader() in (one, other))
        assert given == [old.name]
        later = Writer(cluster, one, b"one")
        world.run(begun + 39.0, lambda: cluster._look())
        assert set(map(type, later.since(begun))) == {Written}
        assert max(first.longest(), later.longest()) < 10.5
        leader = cluster.leader()
        assert leader is not None
        line = line_of(roll_of(cluster, leader), old)
        assert line.complaint.startswith("its disk has not answered for ")
        world.run(begun + 45.0)
        first.over = later.over = True
        world.run(world.time + 1.0)
        agree(cluster)


def test_a_server_that_is_alone_leads_again_when_its_disk_answers(tmp_path: Path) -> None:
    with three(tmp_path, KEPT, size=1) as cluster:
        world = cluster.world
        (only,) = cluster.open()
        writer = Writer(cluster, only, b"k")
        world.run(world.time + 1.0)
        begun = world.time
        only.loop.hung_until = begun + 12.0
        world.run(begun + 11.0, lambda: cluster._look())
        assert only.replica is not None
        assert not only.replica.leader
        refused = [o for o in writer.since(begun + 0.1) if isinstance(o, NoQuorum)]
        assert refused, "whoever asks is told"
        assert writer.longest() < 10.5
        world.run(begun + 14.0)
        writer.over = True
        assert only.replica.leader
        assert isinstance(writer.outcomes[-1][2], Written)


def test_a_single_slow_moment_is_no_reason_to_give_the_lead_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _watched(monkeypatch)
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        leader = roles(cluster)[0]
        writer = Writer(cluster, leader, b"k")
        leader.loop.drag = 0.5
        world.run(world.time + 2.5)
        leader.loop.drag = 0.0
        world.run(world.time + 20.0)
        writer.over = True
        assert given == []


def test_a_follower_whose_disk_hangs_holds_nobody_up_and_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 300_000
    monkeypatch.setattr(turns, "INBOX", most)
    kept = Kept(entries=50, size=1_000_000, segment=100_000)
    settings = Settings(Limits(checkpoint_entries=20, quick=0.0), kept, steward=True)
    with three(tmp_path, settings) as cluster:
        world = cluster.world
        leader, late, _ = roles(cluster)
        writer = Writer(cluster, leader, b"k", 20_000)
        world.run(world.time + 1.0)
        late.loop.hung_until = world.time + 60.0
        waiting: list[int] = []
        assert late.replica is not None

        def look() -> bool:
            assert late.replica is not None
            waiting.append(late.replica._turns._inbox_bytes)
            return cluster._look()

        world.run(world.time + 50.0, look)
        assert cluster.leader() is leader, "the others go on as they were"
        assert writer.longest() < 1.0
        assert {type(outcome) for *_, outcome in writer.outcomes} == {Written}
        assert len(writer.outcomes) > 500
        assert max(waiting) <= most
        assert leader.replica is not None
        assert leader.replica._turns.node.status()["log_bytes"] < 3 * kept.size
        assert leader.replica._durable.size < 3 * kept.size, "it is kept for who may never come"
        roll = roll_of(cluster, leader)
        assert line_of(roll, late).state == "silent"
        assert line_of(roll, late).complaint.startswith("its disk has not answered for ")
        assert roll.can_lose == 0
        assert not any("Start it again" in text for text in roll.advice)
        world.run(world.time + 12.0, lambda: cluster._look())
        writer.over = True
        world.run(world.time + 1.0)
        agree(cluster)
        assert not leader.replica.disks if leader.replica is not None else False
        assert cluster.watch.seen["snapshot laid down"] >= 1


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has given the lead away, by name."""
    given: list[str] = []
    real: Any = Steward.give_lead

    async def give(self: Steward, term: int, to: int = 0) -> None:
        given.append(self._me.name)
        await real(self, term, to)

    monkeypatch.setattr(Steward, "give_lead", give)
    return given
