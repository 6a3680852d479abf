"""Single cases in a simulated cluster, where chance would take long to find them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.commands import Put, Written, encode_command
from grampus.consensus import steward
from grampus.consensus.generation import Generation
from grampus.consensus.log import DurableLog
from grampus.consensus.members import MemberChange
from grampus.consensus.record import HEAD, SECTOR, Kind, LogCorrupt, scan
from grampus.consensus.segment import Segment
from grampus.consensus.snapshots import KEEP, LEDGER, Incoming
from grampus.consensus.trail import Trail
from grampus.consensus.turns import Kept, Turns
from grampus.consensus.writer import Limits
from grampus.errors import GrampusError, NoQuorum, OutcomeUnknown, Refused
from grampus.founding import Survivor, recover, survey
from grampus.ledger import Ledger
from grampus.model.member import Member
from grampus.protocol import ClusterAsk
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer
from grampus.testing.server_machine import Settings
from tests.simulation.cluster_ground import roles, three


def puts(server: SimServer, count: int, size: int = 1) -> Callable[[], list[object]]:
    """Proposes so many at once, each on its own; what came of each until now."""
    outcomes: list[object] = []

    async def one(number: int) -> None:
        assert server.replica is not None
        command = encode_command(Put(number, b"k%d" % (number % 9), b"v" * size))
        try:
            outcomes.extend(await server.replica.propose([command]))
        except GrampusError as error:
            outcomes.append(error)

    for number in range(count):
        server.loop.begin(one(number))
    return lambda: outcomes


@pytest.mark.parametrize("size", [1, 60_000])
def test_many_proposals_of_a_follower_do_not_hold_up_what_commits_them(
    tmp_path: Path, size: int
) -> None:
    """Its confirmations come over the same connection, and nobody else confirms."""
    with three(tmp_path) as cluster:
        leader, follower, away = roles(cluster)
        cluster.world.partition |= {
            frozenset((away.name, leader.name)),
            frozenset((away.name, follower.name)),
        }
        outcomes = puts(follower, 600, size)
        begun = cluster.world.time
        cluster.world.run(begun + 20.0, lambda: len(outcomes()) == 600)
        assert cluster.world.time - begun < 3.0
        assert {type(outcome) for outcome in outcomes()} == {Written}


def test_one_call_may_be_larger_than_a_message(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        _, follower, _ = roles(cluster)
        results: list[object] = []

        async def call() -> None:
            assert follower.replica is not None
            commands = [encode_command(Put(n, b"k%d" % n, bytes(60_000))) for n in range(200)]
            results.extend(await follower.replica.propose(commands))

        follower.loop.begin(call())
        cluster.world.run(cluster.world.time + 10.0, lambda: len(results) == 200)
        assert [type(result) for result in results] == [Written] * 200


def test_a_call_that_is_too_large_is_refused_alike_by_leader_and_follower(tmp_path: Path) -> None:
    with three(tmp_path, Settings(limits=Limits(entry_bytes=1000))) as cluster:
        said: list[str] = []

        async def call(server: SimServer) -> None:
            assert server.replica is not None
            with pytest.raises(ValueError, match="at most") as raised:
                await server.replica.propose([bytes(2000)])
            said.append(str(raised.value))

        for server in roles(cluster)[:2]:
            server.loop.begin(call(server))
        cluster.world.run(cluster.world.time + 1.0)
        assert len(said) == 2
        assert said[0] == said[1]


def test_a_leader_that_is_alone_answers_neither_write_nor_read(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        leader, one, other = roles(cluster)
        cluster.world.partition |= {frozenset((leader.name, s.name)) for s in (one, other)}
        outcomes = puts(leader, 5)
        read: list[str] = []

        async def barrier() -> None:
            assert leader.replica is not None
            try:
                await leader.replica.read_barrier()
            except GrampusError as error:
                read.append(type(error).__name__)

        leader.loop.begin(barrier())
        cluster.world.run(cluster.world.time + 15.0)
        assert {type(outcome) for outcome in outcomes()} == {OutcomeUnknown}
        assert read == ["NoQuorum"]
        # The others go on, and its entries give way to theirs.
        assert cluster.leader() in (one, other)
        cluster.world.partition.clear()
        cluster.world.run(cluster.world.time + 1.0)
        later = puts(leader, 3)
        cluster.world.run(cluster.world.time + 5.0, lambda: len(later()) == 3)
        assert {type(outcome) for outcome in later()} == {Written}
        assert leader.replica is not None
        assert leader.replica.in_flight == 0


def test_without_a_majority_it_is_refused_at_once(tmp_path: Path) -> None:
    """Once it is known: by the one that has led, and by one that has followed."""
    with three(tmp_path) as cluster:
        world = cluster.world
        servers = roles(cluster)
        world.partition |= {frozenset((a.name, b.name)) for a in servers for b in servers}
        world.run(world.time + 4.0)
        took: list[float] = []

        async def ask(server: SimServer, number: int) -> None:
            assert server.replica is not None
            begun = world.time
            with pytest.raises(NoQuorum):
                await server.replica.propose([encode_command(Put(number, b"k", b"v"))])
            with pytest.raises(NoQuorum):
                await server.replica.read_barrier()
            took.append(world.time - begun)

        for number, server in enumerate(servers):
            server.loop.begin(ask(server, number))
        world.run(world.time + 10.0, lambda: len(took) == 3)
        assert max(took) < 0.01
        # And not a moment longer than it lasts.
        world.partition.clear()
        world.run(world.time + 5.0, lambda: cluster.leader() is not None)
        world.run(world.time + 1.0)
        outcomes = puts(servers[1], 3)
        world.run(world.time + 5.0, lambda: len(outcomes()) == 3)
        assert {type(outcome) for outcome in outcomes()} == {Written}


def test_a_failed_replica_tells_those_who_wait_at_once(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        leader, one, other = roles(cluster)
        cluster.world.partition |= {frozenset((leader.name, s.name)) for s in (one, other)}
        outcomes = puts(leader, 2)
        cluster.world.run(cluster.world.time + 0.2)
        leader.stop()
        begun = cluster.world.time
        cluster.world.run(begun + 5.0, lambda: len(outcomes()) == 2)
        assert cluster.world.time - begun < 1.0
        assert {type(outcome) for outcome in outcomes()} == {OutcomeUnknown}


def test_who_was_away_is_brought_up_to_date_by_a_leader_it_has_never_heard_of(
    tmp_path: Path,
) -> None:
    with three(tmp_path) as cluster:
        world = cluster.world
        leader, other, away = roles(cluster)
        cluster.world.partition |= {
            frozenset((away.name, server.name)) for server in (leader, other)
        }
        newcomer = cluster.newcomer()
        world.partition.add(frozenset((away.name, newcomer.name)))
        done: list[str] = []

        async def take_over() -> None:
            replica = leader.replica
            assert replica is not None
            await replica.change_members([(2, newcomer.id)], MemberChange((newcomer,)))
            for _ in range(100):
                if replica.peers.get(newcomer.id, (0,))[0] >= replica.commit_index:
                    break
                await asyncio.sleep(0.1)
            await replica.change_members([(0, newcomer.id)], MemberChange())
            done.append("promoted")

        leader.loop.begin(take_over())
        world.run(world.time + 10.0, lambda: bool(done))
        for _ in range(5):  # Raft may give a transfer up
            now = cluster.leader()
            if now is None or now.replica is None or now.replica.id == newcomer.id:
                break
            now.loop.begin(now.replica.transfer(newcomer.id))
            world.run(world.time + 2.0)
        assert cluster.leader() is cluster.servers[newcomer.id]
        world.partition = {
            frozenset((away.name, server.name)) for server in (leader, other)
        }  # only the one that it does not know can reach it
        world.run(world.time + 5.0, cluster.quiet)
        assert away.replica is not None
        assert away.replica.members.find(newcomer.id) is not None


def test_who_has_led_lets_go_of_its_log_again(tmp_path: Path) -> None:
    """It had made a copy for somebody; nobody asks it for that any more."""
    kept = Kept(entries=5, segment=2_000)
    settings = Settings(limits=Limits(checkpoint_entries=10), kept=kept)
    with three(tmp_path, settings) as cluster:
        world = cluster.world
        leader, follower, _ = roles(cluster)
        assert leader.replica is not None
        assert follower.replica is not None
        assert list((leader.machine.folder / "snapshots").glob("*.db")), (
            "it has brought in the others"
        )
        led, term = leader.replica, leader.replica.term
        leader.loop.begin(led.transfer(follower.replica.id))
        world.run(world.time + 5.0, lambda: not led.leader)
        assert led.term > term or not led.leader
        world.run(world.time + 70.0)
        outcomes = puts(follower, 300)
        world.run(world.time + 10.0, lambda: len(outcomes()) == 300)
        world.run(world.time + 2.0)
        assert list((leader.machine.folder / "snapshots").glob("*.db")) == []
        first = led._turns.node.status()["first"]
        assert led.applied_index - first < 3 * kept.entries + 20


def test_a_server_that_hangs_in_its_snapshot_holds_no_other_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(limits=Limits(checkpoint_entries=10), kept=Kept(entries=5, segment=2_000))
    take = Incoming.take
    hanging: list[Path] = []

    async def hang(self: Incoming, *piece: Any) -> bool:
        if self.folder.parent not in hanging:
            return await take(self, *piece)
        reached.append(self)
        return await asyncio.get_running_loop().create_future()

    reached: list[Incoming] = []
    monkeypatch.setattr(Incoming, "take", hang)
    with three(tmp_path, settings, size=5) as cluster:
        world = cluster.world
        leader = cluster.leader()
        assert leader is not None
        one, other, *_ = (server for server in cluster.open() if server is not leader)
        behind = {
            frozenset((away.name, server.name))
            for away in (one, other)
            for server in cluster.open()
            if server is not away
        }
        world.partition |= behind
        for away in (one, other):  # what is on its way to them is lost, too
            cluster.kill(away.machine.member.id)
        world.run(world.time + KEEP + 1.0)  # what was kept for those who came is let go
        for _ in range(60):  # an entry each
            outcomes = puts(leader, 1)
            world.run(world.time + 5.0, lambda: len(outcomes()) == 1)  # noqa: B023
        world.run(world.time + 3.0)
        hanging.append(one.machine.folder)
        world.partition = {pair for pair in behind if one.name not in pair}
        world.run(world.time + 15.0, lambda: bool(reached))
        assert reached
        world.partition.clear()
        begun = world.time
        assert leader.replica is not None
        id, far = other.machine.member.id, leader.replica.applied_index

        def is_there() -> bool:
            replica = cluster.servers[id].replica
            return replica is not None and replica.applied_index >= far

        world.run(begun + 15.0, is_there)
        assert is_there()
        assert world.time - begun < 8.0
        hanging.clear()
        world.run(world.time + 60.0, cluster.quiet)


def lose_power_when_it_begins_to_lead(tmp_path: Path) -> None:
    """A sole voter with a learner, at each change of its disk in a start."""
    with three(tmp_path, size=1) as cluster:
        world, id = cluster.world, 1
        leader = cluster.leader()
        assert leader is not None
        assert leader.replica is not None
        newcomer = cluster.newcomer()
        change = leader.replica.change_members([(2, newcomer.id)], MemberChange((newcomer,)))
        leader.loop.begin(change)
        world.run(world.time + 3.0)
        for fuse in range(8):
            cluster.kill(id)
            world.run(world.time + 10.0, lambda: id in cluster.servers)
            world.run(world.time + 1.0, lambda: cluster.servers[id].replica is not None)
            cluster.machines[id].disk.fuse = fuse
            world.run(world.time + 12.0)
            cluster.machines[id].disk.fuse = None
            world.run(world.time + 10.0, lambda: cluster.leader() is not None)
            assert cluster.leader() is cluster.servers[id]


def test_a_sole_voter_tells_its_learner_of_no_term_that_it_may_forget(tmp_path: Path) -> None:
    lose_power_when_it_begins_to_lead(tmp_path)


def test_that_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turns._turn

    async def hasty(self: Turns, ready: Any) -> None:
        sync, hard, entries, snapshot, messages, persisted, *rest = ready
        self._send(messages)
        await turn(self, (sync, hard, entries, snapshot, [], persisted, *rest))

    monkeypatch.setattr(Turns, "_turn", hasty)
    with pytest.raises(ExceptionGroup) as raised:
        lose_power_when_it_begins_to_lead(tmp_path)
    assert raised.group_contains(AssertionError, match="spoke in term")


def rot(folder: Path, kind: Kind, whole: bool = False) -> DurableLog:
    """Turns a bit in the newest record of that kind, or loses the whole sector that it begins in,
    and opens the log again."""
    log = Generation.current(folder).log
    path = max(log.glob("*.log"))
    data = bytearray(path.read_bytes())
    records = list(scan(bytes(data), Segment.header_of(path).number))
    newest = max(record.offset for record in records if record.kind is kind)
    if whole:
        sector = newest // SECTOR * SECTOR
        data[sector : sector + SECTOR] = bytes(len(data[sector : sector + SECTOR]))
    data[newest + HEAD] ^= 1
    path.write_bytes(data)
    return DurableLog.open(log)


@pytest.mark.parametrize("whole", [False, True], ids=["a bit", "a sector"])
def test_a_vote_that_rots_is_noticed_also_when_nothing_was_written_behind_it(
    tmp_path: Path, whole: bool
) -> None:
    """Who forgets it would vote once more in that term."""
    with three(tmp_path) as cluster:
        world = cluster.world
        leader, *others = roles(cluster)
        term = cluster.newest_term()
        cluster.kill(leader.machine.member.id)

        def voter() -> SimServer | None:
            for one in others:
                replica = one.replica
                assert replica is not None
                if replica.term > term and replica.vote not in (0, replica.id):
                    return one
            return None

        world.run(world.time + 10.0, lambda: voter() is not None)
        chosen = voter()
        assert chosen is not None
        # Whom it has chosen is not heard of again: its log stays as it is.
        world.partition |= {frozenset((a.name, b.name)) for a in others for b in others}
        world.run(world.time + 0.2)
        cluster.kill(chosen.machine.member.id)
        with pytest.raises(LogCorrupt, match=r"in data that was durable|no header of a log"):
            rot(chosen.machine.folder, Kind.HARD, whole)


def test_an_entry_that_rots_is_noticed_after_a_pause(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        _, follower, _ = roles(cluster)
        outcomes = puts(follower, 1)
        cluster.world.run(cluster.world.time + 5.0)
        assert len(outcomes()) == 1
        cluster.kill(follower.machine.member.id)
        with pytest.raises(LogCorrupt, match="in data that was durable"):
            rot(follower.machine.folder, Kind.ENTRY)


def image(server: SimServer, tmp_path: Path) -> Callable[[SimCluster], None]:
    """Of its folder as it is now; calling it kills the server and puts the folder back."""
    folder, copy = server.machine.folder, tmp_path / f"image of {server.name}"
    shutil.copytree(folder, copy)

    def put_back(cluster: SimCluster) -> None:
        cluster.kill(server.machine.member.id)
        server.machine.put_back = True
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)

    return put_back


@pytest.mark.parametrize("while_it", ["is killed", "runs", "runs for less than a minute"])
def test_a_folder_that_was_put_back_is_refused_however_often_it_starts(
    tmp_path: Path, while_it: str
) -> None:
    with three(tmp_path) as cluster:
        world = cluster.world
        _, follower, _ = roles(cluster)
        id = follower.machine.member.id
        if while_it == "is killed":
            cluster.kill(id)
        put_back = image(follower, tmp_path)
        world.run(world.time + 1.0 if while_it == "runs for less than a minute" else 70.0)
        outcomes = puts(cluster.servers[id], 5)
        world.run(world.time + 3.0, lambda: len(outcomes()) == 5)
        world.run(world.time + 2.0)
        put_back(cluster)
        world.run(world.time + 60.0)
        assert cluster.watch.seen["put back"] > 3
        leader = cluster.leader()
        assert leader is not None
        assert leader.replica is not None
        assert leader.steward is not None
        assert b"its folder is older than what was seen of it" in leader.steward._told().body
        # It goes on without it, and takes it in again once it is as it was.
        later = puts(leader, 5, 2)
        world.run(world.time + 3.0, lambda: len(later()) == 5)
        assert {type(outcome) for outcome in later()} == {Written}


def lose_what_the_put_back_has_forgotten(tmp_path: Path) -> None:
    """What only the leader and the one that is put back have is written over, or nobody leads."""
    with three(tmp_path) as cluster:
        world = cluster.world
        leader, forgetful, other = roles(cluster)
        cluster.kill(forgetful.machine.member.id)
        put_back = image(forgetful, tmp_path)
        world.run(world.time + 12.0)
        leader = cluster.leader() or leader
        world.partition |= {frozenset((other.name, s.name)) for s in (leader, forgetful)}
        outcomes = puts(leader, 5)
        world.run(world.time + 3.0, lambda: len(outcomes()) == 5)
        assert {type(outcome) for outcome in outcomes()} == {Written}
        put_back(cluster)
        world.partition = {frozenset((leader.name, s.name)) for s in (other, forgetful)}
        world.run(world.time + 30.0, lambda: cluster.leader() not in (None, leader))
        if (successor := cluster.leader()) not in (None, leader):
            assert successor is not None
            puts(successor, 9, 2)
            world.run(world.time + 5.0)
        assert cluster.watch.seen["put back"]


def test_a_folder_that_was_put_back_helps_nobody_to_lead_without_what_it_has_forgotten(
    tmp_path: Path,
) -> None:
    lose_what_the_put_back_has_forgotten(tmp_path)


def test_that_it_would_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trail, "looked", lambda self, id, *_: not self._looked.add(id))
    with pytest.raises(ExceptionGroup) as raised:
        lose_what_the_put_back_has_forgotten(tmp_path)
    assert raised.group_contains(AssertionError, match="applies entry")


def alone(cluster: SimCluster, server: SimServer) -> tuple[Survivor, bytes | None]:
    """What the server's folder is said to keep, and k0 once it has recovered without the others."""
    cluster.kill(server.machine.member.id)
    folder = server.machine.folder
    found = survey(folder)
    made = recover(folder, server.machine.member, "h2")
    assert made.members.voters == (server.machine.member.id,)
    ledger = Ledger(made.generation.ledger / LEDGER)
    try:
        assert ledger.applied_index == found.last
        value = ledger.database.value("SELECT value FROM kv WHERE key = ?", (b"k0",))
        return found, value
    finally:
        ledger.close()


def test_who_recovers_keeps_what_was_never_committed_and_says_so(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        leader, one, other = roles(cluster)
        cluster.world.run(cluster.world.time + 2.0)
        assert leader.replica is not None
        before = leader.replica.commit_index
        cluster.world.partition |= {frozenset((leader.name, s.name)) for s in (one, other)}
        outcomes = puts(leader, 1)
        cluster.world.run(cluster.world.time + 0.2)
        assert outcomes() == []
        found, value = alone(cluster, leader)
        assert (found.last, found.committed, found.uncertain) == (before + 1, before, 1)
        assert value == b"v"


def test_who_recovers_without_what_was_committed_elsewhere_says_how_far_it_goes(
    tmp_path: Path,
) -> None:
    with three(tmp_path) as cluster:
        leader, one, behind = roles(cluster)
        cluster.world.run(cluster.world.time + 2.0)
        cluster.world.partition |= {frozenset((behind.name, s.name)) for s in (leader, one)}
        outcomes = puts(leader, 1)
        cluster.world.run(cluster.world.time + 3.0, lambda: len(outcomes()) == 1)
        assert [type(outcome) for outcome in outcomes()] == [Written]
        (less, lacks), (more, has) = alone(cluster, behind), alone(cluster, one)
        assert (lacks, has) == (None, b"v")
        assert (less.term, less.last) < (more.term, more.last)  # which tells whom to choose
        assert less.uncertain == 0


def test_a_cluster_takes_no_more_servers_than_its_messages_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steward, "MOST", 3)
    told: list[object] = []
    with three(tmp_path) as cluster:
        leader, *_ = roles(cluster)

        async def admit() -> None:
            assert leader.steward is not None
            try:
                member = Member(99, "s99", "127.0.0.1", 1, 2)
                told.append(await leader.steward.answer(ClusterAsk("admit", member=member)))
            except Refused as error:
                told.append(str(error))

        leader.loop.begin(admit())
        cluster.world.run(cluster.world.time + 5.0, lambda: bool(told))
    assert told == [
        "this cluster has 3 servers, and takes no more: remove one that is not needed first,"
        " with: grampus cluster remove NAME"
    ]


def test_who_comes_while_the_members_change_waits_and_is_let_in(tmp_path: Path) -> None:
    told: list[object] = []
    with three(tmp_path) as cluster:
        leader, *_ = roles(cluster)
        one, other = (Member(id, f"s{id}", "127.0.0.1", 1, 2) for id in (98, 99))

        async def admit(member: Member) -> None:
            assert leader.steward is not None
            told.append(await leader.steward.answer(ClusterAsk("admit", member=member)))

        leader.loop.begin(admit(one))
        leader.loop.begin(admit(other))
        cluster.world.run(cluster.world.time + 10.0, lambda: len(told) == 2)
        assert len(told) == 2
        assert leader.replica is not None
        assert {98, 99} <= set(leader.replica.members.learners)
