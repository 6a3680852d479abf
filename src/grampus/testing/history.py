"""What clients of the metadata center did and were told, as a checker reads it. Pure values.

Rules: an operation that was refused for certain (no quorum: nothing happened) is left out, so that
whoever sees it later has seen a phantom. One whose outcome is unknown has neither return time nor
result: it may take effect at any moment after its call, or never. Times are integers of one clock;
equal times count as side by side. A revision that nobody recorded is None.
"""

from __future__ import annotations

from msgspec import Struct

#: Longer keys and values are shortened where a person reads them.
SHOWN = 24


class Get(Struct, frozen=True):
    key: bytes


class Put(Struct, frozen=True):
    key: bytes
    value: bytes


class Delete(Struct, frozen=True):
    key: bytes


class HasValue(Struct, frozen=True):
    """True while the key holds this value; None: while it does not exist."""

    key: bytes
    value: bytes | None


class HasRevision(Struct, frozen=True):
    """True while the key was last changed at this revision; 0: while it does not exist."""

    key: bytes
    mod: int


Compare = HasValue | HasRevision
#: What a transaction is made of.
Simple = Get | Put | Delete


class Txn(Struct, frozen=True):
    """`then` when all `compares` are true, else `otherwise`: at once, and at one revision."""

    compares: tuple[Compare, ...]
    then: tuple[Simple, ...]
    otherwise: tuple[Simple, ...] = ()


Action = Get | Put | Delete | Txn


class Got(Struct, frozen=True):
    value: bytes | None
    #: Revision of the key's last change; 0 where it does not exist.
    mod: int | None = None
    #: Revision of the whole key space when it was read; None inside a transaction, which has it.
    at: int | None = None


class Wrote(Struct, frozen=True):
    """Answer to a put, or to a delete: if nothing was there, `revision` is not a new one."""

    #: None inside a transaction, which has it.
    revision: int | None = None
    existed: bool | None = None


class Decided(Struct, frozen=True):
    """Answer to a transaction. Its revision is a new one if it changed something."""

    succeeded: bool
    revision: int | None = None
    #: One for each of the branch taken, or () where they were not recorded.
    results: tuple[Got | Wrote, ...] = ()


Result = Got | Wrote | Decided


class Operation(Struct, frozen=True):
    client: str
    called: int
    #: None when the outcome is unknown, and so is the result then.
    returned: int | None
    action: Action
    result: Result | None


def swap(key: bytes, old: bytes | None, new: bytes) -> Txn:
    """Compare and set, by value."""
    return Txn((HasValue(key, old),), (Put(key, new),))


def keys(action: Action) -> tuple[bytes, ...]:
    """Every key that the action may read or write, each once, in order."""
    if not isinstance(action, Txn):
        return (action.key,)
    parts = (*action.compares, *action.then, *action.otherwise)
    return tuple(dict.fromkeys(part.key for part in parts))


def simple(action: Action) -> tuple[Simple, ...]:
    """All that it may consist of."""
    return (*action.then, *action.otherwise) if isinstance(action, Txn) else (action,)


def writes(action: Action) -> bool:
    """Whether it may change something."""
    return any(not isinstance(part, Get) for part in simple(action))


def check_form(operation: Operation) -> None:
    """Raises ValueError for what no recorder may write down."""
    if (operation.returned is None) != (operation.result is None):
        raise ValueError(f"a return time and a result come together: {describe(operation)}")
    if operation.returned is not None and operation.returned < operation.called:
        raise ValueError(f"it returned before it was called: {describe(operation)}")
    fits: type = {Get: Got, Put: Wrote, Delete: Wrote, Txn: Decided}[type(operation.action)]
    if not isinstance(operation.result, fits | None):
        raise ValueError(f"the answer is of another kind: {describe(operation)}")
    if isinstance(operation.action, Txn) and isinstance(operation.result, Decided):
        branch = operation.action.then if operation.result.succeeded else operation.action.otherwise
        answers = [Got if isinstance(part, Get) else Wrote for part in branch]
        results = operation.result.results
        if results and answers != [type(part) for part in results]:
            raise ValueError(f"the answers do not fit the branch: {describe(operation)}")
        if any(isinstance(part, Got) and part.at is not None for part in results) or any(
            isinstance(part, Wrote) and part.revision is not None for part in results
        ):
            raise ValueError(f"a part has a revision of its own: {describe(operation)}")


def shown(data: bytes | None) -> str:
    if data is None:
        return "nothing"
    text = data.decode("utf-8", "backslashreplace")
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def describe(operation: Operation) -> str:
    """One line: who, when, what, and what it was told."""
    until = "?" if operation.returned is None else str(operation.returned)
    when = f"{operation.called}..{until}"
    said = "outcome unknown" if operation.result is None else _answer(operation.result)
    return f"{operation.client:6} {when:>13}  {_asked(operation.action)} -> {said}"


def _asked(action: Action) -> str:
    match action:
        case Get(key):
            return f"get {shown(key)}"
        case Put(key, value):
            return f"put {shown(key)}={shown(value)}"
        case Delete(key):
            return f"delete {shown(key)}"
    conditions = ", ".join(_condition(compare) for compare in action.compares)
    parts = [f"if {conditions}", *(_asked(part) for part in action.then)]
    if action.otherwise:
        parts += ["else", *(_asked(part) for part in action.otherwise)]
    return "; ".join(parts)


def _condition(compare: Compare) -> str:
    if isinstance(compare, HasValue):
        return f"{shown(compare.key)} is {shown(compare.value)}"
    return f"{shown(compare.key)} is of revision {compare.mod}"


def _answer(result: Result) -> str:
    match result:
        case Got(value, mod, at):
            changed = "" if not mod else f" of revision {mod}"
            return f"{shown(value)}{changed}{'' if at is None else f' at {at}'}"
        case Wrote(revision, existed):
            words = ["ok" if revision is None else f"revision {revision}"]
            if existed is not None:
                words.append("it existed" if existed else "nothing was there")
            return ", ".join(words)
    words = ["yes" if result.succeeded else "no"]
    if result.revision is not None:
        words.append(f"revision {result.revision}")
    return ", ".join([*words, *(_answer(part) for part in result.results)])
