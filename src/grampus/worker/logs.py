"""What attempts wrote, for whoever may read it: pieces of their files, live or finished.

Rule: names come from the network, so that they are checked before they become paths. Offsets are
those of what was written, also where the middle of a finished file was left out (see `capture`).
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from grampus.errors import UsageError
from grampus.ids import is_name, is_run_id
from grampus.protocol import LogChunk, ReadLog
from grampus.worker.capture import DEFAULT_CAP, head_of, position_after_cut, read_stream
from grampus.worker.orders import Ended

#: Bytes in one piece.
PIECE_LIMIT = 256 * 1024
#: Cut files whose true length is remembered.
_CUTS = 10_000
_SUFFIX = {"stdout": "out", "stderr": "err"}


class Logs:
    """`read`, `tail` and `forget` block; any thread may call them."""

    def __init__(
        self, attempts: Path, cap: int = DEFAULT_CAP, *, scratch: Path | None = None
    ) -> None:
        """`scratch` is where runs have a folder to work in."""
        self._attempts = attempts
        self._scratch = scratch
        self._cap = cap
        #: Bytes written, by path, of files that were cut.
        self._cuts: OrderedDict[str, int] = OrderedDict()

    def ended(self, stem: str, notice: Ended) -> None:
        """Remembers what is needed to read its files."""
        for suffix, written in (("out", notice.stdout), ("err", notice.stderr)):
            if written > self._cap:
                self._cuts[f"{stem}.{suffix}"] = written
                if len(self._cuts) > _CUTS:
                    self._cuts.popitem(last=False)

    def read(self, asked: ReadLog, slot: int | None) -> LogChunk:
        """`slot` is where the attempt runs, or None when it does not run.

        What was never written is empty and at its end. Raises UsageError for names that are none.
        """
        suffix = _SUFFIX.get(asked.stream)
        if suffix is None:
            raise UsageError(f"there is no stream {asked.stream!r:.40}: stdout or stderr")
        if not (is_run_id(asked.run) and is_name(asked.task) and 0 < asked.attempt < 2**31):
            raise UsageError("these are not the names of a run, a task and an attempt")
        if not 0 <= asked.offset < 2**62 or asked.limit < 0:
            raise UsageError("offset and limit are counts of bytes")
        limit = min(asked.limit, PIECE_LIMIT)
        try:
            if slot is not None:
                return self._live(f"slot{slot}.{suffix}", asked.offset, limit)
            name = f"{asked.run}/{asked.task}.{asked.attempt}.{suffix}"
            return self._finished(name, asked.offset, limit)
        except FileNotFoundError:
            return LogChunk(asked.offset, b"", slot is None)

    def tail(self, stem: str, limit: int) -> str:
        """The last `limit` bytes of stderr of a finished attempt, as text."""
        try:
            with (self._attempts / f"{stem}.err").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
                return file.read(limit).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def forget(self, runs: Iterable[str]) -> None:
        """Removes what the attempts of these runs wrote, and their folders to work in."""
        for run in runs:
            if is_run_id(run):
                shutil.rmtree(self._attempts / run, ignore_errors=True)
                if self._scratch is not None:
                    shutil.rmtree(self._scratch / run, ignore_errors=True)

    def _live(self, name: str, offset: int, limit: int) -> LogChunk:
        path = self._attempts / name
        begin, data, skipped = read_stream(str(path), offset, limit)
        return LogChunk(begin, data, False, skipped, path.stat().st_size)

    def _finished(self, name: str, offset: int, limit: int) -> LogChunk:
        """Behind the head of a cut file, places in the file and in the stream differ by `shift`."""
        fd = os.open(self._attempts / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size
            written, head = self._cuts.get(name, size), head_of(self._cap)
            shift = max(0, written - size)
            if shift and offset < head:
                data = os.pread(fd, min(limit, head - offset), offset)
                return LogChunk(offset, data, False, 0, written)
            place = offset
            if shift:
                place = head if offset == head else position_after_cut(offset, written, size, head)
            data = os.pread(fd, limit, place)
            end = place + len(data) >= size
            return LogChunk(place + shift, data, end, max(0, place + shift - offset), written)
        finally:
            os.close(fd)
