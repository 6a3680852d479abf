"""Envelopes and their bytes: what a payload means. A msgpack array of kind, id and body.

Rule: whatever bytes come in, the answer is an envelope of known shape or a ProtocolError. The
union of messages is an argument: this package knows no message by name.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from grampus.errors import ProtocolError

M = TypeVar("M")

#: A ProtocolError's text quotes the other side; no more of it than this goes on.
_QUOTED = 200


class OneWay(Struct, Generic[M], frozen=True, array_like=True, tag=0):
    """A message that nobody answers. Its id is there so that every envelope has the same shape."""

    id: Literal[0]
    body: M


class Request(Struct, Generic[M], frozen=True, array_like=True, tag=1):
    """A message to be answered by one Response or Failure with the same id."""

    id: int
    body: M


class Response(Struct, Generic[M], frozen=True, array_like=True, tag=2):
    id: int
    body: M


class Reason(Struct, frozen=True, array_like=True):
    """Why a request failed: the exit code says whose fault it is (errors.py), the text what."""

    exit_code: int
    text: str
    #: Of who is not admitted; else "".
    kind: str = ""


class Failure(Struct, frozen=True, array_like=True, tag=3):
    id: int
    body: Reason


class Codec(Generic[M]):
    """Envelopes around the messages of one union, to bytes and back.

    `Codec[Message](Message)`: the union of tagged structs is given twice, for the type checker
    and for the decoder. Elements that a newer peer adds at the end of an array are ignored;
    elements that an older one leaves out take their defaults.
    """

    __slots__ = ("_decoder", "_encoder")

    def __init__(self, union: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[OneWay[M] | Request[M] | Response[M] | Failure] = (
            msgspec.msgpack.Decoder(OneWay[union] | Request[union] | Response[union] | Failure)
        )

    def encode(self, envelope: OneWay[M] | Request[M] | Response[M] | Failure) -> bytes:
        return self._encoder.encode(envelope)

    def decode(self, payload: bytes) -> OneWay[M] | Request[M] | Response[M] | Failure:
        """ProtocolError when the payload is not an envelope around a message of the union."""
        try:
            return self._decoder.decode(payload)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            # The text may quote what came in: escaped and cut, it is fit for a log line.
            text = str(error).encode("unicode_escape").decode("ascii")[:_QUOTED]
            raise ProtocolError(f"bytes that are no message: {text}") from None
