"""Unpacked bundles: a zip from the blob store becomes a folder, once for all that want it.

Rule: a folder appears under its hash only when it is whole, so that one that is there can be
used after any crash. The zip is checked before anything is written: no path leaves the folder,
nothing is a link, sizes are bounded. Folders that no attempt uses are removed, the longest
unused first, beyond a bound.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from grampus.errors import GrampusError

#: Of all files together, unpacked, in bytes.
SIZE_LIMIT = 256 * 1024 * 1024
FILES_LIMIT = 10_000
PATH_LIMIT = 512
#: Unpacked bundles that are kept for later.
KEPT = 32
_PIECE = 1024 * 1024


class BadBundle(GrampusError):
    """A bundle that cannot be unpacked, and why."""


class Bundles:
    """Use from one event loop."""

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        self._folder = folder
        self._kept = kept
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        #: Attempts that use a bundle, by hash; longest unused first.
        self._users: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._count = 0
        for path in sorted(folder.iterdir()):
            if path.name.endswith(".aside"):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                self._users[path.name] = 0

    def ready(self, hash: str) -> str | None:
        """The folder of a bundle that is unpacked, which then has one more user; else None."""
        if hash not in self._users:
            return None
        self._users[hash] = self._users.pop(hash) + 1
        return self.folder(hash)

    def has(self, hash: str) -> bool:
        return hash in self._users

    def folder(self, hash: str) -> str:
        return f"{self._folder}/{hash}"

    async def unpack(self, hash: str, archive: Path) -> str:
        """The folder of the bundle, with one more user. Raises BadBundle, OSError."""
        lock = self._locks.setdefault(hash, asyncio.Lock())
        async with lock:
            if hash not in self._users:
                self._count += 1
                aside = self._folder / f"{hash}.{self._count}.aside"
                await asyncio.to_thread(_unpack, archive, aside, self._folder / hash)
                self._users[hash] = 0
                await self._remove_old(hash)
            found = self.ready(hash)
        self._locks.pop(hash, None)
        assert found is not None
        return found

    def release(self, hash: str) -> None:
        """One user less."""
        self._users[hash] -= 1

    async def _remove_old(self, newest: str) -> None:
        """Renamed first, at once: half a bundle must not be found under its hash."""
        unused = [hash for hash, users in self._users.items() if users == 0 and hash != newest]
        for hash in unused[: max(0, len(self._users) - self._kept)]:
            del self._users[hash]
            self._count += 1
            aside = self._folder / f"{hash}.{self._count}.aside"
            (self._folder / hash).rename(aside)
            await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)


def _unpack(archive: Path, aside: Path, final: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            members = check(file)
            aside.mkdir(mode=0o700)
            _extract(file, members, aside)
        # An earlier one may have come to its end after nobody waited for it any more.
        if not final.exists():
            aside.rename(final)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadBundle(f"the bundle cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check(file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members to extract. Raises BadBundle for what must not be unpacked."""
    members = file.infolist()
    if len(members) > FILES_LIMIT:
        raise BadBundle(f"the bundle has {len(members)} files; {FILES_LIMIT} are allowed")
    if sum(member.file_size for member in members) > SIZE_LIMIT:
        raise BadBundle(f"the bundle has more than {SIZE_LIMIT:,} bytes when unpacked")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (
            not name
            or name != member.orig_filename
            or len(name) > PATH_LIMIT
            or "\\" in name
            or "\0" in name
            or path.is_absolute()
            or ".." in path.parts
            or not path.parts
        ):
            raise BadBundle(f"the bundle has a path that is not allowed: {name[:PATH_LIMIT]!r}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadBundle(f"the bundle has a link or a special file: {name!r}")
        if str(path) in seen:
            raise BadBundle(f"the bundle has {name!r} twice")
        seen.add(str(path))
    return members


def _extract(file: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Counts what really comes out: a header may lie."""
    left = SIZE_LIMIT
    for member in members:
        target = folder / member.filename
        try:
            if member.is_dir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            executable = (member.external_attr >> 16) & stat.S_IXUSR
            mode = 0o700 if executable else 0o600
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise BadBundle(f"the bundle has {member.filename!r} as file and as folder") from None
        with open(fd, "wb") as out, file.open(member) as data:
            while piece := data.read(_PIECE):
                left -= len(piece)
                if left < 0:
                    raise BadBundle(f"the bundle has more than {SIZE_LIMIT:,} bytes unpacked")
                out.write(piece)
