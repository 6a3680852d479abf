"""The disk did not do what was asked.

Final for whoever writes: a half-done write is mended only by a new start.
"""

from __future__ import annotations

import errno

from grampus.errors import GrampusError

#: What to do about an error of the disk.
ADVICE = {
    errno.ENOSPC: "free some space, then start again",
    errno.EDQUOT: "raise the quota or free some space, then start again",
    errno.EFBIG: "raise the limit on file size, then start again",
    errno.EROFS: "mount the file system for writing, then start again",
    errno.EIO: "the device reports an error: check it before starting again",
    errno.EACCES: "give this user access to it, then start again",
}


class StorageFailed(GrampusError):
    """A file of this node cannot be read or written. The process that meets it stops."""

    exit_code = 4


def storage_failed(doing: str, path: object, error: OSError) -> StorageFailed:
    """Says in one line what failed (`doing` as in "write"), where, why, and what to do."""
    advice = ADVICE.get(error.errno or 0, "start again once that is mended")
    return StorageFailed(f"cannot {doing} {path}: {error.strerror or error}; {advice}")
