"""Small files that hold secrets: written whole or not at all, and read by their owner only.

Rule: written aside, synced and renamed, so that a crash leaves the old content or the new. One that
others can read is not used: whoever could read it may have done so.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from grampus.errors import FolderError

#: No such file is longer, in bytes.
LIMIT = 64 * 1024


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces the file durably. Raises FolderError."""
    aside = path.with_name(f".{path.name}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(aside, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FolderError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path, *, public: bool = False) -> bytes:
    """Raises FolderError when it cannot be read, is missing, or, unless `public`, is not secret."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077 and not public:
                raise FolderError(f"{path} can be read by others: chmod 600 {path}")
            return file.read(LIMIT)
    except FileNotFoundError:
        raise FolderError(f"{path} is missing: restore it, or let the node join anew") from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
