"""The files of an attempt: its stdout, its stderr, its output, and what it is told.

They are reused files of the slot, `slot<K>.out`, `.err`, `.output` and `.spec`. The first three
become `<stem>.*` at the end, if something was written; a small output is handed on as it is. The
writer is never disturbed and never asked: it has an ordinary file.

A stream has a cap. While it is written, a hole is punched between its first half cap and its
newest half cap, so that it takes no more disk than that; its size goes on growing, so that a live
reader's offsets stay true (`read_stream` steps over the hole). At the end it is rewritten as head,
one line that says how much was left out, and tail (`position_after_cut` translates offsets). Where
holes cannot be punched, what is beyond the head is dropped time after time: then live offsets jump
back, and of the tail only what came last is left.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator

from msgspec import Struct

from grampus.worker.stderr import say

#: Per stream, in bytes.
DEFAULT_CAP = 64 << 20
#: An output of at most so many bytes becomes no file. The warden keeps thousands of them at most.
SMALL_OUTPUT = 4096
_BLOCK = 4096
#: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_PUNCH = 0x01 | 0x02
_libc = ctypes.CDLL(None, use_errno=True)


class Kept(Struct, frozen=True):
    """What became of the files of one attempt."""

    #: Bytes written, before any cap.
    stdout: int
    stderr: int
    #: It wrote an output: this, or the file `<stem>.output`.
    output: bool
    small: bytes | None
    #: What went wrong while keeping them, or empty.
    error: str


def head_of(cap: int) -> int:
    """How many bytes of the beginning survive the cap."""
    return cap // 2


def punch_hole(fd: int, start: int, stop: int) -> None:
    """Frees the disk under [start, stop). OSError (EOPNOTSUPP) where files cannot have holes."""
    length = ctypes.c_int64(stop - start)
    if _libc.fallocate(fd, _PUNCH, ctypes.c_int64(start), length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class SlotFile:
    """A file that is kept open from attempt to attempt, as long as nobody replaces it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        #: Inode and device of what is open.
        self._identity = (0, 0)

    def size(self) -> int | None:
        """By one call; None when another file is there, or none, or nothing is open."""
        if self.fd < 0:
            return None
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return None
        return found.st_size if (found.st_ino, found.st_dev) == self._identity else None

    def open(self) -> int:
        """Makes it if need be, and returns its size."""
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o600)
        found = os.fstat(self.fd)
        self._identity = found.st_ino, found.st_dev
        return found.st_size

    def clear(self) -> None:
        """Makes it empty. By a descriptor that is closed at once: ext4 waits for the disk when a
        file is closed that was emptied and written to since."""
        fd = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if (found.st_ino, found.st_dev) != self._identity:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Stream:
    """stdout or stderr of a slot. The attempt has its own descriptor; this one only looks on."""

    def __init__(
        self, path: str, cap: int, punch: Callable[[int, int, int], None] = punch_hole
    ) -> None:
        self.path = path
        self._cap = cap
        self._head = head_of(cap)
        self._punch: Callable[[int, int, int], None] | None = punch
        self._file = SlotFile(path)
        self._size = 0
        #: End of the hole; 0 without one.
        self._hole = 0
        #: Bytes that were cut off where holes cannot be punched.
        self._dropped = 0

    def open(self, fresh: bool) -> None:
        """Makes the file, if need be. With `fresh` it is empty afterwards."""
        size = self._file.size()
        if size is None:
            self._size = self._hole = self._dropped = 0
            size = self._file.open()
        if fresh and size:
            os.ftruncate(self._file.fd, 0)

    def watch(self) -> bool:
        """Holds a growing file to its cap. True when it grows so fast that it needs watching."""
        size = os.fstat(self._file.fd).st_size
        grown = size - self._size
        if grown < 0:
            self._hole = 0  # The attempt truncated it.
        self._size = size
        held = size - max(0, self._hole - self._head)
        if held > self._cap + max(self._cap // 4, _BLOCK):
            self._hold(size)
        return grown > self._cap // 2

    def keep(self, target: str) -> int:
        """Moves what was written to `target`; returns the bytes written. An empty file stays."""
        if self._file.size() == 0 and not self._dropped:
            self._size = self._hole = 0
            return 0
        self.open(fresh=False)
        self.watch()
        size = os.fstat(self._file.fd).st_size
        written = size + self._dropped
        if not written:
            return 0
        try:
            if size > self._cap or self._dropped:
                try:
                    self._cut(size, written)
                except OSError as error:
                    # Better with a hole in the middle than not at all.
                    _remove(self.path + ".cut")
                    say(f"{target}: stays uncut: {error}")
            _move(self.path, target)
        finally:
            self._file.close()
            self._size = self._hole = self._dropped = 0
            _remove(self.path)
        return written

    def _hold(self, size: int) -> None:
        start = -(-self._head // _BLOCK) * _BLOCK
        stop = (size - (self._cap - self._head)) // _BLOCK * _BLOCK
        if self._punch is not None and stop > max(start, self._hole):
            try:
                self._punch(self._file.fd, max(start, self._hole), stop)
            except OSError as error:
                self._punch = None
                line = f"cannot punch holes ({error.strerror}): output beyond the cap is cut off"
                say(f"{self.path}: {line}")
            else:
                self._hole = stop
        if self._punch is None and size > self._head:
            # The writer appends, so that it goes on at the new end.
            os.ftruncate(self._file.fd, self._head)
            self._dropped += size - self._head
            self._size = self._head

    def _cut(self, size: int, written: int) -> None:
        """Rewrites the file as head, one line, tail."""
        head = min(self._head, size)
        tail = max(head, size - (self._cap - self._head))
        line = f"… {written - head - (size - tail)} bytes left out …\n".encode()
        if head and os.pread(self._file.fd, 1, head - 1) != b"\n":
            line = b"\n" + line
        with open(self.path + ".cut", "wb", opener=_private) as file:
            for part in (
                _parts(self._file.fd, 0, head),
                (line,),
                _parts(self._file.fd, tail, size),
            ):
                for data in part:
                    file.write(data)
        os.rename(self.path + ".cut", self.path)


class SlotFiles:
    """The files of one slot, in the folder `attempts` (an absolute path)."""

    def __init__(self, attempts: str, slot: int, cap: int) -> None:
        self._attempts = attempts
        base = f"{attempts}/slot{slot}"
        self._streams = (Stream(base + ".out", cap), Stream(base + ".err", cap))
        self.stdout, self.stderr = (stream.path for stream in self._streams)
        self._output = SlotFile(base + ".output")
        self.output = self._output.path
        self._spec = SlotFile(base + ".spec")
        self.spec = self._spec.path

    def prepare(self, spec: bytes | None = None) -> None:
        """Those that the attempt writes exist and are empty; what it is told is `spec`."""
        if spec is not None:
            self._tell(spec)
        for stream in self._streams:
            stream.open(fresh=True)
        size = self._output.size()
        if size:
            try:
                self._output.clear()
            except OSError:
                size = None
        if size is None:
            _remove(self.output)
            self._output.open()

    def _tell(self, spec: bytes) -> None:
        # In place: new files and removed ones are what costs most on a file system.
        size = self._spec.size()
        if size is None:
            size = self._spec.open()
        at = 0
        while at < len(spec):
            at += os.pwrite(self._spec.fd, spec[at:], at)
        if size > len(spec):
            os.ftruncate(self._spec.fd, len(spec))

    def watch(self) -> bool:
        """See `Stream.watch`."""
        fast = False
        for stream in self._streams:
            try:
                fast |= stream.watch()
            except OSError as error:
                say(f"{stream.path}: cannot be held to its cap: {error}")
        return fast

    def keep(self, stem: str) -> Kept:
        """Gives what was written the attempt's name. Errors are part of the answer."""
        target = f"{self._attempts}/{stem}"
        errors: list[str] = []
        written = [0, 0]
        for i, (stream, suffix) in enumerate(zip(self._streams, (".out", ".err"), strict=True)):
            try:
                written[i] = stream.keep(target + suffix)
            except OSError as error:
                errors.append(f"{suffix[1:]}: {error}")
        output, small = False, None
        try:
            output, small = self._keep_output(target + ".output")
        except FileNotFoundError:
            pass  # The attempt removed it: it has no output.
        except OSError as error:
            errors.append(f"output: {error}")
        problem = "could not keep what it wrote: " + "; ".join(errors) if errors else ""
        return Kept(written[0], written[1], output, small, problem)

    def _keep_output(self, target: str) -> tuple[bool, bytes | None]:
        # By its name: an attempt may have put another file in its place, at one stroke.
        found = os.lstat(self.output)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False, None
        if found.st_size <= SMALL_OUTPUT:
            fd = os.open(self.output, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return True, os.pread(fd, SMALL_OUTPUT, 0)
            finally:
                os.close(fd)
        _move(self.output, target)
        self._output.close()
        return True, None


def clear_slots(attempts: str) -> None:
    """Removes the slot files that an earlier warden left."""
    with os.scandir(attempts) as entries:
        for entry in entries:
            if entry.name.startswith("slot") and entry.name.count("."):
                _remove(entry.path)


def read_stream(path: str, offset: int, limit: int) -> tuple[int, bytes, int]:
    """At most `limit` bytes of a live or finished stream, from `offset` on.

    Returns (where the data begins, data, bytes skipped because they were left out). Data is empty
    when there is nothing yet. FileNotFoundError when there is no such file.
    """
    begin = offset
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _ in range(8):
            offset = _next_data(fd, offset)
            data = os.pread(fd, limit, offset)
            # The hole may have grown over what was just read: zeros that nobody wrote.
            hole = _next_hole(fd, offset, offset + len(data))
            if hole > offset or not data:
                return offset, data[: hole - offset], offset - begin
        return offset, b"", offset - begin
    finally:
        os.close(fd)


def position_after_cut(offset: int, written: int, size: int, head: int) -> int:
    """Where in the finished file a reader goes on that had read the live one up to `offset`.

    `written`: `Ended.stdout` or `.stderr`; `size`: of the finished file; `head`: `head_of(cap)`.
    What was left out is at the line that says so.
    """
    if written == size or offset <= head:
        return offset
    return max(head, size - (written - offset))


def _next_data(fd: int, offset: int) -> int:
    try:
        return max(offset, os.lseek(fd, offset, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return max(offset, os.fstat(fd).st_size)
        return offset  # No such question on this file system: then it has no holes.


def _next_hole(fd: int, offset: int, stop: int) -> int:
    """The first hole at or after `offset`, `stop` at most."""
    try:
        return min(stop, os.lseek(fd, offset, os.SEEK_HOLE))
    except OSError:
        return stop


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parts(fd: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        data = os.pread(fd, min(1 << 20, stop - start), start)
        if not data:
            return
        yield data
        start += len(data)


def _move(path: str, target: str) -> None:
    try:
        os.rename(path, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        os.rename(path, target)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # Rare, and it loads much, which each fork of a shim would have to map.
        import shutil

        shutil.rmtree(path)
