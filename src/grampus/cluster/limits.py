"""How large things may be, and the errors for what is larger.

Metadata, not storage: beyond these bounds belongs a file, a blob or a database. Those that `apply`
looks at are part of its version.
"""

from __future__ import annotations

from collections.abc import Sequence

from grampus.cluster.commands import Compare, DeleteOp, GetOp, Op, PutOp
from grampus.errors import InvalidInput, Problem, TooLarge

KEY_LIMIT = 512
VALUE_LIMIT = 64 * 1024
#: Comparisons, and operations of each branch, of one transaction.
TXN_LIMIT = 128
#: A command, encoded.
COMMAND_LIMIT = 256 * 1024
#: Keys that one command may delete, or one session own.
ROWS = 500
#: What the reads of one transaction give in all, in bytes.
READ_LIMIT = 128 * 1024
#: All keys and values, with an allowance for each key.
SPACE_LIMIT = 256 * 1024 * 1024
KEY_COST = 100
#: The history, for watches that resume: rows, bytes, and by how much it may be longer for a while.
HISTORY_ROWS = 100_000
HISTORY_BYTES = 64 * 1024 * 1024
SLACK_ROWS = 1_000
SLACK_BYTES = 4 * 1024 * 1024
#: Sessions that live at once, and of one node; requests of one that are not acknowledged, and from
#: how many bytes of answers to them on it has to acknowledge some before it asks for more.
SESSIONS = 10_000
SESSIONS_OF_ONE = 100
WINDOW = 128
ANSWER_BYTES = 1024 * 1024
#: Of a session, in ms.
SHORTEST_TTL = 1_000
LONGEST_TTL = 3_600_000
NAME_LIMIT = 128


def check_key(key: bytes, what: str = "key") -> None:
    """Raises TooLarge, or InvalidInput for what is no UTF-8 text or empty."""
    if not 1 <= len(key) <= KEY_LIMIT:
        if key:
            raise TooLarge(f"a {what} has at most {KEY_LIMIT} bytes, not {len(key)}")
        raise InvalidInput([Problem(f"a {what} cannot be empty", field=what)])
    try:
        key.decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            [Problem(f"a {what} is UTF-8 text", field=what, found=repr(key[:60]))]
        ) from None


def check_prefix(prefix: bytes) -> None:
    """As a key, but it may be empty."""
    if prefix:
        check_key(prefix, "prefix")


def check_value(value: bytes) -> None:
    if len(value) > VALUE_LIMIT:
        raise TooLarge(
            f"a value has at most {VALUE_LIMIT} bytes, not {len(value)}: keep it elsewhere, and"
            " here where it is"
        )


def check_ttl(ttl: int) -> None:
    if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise InvalidInput(
            [Problem("a session cannot live for so long without a sign", field="ttl",
                     found=f"{ttl} ms", allowed=f"{SHORTEST_TTL} to {LONGEST_TTL} ms")]
        )  # fmt: skip


def check_name(name: str, what: str) -> None:
    """Of a session, a lock or a topic: a part of a key, so without `/`."""
    if not name or "/" in name or len(name.encode()) > NAME_LIMIT:
        allowed = f"1 to {NAME_LIMIT} bytes without `/`"
        raise InvalidInput(
            [Problem(f"this cannot be the name of a {what}", field=what, found=repr(name[:60]),
                     allowed=allowed)]
        )  # fmt: skip


def check_txn(
    compare: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op], session: int
) -> None:
    """Raises TooLarge, or InvalidInput for what no transaction can mean."""
    for what, part in (("comparisons", compare), ("operations", then), ("operations", orelse)):
        if len(part) > TXN_LIMIT:
            raise TooLarge(f"a transaction has at most {TXN_LIMIT} {what}, not {len(part)}")
    for each in compare:
        check_key(each.key)
        if isinstance(each.value, bytes) is not (each.target == "value"):
            raise _impossible(f"`{each.target}` of {each.key!r} cannot be compared with this")
    for branch in (then, orelse):
        _check_branch(branch, session)


def _check_branch(branch: Sequence[Op], session: int) -> None:
    put: set[bytes] = set()
    deletes: list[DeleteOp] = []
    for op in branch:
        match op:
            case PutOp():
                check_key(op.key)
                check_value(op.value)
                if op.ephemeral and not session:
                    raise _impossible(f"{op.key!r} is ephemeral: that takes a session")
                if op.key in put:
                    raise _impossible(f"{op.key!r} is put twice in one transaction")
                put.add(op.key)
            case DeleteOp():
                deletes.append(op)
            case GetOp():
                if not 1 <= op.limit <= ROWS:
                    raise _impossible(f"1 to {ROWS} keys can be read at once, not {op.limit}")
    for delete in deletes:
        end = delete.end or delete.start + b"\0"
        if any(delete.start <= key < end for key in put):
            raise _impossible("a key is put and deleted in one transaction")


def _impossible(message: str) -> InvalidInput:
    return InvalidInput([Problem(message)])


def end_of(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`. UTF-8 never reaches 0xff."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\xff"
