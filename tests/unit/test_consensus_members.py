"""Who belongs to a cluster, after each change, and the same on every server."""

from __future__ import annotations

from grampus.consensus.members import (
    REMEMBERED,
    Conf,
    MemberChange,
    Members,
    decode_change,
    encode_change,
)
from grampus.model.member import Member


def member(id: int, name: str) -> Member:
    return Member(id, name, "::1", 8000 + id, 9000 + id)


A, B, C = member(1, "a"), member(2, "b"), member(3, "c")
FOUNDED = Members(conf=([1], [], [], [], False), known=(A,))


def conf(voters: list[int], learners: list[int] = [], outgoing: list[int] = []) -> Conf:  # noqa: B006
    return voters, learners, outgoing, [], bool(outgoing)


def test_from_one_to_three_and_a_replacement_under_the_same_name() -> None:
    two = FOUNDED.after(conf([1], [3, 2]), MemberChange((B, C)))
    assert (two.voters, two.learners, two.joint) == ((1,), (2, 3), False)
    joint = two.after(conf([3, 1, 2], [], [1]), MemberChange())
    assert joint.joint
    assert joint.voters == (1, 2, 3)
    three = joint.after(conf([2, 3, 1]), MemberChange())
    assert three.known == (A, B, C)

    new = member(9, "b")
    coming = three.after(conf([1, 2, 3], [9]), MemberChange((new,), lost=(2,)))
    assert coming.named("b") == (B, new)
    assert coming.lost == (2,)
    done = coming.after(conf([1, 3, 9]), MemberChange())
    assert (done.named("b"), done.lost, done.removed) == ((new,), (), (2,))
    assert done.find(2) is None


def test_all_servers_have_the_same_bytes_however_raft_lists_the_ids() -> None:
    change = MemberChange((B, C))
    one = FOUNDED.after(([3, 1, 2], [], [1], [], True), change)
    other = FOUNDED.after(([1, 2, 3], [], [1], [], True), change)
    assert one.encode() == other.encode()
    assert Members.decode(one.encode()) == one


def test_a_joint_configuration_counts_the_votes_of_both_sides() -> None:
    both = FOUNDED.after(conf([2, 3], [], [1]), MemberChange((B, C)))
    assert both.voters == (2, 3, 1)
    assert both.find(1) == A, "it is needed until the change is done"
    assert both.removed == ()


def test_removed_ids_are_remembered_the_newest_longest() -> None:
    members = FOUNDED
    for id in range(10, 12 + REMEMBERED):
        members = members.after(conf([1], [id]), MemberChange((member(id, "x"),)))
        members = members.after(conf([1]), MemberChange())
    assert len(members.removed) == REMEMBERED
    assert members.removed[-1] == 11 + REMEMBERED


def test_an_address_is_written_as_users_write_it() -> None:
    assert A.address == "[::1]:8001"
    moved = FOUNDED.moved(Member(1, "a", "127.0.0.1", 1, 2))
    assert [m.address for m in moved.known] == ["127.0.0.1:1"]


def test_the_change_that_leaves_a_joint_configuration_has_no_context() -> None:
    assert decode_change(b"") == MemberChange()
    change = MemberChange((B,), (7,))
    assert decode_change(encode_change(change)) == change
