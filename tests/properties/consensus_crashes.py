"""A disk that knows what a power cut may leave: per file the durable bytes and the writes pending,
per folder the durable names and the changes pending."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from grampus.consensus.disk import Disk

SECTOR = 512
#: ("write", offset, data) or ("cut", size, b"")
Change = tuple[str, int, bytes]


def play(image: bytes, changes: list[Change]) -> bytes:
    out = bytearray(image)
    for kind, at, data in changes:
        if kind == "cut":
            out = out[:at].ljust(at, b"\0")
        else:
            out = out.ljust(at, b"\0")
            out[at : at + len(data)] = data
    return bytes(out)


class File:
    def __init__(self) -> None:
        self.durable = b""
        self.pending: list[Change] = []


class RecordingDisk(Disk):
    """Real files, and beside them the model. `boundary` is called before and after every change."""

    def __init__(self) -> None:
        self.boundary: Callable[[], None] = lambda: None
        self.names: dict[str, File] = {}
        self.durable_names: dict[str, File] = {}
        self.pending_names: list[tuple[str, str, File | None]] = []
        self._fds: dict[int, File] = {}

    def adopt(self, folder: Path) -> None:
        """What is in the folder now is durable."""
        for path in folder.iterdir():
            file = File()
            file.durable = path.read_bytes()
            self.names[path.name] = self.durable_names[path.name] = file

    def open(self, path: Path, *, create: bool = False) -> int:
        fd = super().open(path, create=create)
        if create:
            self.names[path.name] = File()
            self.pending_names.append(("set", path.name, self.names[path.name]))
        self._fds[fd] = self.names[path.name]
        self.boundary()
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data, offset)
        self._fds[fd].pending.append(("write", offset, bytes(data)))
        self.boundary()

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._fds[fd].pending.append(("cut", size, b""))
        self.boundary()

    def sync(self, fd: int) -> None:
        file = self._fds[fd]
        file.durable, file.pending = play(file.durable, file.pending), []
        self.boundary()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        file = self.names.pop(old.name)
        self.names[new.name] = file
        self.pending_names.append(("move " + old.name, new.name, file))
        self.boundary()

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.names.pop(path.name, None)
        self.pending_names.append(("remove", path.name, None))
        self.boundary()

    def sync_folder(self, path: Path) -> None:
        self.durable_names = self._named(len(self.pending_names))
        self.pending_names = []
        self.boundary()

    def _named(self, count: int) -> dict[str, File]:
        names = dict(self.durable_names)
        for kind, name, file in self.pending_names[:count]:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
                if kind.startswith("move "):
                    names.pop(kind[5:], None)
        return names

    def images(self, rng: random.Random, many: int) -> Iterator[dict[str, bytes]]:
        """Folders that a power cut may leave now: all pending lost, all kept, and parts."""
        yield {n: f.durable for n, f in self.durable_names.items()}
        whole = self._named(len(self.pending_names))
        yield {n: play(f.durable, f.pending) for n, f in whole.items()}
        for _ in range(many):
            names = self._named(rng.randint(0, len(self.pending_names)))
            yield {n: play(f.durable, _part(f.pending, rng)) for n, f in names.items()}


def _part(changes: list[Change], rng: random.Random) -> list[Change]:
    out: list[Change] = []
    for kind, at, data in changes:
        how = rng.random()
        if how < 0.2:
            continue
        if kind == "cut" or how < 0.35:
            out.append((kind, at, data))
        elif how < 0.55:  # the beginning
            out.append((kind, at, data[: rng.randrange(len(data) + 1)]))
        elif how < 0.7:  # the end
            skip = rng.randrange(len(data) + 1)
            out.append((kind, at + skip, data[skip:]))
        else:  # some of its sectors
            begin = at
            while begin < at + len(data):
                end = min((begin // SECTOR + 1) * SECTOR, at + len(data))
                if rng.random() < 0.5:
                    out.append((kind, begin, data[begin - at : end - at]))
                begin = end
    return out


def lay_out(folder: Path, image: dict[str, bytes]) -> None:
    """Makes `folder` hold exactly the image."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        os.unlink(path)
    for name, data in image.items():
        (folder / name).write_bytes(data)
