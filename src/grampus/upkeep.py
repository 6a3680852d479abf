"""Commands about the ledger as a whole. The rules of `cluster.commands` hold here.

They are of no version: every program that was ever released knows them, or it could not be told
that it is too old.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct


class RaiseVersion(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="raise-version"
):
    """From the next command on, the handlers of `to` count; the scripts that lead there run within
    this one. Accepted: the version from then on. Lower ones change nothing."""

    at: int
    to: int


class TakeSum(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="take-sum"):
    """Every server takes a checksum of its ledger as it is after this entry.

    Accepted: the index of the entry."""

    at: int


class TellSum(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="tell-sum"):
    """A server says what came out. Accepted: "told"."""

    at: int
    #: Of the entry with the `TakeSum`.
    index: int
    #: Raft id of the server.
    server: int
    sum: str


Command = RaiseVersion | TakeSum | TellSum
TYPES = (RaiseVersion, TakeSum, TellSum)

_ENCODER = msgspec.msgpack.Encoder()


def encode_command(command: Command) -> bytes:
    return _ENCODER.encode(command)
