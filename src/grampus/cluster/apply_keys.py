"""Puts, deletes, transactions, and the compaction of their history.

Everything that may refuse is looked at first: a refusal changes nothing. The bounds are looked at
as if nothing was replaced, so that looking needs no reading.
"""

from __future__ import annotations

from grampus.cluster.commands import (
    Compact,
    Compare,
    Delete,
    Deleted,
    DeleteOp,
    GetDone,
    GetOp,
    Op,
    Put,
    PutOp,
    Txn,
    TxnDone,
    Written,
)
from grampus.cluster.keyspace import Keyspace
from grampus.cluster.limits import KEY_COST, READ_LIMIT, ROWS
from grampus.cluster.refusal import Refusal
from grampus.cluster.values import KeyValue

_FULL = Refusal("no-space", "the key space is full: delete keys that are no longer needed")
_TOO_MANY = Refusal(
    "too-many", f"more than {ROWS} keys would be deleted at once: delete them in several steps"
)
_OWNER = Refusal("too-many", f"a session owns at most {ROWS} keys")


def put(space: Keyspace, command: Put) -> Written | Refusal:
    session = 0
    if command.ephemeral:
        assert command.origin is not None, "only servers make commands"
        session = command.origin.session
        if not _may_own(space, session, 1):
            return _OWNER
    if not space.room(_size(command)):
        return _FULL
    space.begin()
    space.put(command.key, command.value, session)
    return Written(space.commit(command.at))


def delete(space: Keyspace, command: Delete) -> Deleted | Refusal:
    if command.end and len(space.keys(command.start, command.end, ROWS + 1)) > ROWS:
        return _TOO_MANY
    space.begin()
    count = _delete(space, command)
    return Deleted(space.commit(command.at), count)


def txn(space: Keyspace, command: Txn) -> TxnDone | Refusal:
    succeeded = all(_holds(space, compare) for compare in command.compare)
    ops = command.then if succeeded else command.orelse
    session = 0 if command.origin is None else command.origin.session
    if refusal := _refuse(space, ops, session):
        return refusal
    space.begin()
    read = 0
    results: list[Written | Deleted | GetDone] = []
    for op in ops:
        match op:
            case PutOp():
                space.put(op.key, op.value, session if op.ephemeral else 0)
                results.append(Written(0))
            case DeleteOp():
                results.append(Deleted(0, _delete(space, op)))
            case GetOp():
                got, read = _get(space, op, read)
                results.append(got)
    return TxnDone(space.commit(command.at), succeeded, tuple(results))


def compact(space: Keyspace, command: Compact) -> bool:
    return space.compact(command.before)


def _refuse(space: Keyspace, ops: tuple[Op, ...], session: int) -> Refusal | None:
    size = deleted = owned = 0
    for op in ops:
        match op:
            case PutOp():
                size += _size(op)
                owned += op.ephemeral
            case DeleteOp(start, end) if end:
                deleted += len(space.keys(start, end, ROWS + 1))
            case DeleteOp():
                deleted += 1
    if deleted > ROWS:
        return _TOO_MANY
    if size and not space.room(size):
        return _FULL
    if owned and not _may_own(space, session, owned):
        return _OWNER
    return None


def _may_own(space: Keyspace, session: int, more: int) -> bool:
    keys: int = space.db.value("SELECT keys FROM cluster_session WHERE id = ?", (session,))
    return keys + more <= ROWS


def _size(op: Put | PutOp) -> int:
    return len(op.key) + len(op.value) + KEY_COST


def _delete(space: Keyspace, op: Delete | DeleteOp) -> int:
    if op.end:
        return space.delete_range(op.start, op.end)
    return int(space.delete(op.start))


def _holds(space: Keyspace, compare: Compare) -> bool:
    if compare.target == "value":
        found = space.get(compare.key)
        if found is None:
            return False
        have: object = found.value
    else:
        created, modified, version, session = space.numbers(compare.key)
        have = {
            "created": created, "modified": modified, "version": version, "session": session
        }[compare.target]  # fmt: skip
    match compare.sign:
        case "=":
            return have == compare.value
        case "!=":
            return have != compare.value
        case "<":
            return have < compare.value  # type: ignore[operator]
        case ">":
            return have > compare.value  # type: ignore[operator]


def _get(space: Keyspace, op: GetOp, read: int) -> tuple[GetDone, int]:
    """What is read, and how many bytes the transaction has read with it. `read`: before."""
    end = op.end or op.start + b"\0"
    keys = space.keys(op.start, end, op.limit + 1)
    items: list[KeyValue] = []
    for key, size in keys[: op.limit]:
        if read and read + len(key) + size > READ_LIMIT:
            return GetDone(tuple(items), True), read
        found = space.get(key)
        assert found is not None
        items.append(found)
        read += len(key) + size
    return GetDone(tuple(items), len(keys) > op.limit), read
