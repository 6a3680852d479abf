"""The lead changes hands in order, in a simulated cluster under load: nobody waits for long."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.cluster.commands import Written
from grampus.consensus.writer import Limits
from grampus.errors import NoQuorum, OutcomeUnknown
from grampus.protocol import ClusterAsk
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer
from grampus.testing.server_machine import Settings
from tests.simulation.cluster_ground import roles, three
from tests.simulation.cluster_writer import Writer, agree, within

KEPT = Settings(Limits(checkpoint_entries=50, checkpoint_idle=0.5, quick=0.0), steward=True)
#: Seconds that one call may take where a few messages are late.
LATE = 2.0


def remove(cluster: SimCluster, asked: SimServer, name: str) -> list[bytes]:
    """As a person types it at that server; the answer, once there is one."""
    answers: list[bytes] = []

    async def ask() -> None:
        assert asked.steward is not None
        answers.append((await asked.steward.relay(ClusterAsk("remove", name))).body)

    asked.loop.begin(ask())
    return answers


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_who_is_removed_under_load_keeps_nobody_waiting(tmp_path: Path, leads: bool) -> None:
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        leader, one, _ = roles(cluster)
        goes = leader if leads else one
        stay = [server for server in cluster.open() if server is not goes]
        at_it = [Writer(cluster, goes, b"gone%d" % number) for number in range(3)]
        writers = [Writer(cluster, server, server.name.encode()) for server in stay]
        world.run(world.time + 1.0)
        begun = world.time
        answers = remove(cluster, goes, goes.name)
        within(cluster, LATE, lambda: bool(answers))
        world.run(begun + 6.0, lambda: cluster._look())
        assert cluster.leader() in stay
        for writer in (*at_it, *writers):
            writer.over = True
            assert writer.longest() < LATE, "a call has waited for a server that is no member"
        for writer in writers:
            assert set(map(type, writer.since(begun + LATE))) == {Written}
        told = [outcome for writer in at_it for outcome in writer.since(begun)]
        assert any(isinstance(one, NoQuorum) and "removed" in str(one) for one in told)
        assert sum(isinstance(one, OutcomeUnknown) for one in told) <= len(at_it)
        world.run(world.time + 1.0)
        cluster.retire(goes.machine.member.id)
        agree(cluster)


def test_a_leader_gives_the_lead_away_under_load_without_an_election(tmp_path: Path) -> None:
    with three(tmp_path, KEPT) as cluster:
        world = cluster.world
        old, one, _ = roles(cluster)
        writers = [Writer(cluster, server, server.name.encode()) for server in cluster.open()]
        world.run(world.time + 1.0)
        begun, term = world.time, cluster.newest_term()
        assert old.steward is not None
        old.loop.begin(old.steward.ask("transfer", one.name))
        within(cluster, LATE, lambda: cluster.leader() is one)
        assert cluster.newest_term() == term + 1
        world.run(begun + 4.0, lambda: cluster._look())
        for writer in writers:
            writer.over = True
            assert set(map(type, writer.since(begun))) == {Written}, "nobody hears of the change"
            assert writer.longest() < LATE
        world.run(world.time + 1.0)
        agree(cluster)
