"""Who has said one of Raft's messages, read off its first bytes. Pure.

Rule: a server speaks for itself only. Raft knows a peer by a number inside the message; the
connection knows it by what it has proved. Where the two differ, the message is nobody's.
"""

from __future__ import annotations

from functools import lru_cache

#: Field numbers of `eraftpb.Message`, as they stand on the wire: `to` and `from`, both varints. The
#: field before them is the type, two bytes.
_TO, _FROM, _TYPE = b"\x10", b"\x18", 2


def is_between(message: bytes, sender: int, receiver: int) -> bool:
    """Whether the message says that it is from `sender` for `receiver`."""
    return message.startswith(_head(sender, receiver), _TYPE)


@lru_cache(maxsize=64)
def _head(sender: int, receiver: int) -> bytes:
    return _TO + _varint(receiver) + _FROM + _varint(sender)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
