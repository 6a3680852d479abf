"""DIR/introduction: whom a newcomer was told of when it joined, so that it can answer them.

It counts until the first snapshot has come: from then on the ledger says who the members are.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from grampus.consensus.disk import Disk
from grampus.consensus.members import Members
from grampus.errors import FolderError

_FILE = "introduction"


def introduce(folder: Path, members: Members, disk: Disk) -> None:
    """Durable when it returns."""
    aside = folder / (_FILE + ".new")
    fd = disk.open(aside, create=True)
    try:
        disk.write(fd, members.encode(), 0)
        disk.sync(fd)
    finally:
        disk.close(fd)
    disk.rename(aside, folder / _FILE)
    disk.sync_folder(folder)


def introduced(folder: Path) -> Members:
    """Nobody when the folder was not introduced. Raises FolderError."""
    try:
        return Members.decode((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return Members()
    except (OSError, msgspec.DecodeError) as error:
        raise FolderError(
            f"{folder / _FILE} cannot be used ({error}): empty the folder, and join again"
        ) from error
