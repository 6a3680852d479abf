"""What the metadata center can be asked to change. A command carries its own time and ids.

Stored and applied as the bytes that were proposed; unknown fields and tags are errors. A new field
goes at the end, with a default, and is used only from a new `apply_version` on. `at` is wall
milliseconds, given by the proposer. Limits are looked at before a command is made (`limits`).
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from grampus.cluster.refusal import Refusal
from grampus.cluster.token_commands import TokenCommand
from grampus.cluster.values import KeyValue
from grampus.model.number import Count


class Origin(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which session asks. A request with a `seq` above 0 is carried out once: asked again, it gets
    the answer that it had. Refused when the session is over, so that no old request comes late."""

    session: Count
    #: Counts the requests of the session from 1 on; 0 is not remembered.
    seq: Count = 0
    #: The answers of all requests up to this one were received.
    acked: Count = 0


class Put(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-put"):
    """Accepted: `Written`."""

    at: int
    key: bytes
    value: bytes
    origin: Origin | None = None
    #: The key is gone when the session of `origin` is over.
    ephemeral: bool = False


class Delete(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-delete"):
    """Deletes `start`, or all keys from `start` to before `end`. Accepted: `Deleted`.

    More than ROWS keys are refused: delete them in several steps."""

    at: int
    start: bytes
    end: bytes = b""
    origin: Origin | None = None


Target = Literal["value", "version", "created", "modified", "session"]
Sign = Literal["=", "!=", "<", ">"]


class Compare(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All numbers of a key that does not exist are 0; no comparison with its value holds."""

    key: bytes
    target: Target
    sign: Sign
    value: int | bytes


class PutOp(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="put"):
    key: bytes
    value: bytes
    ephemeral: bool = False


class DeleteOp(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="delete"):
    start: bytes
    end: bytes = b""


class GetOp(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="get"):
    """The key `start`, or those from `start` to before `end`, at most `limit`."""

    start: bytes
    end: bytes = b""
    limit: int = 100


Op = PutOp | DeleteOp | GetOp


class Txn(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-txn"):
    """`then` if all comparisons hold, else `orelse`; in one revision. Accepted: `TxnDone`."""

    at: int
    compare: tuple[Compare, ...]
    then: tuple[Op, ...]
    orelse: tuple[Op, ...]
    origin: Origin | None = None


class Begin(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-begin"):
    """Begins a session. Accepted: its id; the same `instance` gets the same session."""

    at: int
    instance: str
    name: str
    ttl: int


class End(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-end"):
    """Ends a session, and deletes its keys. Accepted: "ended"."""

    at: int
    session: int
    reason: str


class Compact(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="kv-compact"):
    """Forgets history from before `before` (wall ms), the oldest first, a bounded part.

    Accepted: True when some may be left."""

    at: int
    before: int


Command = Put | Delete | Txn | Begin | End | Compact | TokenCommand

# What they are answered with.


class Written(Struct, frozen=True, array_like=True, tag="written"):
    revision: int


class Deleted(Struct, frozen=True, array_like=True, tag="deleted"):
    """`revision` is the ledger's newest when there was nothing to delete."""

    revision: int
    count: int


class GetDone(Struct, frozen=True, array_like=True, tag="got"):
    """`more`: there are further keys in the range."""

    items: tuple[KeyValue, ...]
    more: bool


class TxnDone(Struct, frozen=True, array_like=True, tag="txn"):
    """One result per operation of the branch that was taken, in order."""

    revision: int
    succeeded: bool
    results: tuple[Written | Deleted | GetDone, ...]


Answer = Written | Deleted | TxnDone | Refusal

_ENCODER = msgspec.msgpack.Encoder()
_ANSWERS = msgspec.msgpack.Decoder(Answer)
_TXN = msgspec.msgpack.Decoder(Txn)


def encode_command(command: Command) -> bytes:
    return _ENCODER.encode(command)


def encode_answer(answer: Answer) -> bytes:
    return _ENCODER.encode(answer)


def decode_answer(data: bytes) -> Answer:
    answer: Answer = _ANSWERS.decode(data)
    return answer


#: A transaction of more bytes or operations is not small.
SMALL_BYTES, SMALL_OPS = 4096, 4


def is_small(data: bytes) -> bool:
    """Whether the encoded command changes and reads a few keys at most: a put, or a transaction
    such as a compare-and-set."""
    tag = data[1:8]
    if tag == b"\xa6kv-put":
        return True
    return tag == b"\xa6kv-txn" and len(data) <= SMALL_BYTES and _is_small(_TXN.decode(data))


def _is_small(txn: Txn) -> bool:
    ops = (*txn.then, *txn.orelse)
    return len(txn.compare) + len(ops) <= SMALL_OPS and not any(
        isinstance(op, DeleteOp | GetOp) and op.end for op in ops
    )
