"""Where the servers of the cluster listen for nodes, from the members that the replica knows."""

from __future__ import annotations

from grampus.consensus.replica import RaftReplica
from grampus.model.member import Member
from grampus.rpc.address import address


class MemberDirectory:
    """Implements `Directory`."""

    def __init__(self, replica: RaftReplica) -> None:
        self._replica = replica

    def leader(self) -> str:
        member = self._replica.members.find(self._replica.leader_id)
        return "" if member is None else _for_nodes(member)

    def servers(self) -> tuple[str, ...]:
        return tuple(_for_nodes(member) for member in self._replica.members.known)


def _for_nodes(member: Member) -> str:
    return address(member.host, member.node_port)
