"""The bytes of the log: segment headers and records. Pure; `segment` owns the files.

    segment = header (in 128 bytes), record, record, ..., zeros
    record  = marker, crc of the head, crc of the payload, length, synced, kind, index, term,
              payload

Both sums are seeded with the segment's number and the record's offset: a record is valid only in
its place, so neither an old record left in a reused block nor one inside a payload passes for one.
`synced` is how much of this segment was durable when the record was written. So a bad record with a
later witness beyond it is damage to what was acknowledged; without a witness it is a torn tail, the
remains of a write that nobody was told of. All integers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum

from msgspec import Struct

from grampus.database import StorageFailed

LOG_FORMAT = 1
#: Where the first record begins.
START = 128
_MAGIC = b"GRAMPLOG"
_HEADER = struct.Struct("<8sIQQQIQQQ")
_MARKER = b"\xa7gr\x0e"
_SUMMED = struct.Struct("<IIIBQQ")
_PREFIX = struct.Struct("<4sI")
_PLACE = struct.Struct("<QI")
_HARD = struct.Struct("<QQQ")
_CRC = struct.Struct("<I")
HEAD = _PREFIX.size + _SUMMED.size
#: Bytes that a disk loses together, at places that are multiples of it.
SECTOR = 4096


class LogCorrupt(StorageFailed):
    """What was durable in the log has changed. The node must not go on from a part of it."""


class Kind(IntEnum):
    #: A log entry.
    ENTRY = 1
    #: The hard state; the newest one counts. `index` and `term` are 0.
    HARD = 2
    #: Entries from `index` on are void; `term` is that of the entry before.
    CUT = 3
    #: Nothing but a witness of `synced`; or filling, up to the sector in which one lies.
    MARK = 4
    #: A log entry that changes the members.
    CHANGE = 5


#: What an entry is to Raft: commands, or one of its two forms of a change of members.
NORMAL, CHANGE_V1, CHANGE_V2 = 0, 1, 2
_CHANGE = struct.Struct("<BI")


class Entry(Struct, frozen=True):
    index: int
    term: int
    #: Commands; of a change of members, what Raft wrote.
    payload: bytes
    #: NORMAL, CHANGE_V1 or CHANGE_V2.
    change: int = NORMAL
    #: Of a change of members: who they are.
    context: bytes = b""

    def record(self) -> tuple[Kind, int, int, bytes]:
        """As (kind, index, term, payload) of a record."""
        if self.change == NORMAL:
            return Kind.ENTRY, self.index, self.term, self.payload
        head = _CHANGE.pack(self.change, len(self.payload))
        return Kind.CHANGE, self.index, self.term, head + self.payload + self.context

    @classmethod
    def of(cls, kind: Kind, index: int, term: int, payload: bytes) -> Entry:
        """The reverse of `record`."""
        if kind is Kind.ENTRY:
            return cls(index, term, payload)
        change, length = _CHANGE.unpack_from(payload)
        end = _CHANGE.size + length
        return cls(index, term, payload[_CHANGE.size : end], change, payload[end:])


class HardState(Struct, frozen=True):
    """What a voter may not forget."""

    term: int = 0
    #: Whom it voted for in that term; 0 for nobody.
    vote: int = 0
    #: Highest index known to be committed.
    commit: int = 0

    def encode(self) -> bytes:
        return _HARD.pack(self.term, self.vote, self.commit)

    @classmethod
    def decode(cls, payload: bytes) -> HardState:
        return cls(*_HARD.unpack(payload))


class Header(Struct, frozen=True):
    """All that is needed to begin with this segment when older ones are deleted."""

    #: Segments are numbered 1, 2, 3, ... in the order of their making.
    number: int
    #: Index of the next entry when the segment was made, and term of the entry before it.
    first: int
    previous_term: int
    #: Where the previous segment ends: all of it was durable before this one was made.
    previous_end: int
    hard: HardState

    def encode(self) -> bytes:
        """Padded with zeros to `START`."""
        data = _HEADER.pack(
            _MAGIC,
            LOG_FORMAT,
            self.number,
            self.first,
            self.previous_term,
            self.previous_end,
            self.hard.term,
            self.hard.vote,
            self.hard.commit,
        )
        return (data + _CRC.pack(zlib.crc32(data))).ljust(START, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Raises LogCorrupt, without a path."""
        if len(data) < START or data[:8] != _MAGIC:
            raise LogCorrupt("it has no header of a log")
        (crc,) = _CRC.unpack_from(data, _HEADER.size)
        _, version, number, first, term, end, *hard = _HEADER.unpack_from(data)
        if crc != zlib.crc32(data[: _HEADER.size]):
            raise LogCorrupt("its header is damaged")
        if version != LOG_FORMAT:
            raise LogCorrupt(f"it has format {version}, this Grampus reads {LOG_FORMAT}")
        return cls(number, first, term, end, HardState(*hard))


class Record(Struct, frozen=True):
    offset: int
    synced: int
    kind: Kind
    index: int
    term: int
    payload: bytes


def encode_record(
    number: int, offset: int, synced: int, kind: Kind, index: int, term: int, payload: bytes
) -> bytes:
    seed = zlib.crc32(_PLACE.pack(number, offset))
    head = _SUMMED.pack(zlib.crc32(payload, seed), len(payload), synced, kind, index, term)
    return _PREFIX.pack(_MARKER, zlib.crc32(head, seed)) + head + payload


def _head(data: bytes, place: int, number: int, offset: int) -> tuple[int, ...] | None:
    """(seed, payload crc, length, synced, kind, index, term), or None where no head is."""
    if place + HEAD > len(data):
        return None
    marker, crc = _PREFIX.unpack_from(data, place)
    if marker != _MARKER:
        return None
    seed = zlib.crc32(_PLACE.pack(number, offset))
    if crc != zlib.crc32(data[place + _PREFIX.size : place + HEAD], seed):
        return None
    return (seed, *_SUMMED.unpack_from(data, place + _PREFIX.size))


def decode_record(data: bytes, place: int, number: int, offset: int) -> Record | None:
    """The record at `data[place]` that is `offset` in segment `number`; None if no whole one is."""
    head = _head(data, place, number, offset)
    if head is None:
        return None
    seed, crc, length, synced, kind, index, term = head
    payload = data[place + HEAD : place + HEAD + length]
    if len(payload) != length or zlib.crc32(payload, seed) != crc:
        return None
    return Record(offset, synced, Kind(kind), index, term, payload)


def filling(end: int) -> int:
    """Bytes of payload for a record at `end`, so that the one behind it begins a sector."""
    return -(end + HEAD) % SECTOR


def payload_length(head: bytes) -> int:
    """How long the payload behind these `HEAD` bytes is, if they are sound."""
    length: int = _SUMMED.unpack_from(head, _PREFIX.size)[1]
    return length


def scan(segment: bytes, number: int) -> Iterator[Record]:
    """The records of a whole segment, up to the first place where none is."""
    offset = START
    while (record := decode_record(segment, offset, number, offset)) is not None:
        yield record
        offset += HEAD + len(record.payload)


def witness(segment: bytes, number: int, bad: int) -> int | None:
    """Offset of a later record which was written when the bytes at `bad` were durable already."""
    place = bad
    while (place := segment.find(_MARKER, place + 1)) >= 0:
        head = _head(segment, place, number, place)
        if head is not None and head[3] > bad:
            return place
    return None
