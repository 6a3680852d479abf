"""The durable log: entries and hard state, in segment files under DIR/log.

Rules: what `append` returned from is durable. One thread uses a log. After any failed write or sync
it is closed for good: part of a batch may be in the file, and the kernel forgets what it could not
write; only a new process that opens the files again may go on. A prefix is deleted only in whole
segments, and only below an index that the caller knows to be durable elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from grampus.consensus.disk import Disk
from grampus.consensus.record import (
    HEAD,
    START,
    Entry,
    HardState,
    Header,
    Kind,
    LogCorrupt,
    Record,
    filling,
)
from grampus.consensus.segment import Segment
from grampus.database import StorageFailed
from grampus.database.failure import storage_failed

#: A new segment is begun when a batch would make one longer than this.
SEGMENT_SIZE = 8 * 1024 * 1024
#: An entry's payload is at most this long.
PAYLOAD_LIMIT = 16 * 1024 * 1024
_NAME = re.compile(r"(\d{16})\.log\Z")
_ENTRIES = (Kind.ENTRY, Kind.CHANGE)


class DurableLog:
    """Made by `open`. Indexes are dense and begin with 1."""

    def __init__(self, disk: Disk, folder: Path, segment_size: int) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_size = segment_size
        self._segments: list[Segment] = []
        self._hard = HardState()
        #: Index and term of the entry before the first one kept.
        self._base = (0, 0)
        self._last_term = 0
        self._marked = True
        #: Term and vote that have a witness in a sector of its own; None: not known.
        self._witnessed: tuple[int, int] | None = None
        self._broken: StorageFailed | None = None

    @classmethod
    def open(
        cls, folder: Path, *, segment_size: int = SEGMENT_SIZE, disk: Disk | None = None
    ) -> DurableLog:
        """Reads and checks every segment, or makes the first one in an empty folder.

        A torn tail is cut, durably. Raises LogCorrupt when durable data is damaged or missing."""
        log = cls(disk or Disk(), folder, segment_size)
        try:
            log._load()
        except BaseException:
            log._close_files()
            raise
        return log

    @classmethod
    def begin(
        cls,
        folder: Path,
        base: tuple[int, int],
        hard: HardState,
        *,
        segment_size: int = SEGMENT_SIZE,
        disk: Disk | None = None,
    ) -> None:
        """Makes a log in an empty folder whose first entry follows `base`, (index, term)."""
        log = cls(disk or Disk(), folder, segment_size)
        log._begin(Header(1, base[0] + 1, base[1], 0, hard))
        log._close_files()

    def _load(self) -> None:
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except OSError as error:
            raise storage_failed("read", self._folder, error) from error
        for name in names:
            if name.endswith(".new"):  # a segment that was never finished
                self._disk.remove(self._folder / name)
        numbers = [int(m[1]) for name in names if (m := _NAME.match(name))]
        if not numbers:
            self._begin(Header(1, 1, 0, 0, HardState()))
            return
        if numbers != list(range(numbers[0], numbers[-1] + 1)):
            raise LogCorrupt(f"a segment is missing in {self._folder}: there are {numbers}")
        self._disk.sync_folder(self._folder)  # the newest name may have been made but not synced
        headers = [Segment.header_of(self._path(number)) for number in numbers]
        self._hard = headers[0].hard
        self._base = (headers[0].first - 1, headers[0].previous_term)
        self._last_term = headers[0].previous_term
        ends = [header.previous_end for header in headers[1:]]
        for number, header, until in zip(numbers, headers, [*ends, None], strict=True):
            before = self._segments[-1].next if self._segments else header.first
            if (header.number, header.first, header.hard) != (number, before, self._hard):
                raise LogCorrupt(f"{self._path(number)} does not continue the segment before it")
            segment, records = Segment.load(self._disk, self._path(number), until)
            self._segments.append(segment)
            self._replay(segment, records)
        self._check_newest()

    def _check_newest(self) -> None:
        """The segment before it knows of it, and it knows of none after it."""
        newest = self._segments[-1]
        if newest.followed:
            raise LogCorrupt(
                f"the segment after {newest.path} is missing, and what it held was durable:"
                " restore this node from a snapshot or a backup"
            )
        if len(self._segments) > 1:  # a crash may have come between the two
            self._segments[-2].say_followed()

    def _replay(self, segment: Segment, records: list[Record]) -> None:
        self._marked = not records or records[-1].kind is Kind.MARK
        for record in records:
            if record.kind in _ENTRIES:
                if record.index != segment.next:
                    raise LogCorrupt(
                        f"{segment.path}: entry {record.index} at byte {record.offset} does not"
                        f" follow entry {segment.next - 1}"
                    )
                segment.offsets.append(record.offset)
                self._last_term = record.term
            elif record.kind is Kind.HARD:
                self._hard = HardState.decode(record.payload)
            elif record.kind is Kind.CUT:
                self._cut(record.index, record.term)

    def _cut(self, index: int, term_before: int) -> None:
        for segment in self._segments:
            if segment is self._segments[-1] or segment.next > index:
                segment.cut(index)
        if index <= self._base[0]:
            self._base = (index - 1, term_before)
        self._last_term = term_before

    def check_reaches(self, applied: int) -> None:
        """Raises LogCorrupt unless this log goes on from a ledger that has applied so many."""
        if applied > self.last:
            raise LogCorrupt(
                f"the ledger has applied entry {applied}, but the log in {self._folder} ends with"
                f" {self.last}: part of the log was lost or replaced; restore this node's"
                " folder as a whole"
            )
        if applied + 1 < self.first:
            raise LogCorrupt(
                f"the ledger has applied entry {applied}, but the log in {self._folder} begins"
                f" with {self.first}: the ledger was lost or replaced; restore this node's"
                " folder as a whole"
            )

    # --- reading

    @property
    def first(self) -> int:
        """Index of the first entry kept; `last` + 1 when there is none."""
        return self._base[0] + 1

    @property
    def last(self) -> int:
        """Index of the last entry; `first` - 1 when there is none."""
        return self._segments[-1].next - 1

    @property
    def last_term(self) -> int:
        return self._last_term

    @property
    def hard(self) -> HardState:
        return self._hard

    @property
    def size(self) -> int:
        """Bytes in records and headers."""
        return sum(segment.end for segment in self._segments)

    def term(self, index: int) -> int:
        """Term of an entry kept, or of the one before the first."""
        return self._base[1] if index == self._base[0] else self.read(index).term

    def read(self, index: int) -> Entry:
        for segment in reversed(self._segments):
            if segment.first <= index < segment.next:
                return segment.read(index)
        raise IndexError(f"entry {index} is not in the log ({self.first} to {self.last})")

    def entries(self, first: int) -> Iterator[Entry]:
        """The entries from `first` to the last, read one at a time."""
        for index in range(first, self.last + 1):
            yield self.read(index)

    # --- writing

    def append(self, entries: Sequence[Entry], hard: HardState | None = None) -> None:
        """Makes the entries and the hard state durable, in this order, with one sync.

        The first index is at most `last` + 1; where it is not above `last`, the old entries from it
        on are void (a leader's log replaces a follower's)."""
        if self._broken is not None:
            raise self._broken
        records: list[tuple[Kind, int, int, bytes]] = []
        first = entries[0].index if entries else self.last + 1
        if not self.first <= first <= self.last + 1:
            raise ValueError(f"entry {first} does not fit a log of {self.first} to {self.last}")
        term_before = self._last_term if first > self.last else self.term(first - 1)
        if first <= self.last:
            records.append((Kind.CUT, first, term_before, b""))
        for index, entry in enumerate(entries, first):
            if entry.index != index:
                raise ValueError(f"entry {entry.index} came where {index} was due")
            if len(entry.payload) > PAYLOAD_LIMIT:
                raise ValueError(f"entry {index} has {len(entry.payload)} bytes")
            records.append(entry.record())
        if hard is not None:
            records.append((Kind.HARD, 0, 0, hard.encode()))
        if not records:
            return
        segment, offsets = self._write(records)
        if first <= self.last:
            self._cut(first, term_before)
        for (kind, _, term, _), offset in zip(records, offsets, strict=True):
            if kind in _ENTRIES:
                segment.offsets.append(offset)
                self._last_term = term
        self._hard = hard or self._hard
        self._marked = False

    def mark(self) -> None:
        """Writes a witness that everything so far is durable; nothing when there is one.

        That of a new term or vote lies in a sector of its own, so that none takes both."""
        if self._marked:
            return
        voted, witness = (self._hard.term, self._hard.vote), (Kind.MARK, 0, 0, b"")
        if voted != self._witnessed:
            filler = (Kind.MARK, 0, 0, bytes(filling(self._segments[-1].end)))
            self._write([filler, witness])
        else:
            self._write([witness])
        self._marked, self._witnessed = True, voted

    def _write(self, records: list[tuple[Kind, int, int, bytes]]) -> tuple[Segment, list[int]]:
        if self._broken is not None:
            raise self._broken
        try:
            segment = self._segments[-1]
            size = sum(HEAD + len(payload) for *_, payload in records)
            if segment.end + size > self._segment_size and segment.end > START:
                segment = self._begin(
                    Header(
                        segment.header.number + 1,
                        segment.next,
                        self._last_term,
                        segment.end,
                        self._hard,
                    )
                )
            return segment, segment.append(records)
        except StorageFailed as error:
            self._broken = error
            raise
        except BaseException:
            self._broken = StorageFailed(f"a write to {self._folder} was interrupted: start again")
            raise

    def _begin(self, header: Header) -> Segment:
        segment = Segment.create(self._disk, self._path(header.number), header)
        if self._segments:
            self._segments[-1].say_followed()
        self._segments.append(segment)
        return segment

    def compact(self, below: int) -> int:
        """Deletes whole old segments whose entries are all below; the number of files deleted.

        Only for an index whose entries the caller has durable elsewhere: they do not come back."""
        if self._broken is not None:
            raise self._broken
        deleted = 0
        while len(self._segments) > 1 and self._segments[0].next <= below:
            oldest = self._segments[0]
            base = (oldest.next - 1, self.term(oldest.next - 1))
            try:
                self._disk.remove(oldest.path)
                self._disk.sync_folder(self._folder)  # one by one: a gap would be damage
            except StorageFailed as error:
                self._broken = error
                raise
            self._base = base
            del self._segments[0]
            oldest.close()
            deleted += 1
        return deleted

    def close(self) -> None:
        """Leaves a witness where the log is whole. Safe to call again."""
        try:
            if self._broken is None:
                self.mark()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes without writing anything more, as after a failure."""
        self._broken = self._broken or StorageFailed(f"the log in {self._folder} is closed")
        self._close_files()

    def _close_files(self) -> None:
        for segment in self._segments:
            segment.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.log"
