"""Which ledger and which log of a data folder count: both change together, by one rename.

Generation 0 is DIR/ledger and DIR/log themselves, N is DIR/ledger/N and DIR/log/N. A snapshot that
comes from another server is laid down as the next generation, whole and synced; then DIR/generation
is renamed into place. So an old WAL is never beside a new ledger, nor an old log behind it: a crash
at any moment leaves one generation or the other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msgspec import Struct

from grampus.consensus.disk import Disk
from grampus.database.failure import storage_failed
from grampus.errors import FolderError

_POINTER = "generation"


class Generation(Struct, frozen=True):
    """Of the data folder `folder`."""

    folder: Path
    number: int

    @property
    def ledger(self) -> Path:
        """The folder that the ledger's files are in."""
        return self._part("ledger")

    @property
    def log(self) -> Path:
        return self._part("log")

    @property
    def following(self) -> Generation:
        return Generation(self.folder, self.number + 1)

    def _part(self, name: str) -> Path:
        part = self.folder / name
        return part / str(self.number) if self.number else part

    @classmethod
    def current(cls, folder: Path) -> Generation:
        """Raises FolderError when DIR/generation is damaged or lost, or what it names is gone.

        A generation that counts has a log, also when the ledger is not there yet."""
        file = folder / _POINTER
        try:
            text = file.read_text("ascii").strip()
        except FileNotFoundError:
            text = "0"
        except (OSError, UnicodeDecodeError) as error:
            raise FolderError(f"{file} cannot be read: {error}") from error
        found = cls(folder, int(text)) if text.isdecimal() else None
        if found is None or not (found.has_log or found._is_first):
            raise FolderError(
                f"{file} is damaged or lost, or the log that it names is: nothing was changed;"
                " restore this node's folder as a whole from a backup, or replace the node"
            )
        return found

    @property
    def has_log(self) -> bool:
        return any(self.log.glob("*.log"))

    @property
    def _is_first(self) -> bool:
        """There has been no other."""
        top = self.folder / "log"
        others = top.is_dir() and any(map(str.isdecimal, os.listdir(top)))
        return self.number == 0 and not others

    def prepare(self) -> None:
        """Makes its folders, empty: what a crash left there is removed."""
        for part in (self.ledger, self.log):
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise storage_failed("make", part, error) from error

    def make_current(self, disk: Disk) -> None:
        """Everything in it is durable: from now on it counts."""
        for part in (self.ledger, self.log):
            disk.sync_folder(part)
            disk.sync_folder(part.parent)
        aside = self.folder / (_POINTER + ".new")
        fd = disk.open(aside, create=True)
        try:
            disk.write(fd, b"%d\n" % self.number, 0)
            disk.sync(fd)
        finally:
            disk.close(fd)
        disk.rename(aside, self.folder / _POINTER)
        disk.sync_folder(self.folder)

    def sweep(self) -> None:
        """Removes other generations. Only while no other process has the folder."""
        for name in ("ledger", "log"):
            top = self.folder / name
            for entry in sorted(os.scandir(top), key=lambda e: e.name) if top.is_dir() else []:
                old = entry.name.isdecimal() and entry.is_dir()
                if old and int(entry.name) != self.number:
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif self.number and entry.is_file():
                    os.unlink(entry.path)
