"""Answers of `apply` as bytes: a follower passes proposals on, and hands the answers out as if it
had applied them itself. Structs keep their type, tuples and lists are told apart.
"""

from __future__ import annotations

from typing import Any

import msgspec

from grampus.cluster.commands import Deleted, TxnDone, Written
from grampus.cluster.refusal import Refusal

#: What an answer is made of, beside plain values (0) and tuples of them (1). A type keeps its
#: number for ever.
TYPES: dict[int, type[Any]] = {2: Refusal, 3: Written, 4: Deleted, 5: TxnDone}
_NUMBERS = {kind: number for number, kind in TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]])
_PLAIN, _TUPLE = 0, 1


def encode_answers(answers: list[object]) -> bytes:
    return _ENCODER.encode([(_number(answer), answer) for answer in answers])


def _number(answer: object) -> int:
    return _TUPLE if isinstance(answer, tuple) else _NUMBERS.get(type(answer), _PLAIN)


def decode_answers(data: bytes) -> list[object]:
    """The reverse. Raises msgspec.DecodeError for anything else."""
    return [_decode(number, raw) for number, raw in _DECODER.decode(data)]


def _decode(number: int, raw: msgspec.Raw) -> object:
    if number == _PLAIN:
        return msgspec.msgpack.decode(raw)
    if number == _TUPLE:
        return tuple(msgspec.msgpack.decode(raw))
    return msgspec.msgpack.decode(raw, type=TYPES[number])
