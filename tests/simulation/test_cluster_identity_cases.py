"""Who was a member once comes back under what it has shown, or under a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

pytest.importorskip("grampus_raft", reason="the binding of Raft is not built")

from grampus.consensus.bearer import void_key
from grampus.consensus.members import REMOVED, MemberChange
from grampus.errors import Refused
from grampus.founding import recover
from grampus.model.member import Member
from grampus.protocol import ClusterAsk
from grampus.testing.cluster import SimCluster
from grampus.testing.server import SimServer
from tests.simulation.cluster_ground import roles, three


def ask(cluster: SimCluster, server: SimServer, asked: ClusterAsk) -> str:
    """What the steward there says to it: "" when it is done."""
    told: list[str] = []

    async def go() -> None:
        assert server.steward is not None
        try:
            await server.steward.answer(asked)
        except Refused as error:
            told.append(str(error))
        else:
            told.append("")

    server.loop.begin(go())
    cluster.world.run(cluster.world.time + 20.0, lambda: bool(told))
    (answer,) = told
    return answer


def test_who_was_removed_stays_outside_when_a_survivor_begins_anew(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        leader, *_ = roles(cluster)
        gone = Member(99, "s99", "127.0.0.1", 1, 2, "its key")
        assert ask(cluster, leader, ClusterAsk("admit", member=gone)) == ""
        assert ask(cluster, leader, ClusterAsk("remove", "s99")) == ""
        me = leader.machine.member
        cluster.kill(me.id)
        members = recover(leader.machine.folder, me, "h2").members
        assert (members.known, members.voters) == ((me,), (me.id,))
        assert (members.removed, members.removed_keys) == ((99,), ("its key",))
        assert void_key(members, "its key") == REMOVED
        again = recover(leader.machine.folder, replace(me, id=99, key="its key"), "h3").members
        assert (again.removed, again.removed_keys) == ((), ())


def test_neither_an_id_nor_a_key_that_was_removed_is_admitted_again(tmp_path: Path) -> None:
    with three(tmp_path) as cluster:
        leader, *_ = roles(cluster)
        gone = Member(99, "s99", "127.0.0.1", 1, 2, "its key")
        assert ask(cluster, leader, ClusterAsk("admit", member=gone)) == ""
        assert ask(cluster, leader, ClusterAsk("remove", "s99")) == ""
        for again in (
            gone,
            replace(gone, key="another"),
            replace(gone, id=98),
            replace(gone, id=98, name="s98"),
        ):
            assert "was removed" in ask(cluster, leader, ClusterAsk("admit", member=again))
        new = replace(gone, id=98, key="another")
        assert ask(cluster, leader, ClusterAsk("admit", member=new)) == ""
        assert leader.replica is not None
        members = leader.replica.members
        assert (members.learners, members.removed, members.removed_keys) == (
            (98,), (99,), ("its key",),
        )  # fmt: skip
        refused: list[str] = []

        async def directly() -> None:
            assert leader.replica is not None
            with pytest.raises(Refused) as raised:
                await leader.replica.change_members([(2, 99)], MemberChange((gone,)))
            refused.append(str(raised.value))

        leader.loop.begin(directly())
        cluster.world.run(cluster.world.time + 2.0, lambda: bool(refused))
        assert "an id never comes back" in refused[0]
