"""Which apply version all members of a cluster know, and who holds it back. Pure.

Rule: a member that does not answer counts as one that knows nothing newer; one that is given up as
lost does not count. Learners count like voters: they are to become them.
"""

from __future__ import annotations

from collections.abc import Mapping

from grampus.consensus.members import Members

#: By id: the newest apply version that a server knows; absent or 0 when it does not answer.
Known = Mapping[int, int]


def common_version(members: Members, known: Known) -> int:
    """The newest that every member knows; 0 when one of them does not answer."""
    return min((known.get(member, 0) for member in _counted(members)), default=0)


def held_back(members: Members, known: Known, version: int) -> tuple[str, ...]:
    """Names of the members without which the cluster could go on from `version`; nobody when no
    member knows a newer one."""
    counted = _counted(members)
    best = max((known.get(member, 0) for member in counted), default=0)
    if best <= version:
        return ()
    names = {member.id: member.name for member in members.known}
    return tuple(sorted(names.get(id, str(id)) for id in counted if known.get(id, 0) < best))


def _counted(members: Members) -> list[int]:
    there = dict.fromkeys([*members.voters, *members.learners])
    return [id for id in there if id not in members.lost]
